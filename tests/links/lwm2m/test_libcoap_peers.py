"""Debian's libcoap tools as peers that know nothing of us: blocks both ways, observation, loss; they ask, and they are asked."""

import asyncio
import hashlib
import random
import re
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

import pytest

from gatewayd.adapters.coap_context import open_context
from gatewayd.core.names import DeviceId, Digest, PushId
from gatewayd.edges.coap import serve_resources
from gatewayd.links.lwm2m.blocks import fetched, sent
from gatewayd.links.lwm2m.coap import Answer, Ask, Code, Method, Peer, Refusal, Serve, Timing
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, Served
from gatewayd.links.lwm2m.feed import Feed
from gatewayd.links.lwm2m.line import Line, LineLimits
from gatewayd.links.lwm2m.link import LinkOptions
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.packages import Fetched, Packages
from gatewayd.links.lwm2m.registrations import Access
from gatewayd.wire.lwm2m.negotiation import negotiation_of
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.registration import parse_registration
from gatewayd.wire.lwm2m.values import Record
from tests.broker import Broker
from tests.gateway import Gateway, add_speaker
from tests.lwm2m_processes import free_udp_port
from tests.lwm2m_server import running_server

CLIENT, SERVER = shutil.which("coap-client-notls"), shutil.which("coap-server-notls")
pytestmark = pytest.mark.skipif(
    CLIENT is None or SERVER is None, reason="libcoap's tools are not installed (Debian: apt install libcoap3-bin)"
)
PATIENCE_S = 25.0
PACKAGE = random.Random(5).randbytes(20_000)  # noqa: S311 - the same every time
QUICK = Timing(ack_timeout_s=0.2, retransmits=7)


