"""`make prove-unbrickable`: a push cut everywhere, on both sides, and twice; then what must hold is counted.

Every flash operation torn in four ways, every message, every commit of the gateway: one cut each, exhaustively, on two
boards; then seeded random pairs of cuts. Writes build/bench/unbrickable.json; exits 0 when it ran, 1 when a goal is missed.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from gatewayd.sim.flash import Tear
from prove.cuts import RESUMABLE, Counts, Cut, Kind, every_cut
from prove.device import Geometry
from prove.report import Figures, write_report
from prove.world import NEW, Base, base_of, run

BOARDS = {
    "1 KB pages, 1 KB chunks": (Geometry(page_bytes=1024, chunk_bytes=1024, slot_bytes=65_536), 0.1),
    "4 KB pages, 4 KB chunks": (Geometry(page_bytes=4096, chunk_bytes=4096, slot_bytes=65_536), 0.9),
}
"""Each with its share of the pairs: a run on the first one takes four times as long."""
PAIRS = 100_000
_BATCH = 250
_SHOWN = 5_000
_RECOVERY = 40
"""Half of the second cuts fall this soon after the first: while both sides recover from it."""


@dataclass(slots=True)
class Tally:
    """What many runs came to."""

    runs: int = 0
    ended_new: int = 0
    ended_old: int = 0
    misjudged: int = 0
    most_resent: int = 0
    longest_s: float = 0.0
    by_kind: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count another tally's runs too."""
        self.runs += other.runs
        self.ended_new += other.ended_new
        self.ended_old += other.ended_old
        self.misjudged += other.misjudged
        self.most_resent = max(self.most_resent, other.most_resent)
        self.longest_s = max(self.longest_s, other.longest_s)
        self.by_kind += other.by_kind
        self.faults += other.faults


def tally_on(geometry: Geometry, plans: Sequence[Sequence[Cut]], *, then_next: bool) -> Tally:
    """Run each plan on a board; what another process is told to do."""
    return tally(base_of(geometry), plans, then_next=then_next)


def tally(base: Base, plans: Sequence[Sequence[Cut]], *, then_next: bool) -> Tally:
    """Run each plan of cuts from the same start."""
    result = Tally()
    for cuts in plans:
        outcome = run(base, cuts, then_next=then_next)
        result.runs += 1
        result.ended_new += outcome.version == NEW
        result.misjudged += outcome.is_misjudged
        result.ended_old += 0 < outcome.version < NEW
        result.most_resent = max(result.most_resent, outcome.resent_chunks - max(0, outcome.fired - 1))
        result.longest_s = max(result.longest_s, outcome.elapsed_s)
        result.by_kind[cuts[0].kind.name] += 1
        if len(cuts) == 1 and cuts[0].kind in RESUMABLE and outcome.version != NEW:
            outcome.faults.append("gave up after a single cut")
        plan = " then ".join(map(str, cuts))
        result.faults += [f"page {base.geometry.page_bytes}: {plan}: {fault}" for fault in outcome.faults]
    return result


def random_pairs(counts: Counts, generator: random.Random, number: int) -> Iterator[tuple[Cut, Cut]]:
    """Yield pairs of cuts: any kind anywhere, then any kind soon after or anywhere."""
    kinds = [kind for kind in Kind for _ in range(4 if kind is Kind.FLASH else 1)]
    for _ in range(number):
        first, second = generator.choice(kinds), generator.choice(kinds)
        below = counts.of(second) if generator.random() < 0.5 else min(_RECOVERY, counts.of(second))  # noqa: PLR2004 - half
        yield (
            Cut(first, generator.randrange(counts.of(first)), generator.choice(list(Tear))),
            Cut(second, generator.randrange(below), generator.choice(list(Tear))),
        )


def batches(plans: Iterable[Sequence[Cut]]) -> Iterator[list[Sequence[Cut]]]:
    """Cut the plans into pieces of work."""
    rest = iter(plans)
    while piece := list(islice(rest, _BATCH)):
        yield piece


def prove(pool: ProcessPoolExecutor, *, pairs: int, seed: int) -> tuple[Tally, Tally]:
    """Run all single cuts, then the pairs; return both tallies."""
    single, double = Tally(), Tally()
    for name, (geometry, share) in BOARDS.items():
        counts = run(base_of(geometry), ()).counts
        plans = [(cut,) for cut in every_cut(counts)]
        print(
            f"{name}: {counts.flash} flash operations, {counts.messages} messages, {counts.commits} commits", flush=True
        )
        found = Tally()
        for future in [pool.submit(tally_on, geometry, batch, then_next=True) for batch in batches(plans)]:
            found.add(future.result())
        print(f"  {found.runs} single cuts, each: {_said(found)}", flush=True)
        single.add(found)
        board_pairs = random_pairs(counts, random.Random(f"{seed}/{name}"), round(pairs * share))  # noqa: S311 - a replay
        found = Tally()
        for future in [pool.submit(tally_on, geometry, batch, then_next=False) for batch in batches(board_pairs)]:
            found.add(future.result())
            if found.runs % _SHOWN == 0:
                print(f"  … {found.runs} pairs of cuts, {len(found.faults)} faults", flush=True)
        print(f"  {found.runs} pairs of cuts, seed '{seed}/{name}': {_said(found)}", flush=True)
        double.add(found)
    return single, double


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proof; print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seed", type=int, default=20_260)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args(argv)
    start_s = time.monotonic()
    with ProcessPoolExecutor(arguments.processes) as pool:
        single, double = prove(pool, pairs=arguments.pairs, seed=arguments.seed)
    faults = single.faults + double.faults
    for fault in faults[:20]:
        print(f"FAULT {fault}")
    figures: Figures = {
        "single_cuts": single.runs,
        "double_cuts": double.runs,
        "ended_on_new": single.ended_new + double.ended_new,
        "ended_on_old": single.ended_old + double.ended_old,
        "faults": len(faults),
        "ended_on_new_but_called_failed": single.misjudged + double.misjudged,
        "most_chunks_resent_per_cut": max(single.most_resent, double.most_resent),
        "longest_push_simulated_s": round(max(single.longest_s, double.longest_s), 1),
        "cpu_s": round(sum(os.times()[:4]), 1),
        "wall_s": round(time.monotonic() - start_s, 1),
        **{f"single_{kind.lower()}": count for kind, count in sorted(single.by_kind.items())},
    }
    runs = single.runs + double.runs
    goals = {
        "faults": ("==", 0),
        "ended_on_new_or_old": ("==", runs),
        "most_chunks_resent_per_cut": ("<=", 1),
        "double_cuts": (">=", PAIRS),
        "wall_s": ("<=", 900),
    }
    figures["ended_on_new_or_old"] = figures["ended_on_new"] + figures["ended_on_old"]
    return 0 if write_report("unbrickable", figures, goals) else 1


def _said(found: Tally) -> str:
    ends = f"{found.ended_new} ended on the new model, {found.ended_old} on the old"
    return f"{ends}, {len(found.faults)} faults, at most {found.most_resent} chunk sent again per cut"


if __name__ == "__main__":
    sys.exit(main())
