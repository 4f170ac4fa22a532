from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.device import Capabilities, EnergySource, Slot, SlotState
from gatewayd.core.fit import TFLITE_SCHEMA, fit, room_for
from gatewayd.core.model import Operator, Place, Signature, Structure, Variant, Verdict, Version
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.tensor import DType, TensorSpec

KWS, VWW = ModelName("kws"), ModelName("vww")
RUNS = Verdict(Place.DEVICE, "tflite-micro", runs=True, reason="")
DEVICE = Capabilities(
    board="nucleo-l4r5zi",
    cpu="cortex-m4",
    clock_mhz=120,
    ram_bytes=655_360,
    flash_bytes=2_097_152,
    runtime="tflm",
    runtime_version="2.15",
    runtime_abi=TFLITE_SCHEMA,
    arena_bytes=8_192,
    slot_bytes=131_072,
    chunk_bytes=1024,
    energy_source=EnergySource.BATTERY,
    operators=frozenset({"CONV_2D", "SOFTMAX"}),
    sensors=(),
)


def variant(
    name: str = "tflite-int8",
    *,
    dtype: DType = DType.INT8,
    size_bytes: int = 50_000,
    arena_bytes: int | None = 8_192,
    operators: tuple[str, ...] = ("CONV_2D",),
    verdicts: tuple[Verdict, ...] = (RUNS,),
) -> Variant:
    spec = TensorSpec("x", dtype, (1, 4))
    structure = Structure(tuple(Operator(each, 1, 2) for each in operators), (spec,), (spec,), 1000, 400)
    return Variant(name, Digest("ab" * 32), size_bytes, structure, verdicts, arena_bytes)


def version(*variants: Variant) -> Version:
    return Version(KWS, 3, Signature((), ()), variants, created_at=0.0)


def test_what_fits_exactly_fits() -> None:
    found = fit(version(variant(size_bytes=131_072, arena_bytes=8_192)), DEVICE)
    assert found.variant is not None
    assert found.reasons == ()


NOT_RUN = Verdict(Place.DEVICE, "tflite-micro", runs=False, reason="invoke failed")


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (variant(arena_bytes=12_288), "tflite-int8: needs a 12,288-byte arena, the device gives 8,192 (4,096 short)"),
        (variant(size_bytes=200_000), "tflite-int8: is 200,000 bytes, a slot takes 131,072 (68,928 short)"),
        (variant(operators=("CONV_2D", "LSTM", "ABS")), "tflite-int8: the device's runtime has no ABS, LSTM"),
        (variant(verdicts=(NOT_RUN,)), "tflite-int8: does not run on tflite-micro: invoke failed"),
        (variant(verdicts=()), "tflite-int8: not tried for devices"),
        (
            variant(arena_bytes=9_000, operators=("LSTM",)),
            "tflite-int8: needs a 9,000-byte arena, the device gives 8,192 (808 short); the device's runtime has no LSTM",
        ),
    ],
)
def test_each_refusal_says_what_is_missing(refused: Variant, reason: str) -> None:
    found = fit(version(refused), DEVICE)
    assert found.variant is None
    assert found.reasons == (reason,)


def test_another_schema_is_refused() -> None:
    found = fit(version(variant()), replace(DEVICE, runtime_abi=2))
    assert found.reasons == ("tflite-int8: needs a runtime for TFLite schema 3, the device reads 2",)


def test_a_version_without_variants_fits_nowhere() -> None:
    assert fit(version(), DEVICE).reasons == ("kws@3 has no variants",)


def test_a_device_that_names_no_operators_is_assumed_to_have_all() -> None:
    assert fit(version(variant(operators=("LSTM",))), replace(DEVICE, operators=None)).variant is not None


def test_integer_is_preferred_even_when_it_is_larger() -> None:
    small_float = variant("tflite-float32", dtype=DType.FP32, size_bytes=100)
    found = fit(version(small_float, variant()), DEVICE)
    assert found.variant is not None
    assert found.variant.name == "tflite-int8"


