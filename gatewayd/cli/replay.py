"""`gatewayd replay LOG`: decide again what a log holds, or tell what another policy would have cost. Reads files only."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gatewayd.core.errors import BadRequest
from gatewayd.core.policies import policy_of
from gatewayd.core.presets import PRESETS
from gatewayd.core.replay import Logged, decided_again, difference
from gatewayd.core.whatif import WhatIf, what_if
from gatewayd.wire.decisionlog import MAX_LINE_BYTES, Unreadable, read_log

_WRITTEN = "the daemon writes the file that decisions.file names, every decisions.write_every_s (60) and at its end"
_SHOWN = 3  # of the lines that cannot be read
_UNITS = {
    "J": ("J", 1.0),
    "latency_s": ("latency, ms", 1000.0),
    "energy_uj": ("energy, uJ", 1.0),
    "link_bytes": ("bytes", 1.0),
}


def add_replay_command(parser: argparse.ArgumentParser) -> None:
    """Describe the command on its parser."""
    parser.add_argument(
        "log", type=Path, nargs="+", help="decision log; the one before it (LOG.1) is read first if it is there"
    )
    parser.add_argument(
        "--policy",
        help="estimate what this would have cost: node-only, device-only, expected, a class such as battery, "
        "or weights as in latency_per_s=100,energy_per_uj=1",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Replayed:
    """How a log was decided again. `first_difference` is of the first decision that came out differently ("": none did)."""

    decisions: int = 0
    same: int = 0
    different: int = 0
    first_difference: str = ""
    unreadable: int = 0
    torn: int = 0


def run(arguments: argparse.Namespace) -> int:
    """Replay; 0 when every decision came out the same, 1 when one did not or nothing could be read, 2 for a bad policy."""
    try:
        policy = (
            policy_of(arguments.policy, {name: each.weights for name, each in PRESETS.items()})
            if arguments.policy
            else None
        )
    except BadRequest as error:
        sys.stderr.write(f"gatewayd: {error}\n")
        return 2
    replayed = Replayed()
    try:
        logged = _decided(_read(arguments.log, replayed), replayed)
        found = None if policy is None else what_if(logged, policy)
        for _ in logged:
            pass
    except FileNotFoundError as error:
        sys.stderr.write(f"gatewayd: {error.filename}: {error.strerror}; {_WRITTEN}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"gatewayd: {error.filename}: {error.strerror}\n")
        return 1
    if not replayed.decisions:
        names = ", ".join(map(str, arguments.log))
        sys.stderr.write(f"gatewayd: {names}: no decision in it; {_WRITTEN}\n")
    sys.stdout.write(_json(replayed, found) if arguments.json else _text(replayed, found, arguments.policy))
    return 0 if replayed.decisions and not replayed.different else 1


def _read(paths: Sequence[Path], replayed: Replayed) -> Iterator[Logged]:
    for path in paths:
        before = path.with_name(f"{path.name}.1")
        for each in ([before] if before.exists() and before not in paths else []) + [path]:
            yield from _of_file(each, replayed)


def _of_file(path: Path, replayed: Replayed) -> Iterator[Logged]:
    with path.open("rb") as file:
        # An over-long line arrives in pieces, each of which is counted as one that cannot be read.
        for found in read_log(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")):
            if isinstance(found, Logged):
                yield found
                continue
            replayed.unreadable += 1
            replayed.torn += found.is_torn
            if replayed.unreadable <= _SHOWN:
                sys.stderr.write(_complaint(path, found))


def _complaint(path: Path, found: Unreadable) -> str:
    torn = " (torn: the power went while it was written)" if found.is_torn else ""
    return f"gatewayd: {path}:{found.line}: not read: {found.reason}{torn}\n"


def _decided(log: Iterator[Logged], replayed: Replayed) -> Iterator[Logged]:
    for logged in log:
        replayed.decisions += 1
        differs = difference(logged, decided_again(logged))
        replayed.same += not differs
        replayed.different += bool(differs)
        replayed.first_difference = replayed.first_difference or differs
        yield logged


def _text(replayed: Replayed, found: WhatIf | None, policy: str | None) -> str:
    lines = [
        f"{replayed.decisions:,} decisions replayed: {replayed.same:,} the same to the last bit, {replayed.different:,} not"
    ]
    if replayed.first_difference:
        lines.append(f"first difference: {replayed.first_difference}")
    if replayed.unreadable:
        lines.append(f"{replayed.unreadable:,} lines could not be read, {replayed.torn} of them torn")
    if found is not None:
        lines += ["", *_comparison(found, policy or "")]
    return "\n".join(lines) + "\n"


def _comparison(found: WhatIf, policy: str) -> Iterator[str]:
    if not found.requests:
        yield "no decision of the log was served at the first try and measured: there is nothing to compare"
        return
    yield f"with {policy}, over {found.requests:,} requests that were measured ({found.same:,} would have gone where they went):"
    yield f"{'MEAN PER REQUEST':<18}{'LOGGED':>12}{'ESTIMATED':>12}  95 % INTERVAL"
    for name, (title, unit) in _UNITS.items():
        each = found.other[name]
        span = f"{each.low * unit:,.4g} to {each.high * unit:,.4g}"
        yield f"{title:<18}{found.logged[name] * unit:>12,.4g}{each.mean * unit:>12,.4g}  {span}"
    if found.unknown:
        yield f"{found.unknown} of its places were never used in this log: what was believed of them widens the interval"
    if found.refused:
        yield f"{found.refused:,} requests would have been refused"


def _json(replayed: Replayed, found: WhatIf | None) -> str:
    document = {"replay": asdict(replayed), "estimate": None if found is None else asdict(found)}
    return json.dumps(document, indent=1) + "\n"
