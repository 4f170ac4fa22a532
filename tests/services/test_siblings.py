from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.device import Born, Capabilities, DeviceView, LinkKind, LinkQuality, Lost, Report, Sensor
from gatewayd.core.names import DeviceId
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.services.siblings import MAX_KINDS, Siblings
from tests.services.world import CAPABILITIES, EMPTY, World, world

EYE = Sensor("eye", TensorSpec("eye", DType.INT16, (64,), Quantization(0.25, 0)))
BLIND = replace(CAPABILITIES, sensors=(EYE,))
SMALL = replace(CAPABILITIES, slot_bytes=1)
ALONE = replace(CAPABILITIES, runs_on_request=False)
KINDS = (CAPABILITIES, BLIND, SMALL, ALONE)


def siblings_in(w: World) -> Siblings:
    siblings = Siblings(w.tracking.find, w.clock)
    w.tracking.watch(siblings.changed)
    return siblings


def born(w: World, number: int, capabilities: Capabilities = CAPABILITIES) -> None:
    w.tracking.handle(Born(DeviceId(f"d-{number}"), LinkKind.MQTT, Report(capabilities, EMPTY, 0.9)))


async def test_those_count_that_could_be_asked_now(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True, max_devices=100) as w:
        siblings, version = siblings_in(w), await w.add()
        assert siblings.count(version) == 0
        for number in range(3):
            born(w, number)
        for number, capabilities in enumerate((BLIND, SMALL, ALONE), start=3):
            born(w, number, capabilities)
        assert siblings.count(version) == 3
        w.tracking.handle(Lost(DeviceId("d-0"), "will"))
        assert siblings.count(version) == 2
        born(w, 0)
        born(w, 3)  # its sensor was changed
        assert siblings.count(version) == 4
        born(w, 1, BLIND)
        assert siblings.count(version) == 3


async def test_who_was_not_let_in_does_not_count(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        siblings, version = siblings_in(w), await w.add()
        w.device.birth()
        assert siblings.count(version) == 0
        await w.tracking.approve(w.device.id, who="test")
        assert siblings.count(version) == 1


async def test_since_when_a_device_is_there(tmp_path: Path) -> None:
    async with world(tmp_path, open_join=True) as w:
        siblings = siblings_in(w)
        assert siblings.since_s(DeviceId("d-1")) is None
        born(w, 1)
        w.clock.now_s = 5000.0
        w.tracking.handle(Lost(DeviceId("d-1"), "will"))
        born(w, 1)
        born(w, 2)
        w.clock.now_s = 6000.0
        assert (siblings.since_s(DeviceId("d-1")), siblings.since_s(DeviceId("d-2"))) == (1000.0, 5000.0)


class House:
    """Devices by id, as tracking would tell of them."""

    def __init__(self) -> None:
        self.views: dict[DeviceId, DeviceView] = {}
        self.siblings = Siblings(self.views.get, lambda: 0.0)

    def put(self, number: int, capabilities: Capabilities | None, *, online: bool = True) -> None:
        device = DeviceId(f"d-{number}")
        if capabilities is None:
            self.views.pop(device, None)
        else:
            report = Report(replace(capabilities), EMPTY)
            self.views[device] = DeviceView(
                device,
                approved=True,
                online=online,
                link=LinkKind.MQTT,
                report=report,
                quality=LinkQuality(0.1, 1e3, 0.0),
                profile=None,
            )
        self.siblings.changed(device)


async def test_kinds_are_bounded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        house, version = House(), await w.add()
        for number in range(MAX_KINDS + 20):
            house.put(number, replace(CAPABILITIES, board=f"board-{number}"))
        assert house.siblings.count(version) == MAX_KINDS
        for number in range(MAX_KINDS + 20):
            house.put(number, CAPABILITIES)
        assert house.siblings.count(version) >= 20
        for number in range(MAX_KINDS + 20):
            house.put(number, None)
        assert house.siblings.count(version) == 0


changes = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([*KINDS, None]), st.booleans(), st.booleans()), max_size=30
)


@settings(deadline=None)
@given(changes)
def test_the_count_is_what_counting_finds(happened: list[tuple[int, Capabilities | None, bool, bool]]) -> None:
    """Whatever comes and goes, and whenever somebody asks."""
    house = House()
    for number, capabilities, is_online, is_asked in happened:
        house.put(number, capabilities, online=is_online)
        if is_asked:
            house.siblings.since_s(DeviceId("x"))
    house.siblings.since_s(DeviceId("x"))
    views = [each for each in house.views.values() if each.online and each.report is not None]
    told = [each.report.capabilities for each in views if each.report is not None]
    kinds = {kind.like: kind.count for kind in house.siblings._kinds.values()}  # noqa: SLF001 - the count of each kind is nobody else's
    able = [each for each in told if each.runs_on_request]
    assert kinds == {each: able.count(each) for each in able}
