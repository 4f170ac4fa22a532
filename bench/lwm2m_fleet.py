"""The devices of `bench.lwm2m`, in a process of their own: commands on stdin, one JSON line back for each.

register COUNT       light devices register, at most 64 at a time; they answer whatever they are asked
calm SECONDS PUSHES  each updates every 60 s, and PUSHES stock clients take models again and again
flood RATE SECONDS   updates at that rate, from all devices in turn
vanish COUNT         clients that close their socket before the answer; then one update
"""

import asyncio
import json
import resource
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable

from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from tests.lwm2m_client import ScriptedDevice
from tests.lwm2m_pushing import STRANGER_LINKS, SoftwareClient

LIFETIME_S, UPDATE_S = 300, 60.0
_POST, _CHANGED = 0x02, 0x44


class Light(ScriptedDevice):
    """A device whose updates are built and read by hand: a thousand of them must cost less than the server they measure."""

    def __init__(self, gateway: tuple[str, int], name: str) -> None:
        super().__init__(gateway)
        self.name = name
        self.sent: dict[bytes, float] = {}
        self.took: list[float] = []
        self._number = 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[1] == _CHANGED and data[:1] == b"\x64" and data[4:8] in self.sent:
            self.took.append(time.perf_counter() - self.sent.pop(data[4:8]))
        else:
            super().datagram_received(data, addr)

    def tick(self) -> None:
        """Send one update."""
        self._number = (self._number + 1) & 0xFFFF
        token = b"\xff" + struct.pack("!HB", self._number, 0)
        path = b"".join(
            bytes([(11 if first else 0) << 4 | min(len(part), 13)]) + (bytes([len(part) - 13]) if len(part) > 12 else b"")
            + part.encode()
            for first, part in ((True, self.location[0]), (False, self.location[1]))
        )  # fmt: skip
        self.sent[token] = time.perf_counter()
        self.send_raw(struct.pack("!BBH", 0x44, _POST, 0x8000 | self._number) + token + path)


class Fleet:
    """All devices."""

    def __init__(self, coap_port: int, http_port: int) -> None:
        self._gateway = ("127.0.0.1", coap_port)
        self._http_port = http_port
        self._devices: list[Light] = []

    async def register(self, count: int) -> dict[str, float]:
        free, began_s = asyncio.Semaphore(64), time.perf_counter()

        async def one(device: Light) -> None:
            async with free:
                await device.register(device.name, "</1/0>,</3/0>", query=(f"lt={LIFETIME_S}", "lwm2m=1.0", "b=U"))

        for number in range(len(self._devices), len(self._devices) + count):
            device = Light(self._gateway, f"light-{number}")
            device.tree.values |= {(3, 0, 0): "Acme", (3, 0, 1): "Light"}
            await self._open(device)
            self._devices.append(device)
        await asyncio.gather(*map(one, self._devices))
        return {"seconds": time.perf_counter() - began_s}

    async def calm(self, seconds: float, pushes: int) -> dict[str, float]:
        ends_s = time.perf_counter() + seconds
        counts = await asyncio.gather(self._updates(UPDATE_S / len(self._devices), ends_s), *(
            self._pushed(number, ends_s) for number in range(int(pushes))
        ))  # fmt: skip
        return {"updates": counts[0], "pushes": sum(counts[1:])}

    async def flood(self, rate: float, seconds: float) -> dict[str, float]:
        for device in self._devices:
            device.took.clear()
        sent = await self._updates(1 / rate, time.perf_counter() + seconds)
        await asyncio.sleep(1.0)
        took = sorted(each * 1000 for device in self._devices for each in device.took)
        cuts = statistics.quantiles(took, n=1000)
        return {"sent": sent, "answered": len(took), "p50_ms": cuts[499], "p99_ms": cuts[989], "p999_ms": cuts[998]}

    async def vanish(self, count: int) -> dict[str, float]:
        for number in range(int(count)):
            device = ScriptedDevice(self._gateway)
            await self._open(device)
            message = Message(code=codes.POST, uri_path=("rd",), uri_query=(f"ep=gone-{number}", "lt=60", "lwm2m=1.0"))
            message.mtype, message.mid, message.token = 0, number, struct.pack("!H", number)
            device.send_raw(message.encode())
            device.close()
        began_s = time.perf_counter()
        answer = await self._devices[0].update()
        assert answer.code == codes.CHANGED, answer.code
        return {"next_answer_ms": (time.perf_counter() - began_s) * 1000}

    async def _updates(self, every_s: float, ends_s: float) -> int:
        """Send updates on a schedule that does not wait for answers."""
        sent, due_s = 0, time.perf_counter()
        while due_s < ends_s:
            self._devices[sent % len(self._devices)].tick()
            sent, due_s = sent + 1, due_s + every_s
            pause_s = due_s - time.perf_counter()
            if pause_s > 0.001:
                await asyncio.sleep(pause_s)
            elif sent % 16 == 0:
                await asyncio.sleep(0)
        return sent

    async def _pushed(self, number: int, ends_s: float) -> int:
        """Have one stock client take version 1 and 2 in turn; returns how many pushes were accepted."""
        device, accepted = ScriptedDevice(self._gateway), 0
        await self._open(device)
        client = SoftwareClient(device, name="", version="")
        await device.register(f"stock-{number}", STRANGER_LINKS, query=("lt=300", "lwm2m=1.0", "b=U"))
        while time.perf_counter() < ends_s:
            body = {"device": f"stock-{number}", "model": f"speaker@{1 + accepted % 2}", "allow_downgrade": True}
            status = await self._post("/api/push", body)
            before = len(client.activated)
            while status == 200 and len(client.activated) == before and time.perf_counter() < ends_s:  # noqa: ASYNC110 - a client's list
                await asyncio.sleep(0.02)
            accepted += len(client.activated) > before
            await asyncio.sleep(0.1)
        return accepted

    async def _post(self, path: str, body: object) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._http_port)
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = await reader.read()
        writer.close()
        return int(answer[9:12])

    async def _open(self, device: ScriptedDevice) -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: device, local_addr=("127.0.0.1", 0))


async def main(coap_port: int, http_port: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    fleet = Fleet(coap_port, http_port)
    commands: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
        "register": lambda count: fleet.register(int(count)),
        "calm": fleet.calm,
        "flood": fleet.flood,
        "vanish": fleet.vanish,
    }
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *numbers = line.split()
        print(json.dumps(await commands[name](*map(float, numbers))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
