"""A small version of `make bench-replay`."""

from bench.replay import POLICIES, coverage, decisions
from gatewayd.core.replay import Logged, decided_again, difference
from gatewayd.wire.decisionlog import LogWriter, read_log


def test_every_kind_of_decision_is_decided_again_to_the_last_bit() -> None:
    writer = LogWriter("test")
    lines = [writer.header()]
    for decision in decisions(1500):
        lines += writer.lines(decision)
    found = list(read_log(line.encode() for line in lines))
    assert len(found) == 1500
    assert [each for each in found if not isinstance(each, Logged) or difference(each, decided_again(each))] == []


def test_the_interval_of_another_policy_holds_what_it_would_really_cost() -> None:
    found = coverage(range(12), requests=120)
    assert set(found) == set(POLICIES)
    covered = [share for share, _ in found.values()]
    assert sum(covered) / len(covered) >= 0.9
    assert min(covered) >= 0.75
