"""The short version of `make prove-bits`."""

from prove.bits import digest_faults, small_faults


def test_a_flipped_bit_is_refused_at_both_ends() -> None:
    found = list(small_faults(every=61))
    assert len(found) > 200
    assert [fault for fault in found if fault] == []


def test_a_flipped_bit_changes_the_digest_of_a_big_artifact() -> None:
    assert digest_faults(1_000, 1_003) == 0
