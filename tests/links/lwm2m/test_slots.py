"""Whole pushes to clients that behave as those in the field do: instances, states, results, versions."""

from dataclasses import replace

import pytest

from gatewayd.core.device import SlotState
from gatewayd.core.names import Digest
from gatewayd.core.update import PushState
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.slots import Kind, choose_model, choose_software, step
from gatewayd.wire.lwm2m.states import ModelSlot, Software, SoftwareState
from tests.lwm2m_clients import BAD_REQUEST, CHANGED, DIGEST, GOAL, NOT_ALLOWED, OTHER_DIGEST, Bench, Client


def test_a_push_to_an_empty_instance() -> None:
    bench = Bench(Client())
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did == ["WritePackage", "Look", "Install", "Activate"]
    assert bench.events == ["written", "verified", "tested", "trial", "accepted"]
    assert bench.client.held[0] == Software(0, SoftwareState.INSTALLED, 2, "kws", "3", is_active=True)


def holding(**has: object) -> dict[int, Software]:
    return {0: replace(Software(0, SoftwareState.INITIAL), **has)}  # type: ignore[arg-type]  # fields by their names


S = SoftwareState


@pytest.mark.parametrize(
    ("has", "did"),
    [
        ({"state": S.INSTALLED, "result": 2, "name": "old", "version": "9"}, ["Uninstall"]),
        ({"state": S.DELIVERED, "result": 58, "name": "kws", "version": "3"}, ["Uninstall"]),
        ({"state": S.DELIVERED, "result": 3}, ["Uninstall"]),
        ({"state": S.DOWNLOADED, "result": 1}, ["Reset"]),
        ({"state": S.DOWNLOAD_STARTED, "result": 1}, ["Reset"]),
        ({"state": S.INITIAL, "result": 53}, []),
    ],
)
def test_what_is_left_in_an_instance_is_cleared_first(has: dict[str, object], did: list[str]) -> None:
    bench = Bench(Client(holding(**has)))
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did[: len(did)] == did
    assert "WritePackage" in bench.client.did


def test_an_active_instance_is_never_cleared() -> None:
    client = Client(holding(state=S.INSTALLED, result=2, name="kws", version="2", is_active=True))
    bench = Bench(client)
    assert bench.run() is PushState.FAILED
    assert client.did == []
    assert "active" in bench.push.reason


def test_what_is_replaced_is_switched_off_only_when_the_new_one_is_accepted() -> None:
    old = Software(1, S.INSTALLED, 2, "kws", "2", is_active=True)
    client = Client({0: Software(0, S.INITIAL), 1: old})
    assert Bench(client, replace(GOAL, old=1)).run() is PushState.ACCEPTED
    assert client.did[-2:] == ["Activate", "Deactivate"]
    assert client.held[1].is_active is False
    failing = Client({0: Software(0, S.INITIAL), 1: old}, version="4")
    assert Bench(failing, replace(GOAL, old=1)).run() is PushState.FAILED
    assert failing.held[1] == old


class BootedInStateOne(Client):
    """Zephyr's stock object starts in state 1, where it takes a package and knows no way out."""

    def uninstall(self, instance: int) -> terms.Code:
        super_state = self.held[instance].state
        return NOT_ALLOWED if super_state < S.DELIVERED else super().uninstall(instance)

    def reset(self, instance: int) -> terms.Code:  # noqa: ARG002 - refused whatever it is
        return NOT_ALLOWED

    def write(self, instance: int) -> terms.Code | None:
        return self.deliver(instance) if self.held[instance].state < S.DOWNLOADED else NOT_ALLOWED


def test_a_client_that_booted_in_state_1() -> None:
    bench = Bench(BootedInStateOne(holding(state=S.DOWNLOAD_STARTED)))
    assert bench.run() is PushState.ACCEPTED
    assert bench.client.did[:6] == ["Reset", "Look", "Uninstall", "Look", "WritePackage", "Look"]


class DoesNothing(Client):
    """Execute answers 2.04 and does nothing."""

    def install(self, instance: int) -> terms.Code | None:  # noqa: ARG002 - nothing is done
        return CHANGED


