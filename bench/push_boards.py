"""Boards for `bench/push.py` in a process of their own: prints the address of the first one, ends when its input does."""

import argparse
import asyncio
import sys

from bench.memory_board import memory_device
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.registration import Terms


async def _serve(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.gateway.rpartition(":")
    exponent = arguments.block.bit_length() - 5
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as tasks:
        devices = []
        for index in range(arguments.devices):
            terms = Terms(f"board-{index}", 86_400)
            options = Lwm2mOptions(host, int(port), terms, "wifi", block_exponent=exponent)
            devices.append(memory_device(options, None))
            tasks.create_task(devices[-1].run(), name=f"board-{index}")
        await devices[0].attached.wait()
        print(f"127.0.0.1:{devices[0].port}", flush=True)
        await reader.read()
        for device in devices:
            device.stop()


def main() -> None:
    """Run boards that attach to a gateway until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.push_boards", description=main.__doc__)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--gateway", required=True, help="host:port")
    parser.add_argument("--block", type=int, default=1024)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
