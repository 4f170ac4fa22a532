"""The arguments of a simulated board about its radio, and about what changes around it while it runs."""

import argparse

from gatewayd.core.errors import BadRequest
from gatewayd.sim.board import SPREAD
from gatewayd.sim.radio import LINKS, LinkFigures

_MOST_RTT_S, _MOST_BYTES_PER_S = 60.0, 1e9


def add_radio_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("radio")
    group.add_argument("--link", choices=sorted(LINKS), default="wifi", help="its radio: delay and rate are simulated")
    group.add_argument("--rtt", type=float, metavar="SECONDS", help="another round trip than the link's")
    group.add_argument("--rate", type=float, metavar="BYTES_PER_S", help="another rate than the link's")
    group.add_argument(
        "--spread",
        type=float,
        default=SPREAD,
        help="how far board and radio may differ from that (0: not at all; %(default)s)",
    )
    group.add_argument(
        "--steer",
        action="store_true",
        help="obey lines of standard input: link FACTOR, compute FACTOR, outage on|off",
    )


def radio_of(args: argparse.Namespace) -> LinkFigures:
    """Return what the radio is believed to be. Raises: BadRequest naming the argument that is wrong."""
    known = LINKS[args.link]
    rtt_s = known.rtt_s if args.rtt is None else args.rtt
    rate = known.goodput_bytes_per_s if args.rate is None else args.rate
    if not 0 <= rtt_s <= _MOST_RTT_S:
        raise BadRequest(f"--rtt {args.rtt}: must be 0..{_MOST_RTT_S:g} seconds")
    if not 1 <= rate <= _MOST_BYTES_PER_S:
        raise BadRequest(f"--rate {args.rate}: must be 1 byte per second or more")
    return LinkFigures(rtt_s, rate)
