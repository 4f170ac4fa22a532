"""What a caller of an inference sends and gets, on every protocol: Open Inference Protocol JSON or CBOR, raw bytes, or both.

Pure: bytes to `InferenceBody`, `InferenceResult` to bytes. Edges call it; which model is meant, deadlines on a clock and
shapes of the model's signature are not known here.

Source: Open Inference Protocol v2, "Inference Request JSON Object" and "Inference Response JSON Object"; Triton Inference
Server, "Binary tensor data extension".
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import TypeVar

from gatewayd.core.cost import Costs
from gatewayd.core.errors import BadRequest, GatewayError, TooLarge
from gatewayd.core.names import parse_device_id
from gatewayd.core.record import record
from gatewayd.core.request import NODE, InferenceResult, Measured, Privacy, SensorRef, Target
from gatewayd.core.tensor import Tensor
from gatewayd.wire.cbor import decode_cbor
from gatewayd.wire.json_text import parse_json, render_json
from gatewayd.wire.tensor_json import (
    MAX_TEXT,
    BinaryTail,
    read_mapping,
    read_tensor,
    read_text,
    refuse,
    write_number,
    write_tensor,
)

JSON = "application/json"
OCTETS = "application/octet-stream"
CBOR = "application/cbor"

MAX_JSON_BYTES = 2**20  # protects the loop: a JSON list of a megabyte takes about 10 ms to read
MAX_RAW_BYTES = 16 * 2**20  # protects memory; raw bytes are not parsed
MAX_INPUTS = 32  # protects the loop from bodies that are all overhead
_LARGE = 1e9  # a float has no millionths beyond it
MAX_DEADLINE_MS = 3_600_000.0  # protects the queues from requests that wait for ever

T = TypeVar("T", bytes, memoryview)

_KINDS: Mapping[str, str] = {JSON: "json", OCTETS: "raw", CBOR: "cbor"}

_BODY_KEYS = ("id", "inputs", "outputs", "parameters", "device", "input")
# `timeout` is Triton's word for a deadline, in microseconds.
_PARAMETER_KEYS = (
    "placement", "deadline_ms", "privacy", "class", "stream", "reset", "binary_data_output", "timeout",
)  # fmt: skip


@record
class InferenceBody:
    """A decoded request body. Exactly one of `inputs`, `raw` and `source` is given.

    `pin` is the only target allowed, `prefer` the one to try first; None leaves the placement open. `deadline_ms` (from
    arrival) None takes the node's default; `id` is the caller's own name for the request, at most 128 printable characters.
    `outputs` names those wanted (empty: all); `binary` whether they are answered as bytes, `binary_named` where one differs.
    `is_cbor`: the body was CBOR, and so is to be the answer.
    """

    inputs: tuple[Tensor, ...] = ()
    raw: bytes | None = None
    source: SensorRef | None = None
    pin: Target | None = None
    prefer: Target | None = None
    privacy: Privacy = Privacy.ANY
    deadline_ms: float | None = None
    request_class: str = "default"
    stream: str = ""
    is_reset: bool = False
    id: str | None = None
    outputs: tuple[str, ...] = ()
    binary: bool = False
    binary_named: tuple[tuple[str, bool], ...] = ()
    is_cbor: bool = False

    def is_binary(self, output: str) -> bool:
        """Whether this output is answered as bytes behind the JSON."""
        return dict(self.binary_named).get(output, self.binary)

    def with_inputs(self, inputs: tuple[Tensor, ...]) -> "InferenceBody":
        """Return the same about other inputs."""
        return InferenceBody(
            inputs, self.raw, self.source, self.pin, self.prefer, self.privacy, self.deadline_ms, self.request_class,
            self.stream, self.is_reset, self.id, self.outputs, self.binary, self.binary_named, self.is_cbor,
        )  # fmt: skip


def decode_body(
    payload: bytes,
    content_type: str | None,
    *,
    max_json_bytes: int = MAX_JSON_BYTES,
    max_raw_bytes: int = MAX_RAW_BYTES,
) -> InferenceBody:
    """Read a request body.

    Without a content type (MQTT 3.1.1) a payload whose first non-space byte is `{` is JSON and any other is raw
    tensor bytes: a raw tensor that may begin with 0x7B needs a content type.

    Raises:
        BadRequest: malformed; the message names the path, as in `inputs[0].data`.
        TooLarge: over `max_json_bytes` or `max_raw_bytes`.
    """
    match _kind(payload, content_type):
        case "json":
            document = parse_json(_bounded(payload, max_json_bytes, kind="a JSON body"))
            return read_body(document, has_flags=has_flags(payload))
        case "cbor":
            document = decode_cbor(_bounded(payload, max_json_bytes, kind="a CBOR body"))
            return replace(read_body(document), is_cbor=True)
    return InferenceBody(raw=_bounded(payload, max_raw_bytes, kind="a raw tensor"))


def decode_parts(
    payload: bytes, header_bytes: int, *, max_json_bytes: int = MAX_JSON_BYTES, max_raw_bytes: int = MAX_RAW_BYTES
) -> InferenceBody:
    """Read a body whose first `header_bytes` are JSON, followed by the tensors that have a `binary_data_size`, in order.

    0 header bytes: all of it is the only input's content.

    Raises: BadRequest: malformed, or bytes that no tensor claims; TooLarge.
    """
    if header_bytes == 0:
        return InferenceBody(raw=_bounded(payload, max_raw_bytes, kind="a raw tensor"), binary=True)
    if not 0 < header_bytes <= len(payload):
        raise BadRequest(
            f"Inference-Header-Content-Length: {header_bytes} is not within the body of {len(payload)} bytes"
        )
    tail = BinaryTail(memoryview(payload)[header_bytes:])
    _bounded(tail.content, max_raw_bytes, kind="binary tensor data", may_be_empty=True)
    body = read_body(parse_json(_bounded(payload[:header_bytes], max_json_bytes, kind="a JSON body")), tail)
    if tail.content:
        raise BadRequest(f"inputs: {len(tail.content)} bytes of the body belong to no tensor (see binary_data_size)")
    return body


def read_body(document: object, tail: BinaryTail | None = None, *, has_flags: bool = True) -> InferenceBody:
    """Read a parsed JSON body; `tail` holds the bytes behind it; `has_flags` as in `read_tensor`.

    Raises: BadRequest naming the path of the first mistake.
    """
    body = read_mapping(document, "body", known=_BODY_KEYS)
    source = _source(body)
    inputs = _inputs(body.get("inputs"), tail, has_source=source is not None, has_flags=has_flags)
    return _body(body, inputs=inputs, source=source)


def read_raw(content: bytes, document: object) -> InferenceBody:
    """Combine raw tensor bytes with the `id` and `parameters` of a parsed JSON object.

    Raises: BadRequest naming the path of the first mistake; TooLarge.
    """
    options = read_mapping(document, "body", known=("id", "parameters"))
    return _body(options, raw=_bounded(content, MAX_RAW_BYTES, kind="a raw tensor"))


def encode_result(result: InferenceResult) -> bytes:
    """Return the Open Inference Protocol answer; what gatewayd adds is in `parameters`."""
    return render_json(result_document(result))


def encode_error(error: GatewayError, *, id: str | None) -> bytes:  # noqa: A002 - the protocol's own word
    """Return `{"error": {"code", "message"}, "id"}`; `id` None is left out."""
    document: dict[str, object] = {"error": {"code": error.code, "message": str(error)}}
    if id is not None:
        document["id"] = id
    return render_json(document)


def result_document(result: InferenceResult) -> dict[str, object]:
    """Return the answer as JSON values; numbers that are not finite become null."""
    return document_with(result, [write_tensor(tensor) for tensor in result.outputs])


def document_with(result: InferenceResult, outputs: list[dict[str, object]]) -> dict[str, object]:
    """Return the answer with `outputs` as they are given."""
    return {
        "id": str(result.id),
        "model_name": result.model,
        "model_version": str(result.version),
        "outputs": outputs,
        "parameters": _result_parameters(result),
    }


def costs_document(costs: Costs) -> dict[str, object]:
    """Return predicted costs in the units callers read: ms, µJ, bytes, share."""
    return {
        "latency_ms": _figure(costs.latency_s * 1000),
        "energy_uj": _figure(costs.energy_uj),
        "link_bytes": _figure(costs.link_bytes),
        "failure": _figure(costs.failure),
    }


def measured_document(measured: Measured) -> dict[str, object]:
    """Return what a request cost in the units callers read: ms, µJ, bytes."""
    return {
        "total_ms": _figure(measured.total_s * 1000),
        "queue_ms": _figure(measured.queue_s * 1000),
        "transfer_ms": _figure(measured.transfer_s * 1000),
        "compute_ms": _figure(measured.compute_s * 1000),
        "energy_uj": _figure(measured.energy_uj),
        "link_bytes": measured.link_bytes,
    }


def _figure(value: float) -> float | None:
    """Return milliseconds, µJ, bytes or a share to a millionth: enough to read, and a fifth of the time of `write_number`."""
    if not value:  # half of them are
        return 0
    if abs(value) < _LARGE:
        return round(value * 1e6) / 1e6
    return value if isfinite(value) else None


def _result_parameters(result: InferenceResult) -> dict[str, object]:
    return {
        "ran_on": str(result.ran_on),
        "reason": result.reason,
        "version": result.version,
        "variant": result.variant,
        "label": result.label,
        "score": write_number(result.score) if result.score is not None else None,
        "sample": result.sample,
        "predicted": costs_document(result.predicted) if result.predicted is not None else None,
        "measured": measured_document(result.measured),
        "attempts": list(result.attempts),
    }


def has_flags(payload: bytes) -> bool:
    """Whether true or false may stand in a JSON text: nothing else becomes a bool."""
    return b"true" in payload or b"false" in payload


def _kind(payload: bytes, content_type: str | None) -> str:
    """Return `json`, `cbor` or `raw`."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not kind:
        return "json" if payload.lstrip(b" \t\r\n")[:1] == b"{" else "raw"
    if kind not in _KINDS:
        message = f"content type {kind[:MAX_TEXT]!r} is not understood: send {JSON} or {OCTETS} or {CBOR}"
        raise BadRequest(message)
    return _KINDS[kind]


