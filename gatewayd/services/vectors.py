"""Test vectors from samples that came with a version: what the reference engine answers to them, kept with each variant."""

from collections.abc import Sequence

from gatewayd.core.errors import BadRequest, GatewayError
from gatewayd.core.model import Signature, Structure, Variant, Vector
from gatewayd.core.selftest import matches
from gatewayd.core.tensor import DType, Tensor, TensorSpec, converted
from gatewayd.services.ports import ReferenceRuns

MAX_SAMPLES_BYTES = 4 * 2**20
"""Protects memory: samples are held whole; a few hundred of a small model's input are plenty to calibrate on."""

MAX_VECTORS = 4
"""Protects airtime: each is sent to the device in a push's trial."""

_EXPECTED_BYTES = 256  # of the first output, as in the self-test
_TOLERANCE = 2  # stored units: kernels round differently, by ±1 in a few % of the elements of an 8-bit output
_FLOAT_TOLERANCE = 1  # FLOAT_UNIT, 1e-3: float kernels differ by about 1e-5


def check_samples(signature: Signature, samples: bytes) -> None:
    """Raises: BadRequest when the samples are not whole float32 values of the only input."""
    if not samples:
        return
    if len(samples) > MAX_SAMPLES_BYTES:
        raise BadRequest(f"samples: {len(samples)} bytes are over the limit of {MAX_SAMPLES_BYTES}")
    if len(signature.inputs) != 1 or signature.inputs[0].dtype is not DType.FP32:
        raise BadRequest("samples: only a model with a single input of real values takes samples")
    due = signature.inputs[0].byte_count
    if len(samples) % due:
        raise BadRequest(f"samples: {len(samples)} bytes are no whole number of samples of {due} bytes (float32)")


def sample_input(spec: TensorSpec, stored: TensorSpec, samples: bytes, number: int) -> bytes:
    """Return sample `number` of the blob as a variant stores its input; `spec` is the signature's."""
    start = number * spec.byte_count
    given = Tensor(spec.name, DType.FP32, spec.shape, samples[start : start + spec.byte_count])
    return converted(given, source=None, target=stored).content


async def make_vectors(
    reference: ReferenceRuns, variant: Variant, signature: Signature, samples: bytes
) -> tuple[Vector, ...]:
    """Return what the reference engine answers to the first samples; nothing when no engine here runs the variant."""
    spec, structure = signature.inputs[0], variant.structure
    count = min(MAX_VECTORS, len(samples) // spec.byte_count)
    inputs = [sample_input(spec, structure.inputs[0], samples, number) for number in range(count)]
    try:
        outputs = await reference.outputs(variant.digest, structure, inputs)
    except GatewayError:
        return ()  # its verdicts say why
    return _vectors(structure, outputs)


def _vectors(structure: Structure, outputs: Sequence[bytes]) -> tuple[Vector, ...]:
    dtype = structure.outputs[0].dtype
    tolerance = _FLOAT_TOLERANCE if dtype is DType.FP32 else _TOLERANCE
    made = [Vector(number, output[:_EXPECTED_BYTES], tolerance) for number, output in enumerate(outputs)]
    # What is not a number matches nothing, not even itself.
    return tuple(each for each in made if matches(each.expected, each.expected, tolerance, dtype))
