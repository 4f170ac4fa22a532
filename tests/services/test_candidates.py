"""The candidate index says at any time what a look at every device would say."""

import struct
from pathlib import Path
from random import Random

import pytest

from gatewayd.core.cost import Weights
from gatewayd.core.damping import DampingRules
from gatewayd.core.device import Born, LinkKind, Lost, Report, Slot, SlotState
from gatewayd.core.errors import Overloaded
from gatewayd.core.events import DeviceChanged
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import DeviceFacts, place
from gatewayd.core.presets import PRESETS, RequestClass
from gatewayd.core.request import NODE, Privacy, Target
from gatewayd.services.candidates import Candidates
from gatewayd.services.estimates import DevicePair
from gatewayd.services.tracking import Tracking, TrackingOptions
from tests.services.finding import finder_of
from tests.services.world import CAPABILITIES, PROFILE, World, world


def device(number: int) -> DeviceId:
    return DeviceId(f"d{number:02}")


def born(number: int, *versions: Version, battery: float | None = 0.9) -> Born:
    slots = [
        Slot(index, SlotState.ACTIVE, each.model, each.number, each.variants[0].digest)
        for index, each in enumerate(versions)
    ]
    return Born(device(number), LinkKind.MQTT, Report(CAPABILITIES, (*slots, Slot(9, SlotState.EMPTY)), battery))


def tracking_of(w: World, rules: DampingRules | None = None) -> Tracking:
    return Tracking(
        store=w.store, estimates=w.estimates, profiles={"board-a": PROFILE}, notify=w.events.append, clock=w.clock,
        wall_clock=lambda: 1.7e9,
        options=TrackingOptions(open_join=True, max_devices=60, damping=rules or DampingRules(comings=10**6)),
    )  # fmt: skip


def everyone(candidates: Candidates, version: Version) -> dict[DeviceId, DeviceFacts]:
    holders = candidates.holders(version)
    return {each: facts for each in holders.holdings if (facts := holders.shortlist.facts(each)) is not None}


async def test_after_any_history_it_says_what_a_new_index_says(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first, second = await w.add(b"model one"), await w.add(b"model two")
        tracking, random = tracking_of(w), Random(5)  # noqa: S311 - a history, no secret
        kept = Candidates(tracking=tracking, estimates=w.estimates)
        for step in range(600):
            number = random.randrange(50)
            match random.randrange(7):
                case 0 | 1:
                    versions = random.sample([first, second], random.randrange(3))
                    tracking.handle(born(number, *versions, battery=random.choice([0.01, 0.9, None])))
                case 2:
                    tracking.handle(Lost(device(number), "will"))
                case 3:
                    w.estimates.saw_ping(device(number), random.uniform(0.001, 0.2))
                case 4:
                    variant = first.variants[0]
                    before = w.estimates.on_device(device(number), variant, capabilities=CAPABILITIES, profile=None)
                    pair = DevicePair(before.compute, before.energy)
                    w.estimates.saw_device_run(
                        device(number), variant, before=pair, compute_s=random.random(), energy_uj=9.0
                    )
                case 5 if tracking.find(device(number)):
                    tracking.began(device(number))
                case 6:
                    kept.settle()
            if step % 10 == 0:
                fresh = Candidates(tracking=tracking, estimates=w.estimates)
                for version in (first, second):
                    assert everyone(kept, version) == everyone(fresh, version)
                    best = [each.device for each in kept.holders(version).shortlist.best(Weights())]
                    assert set(best) <= {each.id for each in tracking.holding(version.model, version.number)}


async def test_a_change_is_worked_in_at_the_end_of_the_turn(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        tracking = tracking_of(w)
        candidates = Candidates(tracking=tracking, estimates=w.estimates)
        assert everyone(candidates, version) == {}
        tracking.handle(born(1, version))
        await w.store.recent(1)  # gives the loop a turn
        assert set(everyone(candidates, version)) == {device(1)}


async def test_a_flapping_device_is_held_off_unless_it_is_named(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        tracking = tracking_of(w, DampingRules(comings=3, within_s=100, first_s=60))
        finder = finder_of(tracking, w.estimates, w.runtime)
        for _ in range(3):
            tracking.handle(born(1, version))
            w.clock.now_s += 1
            tracking.handle(Lost(device(1), "will"))
        tracking.handle(born(1, version))
        held = "came and went 3 times within 100 s: held off for 60 s"
        assert DeviceChanged(device(1), online=True, what=held) in w.events
        assert [each.refusal for each in finder.find(w.request(), version, now_s=w.clock()).devices] == [held]
        pinned = finder.find(w.request(pin=Target(device(1))), version, now_s=w.clock())
        assert [each.refusal for each in pinned.devices] == [""]
        w.clock.now_s += 61
        tracking.release()
        assert [each.refusal for each in finder.find(w.request(), version, now_s=w.clock()).devices] == [""]
        assert w.events[-1] == DeviceChanged(device(1), online=True, what="no longer held off")


async def test_a_class_can_keep_its_data_where_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        tracking = tracking_of(w)
        tracking.handle(born(1, version))
        finder = finder_of(tracking, w.estimates, w.runtime, PRESETS)
        options = finder.find(w.request(request_class="private"), version, now_s=w.clock())
        assert options.question.privacy is Privacy.STAY_ON_DEVICE
        placement = place(options.question, options.node, options.devices)
        assert [each.target for each in placement.feasible] == [NODE]


@pytest.mark.parametrize(("request_class", "is_refused"), [("default", False), ("background", True)])
async def test_when_the_node_is_overloaded_the_patient_classes_are_served(
    tmp_path: Path,
    request_class: str,
    is_refused: bool,  # noqa: FBT001 - a table column
) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        classes = {"default": RequestClass(), "background": RequestClass(max_queue_s=0.5)}
        w.runtime.wait_s = 1.0
        finder = finder_of(w.tracking, w.estimates, w.runtime, classes)
        options = finder.find(w.request(request_class=request_class), version, now_s=w.clock())
        assert options.is_overloaded is is_refused
        said = "overloaded: 1 s of requests wait, the class queues for 500 ms" if is_refused else ""
        assert options.node.refusal == said


async def test_what_waits_longer_than_its_time_is_told_to_come_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        w.runtime.wait_s = 10.0
        with pytest.raises(Overloaded, match="predicted 10 s, but only 5 s are left"):
            await w.inference.infer(w.request(raw=struct.pack("<4f", 1, 2, 3, 4)))
