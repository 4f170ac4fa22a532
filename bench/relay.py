"""The link between devices and a gateway in a process of its own, and the links that benchmarks speak of."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from gatewayd.sim.relay import Link, Relay

# Goodput inside the nominal ranges (802.15.4: 20-60 kb/s usable of 250; BLE: 100-700 kb/s; NB-IoT: about 20-60 kb/s); the
# round trips are assumed. `head_bytes`: IPv4 + UDP = 28; IPv6 + UDP compressed by 6LoWPAN over a MAC header with its checksum
# about 32 (802.15.4) and 20 (BLE); Wi-Fi's own header 34 more. Source: RFC 6282, RFC 7668 for the compressed headers.
LINKS = {
    link.name: link
    for link in (
        Link("loopback", 0.0, 0.0, 1024, 28),
        Link("rtt30", 0.030, 0.0, 1024, 28),
        Link("wifi", 0.008, 500_000, 1024, 62),
        Link("ble", 0.045, 37_500, 512, 20),
        Link("802.15.4", 0.030, 5_000, 64, 32),
        Link("nb-iot", 1.6, 2_500, 512, 28),
    )
}


async def _serve(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.upstream.rpartition(":")
    relay = Relay(LINKS[arguments.link], loss=arguments.loss, seed=arguments.seed, upstream=(host, int(port)))
    print(await relay.open(arguments.port), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"rebind":
            relay.rebind()
        print(json.dumps(asdict(relay.tally)), flush=True)
    relay.close()


def main() -> None:
    """Relay until standard input ends; print the port, then the tally for every line read (`rebind`: forget all mappings)."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=main.__doc__)
    parser.add_argument("--link", choices=sorted(LINKS), default="loopback")
    parser.add_argument("--loss", type=float, default=0.0, help="share of datagrams lost, each way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="where devices send to; 0: a free one, printed")
    parser.add_argument("--upstream", required=True, help="host:port of the gateway")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