def test_an_install_that_does_nothing_is_stuck_and_stuck_is_failed() -> None:
    bench = Bench(DoesNothing())
    assert bench.run() is PushState.FAILED
    assert "stuck in state 3" in bench.push.reason
    assert bench.clock_s < 60


class UninstallDoesNothing(Client):
    def uninstall(self, instance: int) -> terms.Code:  # noqa: ARG002 - nothing is done
        return CHANGED


def test_an_uninstall_that_does_nothing_is_not_waited_for_for_ever() -> None:
    bench = Bench(UninstallDoesNothing(holding(state=S.INSTALLED, result=2, name="old", version="1")))
    assert bench.run() is PushState.FAILED
    assert "could not be emptied" in bench.push.reason
    assert "WritePackage" not in bench.client.did


class FailsToInstall(Client):
    """Result 58, the state stays 3."""

    def install(self, instance: int) -> terms.Code | None:
        return self.now(instance, result=58)


def test_a_failed_install_is_reported_and_the_next_push_uninstalls_first() -> None:
    client = FailsToInstall()
    bench = Bench(client)
    assert bench.run() is PushState.FAILED
    assert "58 (install failed)" in bench.push.reason
    assert client.held[0].state is S.DELIVERED
    cured = Client(client.held)
    again = Bench(cured)
    assert again.run() is PushState.ACCEPTED
    assert cured.did[0] == "Uninstall"


def test_a_result_from_before_says_nothing_of_this_push() -> None:
    # Its uninstall leaves the result as it was.
    class Keeps(Client):
        def uninstall(self, instance: int) -> terms.Code:
            return self.now(instance, state=S.INITIAL)

        def deliver(self, instance: int) -> terms.Code:
            return self.now(instance, state=S.DELIVERED, name=self.name, version=self.version)

    assert Bench(Keeps(holding(state=S.DELIVERED, result=58))).run() is PushState.ACCEPTED


class TakesBadPackages(Client):
    """A bad package is answered with 2.04; only the result says what it was."""

    def deliver(self, instance: int) -> terms.Code:
        return self.now(instance, state=S.INITIAL, result=53)


def test_a_2_04_to_a_bad_package_proves_nothing() -> None:
    bench = Bench(TakesBadPackages())
    assert bench.run() is PushState.FAILED
    assert "53 (integrity failed)" in bench.push.reason
    assert bench.events == ["failed"]


class ForgetsThePackage(Client):
    def deliver(self, instance: int) -> terms.Code:  # noqa: ARG002 - it answers 2.04 and nothing comes of it
        return CHANGED


def test_a_2_04_with_nothing_behind_it_is_stuck() -> None:
    bench = Bench(ForgetsThePackage())
    assert bench.run() is PushState.FAILED
    assert "stuck in state 0" in bench.push.reason


def test_states_may_be_skipped_and_names_come_late() -> None:
    class Slow(Client):
        def install(self, instance: int) -> terms.Code | None:
            return self.now(instance, state=S.INSTALLED, result=2, name="kws", version="3")

        def deliver(self, instance: int) -> terms.Code:
            return self.now(instance, state=S.DELIVERED, result=1, name="", version="")

    assert Bench(Slow()).run() is PushState.ACCEPTED


class ActsByItself(Client):
    def deliver(self, instance: int) -> terms.Code:
        return self.now(instance, state=S.INSTALLED, result=2, name="kws", version="3", is_active=True)


def test_a_client_that_installs_and_activates_by_itself() -> None:
    bench = Bench(ActsByItself())
    assert bench.run() is PushState.ACCEPTED
    assert bench.events == ["written", "verified", "tested", "trial", "accepted"]
    assert "Install" not in bench.client.did


@pytest.mark.parametrize(("name", "version"), [("kws", "2"), ("other", "3"), ("", "3"), ("kws", ""), ("", "")])
def test_another_version_than_sent_is_never_switched_on(name: str, version: str) -> None:
    bench = Bench(Client(name=name, version=version))
    assert bench.run() is PushState.FAILED
    assert "Activate" not in bench.client.did
    assert ("holds" in bench.push.reason) or ("does not say" in bench.push.reason)


