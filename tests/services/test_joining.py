"""Joining over the real store, the real tracking and pushes, and real credential files."""

from pathlib import Path

import pytest

from gatewayd.core.credentials import CredentialKind, Credentials
from gatewayd.core.device import PushPhase
from gatewayd.core.errors import BadRequest, Conflict, NotStored, Overloaded, UnknownDevice
from gatewayd.core.events import OrderEnded
from gatewayd.core.names import DeviceId, parse_model_ref
from gatewayd.core.push import PushState
from gatewayd.core.request import SensorRef, Target
from gatewayd.core.standing import StandingOrder
from gatewayd.wire.mosquitto import is_password
from tests.services.joining_world import stage
from tests.services.locking import locked
from tests.services.world import DEVICE

BOTH = tuple(CredentialKind)
OTHER = DeviceId("dev-2")


async def test_newcomers_are_let_in_while_it_is_permitted_and_stay_in(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.joining.permit(60, who="ann")
        s.w.device.birth()
        view = s.w.tracking.device(DEVICE)
        assert (view.approved, view.note) == (True, "joined while joining was permitted")
        assert s.joining.window().admitted == (DEVICE,)
        s.joining.permit(0, who="ann")
        s.w.device.id = OTHER
        s.w.device.birth()
        assert not s.w.tracking.device(OTHER).approved


async def test_one_that_waits_comes_in_when_it_comes_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.w.device.birth()
        s.joining.permit(60, who="ann")
        assert not s.w.tracking.device(DEVICE).approved
        s.w.device.leave()
        s.w.device.birth()
        assert s.w.tracking.device(DEVICE).approved


async def test_the_door_is_closed_after_a_restart(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.joining.permit(3600, who="ann")
    async with stage(tmp_path) as s:
        s.w.device.birth()
        assert not s.w.tracking.device(DEVICE).approved


async def test_credentials_are_random_shown_once_and_kept_as_the_protocol_needs(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        first = await s.joining.issue(DEVICE, kinds=BOTH, who="ann")
        second = await s.joining.issue(OTHER, kinds=BOTH, speaks_for=[DeviceId("dev-3")], who="ann")
        assert (first.password, first.key) != (second.password, second.key)
        assert (len(first.password or ""), len(first.key or b"")) == (32, 16)
        assert second.devices == (OTHER, DeviceId("dev-3"))
        kept = {each.name: each for each in s.files.known().users}
        assert is_password(kept[DEVICE].password, first.password or "")
        assert s.files.key_of(DEVICE) == first.key
        assert s.told == ["told", "told"]
        assert s.what() == ["credentials made by ann"]
        assert (first.password or "") not in repr(s.w.events) + repr(first)


async def test_a_second_set_is_made_only_on_purpose(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        before = await s.joining.issue(DEVICE, kinds=BOTH, who="ann")
        with pytest.raises(Conflict):
            await s.joining.issue(DEVICE, kinds=BOTH, who="ann")
        assert s.files.key_of(DEVICE) == before.key
        after = await s.joining.issue(DEVICE, kinds=BOTH, may_replace=True, who="ann")
        assert s.files.key_of(DEVICE) == after.key != before.key


async def test_a_name_that_the_broker_cannot_have_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        with pytest.raises(BadRequest, match="no ':'"):
            await s.joining.issue(DeviceId("aa:bb"), kinds=BOTH, who="ann")
        assert s.files.known().keys == ()
        issued = await s.joining.issue(DeviceId("aa:bb"), kinds=[CredentialKind.PSK], who="ann")
        assert (issued.password, s.told) == (None, [])


async def test_a_revoked_device_is_out_and_stays_out(tmp_path: Path) -> None:
    async with stage(tmp_path, open_join=True) as s:
        s.w.device.birth()
        await s.joining.issue(DEVICE, kinds=BOTH, who="ann")
        removed = await s.joining.revoke(DEVICE, who="ann")
        assert (removed.had_credentials, removed.pushes, s.files.key_of(DEVICE)) == (True, 0, None)
        view = s.w.tracking.device(DEVICE)
        assert (view.approved, view.revoked, view.note) == (False, True, "revoked by ann")
        s.joining.permit(60, who="ann")
        s.w.device.leave()
        s.w.device.birth()
        assert not s.w.tracking.device(DEVICE).approved
        assert s.what()[-1] == "online, revoked"
    async with stage(tmp_path, open_join=True) as s:
        s.w.device.birth()
        assert not s.w.tracking.device(DEVICE).approved
        assert (await s.w.tracking.approve(DEVICE, who="ann")).revoked is False
    async with stage(tmp_path) as s:
        assert s.w.tracking.device(DEVICE).approved


async def test_strangers_do_not_push_a_revoked_device_out_of_memory(tmp_path: Path) -> None:
    async with stage(tmp_path, open_join=True) as s:
        s.w.device.birth()
        await s.joining.revoke(DEVICE, who="ann")
        for number in range(20):
            s.w.device.id = DeviceId(f"ghost-{number}")
            s.w.device.birth()
        assert s.w.tracking.device(DEVICE).revoked


async def test_revoking_ends_what_is_pushed_and_wanted(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.w.add()
        s.w.device.silent_at = PushPhase.WRITTEN
        await s.w.join()
        push = await s.w.pushes.start(DEVICE, parse_model_ref("kws"), who="ann")
        removed = await s.joining.revoke(DEVICE, who="bob")
        assert removed.pushes == 1
        (row,) = await s.w.store.recent(1)
        assert (row.id, row.state, row.reason) == (push.id, PushState.CANCELLED, "revoked by bob")
        assert s.w.desires.of_device(DEVICE) == ()
        assert await s.w.store.load_desires() == ()


async def test_a_device_that_never_came_can_be_revoked_by_its_credentials(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        with pytest.raises(UnknownDevice):
            await s.joining.revoke(OTHER, who="ann")
        s.w.device.id = OTHER
        await s.joining.issue(OTHER, kinds=BOTH, who="ann")
        assert (await s.joining.revoke(OTHER, who="ann")).had_credentials
        assert s.files.known().users == ()


async def test_a_device_that_never_came_can_be_forgotten_by_its_credentials(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.w.device.id = OTHER
        await s.joining.issue(OTHER, kinds=BOTH, who="ann")
        with pytest.raises(UnknownDevice):
            await s.joining.forget(OTHER, force=False, keep_credentials=True, who="ann")
        assert (await s.joining.forget(OTHER, force=False, keep_credentials=False, who="ann")).had_credentials
        assert s.files.known() == Credentials()
        with pytest.raises(UnknownDevice):
            await s.joining.forget(OTHER, force=True, keep_credentials=False, who="ann")


async def test_one_device_of_a_concentrator_is_taken_out_and_the_others_stay(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.joining.issue(OTHER, kinds=[CredentialKind.MQTT], speaks_for=[DEVICE], who="ann")
        await s.joining.revoke(DEVICE, who="ann")
        (user,) = s.files.known().users
        assert (user.name, user.devices) == (OTHER, (OTHER,))


async def test_a_device_that_is_there_is_not_forgotten_by_mistake(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.w.join()
        with pytest.raises(Conflict, match="online and approved"):
            await s.joining.forget(DEVICE, force=False, keep_credentials=False, who="ann")
        assert s.w.tracking.device(DEVICE).approved


@pytest.mark.parametrize("clear_fails", [False, True])
async def test_nothing_is_left_of_a_forgotten_device_but_history(tmp_path: Path, *, clear_fails: bool) -> None:
    async with stage(tmp_path) as s:
        await s.w.add()
        s.w.device.silent_at = PushPhase.WRITTEN
        await s.w.join()
        await s.joining.issue(DEVICE, kinds=BOTH, who="ann")
        await s.w.pushes.start(DEVICE, parse_model_ref("kws"), who="ann")
        await s.w.pushes.allow_one_slot(DEVICE, allowed=True)
        s.w.device.send_fails = Overloaded("full") if clear_fails else None
        await s.joining.forget(DEVICE, force=True, keep_credentials=False, who="ann")
        with pytest.raises(UnknownDevice):
            s.w.tracking.device(DEVICE)
        assert ("cancel: forgotten" in s.w.device.sent) is not clear_fails
        assert (await s.w.store.load_devices(), await s.w.store.load_desires(), await s.w.store.load_terms()) == (
            (),
            (),
            (),
        )
        assert (s.files.known().users, s.w.desires.terms(DEVICE).one_slot) == ((), False)
        assert len(await s.w.store.recent(5)) == 1
        assert s.what()[-1] == "forgotten by ann"
        s.w.device.birth()
        assert s.w.tracking.device(DEVICE).note == "waits for approval"


@pytest.mark.parametrize("is_forgotten", [True, False])
async def test_what_was_saved_up_for_a_push_goes_with_the_device(tmp_path: Path, *, is_forgotten: bool) -> None:
    async with stage(tmp_path) as s:
        version = await s.w.add()
        await s.w.join()
        await s.w.inference.infer(s.w.request(source=True))
        s.renting.served(s.w.served[0])
        assert s.renting.balance(DEVICE, version).requests == 1
        if is_forgotten:
            await s.joining.forget(DEVICE, force=True, keep_credentials=True, who="ann")
        else:
            await s.joining.revoke(DEVICE, who="ann")
        assert s.renting.kept().pairs == ()
        assert s.renting.kept().pending == ()
        assert s.renting.kept().devices == ()


@pytest.mark.parametrize("is_forgotten", [True, False])
async def test_standing_orders_end_with_their_device(tmp_path: Path, *, is_forgotten: bool) -> None:
    async with stage(tmp_path) as s:
        await s.w.add()
        await s.w.join()
        s.w.device.id = OTHER
        await s.w.join()
        s.w.device.id = DEVICE
        for order in (_order("its-mic", DEVICE), _order("pinned", OTHER, Target(DEVICE)), _order("another", OTHER)):
            await s.orders.start(order)
        if is_forgotten:
            removed = await s.joining.forget(DEVICE, force=True, keep_credentials=True, who="bob")
        else:
            removed = await s.joining.revoke(DEVICE, who="bob")
        assert (removed.orders, removed.is_forgotten) == (2, is_forgotten)
        ended = [(event.order.id, event.why) for event in s.w.events if isinstance(event, OrderEnded)]
        why = f"device dev-1 was {'forgotten' if is_forgotten else 'revoked'} by bob"
        assert ended == [("its-mic", why), ("pinned", why)]
        assert [order.id for order, _ in s.orders.orders()] == ["another"]
        assert [order.id for order in await s.w.store.load_orders()] == ["another"]


async def test_orders_go_on_when_a_departure_is_not_stored(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.w.add()
        await s.w.join()
        await s.orders.start(_order("its-mic", DEVICE))
        with locked(tmp_path), pytest.raises(NotStored):
            await s.joining.forget(DEVICE, force=True, keep_credentials=True, who="bob")
        assert [order.id for order, _ in s.orders.orders()] == ["its-mic"]
        assert s.w.tracking.device(DEVICE).approved


def _order(name: str, device: DeviceId, pin: Target | None = None) -> StandingOrder:
    terms = (name, parse_model_ref("kws"), SensorRef(device, "mic"))
    return StandingOrder(*terms, period_s=9.0, deadline_s=5.0, until=None, who="ann", started_at=1.7e9, pin=pin)


async def test_a_forgotten_device_may_keep_its_credentials(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.w.device.birth()
        await s.joining.issue(DEVICE, kinds=BOTH, who="ann")
        await s.joining.forget(DEVICE, force=False, keep_credentials=True, who="ann")
        assert s.files.known().knows(DEVICE)


async def test_a_request_that_outlives_its_device_is_counted_nowhere(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.w.join()
        s.w.tracking.began(DEVICE)
        await s.joining.forget(DEVICE, force=True, keep_credentials=False, who="ann")
        s.w.tracking.ended(DEVICE)
        assert s.w.tracking.devices() == ()


async def test_an_oscore_context_has_an_id_that_no_other_device_has(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        one = await s.joining.issue(DEVICE, kinds=(CredentialKind.OSCORE,), who="ann")
        other = await s.joining.issue(OTHER, kinds=(CredentialKind.OSCORE,), who="ann")
        assert (one.password, one.key) == (None, None)
        assert one.oscore is not None
        assert other.oscore is not None
        assert one.oscore.kid != other.oscore.kid
        assert one.oscore.secret != other.oscore.secret
        assert not one.oscore.is_used
        assert s.joining.credentials().oscore == tuple(sorted((one.oscore, other.oscore), key=lambda each: each.device))
