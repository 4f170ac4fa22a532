"""Pushes to boards with the ML Model object (/26242), as their agents tell them."""

from dataclasses import replace

import pytest

from gatewayd.core.device import PushPhase, SlotState
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.slots import Kind, step
from gatewayd.wire.lwm2m.states import ModelSlot, Phase
from tests.lwm2m_clients import BAD_REQUEST, BUSY, CHANGED, GOAL, INCOMPLETE, NOT_ALLOWED


class Board:
    """An instance of /26242 as its agent tells it, with `loses` restarts in mid-transfer."""

    def __init__(self, *, loses: int = 0, refuses: str = "") -> None:
        self.slot = ModelSlot(0, SlotState.EMPTY)
        self.loses, self.refuses = loses, refuses
        self.did: list[str] = []

    def act(self, action: terms.Action) -> terms.Heard | None:
        self.did.append(type(action).__name__)
        phase = self.slot.phase
        match action:
            case terms.WriteOffer() if phase > Phase.WANT:
                pass  # it says where it stands
            case terms.WriteOffer():
                wanted = replace(self.slot, state=SlotState.STAGING, push=7, phase=Phase.WANT)
                refused = replace(self.slot, push=7, phase=Phase.REJECTED, reason=self.refuses)
                self.slot = refused if self.refuses else wanted
                return terms.Answered(action, (2, 4))
            case terms.WritePackage(_, offset) | terms.WriteUri(_, offset):
                if self.loses:
                    self.loses -= 1
                    self.slot = replace(self.slot, push=0, phase=Phase.NONE, offset=offset + 512)
                    return terms.TransferEnded(None)
                phase = Phase.WRITTEN
            case terms.Install():
                phase = Phase.TESTED
            case terms.Activate():
                phase = Phase.TRIAL
            case terms.Accept():
                phase = Phase.ACCEPTED
            case terms.Cancel():
                phase = Phase.FAILED
        self.slot = replace(self.slot, phase=phase)
        is_transfer = isinstance(action, terms.WritePackage | terms.WriteUri)
        return terms.TransferEnded((2, 4)) if is_transfer else terms.Answered(action, (2, 4))


def played(board: Board, wants: list[terms.Heard]) -> tuple[terms.Course, list[str]]:
    """Play a push on a board; `wants` are the engine's wishes, one whenever nothing moves."""
    course, events, now = terms.Course(GOAL), [], terms.Now(0.0)
    queue: list[terms.Heard] = [terms.Offered()]
    for _ in range(100):
        heard = queue.pop(0) if queue else terms.Seen(board.slot)
        turn = step(Kind.ML_MODEL, course, heard, now)
        is_still = isinstance(heard, terms.Seen) and turn.course == course and not queue
        course = turn.course
        events += [each.phase.value for each in turn.events]
        for action in turn.actions:
            answer = board.act(action)
            if answer is not None:
                queue.append(answer)
        if is_still and wants:
            queue.append(wants.pop(0))
        if course.is_over:
            break
    return course, events


def test_a_push_to_a_board_of_ours() -> None:
    board = Board()
    course, events = played(board, [terms.ActivateWanted(), terms.AcceptWanted()])
    assert course.is_over
    assert events == ["written", "tested", "trial", "accepted"]
    assert board.did == ["WriteOffer", "WritePackage", "Look", "Install", "Activate", "Accept"]


def test_a_board_that_restarts_in_mid_transfer_goes_on_where_it_was() -> None:
    board = Board(loses=2)
    course, events = played(board, [terms.ActivateWanted(), terms.AcceptWanted()])
    assert events[-1] == "accepted"
    told = [each for each in board.did if each != "StopTransfer"]
    assert told[:6] == ["WriteOffer", "WritePackage", "WriteOffer", "WritePackage", "WriteOffer", "WritePackage"]
    assert course.restarts == 2


def test_a_board_that_restarts_for_ever_is_given_up() -> None:
    course, events = played(Board(loses=50), [])
    assert course.is_over
    assert events == ["failed"]


def test_a_board_that_says_no_is_heard() -> None:
    course, events = played(Board(refuses="arena 12000 > 8192 bytes"), [])
    assert events == ["rejected"]
    assert course.said is not None
    assert course.said.reason == "arena 12000 > 8192 bytes"