@pytest.mark.parametrize("operators", [None, frozenset({"ethos-u"})])
@pytest.mark.parametrize(
    ("name", "accelerator", "fits"),
    [
        ("ethos-u55-128", "ethos-u55-128", True),
        ("ethos-u55-128", "ethos-u55-256", False),
        ("ethos-u55-128", "", False),
        ("tflite-int8", "ethos-u55-128", True),  # a file from elsewhere does not say for which
    ],
)
def test_what_was_built_for_an_npu_fits_that_one(
    name: str,
    accelerator: str,
    operators: frozenset[str] | None,
    fits: bool,  # noqa: FBT001 - a parametrised case
) -> None:
    built = variant(name, operators=("ethos-u",))
    built = replace(built, structure=replace(built.structure, accelerator="ethos-u"))
    found = fit(version(built), replace(DEVICE, operators=operators, accelerator=accelerator))
    assert (found.variant is not None) is fits
    had = accelerator or "none"
    refusal = f"{name}: is compiled for the NPU {name}, the device has {had}"
    assert found.reasons == (() if fits else (refusal,))


def test_an_arena_that_nobody_measured_is_left_to_the_device() -> None:
    unknown = variant(arena_bytes=None)
    assert fit(version(unknown), DEVICE).variant == unknown


def test_a_float_is_better_than_nothing_and_the_refused_ones_are_explained() -> None:
    found = fit(version(variant(arena_bytes=9_000), variant("tflite-float32", dtype=DType.FP32)), DEVICE)
    assert found.variant is not None
    assert found.variant.name == "tflite-float32"
    assert len(found.reasons) == 1


@given(
    st.lists(
        st.builds(
            variant,
            st.sampled_from(["a", "b", "c"]),
            dtype=st.sampled_from([DType.INT8, DType.FP32]),
            size_bytes=st.integers(1, 300_000),
            arena_bytes=st.none() | st.integers(0, 20_000),
            operators=st.sampled_from([("CONV_2D",), ("LSTM",), ()]),
            verdicts=st.sampled_from([(), (RUNS,), (NOT_RUN,)]),
        ),
        max_size=5,
    )
)
def test_it_never_picks_what_does_not_fit_and_always_says_why(variants: list[Variant]) -> None:
    found = fit(version(*variants), DEVICE)
    if found.variant is not None:
        chosen = found.variant
        assert chosen.size_bytes <= DEVICE.slot_bytes
        assert chosen.arena_bytes is None or chosen.arena_bytes <= DEVICE.arena_bytes
        assert {each.name for each in chosen.structure.operators} <= {"CONV_2D", "SOFTMAX"}
        assert chosen.verdicts == (RUNS,)
        assert len(found.reasons) < len(variants)
    else:
        assert len(found.reasons) == max(1, len(variants))


def slots(*held: tuple[SlotState, ModelName | None]) -> tuple[Slot, ...]:
    return tuple(Slot(index, state, model) for index, (state, model) in enumerate(held))


E, A, T, G = SlotState.EMPTY, SlotState.ACTIVE, SlotState.TRIAL, SlotState.STAGING


@pytest.mark.parametrize(
    "free",
    [
        slots((E, None), (E, None)),
        slots((A, KWS), (E, None)),
        slots((A, KWS), (G, KWS)),
        slots((A, VWW), (E, None), (E, None)),
        slots((A, KWS), (A, VWW), (G, VWW)),
    ],
)
def test_there_is_room(free: tuple[Slot, ...]) -> None:
    assert room_for(free, KWS) == ""


@pytest.mark.parametrize(
    ("full", "reason"),
    [
        ((), "the device reports no model slots"),
        (slots((E, None)), "1 slot: room for 0 models, one is for staging"),
        (slots((A, KWS)), "1 slot: room for 0 models, one is for staging, and it holds kws"),
        (slots((A, VWW), (E, None)), "2 slots: room for 1 model, one is for staging, and it holds vww"),
        (slots((A, KWS), (T, KWS)), "no slot is free for staging: all 2 are active or on trial (kws)"),
    ],
)
def test_there_is_no_room(full: tuple[Slot, ...], reason: str) -> None:
    assert room_for(full, KWS) == reason
