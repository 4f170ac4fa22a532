"""aiocoap's own client and server with OSCORE as peers: its whole stack, its block-wise transfers, its contexts in files."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiocoap import Context, Message, resource  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.credentials import CredentialsMap  # type: ignore[import-untyped]  # as above
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.adapters.coap_context import open_context
from gatewayd.adapters.coap_oscore import OscoreAddress, OscoreSite
from gatewayd.adapters.oscore_contexts import open_contexts
from gatewayd.core.credentials import OscoreKey
from gatewayd.core.names import Digest, PushId
from gatewayd.edges.coap import serve_resources
from gatewayd.links.lwm2m.blocks import fetched, sent
from gatewayd.links.lwm2m.coap import Answer, Ask, Code, Incoming, Method, Peer, Reply
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, Served
from gatewayd.links.lwm2m.feed import Feed
from gatewayd.links.lwm2m.packages import Fetched, Packages
from tests.lwm2m_processes import free_udp_port
from tests.oscore_stores import FakeKeys, FakeNumbers, key_of

oscore = pytest.importorskip("aiocoap.oscore", reason="aiocoap[oscore] is not installed: no peer for OSCORE here")
site_wrapper = pytest.importorskip(
    "aiocoap.oscore_sitewrapper", reason="aiocoap[oscore] is not installed, or not all of it"
)

PATIENCE_S = 10.0
PACKAGE = random.Random(5).randbytes(20_000)  # noqa: S311 - the same every time
KEY = key_of("dev-1")
IDENTITY = "oscore/dev-1"


def context_of(folder: Path, key: OscoreKey) -> object:
    """Return aiocoap's context from the device's end, as its users configure it."""
    folder.mkdir()
    settings = {
        "secret_hex": key.secret.hex(), "salt_hex": key.salt.hex(), "sender-id_hex": key.kid.hex(),
        "recipient-id_hex": key.gateway_id.hex(),
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    return oscore.FilesystemSecurityContext(str(folder))


@asynccontextmanager
async def ours(served: dict[str, Served]) -> AsyncIterator[tuple[CoapEndpoint, int]]:
    contexts = await open_contexts(FakeKeys.of(KEY), FakeNumbers())
    endpoint = CoapEndpoint(lambda remote, identity: OscoreAddress(remote, identity, contexts) if identity else remote)

    @asynccontextmanager
    async def opener(site: object, host: str, port: int) -> AsyncIterator[object]:
        protected = OscoreSite(site, contexts, on_refused=lambda *_: None)
        async with open_context(protected, host=host, port=port) as context:
            endpoint.opened(context)
            yield context

    async with serve_resources(served, host="127.0.0.1", port=0, opener=opener) as port:
        yield endpoint, port


@asynccontextmanager
async def stock_client(tmp_path: Path, port: int) -> AsyncIterator[Context]:
    client = await Context.create_client_context(transports=["oscore", "udp6"])
    client.client_credentials[f"coap://127.0.0.1:{port}/*"] = context_of(tmp_path / "context", KEY)
    try:
        yield client
    finally:
        await client.shutdown()


async def test_its_client_fetches_a_package_and_sends_in_blocks(tmp_path: Path) -> None:
    packages, came = Packages(), []

    async def take(request: Incoming) -> Reply:
        came.append((request.peer.identity, request.block1, request.payload))
        return Reply(Code.CONTINUE if request.block1 and request.block1.more else Code.CHANGED, block1=request.block1)

    feed = Feed(
        b"", len(PACKAGE), lambda at, length: feed.put(at, PACKAGE[at : at + length]), asyncio.get_running_loop().time
    )
    digest = Digest(hashlib.sha256(PACKAGE).hexdigest())
    path = packages.offer(
        PushId(3), Fetched(feed, digest, 6, lambda peer: peer.identity == IDENTITY, lambda _: None, lambda: None)
    )
    async with (
        ours({"pkg": Served(packages.serve), "take": Served(take)}) as (_, port),
        stock_client(tmp_path, port) as client,
        asyncio.timeout(PATIENCE_S),
    ):
        got = await client.request(Message(code=codes.GET, uri=f"coap://127.0.0.1:{port}{path}")).response
        assert (got.code, got.payload) == (codes.CONTENT, PACKAGE)
        core = await client.request(Message(code=codes.GET, uri=f"coap://127.0.0.1:{port}/.well-known/core")).response
        assert core.code == codes.CONTENT, "what is no device's is served, too"
        put = Message(code=codes.PUT, uri=f"coap://127.0.0.1:{port}/take", payload=PACKAGE[:3000])
        assert (await client.request(put).response).code == codes.CHANGED
    assert {identity for identity, _, _ in came} == {IDENTITY}
    assert b"".join(payload for _, _, payload in came) == PACKAGE[:3000]


class Store(resource.Resource):  # type: ignore[misc]  # aiocoap ships no types
    """Holds what is put there, block by block by aiocoap's own means."""

    content = b""

    async def render_put(self, request: Message) -> Message:
        self.content = request.payload
        return Message(code=codes.CHANGED)

    async def render_get(self, request: Message) -> Message:  # noqa: ARG002 - aiocoap's shape
        return Message(code=codes.CONTENT, payload=self.content)