def test_an_offer_may_be_repeated_in_a_trial() -> None:
    board = Board()
    _, events = played(board, [terms.ActivateWanted(), terms.Offered(), terms.AcceptWanted()])
    assert events == ["written", "tested", "trial", "trial", "accepted"]


OFFER, INSTALL = terms.WriteOffer(0), terms.Install(0)


def told(*steps: terms.Heard, goal: terms.Goal = GOAL) -> terms.Turn:
    """Return the last step's turn; a second goes by before each."""
    turn = terms.Turn(terms.Course(goal))
    for at, heard in enumerate(steps):
        turn = step(Kind.ML_MODEL, turn.course, heard, terms.Now(float(at)))
    return turn


def says(phase: Phase, *, offset: int = 0, push: int = 7) -> terms.Seen:
    return terms.Seen(ModelSlot(0, SlotState.STAGING, push=push, phase=phase, offset=offset, reason="why"))


OFFERED, WANT = terms.Offered(), says(Phase.WANT)


def after_deadline(turn: terms.Turn) -> terms.Turn:
    return step(Kind.ML_MODEL, turn.course, terms.TimePassed(), terms.Now(turn.course.deadline_s))


def names(turn: terms.Turn) -> list[str]:
    return [type(each).__name__ for each in turn.actions]


def test_an_offer_that_is_refused_is_failed_and_one_that_finds_it_busy_is_waited_for() -> None:
    refused = told(OFFERED, terms.Answered(OFFER, BAD_REQUEST))
    assert refused.events == (terms.Said(PushPhase.FAILED, "the offer was refused with 4.00"),)
    busy = told(OFFERED, terms.Answered(OFFER, BUSY))
    assert busy.course.stage is terms.Stage.OFFERED
    assert told(OFFERED, terms.Answered(OFFER, None)).course.stage is terms.Stage.OFFERED


def test_an_offer_without_an_answer_ends_with_a_cancel() -> None:
    turn = after_deadline(told(OFFERED))
    assert names(turn) == ["Cancel"]
    assert "while offered" in turn.events[0].reason


def test_a_transfer_begins_where_the_board_says() -> None:
    turn = told(OFFERED, says(Phase.WANT, offset=4096))
    assert turn.actions == (terms.WritePackage(0, 4096),)
    pulled = told(OFFERED, says(Phase.WANT, offset=4096), goal=replace(GOAL, ways=(terms.Way.PULL,)))
    assert pulled.actions == (terms.WriteUri(0, 4096),)


@pytest.mark.parametrize("code", [INCOMPLETE, BUSY, None])
def test_a_broken_transfer_is_offered_again_and_goes_on_after_a_pause(code: terms.Code | None) -> None:
    broken = told(OFFERED, WANT, terms.TransferEnded(code))
    assert names(broken) == ["StopTransfer", "WriteOffer"]
    again = step(Kind.ML_MODEL, broken.course, says(Phase.WANT, offset=2048), terms.Now(9.0))
    assert again.actions == (terms.WritePackage(0, 2048, after_s=1.0),)


def test_a_refused_way_leads_to_the_other_and_then_to_the_end() -> None:
    other = told(OFFERED, WANT, terms.TransferEnded(NOT_ALLOWED), WANT)
    assert names(other) == ["WriteUri"]
    assert other.course.restarts == 0
    uri = terms.WriteUri(0)
    ended = step(Kind.ML_MODEL, other.course, terms.Answered(uri, NOT_ALLOWED), terms.Now(9.0))
    assert ended.course.is_over
    assert names(ended) == ["Cancel"]
    assert step(Kind.ML_MODEL, other.course, terms.Answered(uri, CHANGED), terms.Now(9.0)).course == other.course


def test_a_transfer_that_stands_still_takes_the_other_way_and_progress_buys_time() -> None:
    begun = told(OFFERED, WANT)
    later = step(Kind.ML_MODEL, begun.course, terms.Progressed(), terms.Now(20.0))
    assert later.course.deadline_s == 120.0
    stands = after_deadline(later)
    assert stands.course.way == 1
    elsewhere = told(OFFERED, terms.Progressed())
    assert elsewhere.course == told(OFFERED).course


def test_a_board_that_lacks_bytes_after_all_were_sent_is_asked_again() -> None:
    sent = told(OFFERED, WANT, terms.TransferEnded(CHANGED))
    assert names(sent) == ["Look"]
    late = after_deadline(sent)
    assert names(late) == ["WriteOffer"]
    assert late.course.restarts == 1


