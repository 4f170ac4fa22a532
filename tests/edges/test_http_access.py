"""Who is let in over HTTP, by which listener, and how often."""

import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gatewayd.edges.http_guard import Guard, host_name
from gatewayd.edges.http_server import HttpListen, serve_http, tls_context
from gatewayd.wire.access_tokens import token_of
from tests.fakes_api import World

TOKENS = {role: token_of(role, role, role.encode().ljust(32)) for role in ("viewer", "operator", "admin")}
KEPT = tuple(kept for _, kept in TOKENS.values())
INFER = b'{"device":"cam-7","input":"mic"}'


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Served:
    port: int
    http: aiohttp.ClientSession
    world: World = field(default_factory=World)

    async def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str]]:
        async with self.http.request(
            method, f"http://127.0.0.1:{self.port}{path}", data=body, headers=headers
        ) as response:
            await response.read()
            return response.status, dict(response.headers)

    async def status(self, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        return (await self.ask(method, path, body, **headers))[0]


@asynccontextmanager
async def served(guard: Guard, listen: HttpListen | None = None) -> AsyncIterator[Served]:
    world = World()
    serving = serve_http(
        world.api(),
        listen or HttpListen(),
        max_body_bytes=10_000,
        metrics_text=bytes,
        ready=lambda: True,
        guard=guard,
    )
    async with serving as port, aiohttp.ClientSession() as http:
        yield Served(port, http, world)


def bearer(role: str) -> str:
    return f"Bearer {TOKENS[role][0]}"


ALLOWED = [
    ("GET", "/healthz", None, "none"),
    ("GET", "/v2/health/ready", None, "none"),
    ("GET", "/metrics", None, "viewer"),
    ("GET", "/v2", None, "viewer"),
    ("GET", "/v2/models/kws", None, "viewer"),
    ("GET", "/api/models/list", None, "viewer"),
    ("GET", "/api/openapi.json", None, "viewer"),
    ("POST", "/v2/models/kws/infer", INFER, "operator"),
    ("POST", "/v2/repository/models/kws/load", b"", "operator"),
    ("POST", "/api/infer", b'{"model":"kws","device":"cam-7","input":"mic"}', "operator"),
    ("POST", "/api/devices/approve", b'{"device":"cam-7"}', "admin"),
]


@pytest.mark.parametrize(("method", "path", "body", "needed"), ALLOWED)
async def test_each_address_needs_its_role(method: str, path: str, body: bytes | None, needed: str) -> None:
    order = ["none", "viewer", "operator", "admin"]
    async with served(Guard(Clock(), KEPT)) as edge:
        status, headers = await edge.ask(method, path, body)
        assert status == (200 if needed == "none" else 401)
        if status == 401:
            assert headers["WWW-Authenticate"].startswith("Bearer")
        for role in ("viewer", "operator", "admin"):
            granted = order.index(role) >= order.index(needed)
            assert await edge.status(method, path, body, Authorization=bearer(role)) == (200 if granted else 403)


@pytest.mark.parametrize(
    "presented", ["", "Bearer", "Bearer x", "Basic YTpi", bearer("viewer")[:-1], "Bearer " + "0" * 8000]
)
async def test_what_is_no_token_is_refused(presented: str) -> None:
    async with served(Guard(Clock(), KEPT)) as edge:
        assert await edge.status("GET", "/v2", None, Authorization=presented) == 401


async def test_commands_are_recorded_under_the_name_of_the_token() -> None:
    async with served(Guard(Clock(), KEPT)) as edge:
        await edge.status("POST", "/api/push", b'{"device":"cam-7","model":"kws"}', Authorization=bearer("operator"))
        assert edge.world.pushes.started[0][2] == "operator"


async def test_guessing_is_slowed_down() -> None:
    clock = Clock()
    async with served(Guard(clock, KEPT)) as edge:
        statuses = [await edge.status("GET", "/v2", None, Authorization="Bearer wrong") for _ in range(8)]
        assert statuses == [401] * 5 + [429] * 3
        clock.now_s += 1.0
        assert await edge.status("GET", "/v2", None, Authorization=bearer("viewer")) == 200


async def test_a_caller_has_a_rate() -> None:
    clock = Clock()
    async with served(Guard(clock, KEPT, max_per_s=2)) as edge:
        asked = [await edge.ask("GET", "/v2", Authorization=bearer("viewer")) for _ in range(3)]
        assert [status for status, _ in asked] == [200, 200, 429]
        assert asked[2][1]["Retry-After"] == "1"
        assert await edge.status("GET", "/v2", None, Authorization=bearer("admin")) == 200
        clock.now_s += 0.5
        assert await edge.status("GET", "/v2", None, Authorization=bearer("viewer")) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200), ("localhost", 200), ("[::1]:8080", 200), ("192.168.1.7", 200), ("GW.plant.example:8080", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403),
    ],
)  # fmt: skip
async def test_a_name_pointed_at_us_is_refused(host: str, status: int) -> None:
    async with served(Guard(Clock(), hosts=frozenset({"gw.plant.example"}))) as edge:
        assert await edge.status("GET", "/v2", None, Host=host) == status


async def test_with_a_token_the_name_does_not_matter() -> None:
    async with served(Guard(Clock(), KEPT)) as edge:
        assert await edge.status("GET", "/v2", None, Host="evil.example", Authorization=bearer("viewer")) == 200


def test_names_of_hosts() -> None:
    assert [host_name(each) for each in ("A.b:1", "[::1]:80", "x.", "1.2.3.4")] == ["a.b", "::1", "x", "1.2.3.4"]


async def test_a_socket_file_admits_who_may_open_it(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with served(Guard(Clock(), KEPT), HttpListen(unix_socket=path)) as edge:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        local = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))
        async with local, local.post("http://any/api/devices/approve", data=b'{"device":"cam-7"}') as response:
            assert response.status == 200
        assert edge.world.tracking.views[0].note == "approved by http:unix"
    assert not path.exists()


async def test_a_socket_file_that_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with served(Guard(Clock()), HttpListen(unix_socket=path)) as edge:
        assert await edge.status("GET", "/healthz") == 200
        with pytest.raises(OSError, match="in use"):  # this one is alive
            await serve_http(
                World().api(), HttpListen(unix_socket=path), max_body_bytes=1, metrics_text=bytes, ready=bool
            ).__aenter__()


@contextmanager
def certificate(folder: Path) -> Iterator[tuple[Path, Path]]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (Debian: apt install openssl)")
    certificate_file, key_file = folder / "gw.pem", folder / "gw.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key_file), "-out", str(certificate_file)], check=True, capture_output=True)
    yield certificate_file, key_file


async def test_tls(tmp_path: Path) -> None:
    with certificate(tmp_path) as (certificate_file, key_file):
        listen = HttpListen(tls=tls_context(certificate_file, key_file))
        trusting = ssl.create_default_context(cafile=str(certificate_file))
        async with served(Guard(Clock(), KEPT), listen) as edge:
            address = f"https://127.0.0.1:{edge.port}/v2"
            headers = {"Authorization": bearer("viewer")}
            async with edge.http.get(address, ssl=trusting, headers=headers) as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await edge.http.get(address, headers=headers)
            with pytest.raises(aiohttp.ClientError):
                await edge.http.get(f"http://127.0.0.1:{edge.port}/v2")
            async with edge.http.get(address, ssl=trusting, headers=headers) as response:
                assert response.status == 200