def test_a_client_that_cannot_read_the_package_may_be_silent_but_not_wrong() -> None:
    silent = replace(GOAL, tells_version=False)
    assert Bench(Client(name="", version=""), silent).run() is PushState.ACCEPTED
    assert Bench(Client(name="", version="2"), silent).run() is PushState.FAILED


def test_another_version_that_runs_by_itself_is_switched_off_and_the_old_one_on() -> None:
    class Wrong(Client):
        def deliver(self, instance: int) -> terms.Code:
            self.now(1, is_active=False)
            return self.now(instance, state=S.INSTALLED, result=2, name="kws", version="2", is_active=True)

    client = Wrong({0: Software(0, S.INITIAL), 1: Software(1, S.INSTALLED, 2, "kws", "1", is_active=True)})
    assert Bench(client, replace(GOAL, old=1)).run() is PushState.FAILED
    assert (client.held[0].is_active, client.held[1].is_active) == (False, True)


@pytest.mark.parametrize("back_to", [0, 1, 2])
def test_a_state_that_goes_back_is_failed(back_to: int) -> None:
    class GoesBack(Client):
        def install(self, instance: int) -> terms.Code | None:
            return self.now(instance, state=SoftwareState(back_to), result=2)

    bench = Bench(GoesBack())
    assert bench.run() is PushState.FAILED
    assert "went back" in bench.push.reason
    assert bench.clock_s < 5


class ActivateDoesNothing(Client):
    def activate(self, instance: int) -> terms.Code | None:  # noqa: ARG002 - nothing is done
        return CHANGED


def test_installed_is_not_accepted_until_it_runs() -> None:
    old = Software(1, S.INSTALLED, 2, "kws", "2", is_active=True)
    client = ActivateDoesNothing({0: Software(0, S.INITIAL), 1: old})
    bench = Bench(client, replace(GOAL, old=1))
    assert bench.run() is PushState.FAILED
    assert "does not run" in bench.push.reason
    assert client.did[-2:] == ["Deactivate", "Activate"]
    assert client.held[1] == old


def test_running_with_another_result_than_installed_is_not_accepted() -> None:
    class Odd(Client):
        def activate(self, instance: int) -> terms.Code | None:
            return self.now(instance, is_active=True, result=0)

    bench = Bench(Odd())
    assert bench.run() is PushState.FAILED
    assert "result is 0, not 2" in bench.push.reason
    assert bench.client.did[-1] == "Deactivate"


@pytest.mark.parametrize("code", [NOT_ALLOWED, BAD_REQUEST])
def test_a_refused_execute_may_have_been_obeyed_before(code: terms.Code) -> None:
    # Its 2.04 was lost, and the repeated message is refused: the state says what is.
    class Twice(Client):
        def install(self, instance: int) -> terms.Code | None:
            super().install(instance)
            return code

        def activate(self, instance: int) -> terms.Code | None:
            super().activate(instance)
            return code

    assert Bench(Twice()).run() is PushState.ACCEPTED


def test_an_execute_that_is_refused_for_good_fails_soon() -> None:
    class Refuses(Client):
        def install(self, instance: int) -> terms.Code | None:  # noqa: ARG002 - whatever it is
            return NOT_ALLOWED

    bench = Bench(Refuses())
    assert bench.run() is PushState.FAILED
    assert "4.05" in bench.push.reason
    assert bench.clock_s <= 12


class SlowInstall(Client):
    """State 3 also means installing."""

    def install(self, instance: int) -> terms.Code | None:  # noqa: ARG002 - it takes its time
        return CHANGED


def test_state_3_also_means_installing() -> None:
    bench = Bench(SlowInstall())
    bench.run(until_s=20)
    assert not bench.push.state.is_end
    bench.client.now(0, state=S.INSTALLED, result=2)
    assert bench.run(until_s=25) is PushState.ACCEPTED


