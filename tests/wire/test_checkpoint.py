import json
import zlib
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.budget import Allowance
from gatewayd.core.damping import USUAL, Damping
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.learned import Learned
from gatewayd.core.ledger import Ledger, LedgerRules, Missed, Room
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.rates import Rate
from gatewayd.core.renting import PushPrice
from gatewayd.wire.checkpoint import MAX_TEXT_BYTES, BrokenCheckpoint, decode_learned, encode_learned

numbers = st.floats(0, 1e12).map(lambda number: float(f"{number:.6g}"))
estimates = st.builds(Estimate, numbers, numbers, st.integers(0, 20).map(float))
devices = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True).map(DeviceId)
digests = st.integers(0, 9).map(lambda number: Digest(f"{number:064x}"))
learned = st.builds(
    Learned,
    st.lists(st.tuples(devices, digests, estimates, estimates), max_size=5).map(tuple),
    st.lists(st.tuples(digests, estimates), max_size=5).map(tuple),
    st.lists(st.tuples(devices, st.builds(LinkEstimate, estimates, estimates, estimates)), max_size=5).map(tuple),
    st.lists(st.tuples(devices, st.integers(0, 9), estimates), max_size=5).map(tuple),
)


@given(learned)
def test_what_was_learned_comes_back(value: Learned) -> None:
    assert decode_learned(encode_learned(value)) == value


@given(st.binary(max_size=300) | st.binary(max_size=300).map(zlib.compress))
def test_any_bytes_are_a_checkpoint_or_the_one_error(content: bytes) -> None:
    with pytest.raises(BrokenCheckpoint):
        decode_learned(content)


PRICE = PushPrice(100.0, 2.5, 7.0)


@given(st.lists(st.tuples(devices, st.integers(0, 2000), st.integers(0, 500)), max_size=12), st.booleans())
def test_the_book_of_rent_comes_back(asked: list[tuple[DeviceId, int, int]], is_limited: bool) -> None:  # noqa: FBT001 - a fact of the case
    ledger = Ledger(LedgerRules(air=Allowance(0.5, 30.0) if is_limited else Allowance()))
    now_s, model = 0.0, ModelName("a")
    for turn, (device, gap_s, saving) in enumerate(asked):
        now_s += gap_s
        pair = (device, model, turn % 3 + 1)
        missed = Missed(pair, float(saving), 0.0, -1.0, PRICE, Room(2, ()))
        if ledger.missed(missed, now_s=now_s).is_push:
            ledger.started(pair, PRICE, now_s=now_s)
            ledger.ended(pair, PRICE, is_there=turn % 2 == 0, now_s=now_s)
        if turn % 4 == 0:
            ledger.expect(pair, per_s=0.25, until_s=inf, saving=3.0)
    pending = tuple((pair, PRICE) for pair, _ in ledger.kept().pairs[:2])
    orders = tuple((pair, 5.0, 0.25) for pair, _ in ledger.kept().pairs[1:])
    dampings = tuple((device, Damping().came(at_s, USUAL)) for device, at_s, _ in asked)
    kept = replace(ledger.kept(), pending=pending, orders=orders, dampings=dampings)
    found = decode_learned(encode_learned(Learned(kept=kept, at_s=now_s, at=1.5e9)))
    assert found.at == 1.5e9
    again = decode_learned(encode_learned(replace(found, at_s=0.0)))
    assert again == found  # what was rounded once stays
    moved = kept.moved(-now_s)
    assert found.kept.not_before == moved.not_before
    for (model, mine_of_all), (other_model, theirs_of_all) in zip(found.kept.pool, moved.pool, strict=True):
        assert (model, mine_of_all.devices) == (other_model, theirs_of_all.devices)
        assert mine_of_all.device_s == pytest.approx(theirs_of_all.device_s, abs=1e-3)
        assert mine_of_all.at_s == pytest.approx(theirs_of_all.at_s, abs=1e-3)
    for (pair, mine), (other, theirs) in zip(found.kept.pairs, moved.pairs, strict=True):
        assert (pair, mine.requests, mine.ordered_until_s) == (other, theirs.requests, theirs.ordered_until_s)
        assert mine.saved_missed == pytest.approx(theirs.saved_missed, abs=1e-3)
        assert mine.rate.ordered == pytest.approx(theirs.rate.ordered, rel=1e-5)
    assert [each.device for each in found.kept.devices] == [each.device for each in moved.devices]
    versions = [[(there.model, there.version) for there in each.residents] for each in found.kept.devices]
    assert versions == [[(there.model, there.version) for there in each.residents] for each in moved.devices]
    assert (found.kept.pending, found.kept.orders, found.kept.dampings) == (moved.pending, moved.orders, moved.dampings)


