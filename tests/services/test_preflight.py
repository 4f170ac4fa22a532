from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import Born, LinkKind, PushPhase, PushReport, Report, Slot, SlotState
from gatewayd.core.errors import UnknownDevice, UnknownModel
from gatewayd.core.names import DeviceId, PushId, parse_model_ref
from gatewayd.services.preflight import Preflight
from tests.services.world import CAPABILITIES, DEVICE, EMPTY, MODEL, World, world

KWS = parse_model_ref("kws")
SMALL = replace(CAPABILITIES, arena_bytes=1_024)


def _born(w: World, device: str = DEVICE, *, arena_bytes: int = 8_192, slots: tuple[Slot, ...] = EMPTY) -> Born:
    event = Born(DeviceId(device), LinkKind.MQTT, Report(replace(CAPABILITIES, arena_bytes=arena_bytes), slots))
    w.tracking.handle(event)
    return event


async def test_every_device_is_answered_for(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True) as w:
        preflight = Preflight(catalog=w.catalog, tracking=w.tracking)
        await w.add()
        _born(w)
        _born(w, "dev-2", arena_bytes=1_024)
        _born(w, "dev-3", slots=(Slot(0, SlotState.EMPTY),))
        _, (large, small, single) = preflight.check(KWS, None)
        assert (large.runs, large.room, large.chosen is not None) == (True, "", True)
        assert not small.runs
        assert small.findings[0].obstacles == ("needs a 4,096-byte arena, the device gives 1,024 (3,072 short)",)
        assert not single.runs
        assert "one is for staging" in single.room


async def test_a_device_that_never_reported_is_told_apart(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True) as w:
        await w.add()
        _born(w)
    async with world(tmp_path, open_join=True) as w:
        preflight = Preflight(catalog=w.catalog, tracking=w.tracking)
        _, checks = preflight.check(KWS, None)
        assert [(each.runs, each.remark) for each in checks] in ([], [(False, "has not reported yet")])
        with pytest.raises(UnknownDevice):
            preflight.check(KWS, DeviceId("nobody"))
        with pytest.raises(UnknownModel):
            preflight.check(parse_model_ref("none"), None)


async def test_a_device_that_holds_it_teaches_for_its_kind(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True) as w:
        preflight = Preflight(catalog=w.catalog, tracking=w.tracking)
        version = await w.add()
        assert preflight.fit(version, SMALL).variant is None
        digest = version.variants[0].digest
        preflight.handle(
            _born(w, arena_bytes=1_024, slots=(Slot(0, SlotState.ACTIVE, MODEL, 1, digest), Slot(1, SlotState.EMPTY))),
            (),
        )
        assert preflight.fit(version, SMALL).variant is not None
        assert preflight.fit(version, replace(SMALL, cpu="m0")).variant is None


@pytest.mark.parametrize(
    ("reason", "is_learned"),
    [("self-test: Failed to resize buffer. Requested: 4000", True), ("self-test: output differs", False)],
)
async def test_a_refusal_for_the_arena_is_believed(tmp_path: Path, reason: str, is_learned: bool) -> None:  # noqa: FBT001 # a case
    async with world(tmp_path, open_join=True) as w:
        preflight = Preflight(catalog=w.catalog, tracking=w.tracking)
        version = await w.add()
        _born(w)
        push = await w.pushes.start(DEVICE, KWS, who="test")
        preflight.handle(PushReport(DEVICE, push.id, PushPhase.FAILED, reason=reason), (push,))
        found = preflight.fit(version, CAPABILITIES)
        assert (found.variant is None) is is_learned


async def test_reports_of_unknown_pushes_and_devices_are_no_lessons(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True) as w:
        preflight = Preflight(catalog=w.catalog, tracking=w.tracking)
        version = await w.add()
        _born(w)
        push = await w.pushes.start(DEVICE, KWS, who="test")
        foreign = PushReport(DeviceId("other"), push.id, PushPhase.FAILED, reason="arena too small")
        preflight.handle(foreign, (push,))
        preflight.handle(PushReport(DEVICE, PushId(99), PushPhase.FAILED, reason="arena too small"), (push,))
        assert preflight.fit(version, CAPABILITIES).variant is not None