def test_what_was_given_before_a_restart_of_the_gateway_is_gone_on_with() -> None:
    held = replace(GOAL, is_held=True)
    for state, result, did in (
        (S.DELIVERED, 3, ["Install", "Activate"]),
        (S.INSTALLED, 2, ["Activate"]),
        (S.INSTALLED, 0, ["Activate"]),
    ):
        client = Client(holding(state=state, result=result, name="kws", version="3"))
        bench = Bench(client, held)
        if result == 0:
            client.now(0, result=2)
        assert bench.run() is PushState.ACCEPTED
        assert client.did == did
    running = Client(holding(state=S.INSTALLED, result=2, name="kws", version="3", is_active=True))
    assert Bench(running, held).run() is PushState.ACCEPTED
    assert running.did == []


def test_what_is_held_but_failed_is_sent_again() -> None:
    client = Client(holding(state=S.DELIVERED, result=58, name="kws", version="3"))
    assert Bench(client, replace(GOAL, is_held=True)).run() is PushState.ACCEPTED
    assert client.did[0] == "Uninstall"


def test_a_cancel_stops_the_transfer_and_rolls_back_what_may_run() -> None:
    bench = Bench(SlowInstall())
    bench.hear(terms.CancelWanted())
    assert bench.course.is_over
    old = Software(1, S.INSTALLED, 2, "kws", "2", is_active=True)
    running = Bench(ActivateDoesNothing({0: Software(0, S.INITIAL), 1: old}), replace(GOAL, old=1))
    running.run(until_s=3)
    assert running.course.stage is terms.Stage.ACTIVATING
    running.hear(terms.CancelWanted())
    assert running.client.did[-2:] == ["Deactivate", "Activate"]
    assert running.course.is_over


def test_an_offer_repeated_is_answered_with_where_it_stands() -> None:
    bench = Bench(SlowInstall())
    assert bench.events == ["written", "verified"]
    bench.hear(terms.Offered())
    assert bench.events[-1] == "verified"
    transferring = step(Kind.SOFTWARE, terms.Course(GOAL, terms.Stage.TRANSFERRING), terms.Offered(), terms.Now(0))
    assert transferring.actions == (terms.AskAgain(),)


def test_choosing_an_instance() -> None:
    active = Software(0, S.INSTALLED, 2, is_active=True)
    left, empty = Software(1, S.DELIVERED, 58), Software(2, S.INITIAL)
    assert choose_software([active, left, empty], None) == 2
    assert choose_software([active, left], None) is None, "who put it there?"
    assert choose_software([active, left], None, ours=[1]) == 1
    assert choose_software([active, left], None, ours=[0]) is None
    assert choose_software([active], None) is None
    assert choose_software([active, left, empty], [0, 1]) == 1
    assert choose_software([active, left, empty], None, ours=[0], holds=0) == 0
    assert choose_software([active, left, empty], None, holds=0) == 2, "it holds something else by now"
    assert choose_software([active, left, empty], [1], holds=0) == 1
    # Updating in place: active, though its state says that something was delivered.
    assert choose_software([Software(0, S.DELIVERED, is_active=True)], None) is None


def slot(instance: int, state: SlotState, digest: Digest | None = None) -> ModelSlot:
    return ModelSlot(instance, state, "kws", 1, digest)


def test_choosing_a_model_slot() -> None:
    active, staging, empty = (
        slot(0, SlotState.ACTIVE, OTHER_DIGEST),
        slot(1, SlotState.STAGING),
        slot(2, SlotState.EMPTY),
    )
    assert choose_model([active, staging, empty], DIGEST) == 1
    assert choose_model([active, slot(2, SlotState.EMPTY), empty], DIGEST) == 2
    assert choose_model([active, staging], DIGEST) == 1
    assert choose_model([active, staging, slot(3, SlotState.TRIAL, DIGEST)], DIGEST) == 3
    assert choose_model([active, slot(1, SlotState.TRIAL)], DIGEST) is None
    assert choose_model([active], DIGEST) == 0  # its only one: the device decides
    assert choose_model([], DIGEST) is None
    twin = replace(slot(4, SlotState.ACTIVE, DIGEST), model="twin")
    assert choose_model([twin, empty], DIGEST, "kws") == empty.instance
    assert choose_model([twin, empty], DIGEST, "twin") == 4
