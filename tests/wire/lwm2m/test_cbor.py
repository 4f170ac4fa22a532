"""Our bounded reader of CBOR beside an independent one, and what it refuses."""

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.wire.lwm2m.cbor import MAX_DEPTH, Item, read_cbor

keys = st.integers(0, 2**64 - 1) | st.text(max_size=8)
items: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None)
@given(items, st.booleans())
def test_cbor_is_read_as_an_independent_reader_reads_it(item: Item, canonical: bool) -> None:  # noqa: FBT001 - drawn
    assert read_cbor(cbor2.dumps(item, canonical=canonical)) == item


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_that_both_readers_take_are_the_same(payload: bytes) -> None:
    try:
        ours = read_cbor(payload)
    except BadRequest:
        return
    if payload[0] >> 5 == 6 or b"\xf7" in payload or any(each >> 5 == 6 for each in payload):
        return  # tags are looked through here, and undefined is null
    theirs = cbor2.loads(payload)
    assert repr(ours) == repr(theirs) or ours == theirs or "nan" in repr(ours)


@pytest.mark.parametrize(
    "octets",
    ["", "18", "1f", "5b ffffffffffffffff", "9b ffffffffffffffff", "bb ffffffffffffffff", "a1 00", "a2 00 01 00 02", "ff", "9f",
     "bf 00 ff", "5f 61 41 ff", "5f 5f ff ff", "7f 61 41", "62 ff ff", "1c", "fc", "f8 20", "f0", "00 00", "a1 a0 00",
     "a1 f4 00", "a1 81 f4 00", "c2 49 010000000000000000", "c4 82 01 61 41", "c4 82 1a 7fffffff 01", "c4 81 01",
     "c4 82 19 0140 1b ffffffffffffffff", "df"],
)  # fmt: skip
def test_cbor_that_is_none_is_refused(octets: str) -> None:
    with pytest.raises(BadRequest, match="CBOR"):
        read_cbor(bytes.fromhex(octets))


@pytest.mark.parametrize("head", [b"\x81", b"\x9f", b"\xa1\x00", b"\xbf\x00", b"\xc1"])
def test_cbor_nested_too_deep_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest, match=f"deeper than {MAX_DEPTH}"):
        read_cbor(head * 5000 + b"\x00")


def test_cbor_of_too_many_items_is_refused() -> None:
    with pytest.raises(BadRequest, match="items"):
        read_cbor(b"\x9f" + b"\x00" * 20_000 + b"\xff")
    with pytest.raises(BadRequest, match="items"):
        read_cbor(b"\x5f" + b"\x40" * 20_000 + b"\xff")


def test_numbers_in_tags() -> None:
    assert read_cbor(bytes.fromhex("c2 42 0100")) == 256
    assert read_cbor(bytes.fromhex("c3 41 ff")) == -256
    assert read_cbor(bytes.fromhex("c4 82 21 19 6ab3")) == 273.15
    assert read_cbor(bytes.fromhex("c5 82 20 03")) == 1.5
    assert read_cbor(bytes.fromhex("c1 1a 514b67b0")) == 1363896240
