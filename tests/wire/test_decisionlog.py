import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.decision import Decision
from gatewayd.core.names import RequestId
from gatewayd.core.placement import place
from gatewayd.core.replay import Logged, decided_again, difference
from gatewayd.core.request import NODE, Measured, Target
from gatewayd.wire.decisionlog import MAX_FACTS, MAX_LINE_BYTES, LogWriter, Unreadable, read_log
from tests.core.test_placement import BY_REFERENCE, CAM, CAM_FACTS, NODE_FACTS, nodes, others, questions, sources

MEASURED = Measured(0.1 + 0.2, 1e-17, 0.05, 1 / 3, 60.000000000000007, 490)


def decision(**changes: object) -> Decision:
    placement = place(BY_REFERENCE, NODE_FACTS, [CAM_FACTS])
    made = Decision(RequestId("r-1"), "kws", 3, placement, (), "served", Target(CAM), MEASURED)
    return replace(made, **changes)  # type: ignore[arg-type]  # fields by name


def lines_of(*decided: Decision) -> list[bytes]:
    writer = LogWriter("edge")
    return [writer.header().encode(), *(line.encode() for each in decided for line in writer.lines(each))]


def test_a_decision_comes_back_as_it_was() -> None:
    (logged,) = read_log(lines_of(decision()))
    assert isinstance(logged, Logged)
    assert (logged.question, logged.node, logged.devices) == (BY_REFERENCE, NODE_FACTS, (CAM_FACTS,))
    assert (logged.model, logged.version, logged.served_by, logged.measured) == ("kws", 3, Target(CAM), MEASURED)
    assert logged.is_first_try


def test_what_was_served_at_a_second_try_or_not_at_all_says_so() -> None:
    first, second = read_log(
        lines_of(decision(attempts=("device: lost",), served_by=NODE), decision(served_by=None, measured=None))
    )
    assert isinstance(first, Logged)
    assert isinstance(second, Logged)
    assert (first.is_first_try, first.served_by) == (False, NODE)
    assert (second.served_by, second.measured) == (None, None)


@given(questions, nodes, sources, others)
@settings(max_examples=150, deadline=None)
def test_any_decision_is_decided_again_to_the_last_bit(question, node, source, others_) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - as the strategies say
    made = decision(placement=place(question, node, [*source, *others_]))
    (logged,) = read_log(lines_of(made))
    assert isinstance(logged, Logged)
    assert difference(logged, decided_again(logged)) == ""
    assert decided_again(logged).ranked == made.placement.ranked


def test_a_changed_bit_is_noticed() -> None:
    lines = lines_of(decision())
    changed = lines[1].replace(b"50.0", b"50.000000000000007")
    assert changed != lines[1]
    (logged,) = read_log([lines[0], changed, *lines[2:]])
    assert isinstance(logged, Logged)
    assert difference(logged, decided_again(logged)).startswith("r-1: logged as ")


def test_facts_are_written_once() -> None:
    lines = lines_of(*[decision()] * 5)
    assert sum(b'"facts"' in line for line in lines) == 1


def test_a_torn_last_line_is_told_and_the_rest_is_read() -> None:
    lines = lines_of(decision(), decision())
    *good, torn = read_log([*lines[:-1], lines[-1][:-20]])
    assert [isinstance(each, Logged) for each in good] == [True]
    assert isinstance(torn, Unreadable)
    assert torn.is_torn


def test_lost_facts_cost_the_decisions_over_them_only() -> None:
    lines = lines_of(decision())
    found = list(read_log([lines[0], lines[2], *lines_of(decision())]))
    assert [isinstance(each, Logged) for each in found] == [False, True]


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"nonsense\n", b"[]\n", b"7\n", b"null\n", b"{}\n", b'{"log": 2, "estimate": []}\n', b"\xff\xfe\n",
        b'{"log": 1, "estimate": ["mean", "mood"]}\n', b'{"facts": 0, "of": []}\n', b'{"facts": true, "of": 3}\n',
        b'{"facts": 0, "of": [NaN]}\n', b"[" * 100_000 + b"\n", b" " * (MAX_LINE_BYTES + 1), b'{"id": 1, "devices": 3}\n',
    ],
)  # fmt: skip
def test_what_is_no_log_is_counted_and_passed_over(line: bytes) -> None:
    header, *rest = lines_of(decision())
    bad, *good = read_log([line, header, *rest])
    assert isinstance(bad, Unreadable)
    assert bad.line == 1
    assert len(good) == 1


@given(st.binary(max_size=200), st.integers(0, 2000))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise(noise: bytes, at: int) -> None:
    content = b"".join(lines_of(decision(), decision()))
    spoilt = content[:at] + noise + content[at + len(noise) :]
    for found in read_log(spoilt.splitlines(keepends=True)):
        assert isinstance(found, Logged | Unreadable)


def test_a_session_ends_before_its_facts_are_too_many() -> None:
    writer = LogWriter("edge")
    lines = [writer.header()]
    for _ in range(MAX_FACTS + 5):
        lines += writer.lines(decision(placement=place(BY_REFERENCE, NODE_FACTS, [replace(CAM_FACTS)])))
    numbers = [json.loads(line)["facts"] for line in lines if line.startswith('{"facts"')]
    assert max(numbers) < MAX_FACTS
    assert sum(line.startswith('{"log"') for line in lines) == 2
    assert sum(isinstance(each, Logged) for each in read_log(line.encode() for line in lines)) == MAX_FACTS + 5
