"""Fetching from a real server on loopback, which has to be allowed first."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from gatewayd.adapters.certificates import new_authority, new_server
from gatewayd.adapters.http_fetcher import HttpFetcher
from gatewayd.core.errors import BadRequest, DeadlineExceeded, NodeError, NotFound, TooLarge

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONTENT = bytes(range(256)) * 40


@asynccontextmanager
async def server(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{name:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def fetched(handler: Handler, *, path: str = "/m.tflite", most: int = 100_000, timeout_s: float = 20.0) -> bytes:
    async with server(handler) as base:
        return await HttpFetcher(allow_local=True, timeout_s=timeout_s).fetch(base + path, max_bytes=most)


async def whole(_: web.Request) -> web.Response:
    return web.Response(body=CONTENT)


async def chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for start in range(0, len(CONTENT), 1000):
        await response.write(CONTENT[start : start + 1000])
    return response


@pytest.mark.parametrize("handler", [whole, chunked])
async def test_a_file_comes_as_it_is(handler: Handler) -> None:
    assert await fetched(handler) == CONTENT


@pytest.mark.parametrize(
    ("handler", "message"), [(whole, "has 10240 bytes, the limit is 10239"), (chunked, "more than 10239")]
)
async def test_too_much_is_refused_announced_or_not(handler: Handler, message: str) -> None:
    with pytest.raises(TooLarge, match=message):
        await fetched(handler, most=10_239)


async def test_a_redirect_is_followed_a_few_times_only() -> None:
    async def hops(request: web.Request) -> web.Response:
        left = int(request.match_info["name"])
        return (
            web.Response(body=CONTENT) if left == 0 else web.Response(status=302, headers={"Location": f"/{left - 1}"})
        )

    assert await fetched(hops, path="/3") == CONTENT
    with pytest.raises(BadRequest, match="more than 3 redirects"):
        await fetched(hops, path="/4")


async def test_a_redirect_leads_to_http_only() -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    with pytest.raises(BadRequest, match="only http and https"):
        await fetched(elsewhere)


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (410, NotFound), (500, NodeError), (206, NodeError)])
async def test_other_answers(status: int, error: type[Exception]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=b"page")

    with pytest.raises(error):
        await fetched(answer)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with server(whole) as base:
        port = int(base.rpartition(":")[2])
        assert port
        with pytest.raises(DeadlineExceeded, match="did not deliver the file"):
            await HttpFetcher(allow_local=True, timeout_s=0.0).fetch(base, max_bytes=10)


async def test_whom_to_trust_is_read_when_a_file_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    authority, other = (new_authority(name, now=now) for name in ("gw", "other"))
    certificate, key = new_server(["127.0.0.1"], authority, now=now)
    (tmp_path / "server.pem").write_bytes(certificate + key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem")
    trusted = tmp_path / "trusted.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    fetcher = HttpFetcher(allow_local=True)
    async with server(whole, tls=tls) as base:
        trusted.write_bytes(other[0])
        with pytest.raises(NodeError, match="certificate"):
            await fetcher.fetch(f"{base}/m.tflite", max_bytes=100_000)
        trusted.write_bytes(authority[0])
        assert await fetcher.fetch(f"{base}/m.tflite", max_bytes=100_000) == CONTENT


async def test_nobody_there() -> None:
    with pytest.raises(NodeError, match=r"127\.0\.0\.1 cannot be reached"):
        await HttpFetcher(allow_local=True).fetch("http://127.0.0.1:9", max_bytes=10)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/m", "http://localhost/m", "http://[::1]/m", "http://10.0.0.1/m", "http://192.168.1.1/m",
        "http://169.254.169.254/latest", "http://[fe80::1%25lo]/m", "http://0.0.0.0/m", "http://[::ffff:127.0.0.1]/m",
        "http://100.64.0.1/m", "http://224.0.0.1/m",
    ],
)  # fmt: skip
async def test_local_addresses_are_refused_unless_the_config_allows_them(url: str) -> None:
    with pytest.raises(BadRequest, match=r"sources\.allow_local_addresses"):
        await HttpFetcher().fetch(url, max_bytes=10)


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "file:///etc/passwd", "x", "", "http://", "http://[::1", "http://x:99999/"]
)
async def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        await HttpFetcher().fetch(url, max_bytes=10)
