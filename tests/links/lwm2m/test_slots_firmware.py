"""Pushes to a Firmware Update object (/5) that carries a model."""

from dataclasses import replace

from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.slots import Kind, step
from gatewayd.wire.lwm2m.states import Firmware, FirmwareState
from tests.lwm2m_clients import CHANGED, GOAL

FIRMWARE_GOAL = replace(GOAL, tells_version=False)


def firmware(*steps: terms.Heard, goal: terms.Goal = FIRMWARE_GOAL) -> tuple[terms.Course, list[str], list[str]]:
    """Return where the steps lead, what the engine is told, what is done."""
    course, events, did = terms.Course(goal), [], []
    for at, heard in enumerate(steps):
        turn = step(Kind.FIRMWARE, course, heard, terms.Now(float(at)))
        course = turn.course
        events += [each.phase.value for each in turn.events]
        did += [type(each).__name__ for each in turn.actions]
    return course, events, did


IDLE, DOWNLOADED, UPDATING = (
    terms.Seen(Firmware(FirmwareState(each)))
    for each in (FirmwareState.IDLE, FirmwareState.DOWNLOADED, FirmwareState.UPDATING)
)
ACTIVATE, SENT = terms.ActivateWanted(), terms.TransferEnded(CHANGED)


def test_firmware_that_carries_a_model() -> None:
    done = terms.Seen(Firmware(FirmwareState.IDLE, 1, "kws", "3"))
    course, events, did = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE, UPDATING, done)
    assert course.is_over
    assert events == ["written", "verified", "tested", "trial", "accepted"]
    assert did == ["Look", "WritePackage", "Look", "Install"]


def test_firmware_that_fails_and_stays_where_it_was() -> None:
    for failure in (Firmware(FirmwareState.IDLE, 8), Firmware(FirmwareState.DOWNLOADED, 8)):
        course, events, _ = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE, UPDATING, terms.Seen(failure))
        assert course.is_over
        assert events[-1] == "failed"


def test_firmware_stuck_in_updating_is_failed() -> None:
    course, _, _ = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE, UPDATING)
    turn = step(Kind.FIRMWARE, course, terms.TimePassed(), terms.Now(course.deadline_s))
    assert turn.course.is_over
    assert "stuck" in turn.events[0].reason


def test_firmware_whose_restart_forgot_the_result_is_judged_by_its_version() -> None:
    forgot = terms.Seen(Firmware(FirmwareState.IDLE, 0, "kws", "3"))
    told = replace(FIRMWARE_GOAL, tells_version=True)
    _, events, _ = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE, forgot, goal=told)
    assert events[-1] == "accepted"
    old = terms.Seen(Firmware(FirmwareState.IDLE, 0, "kws", "2"))
    course, events, _ = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE, old, goal=told)
    assert not course.is_over
    assert events[-1] == "tested"


def test_firmware_left_from_before_is_reset_once() -> None:
    course, events, did = firmware(terms.Offered(), DOWNLOADED, IDLE)
    assert (course.stage, did) == (terms.Stage.TRANSFERRING, ["Look", "Reset", "WritePackage"])
    stuck, _, _ = firmware(terms.Offered(), DOWNLOADED)
    looked = step(Kind.FIRMWARE, stuck, terms.TimePassed(), terms.Now(stuck.deadline_s))
    ended = step(Kind.FIRMWARE, looked.course, DOWNLOADED, terms.Now(stuck.deadline_s))
    assert ended.course.is_over
    assert "not free" in ended.events[0].reason
    assert events == []


def test_firmware_is_dropped_while_it_can_be() -> None:
    loading, _, _ = firmware(terms.Offered(), IDLE)
    assert [
        type(each).__name__ for each in step(Kind.FIRMWARE, loading, terms.CancelWanted(), terms.Now(9)).actions
    ] == [
        "StopTransfer",
        "Reset",
    ]
    updating, _, _ = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE)
    assert step(Kind.FIRMWARE, updating, terms.CancelWanted(), terms.Now(9)).actions == ()


def test_a_refused_update_fails_soon_unless_it_was_obeyed_before() -> None:
    refused = terms.Answered(terms.Install(0), (4, 5))
    course, _, _ = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE, refused)
    assert course.deadline_s == 5.0 + 10.0
    ended = step(Kind.FIRMWARE, course, terms.TimePassed(), terms.Now(course.deadline_s))
    assert "4.05" in ended.events[0].reason
    done = terms.Seen(Firmware(FirmwareState.IDLE, 1, "kws", "3"))
    assert step(Kind.FIRMWARE, course, done, terms.Now(9)).events[-1].phase.value == "accepted"


def test_an_update_that_was_not_answered_is_said_once_more() -> None:
    unheard = terms.Answered(terms.Install(0), None)
    _, _, did = firmware(terms.Offered(), IDLE, SENT, DOWNLOADED, ACTIVATE, unheard, DOWNLOADED, unheard, DOWNLOADED)
    assert did.count("Install") == 2


def test_firmware_whose_transfer_stands_still_takes_the_other_way() -> None:
    course, _, _ = firmware(terms.Offered(), IDLE)
    looked = step(Kind.FIRMWARE, course, terms.TimePassed(), terms.Now(course.deadline_s))
    turn = step(Kind.FIRMWARE, looked.course, IDLE, terms.Now(course.deadline_s))
    assert turn.actions == (terms.WriteUri(0),)
    by_result = terms.Seen(Firmware(FirmwareState.IDLE, 7))  # an address of no use
    after, _, _ = firmware(terms.Offered(), IDLE, by_result)
    assert after.way == 1


def test_firmware_that_runs_what_it_was_given_is_accepted_at_once() -> None:
    held = replace(GOAL, is_held=True)
    runs = terms.Seen(Firmware(FirmwareState.IDLE, 1, "kws", "3"))
    _, events, did = firmware(runs, terms.Offered(), goal=held)
    assert events == ["tested", "trial", "accepted"]
    assert did == []
    silent = terms.Seen(Firmware(FirmwareState.IDLE, 1))
    assert firmware(silent, terms.Offered(), goal=held)[2] == ["WritePackage"]
