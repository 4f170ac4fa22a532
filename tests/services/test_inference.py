import struct
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import Slot, SlotState
from gatewayd.core.errors import (
    BadRequest,
    DeadlineExceeded,
    DeviceRefused,
    DeviceTimeout,
    DeviceUnreachable,
    Forbidden,
    GatewayError,
    NoPlacement,
    UnknownDevice,
    UnknownModel,
    WorkerDied,
)
from gatewayd.core.events import RequestFailed, RequestServed
from gatewayd.core.model import Version
from gatewayd.core.names import Alias, DeviceId, RequestId
from gatewayd.core.request import NODE, Privacy, Target
from gatewayd.core.tensor import DType, Tensor
from gatewayd.services.inference import _likeliest
from gatewayd.services.running import MAX_RUNNING
from tests.services.world import CAPABILITIES, DEVICE_RUNS, EXPECTED, MIC, NODE_RUNS, World, world

DEVICE = Target(DeviceId("dev-1"))


def _install(w: World, version: Version) -> None:
    w.device.slots = (
        Slot(0, SlotState.ACTIVE, version.model, version.number, version.variants[0].digest),
        Slot(1, SlotState.EMPTY),
    )


async def test_an_inline_request_runs_on_the_node_in_the_variants_own_units(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        result = await w.inference.infer(w.request())
        assert result.ran_on == NODE
        assert w.runtime.inputs == [bytes([2, 4, 6, 8])]  # 1, 2, 3, 4 at scale 0.5
        assert struct.unpack("<3f", result.outputs[0].content) == (0.5, 0.75, 1.0)  # scale 0.25, zero -1
        assert (result.label, result.score) == ("c", 1.0)
        assert [type(event) for event in w.events][-1] is RequestServed


async def test_a_caller_may_speak_as_a_variant_stores(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        result = await w.inference.infer(w.request(inputs=(Tensor("x", DType.INT8, (1, 4), b"1234"),)))
        assert w.runtime.inputs == [b"1234"]
        assert (result.outputs[0].dtype, result.outputs[0].content) == (DType.INT8, bytes([1, 2, 3]))
        assert (result.label, result.score) == ("c", 1.0)


async def test_only_the_outputs_asked_for_are_answered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        name = version.signature.outputs[0].name
        assert [each.name for each in (await w.inference.infer(replace(w.request(), outputs=(name,)))).outputs] == [
            name
        ]
        with pytest.raises(BadRequest, match=f"outputs: kws@1 has no output 'z'; it has {name}"):
            await w.inference.infer(replace(w.request(), outputs=("z",)))


async def test_a_sensor_is_read_and_converted_when_the_node_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        await w.join()
        result = await w.inference.infer(w.request(source=True))
        assert result.ran_on == NODE
        assert w.runtime.inputs == [bytes([1, 2, 3, 4])]  # 0.5, 1, 1.5, 2 at scale 0.5
        assert (result.measured.energy_uj, result.measured.link_bytes, result.sample) == (700.0, 8, 1)
        assert "is not installed (it would fit)" in result.reason


async def test_a_device_that_holds_the_model_runs_it_on_its_own_sensor(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        result = await w.inference.infer(w.request(source=True))
        assert result.ran_on == DEVICE
        assert (result.measured.compute_s, result.measured.energy_uj, result.measured.link_bytes) == (0.004, 60.0, 3)
        assert w.runtime.inputs == []


async def test_when_the_device_is_silent_the_next_option_serves_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        w.device.answers = False
        result = await w.inference.infer(w.request(prefer=DEVICE))
        assert result.ran_on == NODE
        assert len(result.attempts) == 1
        assert result.attempts[0].startswith("device:dev-1: dev-1 did not answer")
        assert result.reason.startswith("node serves because what came first failed: device:dev-1: dev-1 did not")


def _active(version: Version, index: int) -> tuple[Slot, ...]:
    slot = Slot(index, SlotState.ACTIVE, version.model, version.number, version.variants[0].digest)
    return (slot, Slot(1, SlotState.EMPTY)) if index == 0 else (Slot(0, SlotState.EMPTY), slot)


@pytest.mark.parametrize("is_newer", [False, True])
async def test_what_waited_for_a_slot_that_gave_way_is_placed_anew(tmp_path: Path, *, is_newer: bool) -> None:
    """The same version has moved to another slot, or a newer one is the stable one by now."""
    async with world(tmp_path) as w:
        first = await w.add(b"one")
        _install(w, first)
        await w.join()
        request = w.request(source=True, pin=DEVICE)
        newer = await w.add(b"two") if is_newer else first
        if is_newer:
            await w.catalog.move_alias(first.model, Alias("stable"), 1, who="ann", why="")
        w.device.moves_to = _active(newer, 1)
        if is_newer:
            w.device.on_move = lambda: w.catalog.move_alias(first.model, Alias("stable"), 2, who="ann", why="")
        result = await w.inference.infer(request)
        assert (result.ran_on, result.version) == (DEVICE, newer.number)
        assert result.attempts == ("device:dev-1: device dev-1: slot 0 runs nothing",)
        assert "serves because what came first failed" in result.reason


async def test_what_waited_for_a_model_that_left_says_what_was_tried(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        request = w.request(source=True, pin=DEVICE)
        w.device.moves_to = (Slot(0, SlotState.EMPTY), Slot(1, SlotState.EMPTY))
        with pytest.raises(NoPlacement, match=r"tried device:dev-1: .*runs nothing; then .*kws@1 is not installed"):
            await w.inference.infer(request)


async def test_a_device_that_refuses_and_has_not_moved_is_asked_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        _install(w, version)
        await w.join()
        w.device.moves_to = w.device.slots
        with pytest.raises(DeviceRefused, match="runs nothing"):
            await w.inference.infer(w.request(source=True, pin=DEVICE))


async def test_a_preferred_device_that_is_gone_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        assert (await w.inference.infer(w.request(prefer=DEVICE))).ran_on == DEVICE
        w.device.leave()
        result = await w.inference.infer(w.request(prefer=DEVICE))
        assert result.ran_on == NODE
        assert "offline" in result.reason


async def test_when_everything_fails_the_error_tells_what_was_tried(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        await w.join()
        w.device.answers = False
        with pytest.raises(DeviceTimeout, match="tried node: dev-1 did not answer"):
            await w.inference.infer(w.request(source=True))
        assert w.decisions.why(RequestId("r1")).attempts[0].startswith("node: dev-1 did not answer")
        assert isinstance(w.events[-1], RequestFailed)


async def test_a_worker_that_dies_is_the_nodes_fault(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        w.runtime.failure = WorkerDied("killed by SIGSEGV")
        with pytest.raises(WorkerDied, match="tried node: killed by SIGSEGV"):
            await w.inference.infer(w.request())


async def test_private_data_stays_on_the_device_or_nothing_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        await w.join()
        private = w.request(source=True, privacy=Privacy.STAY_ON_DEVICE)
        with pytest.raises(NoPlacement, match=r"privacy.*device:dev-1: kws@1 is not installed"):
            await w.inference.infer(private)
        _install(w, version)
        w.device.birth()
        assert (await w.inference.infer(private)).ran_on == DEVICE


async def test_raw_data_of_another_preprocessing_is_not_the_models_input(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        w.device.capabilities = replace(CAPABILITIES, sensors=(replace(MIC, preprocessing="mfcc@1"),))
        await w.join()
        with pytest.raises(NoPlacement, match="preprocessing differs: kws@1 expects none, sensor mic gives mfcc@1"):
            await w.inference.infer(w.request(source=True))


async def test_a_passed_deadline_is_one_error(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        late = replace(w.request(), deadline_s=w.clock() - 1)
        with pytest.raises((DeadlineExceeded, NoPlacement), match=r"only 0 ms are left"):
            await w.inference.infer(late)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "nope"}, UnknownModel, "nope"),
        ({"model": "kws@7"}, UnknownModel, "7"),
        (
            {"raw": b"12345"},
            BadRequest,
            "raw input: kws@1 takes 16 bytes (FP32 of shape [1, 4]) or 4 bytes (INT8 of shape [1, 4]), got 5",
        ),
        ({"request_class": "turbo"}, BadRequest, "parameters.class: no class 'turbo'; there are default"),
        ({"source": True, "sensor": "eye"}, BadRequest, "input: device dev-1 has no sensor 'eye'; it has mic"),
        ({"pin": Target(DeviceId("ghost"))}, UnknownDevice, "no device 'ghost' was ever seen here"),
        (
            {"inputs": (Tensor("x", DType.INT16, (1, 4), b"12345678"),)},
            BadRequest,
            "input 'x': kws@1 takes FP32 (or, as stored, INT8), got INT16",
        ),
        (
            {"inputs": (Tensor("x", DType.FP32, (4, 1), bytes(16)),)},
            BadRequest,
            "input 'x': kws@1 takes shape [1, 4], got [4, 1]",
        ),
        (
            {"inputs": (Tensor("z", DType.FP32, (1, 4), bytes(16)),)},
            BadRequest,
            "inputs: kws@1 takes 'x' FP32 [1, 4]; given: 'z'",
        ),
    ],
)
async def test_a_request_that_cannot_be_is_refused_with_the_place(
    tmp_path: Path, changes: dict[str, object], error: type[GatewayError], message: str
) -> None:
    async with world(tmp_path) as w:
        await w.add()
        await w.join()
        with pytest.raises(error) as caught:
            await w.inference.infer(w.request(**changes))  # type: ignore[arg-type] # the table mixes the fields' types
        assert message in str(caught.value)


async def test_a_device_that_is_not_let_in_or_offline_is_not_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        w.device.birth()
        with pytest.raises(Forbidden, match="waits for approval"):
            await w.inference.infer(w.request(source=True))
        await w.tracking.approve(w.device.id, who="ann")
        w.device.leave()
        with pytest.raises(DeviceUnreachable, match="offline"):
            await w.inference.infer(w.request(source=True))


async def test_a_device_that_answers_nonsense_has_failed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        w.device.output = EXPECTED[:2]
        result = await w.inference.infer(w.request(source=True))
        assert result.ran_on == NODE
        assert result.attempts == ("device:dev-1: dev-1 answered 2 bytes where 3 were due",)


async def test_what_was_measured_changes_what_is_predicted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        first = await w.inference.infer(w.request(source=True))
        for _ in range(20):
            last = await w.inference.infer(w.request(source=True))
        assert first.predicted is not None
        assert last.predicted is not None
        assert abs(last.predicted.energy_uj - 60.0) < 1.0 < abs(first.predicted.energy_uj - 60.0)


def test_an_output_that_is_no_number_has_no_label() -> None:
    nan = Tensor("y", DType.FP32, (1, 3), struct.pack("<3f", float("nan"), float("nan"), float("inf")))
    assert _likeliest((nan,), ("a", "b", "c")) == (None, None)
    some = Tensor("y", DType.FP32, (1, 3), struct.pack("<3f", float("nan"), 0.2, 0.1))
    label, score = _likeliest((some,), ("a", "b", "c"))
    assert label == "b"
    assert score == pytest.approx(0.2)


async def test_a_version_that_no_engine_runs_says_which_tried(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.trial.verdicts = (replace(NODE_RUNS, runs=False, reason="python: no such file"), DEVICE_RUNS)
        await w.add()
        with pytest.raises(NoPlacement, match=r"no variant runs on the node \(tflite-int8 on litert: python: no such"):
            await w.inference.infer(w.request())


async def test_a_device_with_its_hands_full_is_not_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        for _ in range(MAX_RUNNING):
            w.tracking.began(w.device.id)
        result = await w.inference.infer(w.request(prefer=DEVICE))
        assert result.ran_on == NODE
        assert f"dev-1 has {MAX_RUNNING} requests running" in result.reason


async def test_a_request_pinned_to_the_node_looks_at_no_device(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _install(w, await w.add())
        await w.join()
        await w.inference.infer(w.request(pin=NODE))
        options = w.decisions.why(RequestId("r1")).placement.options
        assert [option.target for option in options] == [NODE]
