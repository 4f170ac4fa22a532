"""`make prove-unbrickable`: a push cut everywhere, on both sides, and twice; then what must hold is counted.

Every flash operation torn in four ways, every message, every commit of the gateway: one cut each, exhaustively, on five
boards, two of which are pushed to compressed, and one where another model gives way; then seeded random pairs of cuts. A sixth
board has one slot: it may be left without a model, but never with a mixed one, and never so that the next push does not get
through. Two boards are pushed to by the real service, too, and two are told to drop a model. Writes
build/bench/unbrickable.json; exits 0 when it ran, 1 when a goal is missed.
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
from functools import partial
from itertools import islice

from bench.common import Report
from gatewayd.sim.flash import Tear
from prove.cuts import RESUMABLE, Counts, Cut, Kind, every_cut
from prove.device import Geometry
from prove.drops import DropTally, cut_drops
from prove.models import NEW
from prove.outcome import Base
from prove.world import base_of, run

BOARDS = {
    "1 KB pages, 1 KB chunks": (Geometry(page_bytes=1024, chunk_bytes=1024, slot_bytes=65_536), 0.1),
    "4 KB pages, 4 KB chunks": (Geometry(page_bytes=4096, chunk_bytes=4096, slot_bytes=65_536), 0.65),
    "1 KB pages, deflate": (Geometry(1024, 1024, slot_bytes=131_072, deflate_bits=12), 0.05),
    "4 KB pages, deflate": (Geometry(4096, 4096, slot_bytes=131_072, deflate_bits=12), 0.17),
    "4 KB pages, another model gives way": (Geometry(4096, 4096, slot_bytes=65_536, drops=True), 0.03),
}
"""Each with its share of the pairs: a run with small pages takes four times as long."""
ONE_SLOT = Geometry(page_bytes=4096, chunk_bytes=4096, slot_bytes=65_536, slot_count=1)
_ONE_SLOT_SHARE = 0.02
_SERVICE_BOARDS, _SERVICE_SHARE = ("4 KB pages, 4 KB chunks", "4 KB pages, deflate"), 0.01
"""Driven by the real service as well: all single cuts, and a few of the pairs, as one takes ten times as long."""
_DROP_BOARDS = ("1 KB pages, 1 KB chunks", "4 KB pages, 4 KB chunks")
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
    ended_without: int = 0
    corrected: int = 0
    most_resent: int = 0
    longest_s: float = 0.0
    by_kind: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count another tally's runs too."""
        self.runs += other.runs
        self.ended_new += other.ended_new
        self.ended_old += other.ended_old
        self.ended_without += other.ended_without
        self.corrected += other.corrected
        self.most_resent = max(self.most_resent, other.most_resent)
        self.longest_s = max(self.longest_s, other.longest_s)
        self.by_kind += other.by_kind
        self.faults += other.faults


def tally_on(geometry: Geometry, plans: Sequence[Sequence[Cut]], *, then_next: bool, service: bool = False) -> Tally:
    """Run each plan on a board; what another process is told to do."""
    return tally(base_of(geometry), plans, then_next=then_next, service=service)


def tally(base: Base, plans: Sequence[Sequence[Cut]], *, then_next: bool, service: bool = False) -> Tally:
    """Run each plan of cuts from the same start; `service`: against the real service."""
    result = Tally()
    for cuts in plans:
        outcome = run(base, cuts, then_next=then_next, service=service)
        result.runs += 1
        result.ended_new += outcome.version == NEW
        result.ended_without += outcome.version == 0 and not outcome.faults
        result.corrected += outcome.is_corrected
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


def on_board(
    pool: ProcessPoolExecutor, name: str, geometry: Geometry, *, pairs: int, seed: int, service: bool = False
) -> tuple[Tally, Tally]:
    """Run all single cuts of a board, then its pairs; return both tallies."""
    counts = run(base_of(geometry), (), service=service).counts
    print(f"{name}: {counts.flash} flash operations, {counts.messages} messages, {counts.commits} commits", flush=True)
    singles = [(cut,) for cut in every_cut(counts)]
    single = _tallied(pool, geometry, singles, then_next=True, service=service)
    print(f"  {single.runs} single cuts, each: {_said(single)}", flush=True)
    # Where a model may be lost, the next push has to follow every time.
    doubles = random_pairs(counts, random.Random(f"{seed}/{name}"), pairs)  # noqa: S311 - a replay
    double = _tallied(pool, geometry, doubles, then_next=geometry.slot_count == 1, service=service)
    print(f"  {double.runs} pairs of cuts, seed '{seed}/{name}': {_said(double)}", flush=True)
    return single, double


