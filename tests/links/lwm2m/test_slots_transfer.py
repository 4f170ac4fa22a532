"""Transfers to clients that behave as those in the field do: refused, broken, never fetched, done by themselves."""

from dataclasses import replace

import pytest

from gatewayd.core.update import Limits, PushState
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m import slots_transfer
from gatewayd.links.lwm2m.patience import Patience
from gatewayd.links.lwm2m.slots import Kind, step
from gatewayd.wire.lwm2m.states import Software, SoftwareState
from tests.lwm2m_clients import BAD_REQUEST, BUSY, ERROR, GOAL, INCOMPLETE, NOT_ALLOWED, NOT_FOUND, Bench, Client

S = SoftwareState


class NoSecondBlock(Client):
    """A package push breaks at its second block; the address is fetched."""

    def __init__(self, code: terms.Code | None) -> None:
        super().__init__()
        self.code = code

    def write(self, instance: int) -> terms.Code | None:  # noqa: ARG002 - whatever it is
        return self.code


@pytest.mark.parametrize("code", [NOT_ALLOWED, ERROR, (4, 13), (4, 15), (5, 1), NOT_FOUND, BAD_REQUEST])
def test_a_push_that_is_refused_becomes_a_pull(code: terms.Code) -> None:
    bench = Bench(NoSecondBlock(code))
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did[:4] == ["WritePackage", "Look", "WriteUri", "Install"]


def test_a_pull_that_is_refused_becomes_a_push() -> None:
    class Pushed(Client):
        def fetch(self, instance: int) -> terms.Code | None:  # noqa: ARG002 - whatever it is
            return NOT_FOUND

    bench = Bench(Pushed(), replace(GOAL, ways=(terms.Way.PULL, terms.Way.PUSH)))
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did[:3] == ["WriteUri", "Look", "WritePackage"]


def test_an_address_that_nobody_fetches_becomes_a_push() -> None:
    bench = Bench(Client(fetches=False), replace(GOAL, ways=(terms.Way.PULL, terms.Way.PUSH)))
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did[:3] == ["WriteUri", "Look", "WritePackage"]


@pytest.mark.parametrize("result", [51, 52, 56])
def test_a_result_about_the_way_leads_to_the_other_way(result: int) -> None:
    class Unreachable(Client):
        def fetch(self, instance: int) -> terms.Code | None:
            return self.now(instance, result=result)

    bench = Bench(Unreachable(), replace(GOAL, ways=(terms.Way.PULL, terms.Way.PUSH)))
    assert bench.run() is PushState.ACCEPTED


@pytest.mark.parametrize("code", [INCOMPLETE, BUSY, None])
def test_a_transfer_that_lost_the_thread_starts_again_within_its_budget(code: terms.Code | None) -> None:
    class Duplicate(Client):
        tries = 0

        def write(self, instance: int) -> terms.Code | None:
            self.tries += 1
            if self.tries <= 2:
                self.now(instance, state=S.DOWNLOAD_STARTED)  # it keeps no context, but does not know that
                return code
            return super().write(instance)

    bench = Bench(Duplicate())
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did.count("WritePackage") == 3
    assert bench.client.did.count("Reset") == 2
    for_ever = Bench(NoSecondBlock(code), replace(GOAL, ways=(terms.Way.PUSH,)))
    assert for_ever.run() is PushState.FAILED
    assert for_ever.client.did.count("WritePackage") == 4
    assert "4 times" in for_ever.push.reason


def test_a_fast_link_has_the_patience_that_is_set_and_a_slow_one_more() -> None:
    patience = Patience()
    assert patience.on(0.05) == patience
    slow = patience.on(4.0)
    longer = (
        "ask_s",
        "look_s",
        "block_s",
        "clear_s",
        "offer_s",
        "fetch_s",
        "transfer_s",
        "deliver_s",
        "install_s",
        "activate_s",
    )
    assert all(getattr(slow, each) > getattr(patience, each) for each in longer)
    assert slow.offer_s >= 2 * slow.ask_s, "an offer is two questions"
    assert slow.transfer_s > slow.block_s, "the end of a block says more than silence"
    assert (slow.restarts, slow.restart_pause_s) == (patience.restarts, patience.restart_pause_s)
    assert patience.on(1e6).transfer_s < 600


