from dataclasses import replace

from gatewayd.core.arena_need import MAX_LESSONS, NOTHING_LEARNED, Beliefs, Lesson, Need, RuntimeKind
from gatewayd.core.fit import fit
from gatewayd.core.model import Forecast, Signature, Variant, Version
from gatewayd.core.names import Digest, ModelName
from tests.core.test_fit import DEVICE, variant

KIND = RuntimeKind.of(DEVICE)
UNMEASURED = variant(arena_bytes=None)
PREDICTED = replace(UNMEASURED, structure=replace(UNMEASURED.structure, forecast=Forecast(6_000, 5_000, 7_000)))
OTHER = replace(PREDICTED, digest=Digest("cd" * 32))


def version(each: Variant) -> Version:
    return Version(ModelName("kws"), 1, Signature((), ()), (each,), 0.0)


def test_measured_before_predicted_before_nothing() -> None:
    assert NOTHING_LEARNED.need(replace(PREDICTED, arena_bytes=4_096), DEVICE) == Need(4_096, "measured")
    assert NOTHING_LEARNED.need(PREDICTED, DEVICE) == Need(6_000, "predicted")
    assert NOTHING_LEARNED.need(UNMEASURED, DEVICE).arena_bytes is None


def test_faster_kernels_take_more() -> None:
    board = replace(DEVICE, runtime_version="2.15+CMSIS-NN")
    assert NOTHING_LEARNED.need(PREDICTED, board) == Need(7_000, "predicted for CMSIS-NN")


def test_a_prediction_over_the_arena_names_the_missing_bytes() -> None:
    found = fit(version(PREDICTED), replace(DEVICE, arena_bytes=5_500))
    assert found.reasons == ("tflite-int8: needs a 6,000-byte arena (predicted), the device gives 5,500 (500 short)",)


def test_a_device_that_runs_it_in_less_is_believed_for_its_kind_and_artifact_only() -> None:
    taught = NOTHING_LEARNED.ran(KIND, PREDICTED.digest, arena_bytes=5_000)
    assert taught.need(PREDICTED, DEVICE).arena_bytes == 5_000
    assert taught.need(OTHER, DEVICE).arena_bytes == 6_000
    assert taught.need(PREDICTED, replace(DEVICE, runtime_version="9")).arena_bytes == 6_000
    assert taught.ran(KIND, PREDICTED.digest, arena_bytes=8_000) is taught


def test_a_refusal_raises_what_is_believed_of_everything_there() -> None:
    taught = NOTHING_LEARNED.refused(KIND, PREDICTED, arena_bytes=7_500)
    need = taught.need(PREDICTED, DEVICE).arena_bytes
    assert need is not None
    assert need > 7_500
    assert fit(version(PREDICTED), replace(DEVICE, arena_bytes=7_500), taught).variant is None
    other = taught.need(OTHER, DEVICE).arena_bytes
    assert other is not None
    assert other > 7_500
    assert taught.need(OTHER, replace(DEVICE, cpu="cortex-m55")).arena_bytes == 6_000


def test_a_refusal_that_was_expected_teaches_nothing_of_others() -> None:
    taught = NOTHING_LEARNED.refused(KIND, PREDICTED, arena_bytes=4_000)
    assert taught.need(OTHER, DEVICE).arena_bytes == 6_000


def test_what_nobody_predicted_is_learned_from_a_refusal() -> None:
    taught = NOTHING_LEARNED.refused(KIND, UNMEASURED, arena_bytes=8_192)
    assert "refused with 8,192 bytes on a device of its kind" in fit(version(UNMEASURED), DEVICE, taught).reasons[0]


def test_one_device_that_refuses_everything_does_not_close_all_doors() -> None:
    taught = NOTHING_LEARNED.refused(KIND, PREDICTED, arena_bytes=10**9)
    assert taught.need(OTHER, DEVICE).arena_bytes == 12_000


def test_lessons_are_bounded() -> None:
    lesson = Lesson(runs_in=1)
    full = Beliefs({(KIND, Digest(f"{number:064x}")): lesson for number in range(MAX_LESSONS)})
    taught = full.ran(KIND, Digest("new"), arena_bytes=5)
    assert len(taught.lessons) == MAX_LESSONS
    assert taught.lessons[KIND, Digest("new")] == Lesson(runs_in=5)
