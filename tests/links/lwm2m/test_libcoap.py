"""Debian's libcoap tools as clients that share no code with this server."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.link import LinkOptions
from gatewayd.links.lwm2m.registrations import Access
from tests.lwm2m_server import running_server

LINKS = "</1/0>,</3/0>" + "".join(f",</{number}/0>" for number in range(3300, 3360))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt install libcoap3-bin)")
    return found


async def ask(*arguments: str) -> str:
    child = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await child.communicate()
    return told.decode()


@pytest.mark.parametrize("options", [("-b", "64"), ("-b", "1024"), ("-N",)])
async def test_a_registration_in_blocks(options: tuple[str, ...], tmp_path: Path) -> None:
    client = tool("coap-client-notls")
    (tmp_path / "links").write_text(LINKS if "-b" in options else "</3/0>")
    async with running_server() as server:
        uri = f"coap://127.0.0.1:{server.port}/rd?ep=lib-1&lt=60&lwm2m=1.1&b=U"
        upload = ("-m", "post", "-t", "40", "-f", str(tmp_path / "links"))
        told = await ask(client, "-B", "10", "-v", "6", *options, *upload, uri)
        assert "2.01" in told, told
        assert server.link.registered_count() == 1


async def test_a_registration_in_blocks_of_which_one_is_lost(tmp_path: Path) -> None:
    client = tool("coap-client-notls")
    (tmp_path / "links").write_text(LINKS[:300].rpartition(",")[0])
    async with running_server() as server:
        uri = f"coap://127.0.0.1:{server.port}/rd?ep=lib-1&lt=60&lwm2m=1.1&b=U"
        upload = ("-m", "post", "-t", "40", "-f", str(tmp_path / "links"))
        told = await ask(client, "-B", "20", "-v", "6", "-b", "128", "-l", "3", *upload, uri)
        assert "2.01" in told, told
        assert server.link.registered_count() == 1


async def test_a_registration_over_dtls() -> None:
    client = tool("coap-client-openssl")
    pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")
    options = LinkOptions(access=Access({"id-1": DeviceId("lib-1")}, plain=False))
    async with running_server(options, keys={"id-1": b"secret"}) as server:
        for name, key, outcome in (
            ("lib-1", "secret", "2.01"),
            ("lib-2", "secret", "4.03"),
            ("lib-1", "guess", "alert"),
        ):
            uri = f"coaps://127.0.0.1:{server.dtls_port}/rd?ep={name}&lt=60&lwm2m=1.1"
            told = await ask(client, "-B", "10", "-v", "6", "-u", "id-1", "-k", key, "-m", "post", "-e", "</3/0>", uri)
            assert outcome in told, told