def _tallied(
    pool: ProcessPoolExecutor, geometry: Geometry, plans: Iterable[Sequence[Cut]], *, then_next: bool, service: bool
) -> Tally:
    found, work = Tally(), partial(tally_on, geometry, then_next=then_next, service=service)
    for future in [pool.submit(work, batch) for batch in batches(plans)]:
        found.add(future.result())
        if found.runs % _SHOWN == 0:
            print(f"  … {found.runs}, {len(found.faults)} faults", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proof; print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seed", type=int, default=20_260)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args(argv)
    start_s = time.monotonic()
    single, double = Tally(), Tally()
    with ProcessPoolExecutor(arguments.processes) as pool:
        for name, (geometry, share) in BOARDS.items():
            found = on_board(pool, name, geometry, pairs=round(arguments.pairs * share), seed=arguments.seed)
            single.add(found[0])
            double.add(found[1])
        few = round(arguments.pairs * _ONE_SLOT_SHARE)
        alone, twice = on_board(pool, "one slot", ONE_SLOT, pairs=few, seed=arguments.seed)
        service = Tally()
        for name in _SERVICE_BOARDS:
            few = round(arguments.pairs * _SERVICE_SHARE)
            label, geometry = f"{name}, real service", BOARDS[name][0]
            for part in on_board(pool, label, geometry, pairs=few, seed=arguments.seed, service=True):
                service.add(part)
    dropped = DropTally()
    for geometry in (BOARDS[name][0] for name in _DROP_BOARDS):
        drops = cut_drops(geometry)
        print(f"drops, page {geometry.page_bytes}: {drops.runs} runs, {len(drops.faults)} faults", flush=True)
        dropped.runs += drops.runs
        dropped.faults += drops.faults
    alone.add(twice)
    for fault in (single.faults + double.faults + alone.faults + service.faults + dropped.faults)[:20]:
        print(f"FAULT {fault}")
    report = Report("unbrickable")
    _add_figures(report, single, double, alone)
    report.add("service_cuts", service.runs)
    report.add("service_ended_on_new_or_old", service.ended_new + service.ended_old, ("==", service.runs))
    report.add("service_most_chunks_resent_per_cut", service.most_resent, ("<=", 1))
    report.add("service_faults", len(service.faults), ("==", 0))
    report.add("drop_cuts", dropped.runs)
    report.add("drop_faults", len(dropped.faults), ("==", 0))
    report.add("cpu_s", sum(os.times()[:4]))
    report.add("wall_s", time.monotonic() - start_s, ("<=", 900))
    return 0 if report.finish() else 1


def _add_figures(report: Report, single: Tally, double: Tally, one_slot: Tally) -> None:
    ended_new, ended_old = single.ended_new + double.ended_new, single.ended_old + double.ended_old
    report.add("single_cuts", single.runs)
    report.add("double_cuts", double.runs, (">=", PAIRS))
    report.add("ended_on_new", ended_new)
    report.add("ended_on_old", ended_old)
    report.add("ended_on_new_or_old", ended_new + ended_old, ("==", single.runs + double.runs))
    report.add("faults", len(single.faults) + len(double.faults), ("==", 0))
    report.add("ends_corrected_by_the_device", single.corrected + double.corrected)
    report.add("most_chunks_resent_per_cut", max(single.most_resent, double.most_resent), ("<=", 1))
    report.add("longest_push_simulated_s", max(single.longest_s, double.longest_s))
    for kind, count in sorted(single.by_kind.items()):
        report.add(f"single_{kind.lower()}", count)
    report.add("one_slot_cuts", one_slot.runs)
    report.add("one_slot_left_without_a_model", one_slot.ended_without)
    report.add("one_slot_faults", len(one_slot.faults), ("==", 0))


def _said(found: Tally) -> str:
    ends = f"{found.ended_new} ended on the new model, {found.ended_old} on the old"
    without = f", {found.ended_without} without one" if found.ended_without else ""
    return f"{ends}{without}, {len(found.faults)} faults, at most {found.most_resent} chunk sent again per cut"


if __name__ == "__main__":
    sys.exit(main())
