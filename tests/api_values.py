"""One of each value that the API speaks of."""

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.decision import Decision, Rent
from gatewayd.core.device import (
    Capabilities,
    DeviceView,
    EnergySource,
    LinkKind,
    LinkQuality,
    Report,
    Sensor,
    Slot,
    SlotState,
)
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.model import Operator, Place, Signature, Structure, Variant, Verdict, Version
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId, RequestId
from gatewayd.core.placement import DeviceFacts, NodeFacts, Question, place
from gatewayd.core.request import Measured, Privacy, Target
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.core.update import Push, PushState

KWS = ModelName("kws")
CAM = DeviceId("cam-7")
INPUT = TensorSpec("x", DType.FP32, (1, 4))
OUTPUT = TensorSpec("scores", DType.FP32, (1, 2))
STRUCTURE = Structure((Operator("SOFTMAX", 1, 1), Operator("CONV_2D", 3, 2)), (INPUT,), (OUTPUT,), 1200, 800)
VARIANT = Variant(
    "tflite-int8",
    Digest("a" * 64),
    18432,
    STRUCTURE,
    (Verdict(Place.NODE, "litert", runs=True, reason="loads and runs", latency_s=0.0002),),
    arena_bytes=12000,
)
VERSION = Version(KWS, 1, Signature((INPUT,), (OUTPUT,), ("no", "yes"), "mfcc@1"), (VARIANT,), 1_700_000_000.0, "first")
CAPABILITIES = Capabilities(
    board="nucleo-l4r5zi",
    cpu="cortex-m4",
    clock_mhz=120,
    ram_bytes=655360,
    flash_bytes=2097152,
    runtime="tflm",
    runtime_version="2.15",
    runtime_abi=3,
    arena_bytes=65536,
    slot_bytes=131072,
    chunk_bytes=1024,
    energy_source=EnergySource.BATTERY,
    operators=None,
    sensors=(Sensor("mic", TensorSpec("mic", DType.INT16, (1, 4), Quantization(0.5, 0)), "mfcc@1"),),
)
DEVICE = DeviceView(
    id=CAM,
    approved=False,
    online=True,
    link=LinkKind.MQTT,
    report=Report(CAPABILITIES, (Slot(0, SlotState.ACTIVE, KWS, 1, Digest("a" * 64)), Slot(1, SlotState.EMPTY)), 0.93),
    quality=LinkQuality(0.012, 8000.0, 0.01),
    profile=None,
    desired=((KWS, 1),),
)
PUSH = Push(
    id=PushId(7),
    device=CAM,
    model=KWS,
    version=1,
    variant="tflite-int8",
    digest=Digest("a" * 64),
    size_bytes=18432,
    state=PushState.TRANSFERRING,
    deadline_s=50.0,
    offset=9216,
)
COSTS = Costs(latency_s=0.004, energy_uj=12.5, link_bytes=40.0, failure=0.01)


def sure(mean: float) -> Estimate:
    """Return an estimate that is certain."""
    return Estimate(mean, 0.0, 20.0)


DECISION = Decision(
    RequestId("r-1"),
    "kws",
    1,
    place(
        Question(
            by_reference=True, source=CAM, privacy=Privacy.STAY_ON_DEVICE, time_left_s=1.0, pin=None, weights=Weights()
        ),
        NodeFacts("", "tflite-float32", sure(0.001), 0.0),
        [
            DeviceFacts(
                CAM,
                "",
                "tflite-int8",
                sure(0.002),
                sure(12.5),
                LinkEstimate(sure(0.001), sure(40_000.0), sure(0.01)),
                queue_s=0.0,
                is_source=True,
                on_battery=True,
                battery=0.9,
                input_bytes=490,
                output_bytes=40,
                sample_bytes=1000,
                sample_energy_uj=sure(700.0),
            )
        ],
    ),
    (),
    "served",
    Target(CAM),
    Measured(total_s=0.005),
    decided_at=1_700_000_000.0,
    rent=Rent(CAM, saved=12.5, requests=3, price=120.0, state="the rent paid is below the price of a push"),
)
