import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.learned import Learned
from gatewayd.core.names import DeviceId, Digest
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


EMPTY = {"checkpoint": 1, "pairs": [], "node": [], "links": [], "samples": [], "digests": []}


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": 2}, {"pairs": None}, {"digests": ["x"]}, {"node": [[0, [1, 1, 1]]]}, {"samples": [["d", -1, [1, 1, 1]]]},
        {"samples": [["../d", 0, [1, 1, 1]]]}, {"samples": [["d", 0, [1, 1]]]}, {"samples": [["d", 0, [1, -1, 1]]]},
        {"samples": [["d", 0, [1, float("nan"), 1]]]}, {"links": [["d", [1, 1, 1]]]}, {"samples": [0] * 50_001},
        {"pairs": [["d", True, [1, 1, 1], [1, 1, 1]]]},
    ],
)  # fmt: skip
def test_what_is_wrong_in_it_is_found(change: dict[str, object]) -> None:
    assert decode_learned(zlib.compress(json.dumps(EMPTY).encode())) == Learned()
    with pytest.raises(BrokenCheckpoint):
        decode_learned(zlib.compress(json.dumps({**EMPTY, **change}).encode()))


def test_a_file_that_says_little_and_means_much_is_not_unpacked() -> None:
    with pytest.raises(BrokenCheckpoint, match="too large"):
        decode_learned(zlib.compress(b" " * (MAX_TEXT_BYTES + 1)))