async def coap_client(*arguments: str, tool: str | None = CLIENT) -> bytes:
    """Run the tool; return what it printed."""
    assert tool is not None
    child = await asyncio.create_subprocess_exec(
        tool, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            told, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return told


@dataclass(frozen=True, slots=True)
class Asked:
    """libcoap's server, asked through our endpoint."""

    endpoint: CoapEndpoint
    peer: Peer

    async def ask(self, ask: Ask) -> Answer:
        return await self.endpoint.ask(self.peer, ask, timeout_s=PATIENCE_S, timing=QUICK)


@asynccontextmanager
async def ours(served: Mapping[str, Serve]) -> AsyncIterator[tuple[CoapEndpoint, int]]:
    """Our CoAP port with its endpoint."""
    endpoint = CoapEndpoint()

    @asynccontextmanager
    async def opener(site: object, host: str, port: int) -> AsyncIterator[object]:
        async with open_context(site, host=host, port=port) as context:
            endpoint.opened(context)
            yield context

    whole = {segment: Served(serve) for segment, serve in served.items()}
    async with serve_resources(whole, host="127.0.0.1", port=0, opener=opener) as port:
        yield endpoint, port


@asynccontextmanager
async def libcoap_server(*more: str) -> AsyncIterator[Asked]:
    """The tool serving what is put there by hand (`-d`), and our endpoint to ask it."""
    assert SERVER is not None
    port = free_udp_port()
    child = await asyncio.create_subprocess_exec(
        SERVER, "-A", "127.0.0.1", "-p", str(port), "-d", "10", "-v", "0", *more, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with ours({}) as (endpoint, _):
            peer = endpoint.peer(f"127.0.0.1|{port}")
            assert peer is not None
            asked = Asked(endpoint, peer)
            assert (await asked.ask(Ask(Method.GET, ("time",)))).code == Code.CONTENT
            yield asked
    finally:
        child.terminate()
        await child.wait()


@asynccontextmanager
async def package_server() -> AsyncIterator[str]:
    """A package under its address."""
    packages = Packages()
    feed = Feed(b"", len(PACKAGE), lambda at, length: feed.put(at, PACKAGE[at : at + length]), _clock)
    digest = Digest(hashlib.sha256(PACKAGE).hexdigest())
    fetching = Fetched(feed, digest, 6, lambda _: True, lambda _: None, lambda: None)
    path = packages.offer(PushId(3), fetching)
    async with ours({"pkg": packages.serve}) as (_, port):
        yield f"coap://127.0.0.1:{port}{path}"


def _clock() -> float:
    return asyncio.get_running_loop().time()


async def _as_it_is(work: Coroutine[object, object, None]) -> None:
    await work


@pytest.mark.parametrize("size", [64, 1024])
async def test_it_fetches_a_package_by_block2(tmp_path: FilePath, size: int) -> None:
    async with package_server() as uri:
        await coap_client("-b", str(size), "-o", str(tmp_path / "got"), uri)
    assert (tmp_path / "got").read_bytes() == PACKAGE


async def test_it_fetches_a_package_although_some_datagrams_are_lost(tmp_path: FilePath) -> None:
    async with package_server() as uri:
        await coap_client("-b", "1024", "-l", "3", "-o", str(tmp_path / "got"), uri)
    assert (tmp_path / "got").read_bytes() == PACKAGE


async def test_it_fetches_any_one_block_of_a_package(tmp_path: FilePath) -> None:
    async with package_server() as uri:
        await coap_client("-b", "10,1024", "-o", str(tmp_path / "got"), uri)
    assert (tmp_path / "got").read_bytes() == PACKAGE[10 * 1024 : 11 * 1024]


async def test_it_observes_what_cannot_be_observed_and_is_told_once(tmp_path: FilePath) -> None:
    """A server may answer without the option: then there is no observation. Source: RFC 7641, section 1.1."""
    async with package_server() as uri:
        told = await coap_client("-s", "1", "-b", "1024", "-v", "7", "-o", str(tmp_path / "got"), uri)
    answers = [line for line in told.splitlines() if b"c:2.05" in line]
    assert any(b"c:GET" in line and b"Observe:0" in line for line in told.splitlines()), told
    assert answers
    assert not [line for line in answers if b"Observe" in line]
    assert (tmp_path / "got").read_bytes() == PACKAGE


async def test_an_unknown_package_is_not_found() -> None:
    async with package_server() as uri:
        told = await coap_client(uri + "x")
    assert told.startswith(b"4.04")


@pytest.mark.parametrize("more", [(), ("-l", "2,7")], ids=["", "loss"])
async def test_we_write_it_by_block1_and_read_it_by_block2(more: tuple[str, ...]) -> None:
    async with libcoap_server(*more) as server:
        path = ("26242", "0", "4")
        put = Ask(Method.PUT, path, payload=PACKAGE, content_format=42)
        assert (await sent(server.ask, put, size_exponent=5)).code in {Code.CREATED, Code.CHANGED}
        got = await fetched(server.ask, Ask(Method.GET, path))
        assert (got.code, got.payload) == (Code.CONTENT, PACKAGE)
        assert (await server.ask(replace(put, method=Method.DELETE, payload=b""))).code == Code.DELETED
        assert (await server.ask(Ask(Method.GET, path))).code == Code.NOT_FOUND


async def test_we_observe_it_until_we_do_not() -> None:
    told: asyncio.Queue[Answer | None] = asyncio.Queue()
    async with libcoap_server() as server, asyncio.timeout(PATIENCE_S):
        ask = Ask(Method.GET, ("time",), observe=0)
        answer, observation = await server.endpoint.observe(
            server.peer, ask, told.put_nowait, timeout_s=PATIENCE_S, timing=QUICK
        )
        assert answer.code == Code.CONTENT
        assert observation is not None
        ticks = [await told.get() for _ in range(2)]
        assert all(each is not None and each.code == Code.CONTENT for each in ticks)
        observation.forget()


@pytest.mark.parametrize("more", [(), ("-l", "5")], ids=["", "loss"])
async def test_our_operations_write_observe_and_delete_on_it(more: tuple[str, ...]) -> None:
    at, told = Path(26242, 0) / 6, list[bytes]()
    async with libcoap_server(*more) as server, asyncio.TaskGroup() as tasks:
        line = Line(
            DeviceId("libcoap-1"), server.endpoint, _clock, LineLimits(ack_first_s=0.2),
            lambda work, name: tasks.create_task(_as_it_is(work), name=name),
        )  # fmt: skip
        line.heard(server.peer)
        asked = Operations(line, STANDARD, negotiation_of(parse_registration(["ep=x"], b"")))
        await asked.write_value(at, b"first", timeout_s=PATIENCE_S)
        heard = asyncio.Event()

        def take(records: tuple[Record, ...] | None) -> None:
            told.extend(each.value for each in records or () if isinstance(each.value, bytes))
            heard.set()

        observation = await asked.observe(at, take, timeout_s=PATIENCE_S)
        assert observation is not None
        await asked.write_value(at, b"second", timeout_s=PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while told[-1] != b"second":
                heard.clear()
                await heard.wait()
        assert told == [b"first", b"second"]
        observation.forget()
        await asked.delete(at, timeout_s=PATIENCE_S)
        with pytest.raises(Refusal, match=r"4\.04"):
            await asked.read(at, timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    ("library", "more"),
    [("openssl", ()), ("gnutls", ()), ("openssl", ("-l", "3,8"))],
    ids=["openssl", "gnutls", "loss"],
)
async def test_it_registers_over_dtls_and_is_asked_over_the_same_session(library: str, more: tuple[str, ...]) -> None:
    """With loss: the end of its handshake, and what it answers first."""
    pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")
    tool = shutil.which(f"coap-client-{library}")
    if tool is None:
        pytest.skip(f"coap-client-{library} is not installed (Debian: apt install libcoap3-bin)")
    options = LinkOptions(access=Access({"id-1": DeviceId("libcoap-1")}, plain=False), line=LineLimits(ack_first_s=0.2))
    async with running_server(options, keys={"id-1": b"secret-1"}) as server, asyncio.TaskGroup() as tasks:
        uri = f"coaps://127.0.0.1:{server.secured_address[1]}/rd?ep=libcoap-1&lt=60&lwm2m=1.1&b=U"
        register = (*more, "-u", "id-1", "-k", "secret-1", "-G", "8", "-m", "post", "-t", "40", "-e", "</3/0>", uri)
        client = tasks.create_task(coap_client(*register, tool=tool), name="coap-client")
        assert (await server.born()).device == "libcoap-1"
        assert await server.link.ping(DeviceId("libcoap-1"), timeout_s=5) > 0, "it has no objects, and answers so"
        client.cancel()


@pytest.mark.parametrize("library", ["openssl", "gnutls"])
async def test_it_notices_at_once_that_the_gateway_ends(library: str) -> None:
    pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")
    tool = shutil.which(f"coap-client-{library}")
    if tool is None:
        pytest.skip(f"coap-client-{library} is not installed (Debian: apt install libcoap3-bin)")
    options = LinkOptions(access=Access({"id-1": DeviceId("libcoap-1")}, plain=False))
    async with asyncio.TaskGroup() as tasks:
        async with running_server(options, keys={"id-1": b"secret-1"}) as server:
            uri = f"coaps://127.0.0.1:{server.secured_address[1]}/rd?ep=libcoap-1&lt=60&lwm2m=1.1&b=U"
            register = ("-u", "id-1", "-k", "secret-1", "-G", "60", "-m", "post", "-t", "40", "-e", "</3/0>", uri)
            client = tasks.create_task(coap_client("-v", "6", *register, tool=tool), name="coap-client")
            await server.born()
            assert not client.done()
        told = await client  # it would ask once a second for a minute
    assert b"Connection refused" not in told, "it is the gateway that said so, not its absence"


@pytest.fixture
def daemon(tmp_path: FilePath, broker: Broker) -> Callable[[], tuple[Gateway, int]]:
    def start() -> tuple[Gateway, int]:
        running = Gateway(tmp_path, broker_port=broker.port)
        ready = next(line for line in running.lines if "ready node=" in line)
        return running, int(re.findall(r"coap_port=([0-9]+)", ready)[0])

    return start


def test_it_infers_by_block1_and_registers_with_a_running_daemon(
    tmp_path: FilePath, daemon: Callable[[], tuple[Gateway, int]]
) -> None:
    running, port = daemon()
    try:
        add_speaker(running)
        (tmp_path / "input").write_bytes(bytes(29 * 12 * 4))
        infer = ("-m", "post", "-b", "256", "-t", "42", "-f", str(tmp_path / "input"))
        answer = asyncio.run(coap_client(*infer, f"coap://127.0.0.1:{port}/infer/speaker"))
        assert b'"label"' in answer, answer
        register = ("-m", "post", "-t", "40", "-e", "</>;rt=oma.lwm2m;ct=11542,</3/0>")
        asyncio.run(coap_client(*register, f"coap://127.0.0.1:{port}/rd?ep=libcoap-1&lt=60&lwm2m=1.1&b=U"))
        running.until("device=libcoap-1 how=new lwm2m=1.1")
        refused = asyncio.run(coap_client("-m", "post", "-t", "40", "-e", "<", f"coap://127.0.0.1:{port}/rd?ep=x"))
        assert refused.startswith(b"4.00"), refused
    finally:
        running.end()