def _bounded(payload: T, limit: int, *, kind: str, may_be_empty: bool = False) -> T:
    if len(payload) > limit:
        message = f"{kind} of {len(payload)} bytes is over the limit of {limit} bytes"
        raise TooLarge(message)
    if not payload and not may_be_empty:
        raise BadRequest("the body is empty: send a JSON object or the tensor's bytes")
    return payload


def _body(
    body: Mapping[str, object],
    *,
    inputs: tuple[Tensor, ...] = (),
    source: SensorRef | None = None,
    raw: bytes | None = None,
) -> InferenceBody:
    # Clients that have no id of their own send an empty one.
    name = read_text(body["id"], "id") if body.get("id", "") not in (None, "") else None
    if "parameters" not in body and "outputs" not in body:
        return InferenceBody(inputs, raw, source, id=name)
    outputs = _outputs(body.get("outputs"))
    parameters = read_mapping(body.get("parameters", {}), "parameters", known=_PARAMETER_KEYS)
    pin, prefer = _placement(read_text(parameters.get("placement", "auto"), "parameters.placement"))
    return InferenceBody(
        inputs,
        raw,
        source,
        pin=pin,
        prefer=prefer,
        privacy=_privacy(parameters.get("privacy", Privacy.ANY.value)),
        deadline_ms=_deadline(parameters),
        request_class=read_text(parameters.get("class", "default"), "parameters.class"),
        stream=read_text(parameters["stream"], "parameters.stream") if "stream" in parameters else "",
        is_reset=_flag(parameters.get("reset"), "parameters.reset") or False,
        id=name,
        outputs=tuple(name for name, _ in outputs),
        binary=_flag(parameters.get("binary_data_output"), "parameters.binary_data_output") or False,
        binary_named=tuple((name, wish) for name, wish in outputs if wish is not None),
    )


