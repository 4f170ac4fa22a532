"""Which tensors a caller speaks: those of the signature, or one variant's own stored types where the datatypes say so."""

from collections.abc import Sequence
from dataclasses import field, replace

from gatewayd.core.errors import BadRequest
from gatewayd.core.model import Version
from gatewayd.core.names import ModelName
from gatewayd.core.record import record
from gatewayd.core.request import InferenceRequest
from gatewayd.core.tensor import DType, Quantization, Tensor, TensorSpec

# These protect memory: versions whose callers are remembered, and the ways in which they describe their tensors.
_MAX_VERSIONS = 1024
_MAX_PLANS = 16


@record
class Speech:
    """One request's tensors as its caller gives and takes them; a spec's quantisation tells what stored values mean.

    `inputs` are in the order of the model; () for a request by reference.
    """

    inputs: tuple[Tensor, ...]
    input_specs: tuple[TensorSpec, ...]
    output_specs: tuple[TensorSpec, ...]

    @property
    def first_quantization(self) -> Quantization | None:
        """What the values of the first output mean; None: they are real values."""
        return self.output_specs[0].quantization if self.output_specs else None


def speech_of(request: InferenceRequest, version: Version) -> Speech:
    """Bring inline inputs into the order of the model and find out what their values mean.

    Inputs in the signature's datatypes are real values, and so are the outputs then; inputs in the stored datatypes of one
    of the variants are taken, and outputs given, as that variant stores them. Whatever runs it, values are converted.

    Raises: BadRequest naming the input, and what the version takes.
    """
    signature = version.signature
    _check_outputs(request, version)
    if request.source is not None:
        return Speech((), signature.inputs, signature.outputs)
    if request.raw is not None:
        return _raw_speech(request.raw, version)
    given = _in_order(request.inputs, version)
    for tensor, spec in zip(given, signature.inputs, strict=True):
        if tensor.shape != spec.shape:
            raise BadRequest(f"input {spec.name!r}: {version} takes shape {list(spec.shape)}, got {list(tensor.shape)}")
    if all(tensor.dtype is spec.dtype for tensor, spec in zip(given, signature.inputs, strict=True)):
        return Speech(given, signature.inputs, signature.outputs)
    return _stored_speech(given, version)


class Speeches:
    """`speech_of`, remembered per version for tensors that were described alike: most callers send the same again and again."""

    def __init__(self) -> None:
        self._known: dict[tuple[ModelName, int], _Known] = {}

    def of(self, request: InferenceRequest, version: Version) -> Speech:
        """Return the request's tensors in the order of the model, and what their values mean. Raises: as `speech_of`."""
        if request.outputs or not request.inputs:
            return speech_of(request, version)
        known = self._known.get((version.model, version.number))
        if known is None or known.version is not version:
            known = self._remember(version)
        inputs = request.inputs
        key = tuple([(each.name, each.dtype, each.shape) for each in inputs])
        plan = known.plans.get(key)
        if plan is None:
            speech = speech_of(request, version)
            if len(known.plans) < _MAX_PLANS:
                order = tuple(inputs.index(each) for each in speech.inputs)
                known.plans[key] = _Plan(order, speech.input_specs, speech.output_specs)
            return speech
        given = inputs if len(inputs) == 1 else tuple([inputs[index] for index in plan.order])
        return Speech(given, plan.input_specs, plan.output_specs)

    def _remember(self, version: Version) -> "_Known":
        if len(self._known) >= _MAX_VERSIONS:
            self._known.clear()
        known = self._known[version.model, version.number] = _Known(version)
        return known


@record
class _Plan:
    """Where each input of the model stands among those given, and what values mean."""

    order: tuple[int, ...]
    input_specs: tuple[TensorSpec, ...]
    output_specs: tuple[TensorSpec, ...]


@record
class _Known:
    version: Version
    plans: dict[tuple[tuple[str, DType, tuple[int, ...]], ...], _Plan] = field(default_factory=dict)


def _in_order(inputs: Sequence[Tensor], version: Version) -> tuple[Tensor, ...]:
    """Sort the inputs by the names of the signature, or of one of the variants: these may differ from build to build."""
    given = {tensor.name: tensor for tensor in inputs}
    known = (version.signature.inputs, *(variant.structure.inputs for variant in version.variants))
    for specs in known:
        if len(given) == len(inputs) == len(specs) and all(spec.name in given for spec in specs):
            return tuple(given[spec.name] for spec in specs)
    names = ", ".join(repr(tensor.name) for tensor in inputs) or "none"
    raise BadRequest(f"inputs: {version} takes {_listed(version.signature.inputs)}; given: {names}")


def _stored_speech(given: tuple[Tensor, ...], version: Version) -> Speech:
    signature = version.signature
    for variant in version.variants:
        stored = variant.structure
        if [each.dtype for each in stored.inputs] == [tensor.dtype for tensor in given]:
            outputs = zip(stored.outputs, signature.outputs, strict=True)
            named = tuple(spec if spec.name == real.name else replace(spec, name=real.name) for spec, real in outputs)
            return Speech(given, stored.inputs, named)
    for tensor, spec in zip(given, signature.inputs, strict=True):
        if tensor.dtype is not spec.dtype:
            stored_too = sorted(
                {each.structure.inputs[0].dtype.value for each in version.variants} - {spec.dtype.value}
            )
            also = f" (or, as stored, {', '.join(stored_too)})" if stored_too else ""
            raise BadRequest(f"input {spec.name!r}: {version} takes {spec.dtype.value}{also}, got {tensor.dtype.value}")
    raise BadRequest(f"inputs: {version} takes {_listed(signature.inputs)}")


def _raw_speech(raw: bytes, version: Version) -> Speech:
    """Tell by their number what raw bytes are: real values of the signature, else what one of the variants stores."""
    signature = version.signature
    if len(signature.inputs) != 1:
        raise BadRequest(f"{version} takes {len(signature.inputs)} inputs: raw bytes serve for one; send JSON")
    spec = signature.inputs[0]
    if len(raw) == spec.byte_count:
        return Speech((Tensor(spec.name, spec.dtype, spec.shape, raw),), signature.inputs, signature.outputs)
    for variant in version.variants:
        stored = variant.structure.inputs[0]
        if len(raw) == stored.byte_count:
            return _stored_speech((Tensor(spec.name, stored.dtype, spec.shape, raw),), version)
    takes = {each.byte_count: each.dtype.value for each in (spec, *(v.structure.inputs[0] for v in version.variants))}
    kinds = " or ".join(f"{count} bytes ({kind} of shape {list(spec.shape)})" for count, kind in takes.items())
    raise BadRequest(f"raw input: {version} takes {kinds}, got {len(raw)}")


def _check_outputs(request: InferenceRequest, version: Version) -> None:
    names = [spec.name for spec in version.signature.outputs]
    for name in request.outputs:
        if name not in names:
            raise BadRequest(f"outputs: {version} has no output {name!r}; it has {', '.join(names)}")


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name!r} {spec.dtype.value} {list(spec.shape)}" for spec in specs)