def test_what_an_earlier_gatewayd_kept_is_read() -> None:
    """It knew gaps and their squares, and one rate for all devices, which says nothing without how long they were silent."""
    row = ["d", "a", 1, 5.0, 5.0, 1.0, 3, 0, None, -100.0, 10.0, 100.0, 1900.0, -7.0]
    text = json.dumps({**EMPTY, "rent": [row], "pool": [["a", 10.0, 100.0, 1900.0, None]]})
    kept = decode_learned(zlib.compress(text.encode())).kept
    ((_, balance),) = kept.pairs
    assert (balance.rate.count, balance.rate.gaps_s, balance.rate.last_s) == (10.0, 100.0, -7.0)
    assert balance.rate.bursts == pytest.approx(10.0 / 0.9, rel=0.2)
    assert kept.pool == ()


def test_an_order_as_an_earlier_gatewayd_kept_it_is_read() -> None:
    row = ["d", "a", 1, 5.0, 5.0, 1.0, 3, 0, "inf", -100.0, "inf", 4.0, 0.0, -7.0, 0.0]
    there = ["a", 10.0, 5.0, -50.0, -7.0, 0.0, 1.0, 0.0, "inf"]
    text = json.dumps({**EMPTY, "rent": [row], "held": [["d", [there], None, None]]})
    kept = decode_learned(zlib.compress(text.encode())).kept
    ((_, balance),) = kept.pairs
    assert (balance.rate, balance.ordered_until_s) == (Rate(last_s=-7.0, ordered=0.25), inf)
    assert [each.version for each in kept.devices[0].residents] == [0]


EMPTY = {"checkpoint": 1, "pairs": [], "node": [], "links": [], "samples": [], "digests": []}


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": 2}, {"pairs": None}, {"digests": ["x"]}, {"node": [[0, [1, 1, 1]]]}, {"samples": [["d", -1, [1, 1, 1]]]},
        {"samples": [["../d", 0, [1, 1, 1]]]}, {"samples": [["d", 0, [1, 1]]]}, {"samples": [["d", 0, [1, -1, 1]]]},
        {"samples": [["d", 0, [1, float("nan"), 1]]]}, {"links": [["d", [1, 1, 1]]]}, {"samples": [0] * 50_001},
        {"pairs": [["d", True, [1, 1, 1], [1, 1, 1]]]}, {"rent": [["d", "a", 1]]}, {"rent": [[0] * 5] * 50_001},
        {"rent": [["d", "a", 1, 1, 1, 1, -1, 0, None, None, 0, 0, 0, None]]}, {"not_before": [["d", "a", 1, "inf"]]},
        {"fleets": [["a", 2, 0, 0, "inf", 0, None]]}, {"fleets": [["a", -2, 0, 0, 0, 0, None]]}, {"fleets": [["a", 2, 0]]},
        {"held": [["d", [["a", 1, 2, 0, 0, 0, "inf", 0, "inf"]], None, None]]}, {"held": [["d", [], [1], None]]},
        {"pending": [["d", "a", 1, 1, 1, -1]]}, {"orders": [["d", "a", 1, "inf", 1]]}, {"at": -1}, {"at": True},
        {"dampings": [["d", [0] * 1001, 1, 1, 1]]}, {"dampings": [["d", [], 1, 1e31, 1]]}, {"held": [["d", [], None]]},
    ],
)  # fmt: skip
def test_what_is_wrong_in_it_is_found(change: dict[str, object]) -> None:
    assert decode_learned(zlib.compress(json.dumps(EMPTY).encode())) == Learned()
    with pytest.raises(BrokenCheckpoint):
        decode_learned(zlib.compress(json.dumps({**EMPTY, **change}).encode()))


def test_a_file_that_says_little_and_means_much_is_not_unpacked() -> None:
    with pytest.raises(BrokenCheckpoint, match="too large"):
        decode_learned(zlib.compress(b" " * (MAX_TEXT_BYTES + 1)))
