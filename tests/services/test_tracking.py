import asyncio
from pathlib import Path

import pytest

from gatewayd.core.device import Lost, Slot, SlotState
from gatewayd.core.errors import NotStored, UnknownDevice
from gatewayd.core.events import DeviceChanged, InputRefused
from gatewayd.core.names import DeviceId, Digest
from tests.services.locking import locked
from tests.services.world import EMPTY, MODEL, PROFILE, World, world


async def _until(condition: object, w: World) -> None:
    """Let the tracking loops run until `condition()` holds."""
    assert callable(condition)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(w.tracking.run(w.device), name="tracking")
        while not condition():  # noqa: ASYNC110 - what is waited for has no event: it is a figure that moves
            await asyncio.sleep(0)
        loop.cancel()


async def test_an_unknown_device_waits_until_it_is_approved(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.device.birth()
        (view,) = w.tracking.devices()
        assert (view.approved, view.online, view.note, view.profile) == (False, True, "waits for approval", PROFILE)
        view = await w.tracking.approve(view.id, who="ann")
        assert (view.approved, view.note) == (True, "approved by ann")


async def test_an_open_gateway_lets_devices_in(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True) as w:
        w.device.birth()
        assert w.tracking.device(w.device.id).approved


async def test_approval_survives_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.join()
    async with world(tmp_path) as w:
        (view,) = w.tracking.devices()
        assert (view.approved, view.online, view.report) == (True, False, None)


async def test_only_devices_let_in_are_stored(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.device.birth()
        before = w.estimates.link(w.device.id)
        await _until(lambda: w.estimates.link(w.device.id) != before, w)
        assert list(await w.store.load_devices()) == []
        await w.tracking.approve(w.device.id, who="ann")
        assert [known.device for known in await w.store.load_devices()] == [w.device.id]


async def test_a_device_that_joins_while_the_disk_is_full_is_stored_later(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True, busy_timeout_s=0.01) as w:
        with locked(tmp_path):
            w.device.birth()
            with pytest.raises(NotStored):
                await w.tracking.approve(w.device.id, who="ann")
        assert w.tracking.device(w.device.id).note == ""
        assert await w.tracking.approve(w.device.id, who="ann")


async def test_an_approval_that_was_not_stored_did_not_happen(tmp_path: Path) -> None:
    async with world(tmp_path, busy_timeout_s=0.01) as w:
        w.device.birth()
        with locked(tmp_path), pytest.raises(NotStored):
            await w.tracking.approve(w.device.id, who="ann")
        assert not w.tracking.device(w.device.id).approved


async def test_strangers_make_room_for_others_and_never_push_out_who_was_let_in(tmp_path: Path) -> None:
    async with world(tmp_path, max_devices=2) as w:
        await w.join()
        for name in ("ghost-1", "ghost-2", "ghost-3"):
            w.device.id = DeviceId(name)
            w.device.birth()
        assert [view.id for view in w.tracking.devices()] == ["dev-1", "ghost-3"]


async def test_who_runs_what_follows_the_reports(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.join()
        assert w.tracking.holding(MODEL, 1) == ()
        w.device.slots = (Slot(0, SlotState.ACTIVE, MODEL, 1, Digest("ab" * 32)), EMPTY[1])
        w.device.birth()
        assert [view.id for view in w.tracking.holding(MODEL, 1)] == ["dev-1"]
        w.device.slots = EMPTY
        w.device.birth()
        assert w.tracking.holding(MODEL, 1) == ()


async def test_a_device_that_answers_no_ping_for_long_counts_as_offline_until_it_answers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.join()
        w.device.answers = False
        w.clock.now_s += 100
        await _until(lambda: not w.tracking.device(w.device.id).online, w)
        w.device.answers = True
        w.clock.now_s += 100
        await _until(lambda: w.tracking.device(w.device.id).online, w)
        whats = [event.what for event in w.events if isinstance(event, DeviceChanged)]
        assert whats[-2:] == ["offline: no answer for 100 s", "answers again"]


async def test_coming_and_going_is_announced_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.device.birth()
        w.device.birth()
        w.device.leave()
        w.device.leave()
        changes = [(event.online, event.what) for event in w.events if isinstance(event, DeviceChanged)]
        assert changes == [(True, "online, waits for approval"), (False, "offline: will")]
        w.device.birth()
        w.device.emit(Lost(w.device.id, "offline"))
        assert [event.what for event in w.events if isinstance(event, DeviceChanged)][-1] == "offline"


async def test_devices_past_the_limit_are_refused_and_counted(tmp_path: Path) -> None:
    async with world(tmp_path, max_devices=1) as w:
        await w.join()
        w.device.id = DeviceId("dev-2")
        w.device.birth()
        assert [view.id for view in w.tracking.devices()] == ["dev-1"]
        refused = [event for event in w.events if isinstance(event, InputRefused)]
        assert [event.message for event in refused] == ["dev-2 is not let in: devices.max_devices is 1"]


async def test_the_link_is_measured_by_pings(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.device.birth()
        before = w.estimates.link(w.device.id)
        await _until(lambda: w.estimates.link(w.device.id) != before, w)
        assert w.estimates.link(w.device.id).rtt.count > before.rtt.count


async def test_a_ping_without_answer_raises_the_risk(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.device.answers = False
        w.device.birth()
        before = w.estimates.link(w.device.id)
        await _until(lambda: w.estimates.link(w.device.id) != before, w)
        assert w.estimates.link(w.device.id).quality().loss > before.quality().loss


async def test_nobody_knows_a_device_never_seen(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        with pytest.raises(UnknownDevice):
            w.tracking.device(DeviceId("ghost"))
        with pytest.raises(UnknownDevice):
            await w.tracking.approve(DeviceId("ghost"), who="ann")


async def test_who_was_held_off_still_is_after_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.join()
        for _ in range(5):
            w.device.leave()
            w.device.birth()
        kept = w.tracking.dampings()
        assert [device for device, _ in kept] == [w.device.id]
    async with world(tmp_path) as w:
        w.tracking.restore([*kept, (DeviceId("gone"), kept[0][1])])
        assert w.tracking.device(w.device.id).held_off
        w.clock.now_s += 61.0
        w.tracking.release()
        assert not w.tracking.device(w.device.id).held_off


async def test_our_own_restarts_are_not_a_devices_flapping(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.join()
        kept = w.tracking.dampings()
    for _ in range(10):
        async with world(tmp_path) as w:
            w.tracking.restore(kept)
            w.device.birth()
            assert not w.tracking.device(w.device.id).held_off
            kept = w.tracking.dampings()
