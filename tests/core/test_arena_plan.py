import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.arena_plan import Need, offsets, planned_bytes


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ([], []),
        ([Need(64, 0, 1)], [0]),
        ([Need(64, 0, 1), Need(32, 2, 3)], [0, 0]),
        ([Need(64, 0, 1), Need(32, 1, 2)], [0, 64]),
        ([Need(32, 0, 1), Need(64, 1, 2), Need(32, 2, 3)], [64, 0, 64]),
        ([Need(32, 0, 2), Need(32, 0, 2)], [32, 0]),  # of two equals the later one goes first, as in the original
        ([Need(96, 0, 5), Need(64, 0, 1), Need(32, 4, 5), Need(32, 1, 4)], [0, 96, 96, 160]),
        ([Need(16, -1, -1), Need(64, 0, 1)], [0, 0]),  # what nobody uses shares its place with everything
    ],
)
def test_the_largest_first_at_the_lowest_free_place(needs: list[Need], expected: list[int]) -> None:
    assert offsets(needs) == expected


NEEDS = st.builds(
    lambda size, first, length: Need(16 * size, first, first + length),
    st.integers(1, 20),
    st.integers(0, 8),
    st.integers(0, 5),
)


@given(st.lists(NEEDS, max_size=12))
def test_what_is_in_use_together_never_overlaps(needs: list[Need]) -> None:
    found = offsets(needs)
    for index, need in enumerate(needs):
        for other in range(index):
            if need.meets(needs[other]):
                apart = found[index] >= found[other] + needs[other].byte_count
                assert apart or found[other] >= found[index] + need.byte_count


@given(st.lists(NEEDS, max_size=12))
def test_the_block_holds_the_busiest_moment_and_no_more_than_everything(needs: list[Need]) -> None:
    moments = range(14)
    busiest = max((sum(n.byte_count for n in needs if n.first <= at <= n.last) for at in moments), default=0)
    assert busiest <= planned_bytes(needs) <= sum(need.byte_count for need in needs)