def _outputs(value: object) -> list[tuple[str, bool | None]]:
    """Return the names of the outputs wanted, each with whether it is to be bytes (None: as the request says)."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_INPUTS:
        refuse("outputs", f"must be a list of at most {MAX_INPUTS} outputs")
    wanted = [_output(each, f"outputs[{index}]") for index, each in enumerate(value)]
    if len({name for name, _ in wanted}) != len(wanted):
        refuse("outputs", "name each output once")
    return wanted


def _output(value: object, path: str) -> tuple[str, bool | None]:
    fields = read_mapping(value, path, known=("name", "parameters"))
    parameters = fields.get("parameters", {})
    if not isinstance(parameters, dict):
        refuse(f"{path}.parameters", "must be a JSON object")
    for key in parameters:
        if key == "classification" or str(key).startswith("shared_memory"):
            refuse(f"{path}.parameters", f"{key} is not served here")
    if "name" not in fields:
        refuse(f"{path}.name", "is missing")
    return read_text(fields["name"], f"{path}.name"), _flag(
        parameters.get("binary_data"), f"{path}.parameters.binary_data"
    )


def _flag(value: object, path: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        refuse(path, "must be true or false")
    return value


def _source(body: Mapping[str, object]) -> SensorRef | None:
    if "device" not in body and "input" not in body:
        return None
    for key in ("device", "input"):
        if key not in body:
            refuse(key, 'is missing: data at a sensor is named as {"device": "cam-7", "input": "frame"}')
    device, sensor = read_text(body["device"], "device"), read_text(body["input"], "input")
    return SensorRef(parse_device_id(device), sensor)


def _inputs(value: object, tail: BinaryTail | None, *, has_source: bool, has_flags: bool) -> tuple[Tensor, ...]:
    if has_source:
        if value is not None:
            refuse("inputs", "give either inputs or device and input, not both")
        return ()
    if value is None:
        refuse("body", 'give "inputs", or "device" and "input"')
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_INPUTS:
        refuse("inputs", f"must be a list of 1 to {MAX_INPUTS} tensors")
    return tuple(read_tensor(each, f"inputs[{index}]", tail, has_flags=has_flags) for index, each in enumerate(value))


def _placement(text: str) -> tuple[Target | None, Target | None]:
    """Return what the request is pinned to and what it prefers; None, None for `auto`."""
    if text == "auto":
        return None, None
    wish, _, target = text.partition(":")
    if wish == "prefer":
        return None, _target(target, whole=text)
    return _target(text, whole=text), None


def _target(text: str, *, whole: str) -> Target:
    if text == "node":
        return NODE
    kind, _, device = text.partition(":")
    if kind != "device":
        refuse("parameters.placement", f"{whole!r} is not auto, node, device:<id> or prefer:device:<id>")
    return Target(parse_device_id(device))


def _privacy(value: object) -> Privacy:
    try:
        return Privacy(value)
    except ValueError:
        known = ", ".join(each.value for each in Privacy)
        refuse("parameters.privacy", f"{str(value)[:MAX_TEXT]!r} is not one of {known}")


def _deadline(parameters: Mapping[str, object]) -> float | None:
    own, timeout_us = _deadline_ms(parameters.get("deadline_ms")), parameters.get("timeout")
    if own is not None or timeout_us is None or timeout_us == 0:  # Triton: 0 is no timeout
        return own
    if type(timeout_us) is not int or not isinstance(timeout_us, int):
        refuse("parameters.timeout", "must be a whole number of microseconds")
    return _deadline_ms(timeout_us / 1000)


def _deadline_ms(value: object) -> float | None:
    if value is None:
        return None
    # Exact types: true is a number to Python.
    if type(value) not in {int, float} or not isinstance(value, int | float) or not 0 < value <= MAX_DEADLINE_MS:
        refuse("parameters.deadline_ms", f"must be a number of milliseconds over 0 and up to {MAX_DEADLINE_MS:.0f}")
    return float(value)