def test_a_client_that_fetches_may_be_silent_until_it_tries_anew() -> None:
    """93 s: MAX_TRANSMIT_WAIT with RFC 7252's own figures."""
    begun = slots_transfer.begin(terms.Course(replace(GOAL, ways=(terms.Way.PULL, terms.Way.PUSH))), terms.Now(0.0))
    fetching = step(Kind.SOFTWARE, begun.course, terms.Progressed(), terms.Now(1.0)).course
    assert fetching.deadline_s > 1.0 + 93.0


def test_an_address_is_given_up_sooner_than_the_engine_does_when_the_package_can_be_written() -> None:
    now = terms.Now(0.0)
    both, only = (
        slots_transfer.begin(terms.Course(replace(GOAL, ways=ways)), now).course
        for ways in ((terms.Way.PULL, terms.Way.PUSH), (terms.Way.PULL,))
    )
    assert both.deadline_s < Limits().stall_s < only.deadline_s
    fetching = step(Kind.SOFTWARE, both, terms.Progressed(), now)
    assert fetching.course.deadline_s == only.deadline_s


def test_an_execute_that_was_not_answered_is_said_once_more_and_its_refusal_leaves_time() -> None:
    class Silent(Client):
        asked = 0

        def install(self, instance: int) -> terms.Code | None:
            self.asked += 1
            return None if self.asked == 1 else super().install(instance)

    bench = Bench(Silent())
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did.count("Install") == 2

    class Slow(Client):
        """It installs for a while, and says no to whoever asks meanwhile."""

        asked = 0

        def install(self, instance: int) -> terms.Code | None:  # noqa: ARG002 - whatever it is
            self.asked += 1
            return None if self.asked == 1 else NOT_ALLOWED

    bench = Bench(Slow())
    bench.run(until_s=20)
    assert bench.client.did.count("Install") == 2
    assert not bench.course.is_over, "the second refusal says nothing of the first"
    bench.client.now(0, state=S.INSTALLED, result=2)
    assert bench.run() is PushState.ACCEPTED


def test_pauses_between_restarts_grow() -> None:
    now = terms.Now(0.0)
    course = step(Kind.SOFTWARE, terms.Course(GOAL), terms.Seen(Software(0, S.INITIAL)), now).course
    turn = step(Kind.SOFTWARE, course, terms.Offered(), now)
    pauses = []
    for _ in range(4):
        (action,) = turn.actions
        assert isinstance(action, terms.WritePackage)
        pauses.append(action.after_s)
        broken = step(Kind.SOFTWARE, turn.course, terms.TransferEnded(BUSY), now)
        turn = step(Kind.SOFTWARE, broken.course, terms.Seen(Software(0, S.INITIAL)), now)
        if isinstance(turn.actions[0], terms.WriteUri):
            break
    assert pauses == [0.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("state", [S.INITIAL, S.DOWNLOAD_STARTED])
def test_a_package_that_was_there_and_is_gone_is_failed_at_once(state: SoftwareState) -> None:
    heard: list[terms.Heard] = [
        terms.Seen(Software(0, S.INITIAL)), terms.Offered(), terms.TransferEnded((2, 4)),
        terms.Seen(Software(0, S.DOWNLOADED, 1)),
    ]  # fmt: skip
    course = terms.Course(GOAL)
    for each in heard:
        course = step(Kind.SOFTWARE, course, each, terms.Now(0.0)).course
    turn = step(Kind.SOFTWARE, course, terms.Seen(Software(0, state, 1)), terms.Now(1.0))
    assert turn.course.is_over
    assert f"went back to state {int(state)}" in turn.events[0].reason
