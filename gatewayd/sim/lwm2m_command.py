"""The arguments of a simulated board that attaches over LwM2M."""

import argparse

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import DeviceId
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.registration import Terms
from gatewayd.sim.stock_device import MANNERS
from gatewayd.sim.stock_software import Persona
from gatewayd.wire.lwm2m.formats import Format

_MAX_PORT = 65_535
_SMALLEST_BLOCK, _LARGEST_BLOCK = 16, 1024


def add_lwm2m_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them; they count with `--protocol lwm2m` only."""
    group = parser.add_argument_group("with --protocol lwm2m")
    group.add_argument("--gateway", default="127.0.0.1:5683", help="host:port of the LwM2M server, plain CoAP")
    group.add_argument("--lifetime", type=int, default=60, help="seconds of the registration's lifetime")
    group.add_argument("--update-every", type=float, help="seconds between updates (default: 0.8 of the lifetime)")
    group.add_argument("--lwm2m-version", choices=("1.0", "1.1", "1.2"), help="default: 1.1, or as the persona's")
    group.add_argument(
        "--persona",
        choices=[each.value for each in Persona],
        help="a stock client with standard objects only: it takes models by software management (/9), and runs none",
    )
    group.add_argument(
        "--formats",
        help=f"what it speaks, the preferred one first: {', '.join(each.name for each in Format)} (default: as its version)",
    )
    group.add_argument(
        "--block", type=int, help="bytes of a CoAP block at most: 16, 32 ... 1024 (default: 1024, or as the persona's)"
    )
    group.add_argument("--pull-only", action="store_true", help="takes packages by URI only, not by Block1")
    group.add_argument(
        "--infer-every",
        type=float,
        help="seconds between runs that nobody asks for, on its sensor; results are notified",
    )
    group.add_argument("--loss", type=float, default=0.0, help="share of datagrams lost, each way")
    group.add_argument(
        "--sleep-after", type=float, help="queue mode: deaf so many seconds after the last word, until the next update"
    )


def lwm2m_options(args: argparse.Namespace, device: DeviceId) -> Lwm2mOptions:
    """Return what the arguments say. Raises: BadRequest naming the one that is wrong."""
    host, _, port = args.gateway.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= _MAX_PORT:
        raise BadRequest(f"--gateway {args.gateway}: must be host:port")
    if not 0 <= args.loss < 1:
        raise BadRequest(f"--loss {args.loss}: must be 0 or more and under 1")
    if args.infer_every is not None and args.infer_every <= 0:
        raise BadRequest(f"--infer-every {args.infer_every}: must be over 0 seconds")
    if not 1 <= args.lifetime <= 2**31 - 1:
        raise BadRequest(f"--lifetime {args.lifetime}: must be 1 second or more")
    persona = Persona(args.persona) if args.persona is not None else None
    manner = None if persona is None else MANNERS[persona]
    version = args.lwm2m_version or (manner.version if manner else "1.1")
    if manner is not None and version not in manner.formats:
        raise BadRequest(f"--lwm2m-version {version}: {args.persona} has {', '.join(manner.formats)}")
    block = args.block or (2 ** (manner.block_exponent + 4) if manner else _LARGEST_BLOCK)
    if block not in {2**exponent for exponent in range(4, 11)}:
        raise BadRequest(f"--block {args.block}: must be a power of two, {_SMALLEST_BLOCK}..{_LARGEST_BLOCK}")
    terms = Terms(
        endpoint=device,
        lifetime_s=args.lifetime,
        version=version,
        is_sleepy=args.sleep_after is not None,
        binding=manner.binding if manner else "U",
    )
    return Lwm2mOptions(
        host=host.strip("[]"),
        port=int(port),
        terms=terms,
        link=args.link,
        loss=args.loss,
        seed=args.seed,
        formats=_formats(args.formats),
        sleep_after_s=args.sleep_after,
        update_every_s=args.update_every,
        takes_push=not args.pull_only,
        infers_every_s=args.infer_every,
        block_exponent=block.bit_length() - 5,
        persona=persona,
    )


def _formats(named: str | None) -> tuple[Format, ...] | None:
    if named is None:
        return None
    known = {each.name: each for each in Format}
    unknown = [each for each in named.split(",") if each not in known]
    if unknown:
        raise BadRequest(f"--formats {named}: {unknown[0]} is none of {', '.join(known)}")
    return tuple(known[each] for each in named.split(","))