@pytest.mark.parametrize("code", [BUSY, None])
def test_an_offer_that_was_not_taken_is_made_again_when_the_board_shows_nothing_of_it(code: terms.Code | None) -> None:
    gone = says(Phase.NONE, push=0)
    assert told(terms.Offered(), gone).actions == (), "it may take its time"
    again = told(terms.Offered(), terms.Answered(OFFER, code), gone)
    assert again.actions == (OFFER,)
    assert step(Kind.ML_MODEL, again.course, gone, terms.Now(3.0)).actions == ()
    third = step(Kind.ML_MODEL, again.course, terms.Answered(OFFER, code), terms.Now(4.0))
    assert step(Kind.ML_MODEL, third.course, gone, terms.Now(5.0)).actions == (OFFER,)
    assert "no answer while offered" in after_deadline(third).events[0].reason


def test_an_execute_that_was_not_answered_is_said_once_more() -> None:
    installing = (OFFERED, says(Phase.WRITTEN), terms.Answered(INSTALL, None))
    again = told(*installing, says(Phase.VERIFIED))
    assert (again.actions, [each.phase for each in again.events]) == ((INSTALL,), [PushPhase.VERIFIED])
    assert told(*installing, says(Phase.VERIFIED), terms.Answered(INSTALL, None), says(Phase.VERIFIED)).actions == ()
    tested = (OFFERED, says(Phase.TESTED), terms.ActivateWanted())
    activate = terms.Activate(0)
    assert told(*tested, says(Phase.TESTED)).actions == ()
    assert told(*tested, terms.Answered(activate, None), says(Phase.TESTED)).actions == (activate,)


def test_a_refused_execute_is_waited_for_a_little() -> None:
    installing = told(OFFERED, says(Phase.WRITTEN))
    refused = step(Kind.ML_MODEL, installing.course, terms.Answered(INSTALL, NOT_ALLOWED), terms.Now(2.0))
    assert refused.course.deadline_s == 12.0
    tested = step(Kind.ML_MODEL, refused.course, says(Phase.TESTED), terms.Now(3.0))
    assert [each.phase for each in tested.events] == [PushPhase.TESTED]
    ended = after_deadline(refused)
    assert "4.05" in ended.events[0].reason
    unrelated = step(Kind.ML_MODEL, tested.course, terms.Answered(INSTALL, NOT_ALLOWED), terms.Now(4.0))
    assert unrelated.course == tested.course


def test_wishes_out_of_turn_do_nothing() -> None:
    for wish in (terms.ActivateWanted(), terms.AcceptWanted()):
        assert told(OFFERED, wish).course == told(OFFERED).course
        assert not told(OFFERED, wish).actions


def test_an_accept_may_be_repeated() -> None:
    trial = told(OFFERED, says(Phase.TRIAL), terms.AcceptWanted(), terms.AcceptWanted())
    assert names(trial) == ["Accept"]


def test_a_cancel_is_said_in_mid_transfer_and_to_a_board_that_does_not_know_of_the_end() -> None:
    cancelled = told(OFFERED, WANT, terms.CancelWanted())
    assert names(cancelled) == ["StopTransfer", "Cancel"]
    assert names(step(Kind.ML_MODEL, cancelled.course, terms.CancelWanted(), terms.Now(9.0))) == ["Cancel"]


def test_values_of_another_instance_or_object_are_somebody_elses() -> None:
    begun = told(OFFERED)
    other = terms.Seen(ModelSlot(1, SlotState.ACTIVE, push=7, phase=Phase.ACCEPTED))
    assert step(Kind.ML_MODEL, begun.course, other, terms.Now(1.0)) == terms.Turn(begun.course)
    assert step(Kind.SOFTWARE, begun.course, WANT, terms.Now(1.0)) == terms.Turn(begun.course)


def test_a_push_with_no_way_to_the_board_fails() -> None:
    turn = told(OFFERED, WANT, goal=replace(GOAL, ways=()))
    assert "no way" in turn.events[0].reason
    assert names(turn) == ["Cancel"]


@pytest.mark.parametrize("phase", [Phase.REJECTED, Phase.FAILED])
def test_an_end_that_the_board_called_needs_no_cancel(phase: Phase) -> None:
    turn = told(OFFERED, WANT, says(phase))
    assert turn.course.is_over
    assert names(turn) == []