class Ticking(resource.ObservableResource):  # type: ignore[misc]  # as above
    """Changes when it is told to."""

    value = 0

    def tick(self) -> None:
        self.value += 1
        self.updated_state()

    async def render_get(self, request: Message) -> Message:  # noqa: ARG002 - aiocoap's shape
        return Message(code=codes.CONTENT, payload=str(self.value).encode())


@asynccontextmanager
async def stock_server(tmp_path: Path) -> AsyncIterator[tuple[CoapEndpoint, Peer, Store, Ticking]]:
    """aiocoap's server as a device under its context, and our endpoint to ask it."""
    port, store, ticking = free_udp_port(), Store(), Ticking()
    site = resource.Site()
    site.add_resource(["26242", "0", "4"], store)
    site.add_resource(["tick"], ticking)
    known = CredentialsMap()
    known[":device"] = context_of(tmp_path / "context", KEY)
    wrapped = site_wrapper.OscoreSiteWrapper(site, known)
    device = await Context.create_server_context(wrapped, bind=("127.0.0.1", port), transports=["udp6"])
    try:
        async with ours({}) as (endpoint, _):
            peer = endpoint.peer(f"127.0.0.1|{port}", IDENTITY)
            assert peer is not None
            yield endpoint, peer, store, ticking
    finally:
        await device.shutdown()


async def test_we_write_to_its_server_and_read_from_it_in_blocks(tmp_path: Path) -> None:
    async with stock_server(tmp_path) as (endpoint, peer, store, _):

        async def ask(ask: Ask) -> Answer:
            return await endpoint.ask(peer, ask, timeout_s=PATIENCE_S)

        put = Ask(Method.PUT, ("26242", "0", "4"), payload=PACKAGE, content_format=42)
        assert (await sent(ask, put, size_exponent=5)).code == Code.CHANGED
        assert store.content == PACKAGE
        got = await fetched(ask, replace(put, method=Method.GET, payload=b"", content_format=None))
        assert (got.code, got.payload) == (Code.CONTENT, PACKAGE)


async def test_we_observe_its_server(tmp_path: Path) -> None:
    told: asyncio.Queue[Answer | None] = asyncio.Queue()
    async with stock_server(tmp_path) as (endpoint, peer, _, ticking), asyncio.timeout(PATIENCE_S):
        ask = Ask(Method.GET, ("tick",), observe=0)
        answer, observation = await endpoint.observe(peer, ask, told.put_nowait, timeout_s=PATIENCE_S)
        assert (answer.code, answer.payload) == (Code.CONTENT, b"0")
        assert observation is not None
        for expected in (b"1", b"2"):
            ticking.tick()
            notified = await told.get()
            assert notified is not None
            assert notified.payload == expected
        observation.forget()
