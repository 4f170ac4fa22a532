from collections.abc import Sequence
from time import monotonic

from gatewayd.worker.awake import Awake


class _Asked:
    """Has something from the n-th question on; takes its time over each."""

    def __init__(self, *, ready_at: int, takes_s: float = 0.0) -> None:
        self.times = 0
        self._ready_at = ready_at
        self._takes_s = takes_s

    def __call__(self, timeout_s: float) -> Sequence[str]:
        assert timeout_s == 0, "waiting awake never sleeps"
        self.times += 1
        until_s = monotonic() + self._takes_s
        while monotonic() < until_s:
            pass
        return ["event"] if self.times >= self._ready_at else []


def test_what_comes_is_returned_at_once() -> None:
    asked = _Asked(ready_at=3)
    assert Awake(pushed_off_s=60).wait(asked, monotonic() + 60) == ["event"]
    assert asked.times == 3


def test_nothing_comes_in_time() -> None:
    asked = _Asked(ready_at=10**9)
    until_s = monotonic() + 0.002
    assert not Awake(pushed_off_s=60).wait(asked, until_s)
    assert monotonic() >= until_s
    assert asked.times >= 1


def test_a_time_that_has_passed_is_not_waited_for() -> None:
    asked = _Asked(ready_at=1)
    assert not Awake().wait(asked, monotonic() - 1)
    assert asked.times == 0


def test_who_is_pushed_off_its_processor_sleeps_for_a_while() -> None:
    awake, pushed_off = Awake(), _Asked(ready_at=10, takes_s=0.005)
    assert not awake.wait(pushed_off, monotonic() + 60)
    assert pushed_off.times == 1
    asked = _Asked(ready_at=1)
    assert not awake.wait(asked, monotonic() + 60), "somebody else needs the processor"
    assert asked.times == 0


def test_after_the_rest_it_waits_awake_again() -> None:
    awake = Awake()
    awake.wait(_Asked(ready_at=10, takes_s=0.005), monotonic() + 60)
    until_s, found = monotonic() + 20, False
    while not found and monotonic() < until_s:
        found = bool(awake.wait(_Asked(ready_at=1), monotonic() + 60))
    assert found
