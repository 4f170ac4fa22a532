import asyncio
import io
import json
import logging
import socket
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from gatewayd.core.errors import (
    Conflict,
    DeadlineExceeded,
    DeviceTimeout,
    DeviceUnreachable,
    EngineMissing,
    Forbidden,
    GatewayError,
    ModelRefused,
    NoPlacement,
    Overloaded,
    TooLarge,
    UnknownDevice,
    WorkerDied,
)
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.core.names import DeviceId
from gatewayd.core.request import SensorRef
from gatewayd.edges.http_answers import status_of
from gatewayd.edges.http_inference import EXTENSIONS
from gatewayd.edges.http_server import HttpListen, HttpTimeouts, serve_http
from tests.fakes_api import World

LIMIT = 400_000
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
INLINE = json.dumps({"id": "q", "inputs": [TENSOR]}).encode()


@dataclass
class Edge:
    port: int
    world: World
    events: list[GatewayEvent]
    http: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, object]:
        async with self.http.get(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, object]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(
            f"http://127.0.0.1:{self.port}{path}", data=io.BytesIO(body), headers=named
        ) as response:
            return response.status, await response.json(content_type=None)

    async def exchange(self, sent: bytes) -> bytes:
        """Send bytes on a connection of their own and return everything until the edge closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def running(*, timeouts: HttpTimeouts, ready: bool = True) -> AsyncIterator[Edge]:
    world = World()
    events: list[GatewayEvent] = []
    serving = serve_http(
        world.api(),
        HttpListen(),
        max_body_bytes=LIMIT,
        metrics_text=lambda: b"gatewayd_x_total 1\n",
        ready=lambda: ready,
        notify=events.append,
        timeouts=timeouts,
    )
    async with serving as port, aiohttp.ClientSession() as http:
        yield Edge(port, world, events, http)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running(timeouts=HttpTimeouts(linger_s=0.2)) as running_edge:
        yield running_edge


def code_of(document: object) -> str:
    assert isinstance(document, dict)
    return str(document["code"] if "code" in document else document["error"]["code"])


def message_of(document: object) -> str:
    assert isinstance(document, dict)
    error = document["error"]
    return error if isinstance(error, str) else str(error["message"])


async def test_reads_by_get_and_by_post_are_the_same(edge: Edge) -> None:
    assert await edge.get("/api/models/list") == await edge.post("/api/models/list", b"")
    status, document = await edge.get("/api/models/list?model=kws")
    assert (status, document["models"][0]["moves"][0]["who"]) == (200, "ann")  # type: ignore[index]  # JSON


async def test_a_verb_is_called_with_who_called(edge: Edge) -> None:
    status, document = await edge.post("/api/push", b'{"device":"cam-7","model":"kws@1"}')
    assert (status, document["state"]) == (200, "offered")  # type: ignore[index]  # JSON
    assert edge.world.pushes.started[0][2] == "http:127.0.0.1"


async def test_inference_in_json(edge: Edge) -> None:
    status, document = await edge.post("/v2/models/kws/infer", INLINE, Content_Type="application/json")
    assert status == 200
    assert document["id"] == "q"  # type: ignore[index]  # JSON
    assert document["outputs"][0]["data"] == [0.25, 0.75]  # type: ignore[index]  # JSON
    assert edge.world.inference.seen[0].inputs[0].shape == (1, 4)


async def test_inference_by_reference_as_curl_sends_it(edge: Edge) -> None:
    body = b'{"device":"cam-7","input":"mic"}'
    status, document = await edge.post(
        "/v2/models/kws/versions/3/infer", body, Content_Type="application/x-www-form-urlencoded"
    )
    assert (status, document["parameters"]["sample"]) == (200, 3)  # type: ignore[index]  # JSON
    (request,) = edge.world.inference.seen
    assert (request.source, request.model.version) == (SensorRef(DeviceId("cam-7"), "mic"), 3)


async def test_inference_on_raw_bytes(edge: Edge) -> None:
    status, _ = await edge.post("/v2/models/kws:canary/infer", b"{123", Content_Type="application/octet-stream")
    assert (status, edge.world.inference.seen[0].raw) == (200, b"{123")
    assert edge.world.inference.seen[0].model.alias == "canary"


async def test_inference_in_long_json(edge: Edge) -> None:
    tensor = {"name": "x", "shape": [100_000], "datatype": "INT8", "data": [7] * 100_000}
    status, _ = await edge.post(
        "/v2/models/kws/infer", json.dumps({"inputs": [tensor]}).encode(), Content_Type="application/json"
    )
    assert (status, edge.world.inference.seen[0].inputs[0].content) == (200, bytes([7] * 100_000))


async def test_the_protocol_s_other_routes(edge: Edge) -> None:
    assert await edge.get("/v2") == (200, {"name": "gatewayd", "version": "0.1.0", "extensions": list(EXTENSIONS)})
    assert await edge.get("/v2/health/live") == await edge.get("/healthz") == (200, {"live": True})
    assert await edge.get("/v2/health/ready") == await edge.get("/readyz") == (200, {"ready": True})
    status, metadata = await edge.get("/v2/models/kws")
    assert (status, metadata["inputs"]) == (200, [{"name": "x", "datatype": "FP32", "shape": [1, 4]}])  # type: ignore[index]  # JSON
    assert await edge.get("/v2/models/kws/versions/1/ready") == (200, {"name": "kws", "ready": True})


async def test_not_ready() -> None:
    async with running(timeouts=HttpTimeouts(), ready=False) as edge:
        assert await edge.get("/readyz") == (503, {"ready": False})
        assert (await edge.get("/healthz"))[0] == 200


async def test_metrics(edge: Edge) -> None:
    async with edge.http.get(f"http://127.0.0.1:{edge.port}/metrics") as response:
        assert await response.read() == b"gatewayd_x_total 1\n"
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "message"),
    [
        ("GET", "/nowhere", b"", 404, "not_found", "nothing answers GET /nowhere; /api/openapi.json lists what does"),
        ("GET", "/api/push", b"", 405, "method_not_allowed", "GET /api/push: another method is needed"),
        ("GET", "/api/status?pushes=x", b"", 400, "bad_request", "status: pushes: Input should be a valid integer"),
        ("GET", "/api/why?request=r-9", b"", 404, "not_found", "no decision about request 'r-9'"),
        ("POST", "/api/push", b'{"device":', 400, "bad_request", "push: Invalid JSON"),
        ("POST", "/api/models/alias", b"{}", 400, "bad_request", "models.alias: model: Field required; alias: Field"),
        ("GET", "/v2/models/vww", b"", 404, "unknown_model", "no model vww"),
        ("GET", "/v2/models/Bad%20Name", b"", 400, "bad_request", "'Bad Name' is no model name"),
        ("POST", "/v2/models/kws/infer", b"", 400, "bad_request", "the body is empty"),
        (
            "POST",
            "/v2/models/kws/infer",
            b'{"inputs":3}',
            400,
            "bad_request",
            "inputs: must be a list of 1 to 32 tensors",
        ),
        (
            "POST",
            "/v2/models/kws/infer",
            bytes(LIMIT + 1),
            413,
            "too_large",
            "a body of 400001 bytes is over the limit of",
        ),
        ("POST", "/v2/models/kws/infer", bytes(10_000_000), 413, "too_large", "a body of 10000000 bytes is over the"),
        ("POST", "/api/push", b"[" * 100_000, 400, "bad_request", "push: Invalid JSON: recursion limit exceeded"),
    ],
)
async def test_mistakes(edge: Edge, method: str, path: str, body: bytes, status: int, code: str, message: str) -> None:
    answer = await (
        edge.post(path, body, Content_Type="application/x-www-form-urlencoded") if method == "POST" else edge.get(path)
    )
    assert (answer[0], code_of(answer[1])) == (status, code)
    assert message_of(answer[1]).startswith(message)
    assert (await edge.get("/healthz"))[0] == 200


async def test_an_unknown_content_type(edge: Edge) -> None:
    status, document = await edge.post("/v2/models/kws/infer", b"x", Content_Type="text/csv")
    assert (status, message_of(document)[:24]) == (400, "content type 'text/csv' ")


async def test_a_body_without_a_length_is_bounded_too(edge: Edge) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(50_000)

    async with edge.http.post(f"http://127.0.0.1:{edge.port}/v2/models/kws/infer", data=chunks()) as response:
        assert response.status == 413
        assert message_of(await response.json()) == "the body is over the limit of 400000 bytes"


async def test_a_large_body_is_refused_before_it_is_sent(edge: Edge) -> None:
    head = b"POST /v2/models/kws/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n"
    answer = await edge.exchange(head)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_expect_continue_is_answered(edge: Edge) -> None:
    head = f"POST /v2/models/kws/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(INLINE)}\r\n"
    answer = await edge.exchange(head.encode() + b"Expect: 100-continue\r\n\r\n" + INLINE)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"POST /v2/models/kws/infer HTTP/1.1\r\nHost:", b""),
        (b"POST /v2/models/kws/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
)
async def test_a_peer_that_stops_is_let_go(sent: bytes, status: bytes) -> None:
    async with running(timeouts=HttpTimeouts(head_s=0.05, body_s=0.05, linger_s=0.05)) as edge:
        assert (await edge.exchange(sent)).startswith(status)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v2/models/kws/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_garbage_is_answered_and_survived(edge: Edge, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    head, _, body = (await edge.exchange(sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 ")
    assert message_of(json.loads(body)).startswith("no HTTP/1.1 request: ")
    assert [type(event) for event in edge.events] == [InputRefused]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (await edge.get("/healthz"))[0] == 200


async def test_a_peer_that_hangs_up_in_its_body_is_no_error_of_ours(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /v2/models/kws/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(head)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert (await edge.get("/healthz"))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [str(event.message) for event in edge.events if isinstance(event, InputRefused)] == [
        "the body is cut off or wrongly packed"
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownDevice("x"), 404), (Conflict("x"), 409), (NoPlacement("x"), 409), (Forbidden("x"), 403),
        (ModelRefused("x"), 400), (TooLarge("x"), 413), (DeviceUnreachable("x"), 502), (DeviceTimeout("x"), 504),
        (EngineMissing("x"), 503), (WorkerDied("x"), 503), (Overloaded("x"), 503), (DeadlineExceeded("x"), 504),
        (GatewayError("x"), 500),
    ],
)  # fmt: skip
async def test_errors_of_the_services(edge: Edge, error: GatewayError, status: int) -> None:
    edge.world.inference.error = error
    assert await edge.post("/v2/models/kws/infer", INLINE, Content_Type="application/json") == (
        status,
        {"error": "x", "code": error.code, "id": "q"},
    )


def every_error(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield root
    for child in root.__subclasses__():
        yield from every_error(child)


@pytest.mark.parametrize("error", list(every_error(GatewayError)))
def test_every_error_has_a_status(error: type[GatewayError]) -> None:
    assert 400 <= status_of(error) <= 504


async def test_the_unexpected_is_logged_and_survived(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    edge.world.inference.error = ZeroDivisionError("secret")
    with caplog.at_level(logging.ERROR):
        status, document = await edge.post("/v2/models/kws/infer", INLINE, Content_Type="application/json")
    assert (status, code_of(document)) == (500, "internal")
    assert "secret" not in message_of(document)
    assert "ZeroDivisionError: secret" in caplog.text
    assert (await edge.get("/healthz"))[0] == 200


async def test_malformed_input_is_announced(edge: Edge) -> None:
    await edge.post("/v2/models/kws/infer", b"{", Content_Type="application/json")
    await edge.post("/api/push", b"{}")
    await edge.post("/v2/models/vww/infer", INLINE, Content_Type="application/json")
    assert [(event.where, event.code) for event in edge.events if isinstance(event, InputRefused)] == [
        ("http", "bad_request"),
        ("http", "bad_request"),
    ]


async def test_pages_of_other_sites_are_refused(edge: Edge) -> None:
    status, document = await edge.post("/api/push", b"{}", Origin="http://evil.example")
    assert (status, code_of(document)) == (403, "forbidden")
    assert (await edge.post("/api/status", b"", Origin=f"http://127.0.0.1:{edge.port}"))[0] == 200


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref":
                yield each
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_openapi_describes_what_is_served(edge: Edge) -> None:
    status, document = await edge.get("/api/openapi.json")
    assert isinstance(document, dict)
    assert (status, document["openapi"]) == (200, "3.1.0")
    schemas = document["components"]["schemas"]
    targets = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert targets <= set(schemas)
    operations = [o for path in document["paths"].values() for m, o in path.items() if m in {"get", "post"}]
    ids = [o["operationId"] for o in operations if "operationId" in o]
    assert len(ids) == len(set(ids))
    for path, item in document["paths"].items():
        concrete = urllib.parse.quote(path.replace("{model}", "kws").replace("{version}", "1"))
        if "post" in item:
            assert (await edge.post(concrete, b""))[0] != 404, path
        if path in {"/metrics", "/api/events"}:
            continue
        if "get" in item:
            assert (await edge.get(concrete))[0] != 404, path
    assert schemas["AddModel"]["properties"]["files"]["items"]["contentEncoding"] == "base64"


async def test_a_taken_port_is_an_os_error(edge: Edge) -> None:
    serving = serve_http(
        edge.world.api(), HttpListen(port=edge.port), max_body_bytes=1, metrics_text=bytes, ready=lambda: True
    )
    with pytest.raises(OSError, match="address already in use"):
        await serving.__aenter__()


def test_no_port_is_left_open() -> None:
    async def bound() -> int:
        async with running(timeouts=HttpTimeouts()) as edge:
            return edge.port

    port = asyncio.run(bound())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
