"""The proof in a few seconds, on a small model: every single cut, the pairs that aim at the journal, and the scenarios.

On four boards: one that takes the model as it is, one that takes it compressed, one where another model gives way, and one with a
single slot; and models that are told to go.

`python -m prove.sample` prints the first fault and exits 1; 0 when there is none. The mutants are judged by it.
"""

import random
import sys
from collections.abc import Iterator

from gatewayd.sim.flash import FlashFault, Tear
from prove.cuts import Counts, Cut, Kind, every_cut
from prove.device import Geometry
from prove.drops import cut_drops
from prove.scenarios import SCENARIOS
from prove.unbrickable import random_pairs, tally
from prove.world import base_of, run

SMALL = Geometry(page_bytes=1024, chunk_bytes=1024, slot_bytes=8192)
SMALL_DEFLATE = Geometry(page_bytes=1024, chunk_bytes=1024, slot_bytes=12_288, deflate_bits=10)
SMALL_DROPS = Geometry(page_bytes=1024, chunk_bytes=1024, slot_bytes=8192, drops=True)
SMALL_ONE_SLOT = Geometry(page_bytes=1024, chunk_bytes=1024, slot_bytes=8192, slot_count=1)
MODEL_BYTES = 5_000
PAIRS = 300
SEED = 7


def faults() -> Iterator[str]:
    """Yield what is wrong, the cheapest to find first."""
    try:
        yield from _on(SMALL)
        yield from _on(SMALL_DEFLATE)
        yield from cut_drops(SMALL).faults
        for plans in (singles, aimed, pairs):
            base = base_of(SMALL_DROPS, MODEL_BYTES)
            yield from tally(base, plans(run(base, ()).counts), then_next=plans is not pairs).faults
        base = base_of(SMALL_DEFLATE, MODEL_BYTES)
        served = [(cut,) for cut in every_cut(run(base, (), service=True).counts) if cut.kind is not Kind.FLASH]
        yield from tally(base, served, then_next=True, service=True).faults
        alone = base_of(SMALL_ONE_SLOT, MODEL_BYTES)
        counts = run(alone, ()).counts
        yield from tally(alone, singles(counts) + pairs(counts), then_next=True).faults
    except (AssertionError, FlashFault) as error:
        yield str(error)


def _on(geometry: Geometry) -> Iterator[str]:
    base = base_of(geometry, MODEL_BYTES)
    for scenario in SCENARIOS:
        yield from (f"{scenario.__name__}: {fault}" for fault in scenario(base))
    counts = run(base, ()).counts
    for plans, then_next in ((singles(counts), True), (aimed(counts), True), (pairs(counts), False)):
        yield from tally(base, plans, then_next=then_next).faults


def singles(counts: Counts) -> list[tuple[Cut, ...]]:
    """Every single cut."""
    return [(cut,) for cut in every_cut(counts)]


def aimed(counts: Counts) -> list[tuple[Cut, ...]]:
    """Pairs about the journal: a cut where the new model takes over, then a rotten copy; a rotten copy, then a torn repair."""
    last = range(max(0, counts.flash - 20), counts.flash)
    kinds = (Kind.ROT_0, Kind.ROT_1)
    torn: list[tuple[Cut, ...]] = [
        (Cut(Kind.FLASH, at, Tear.HALF), Cut(kind, after)) for at in last for kind in kinds for after in range(4)
    ]
    messages = range(counts.messages)
    return torn + [(Cut(kind, at), Cut(Kind.FLASH, after)) for at in messages for kind in kinds for after in range(4)]


def pairs(counts: Counts) -> list[tuple[Cut, ...]]:
    """Some random pairs of cuts."""
    return list(random_pairs(counts, random.Random(SEED), PAIRS))  # noqa: S311 - to be run again


def main() -> int:
    """Print the first fault, if there is one."""
    first = next(faults(), None)
    print(first or "no fault")
    return 0 if first is None else 1


if __name__ == "__main__":
    sys.exit(main())
