"""The short version of `make prove-unbrickable` and `make prove-mutants`."""

import pytest

from prove.cuts import Counts, Cut, Kind, every_cut
from prove.device import Geometry
from prove.models import NEW, OLD
from prove.mutants import MUTANTS, ROOT, Mutant, verdict
from prove.sample import MODEL_BYTES, SMALL, faults
from prove.world import base_of, run


def test_no_cut_leaves_a_device_without_a_model() -> None:
    assert list(faults()) == []


def test_every_cut_counts_what_there_is_to_cut() -> None:
    counts = Counts(flash=3, messages=5, commits=2)
    cuts = every_cut(counts)
    assert len(cuts) == 3 * 4 + 5 * (len(Kind) - 3) + 2 * 2
    assert len(set(cuts)) == len(cuts)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_cut_happens(kind: Kind) -> None:
    outcome = run(base_of(SMALL, MODEL_BYTES), (Cut(kind, 5),))
    assert outcome.fired == 1
    assert outcome.version in {OLD, NEW}


def test_a_push_without_a_cut_sends_nothing_twice() -> None:
    outcome = run(base_of(SMALL, MODEL_BYTES), ())
    assert (outcome.version, outcome.fired, outcome.resent_chunks) == (NEW, 0, 0)


def test_big_pages_and_small_chunks_end_well_too() -> None:
    """A device that stages in pages of four chunks may ask for a page again."""
    base = base_of(Geometry(page_bytes=4096, chunk_bytes=1024, slot_bytes=8192), MODEL_BYTES)
    outcome = run(base, (Cut(Kind.POWER, 6),))
    assert outcome.version == NEW


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_a_mutants_text_is_in_the_source(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.old) == 1


def test_there_are_enough_mutants_of_rules_of_their_own() -> None:
    assert len({mutant.rule for mutant in MUTANTS}) == len(MUTANTS) >= 12


@pytest.mark.parametrize("mutant", MUTANTS[::6], ids=lambda mutant: mutant.rule)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    assert verdict(mutant)
