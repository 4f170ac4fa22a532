"""An inference's answer in the encoding that its caller spoke: JSON, JSON with bytes behind it, or CBOR. Pure.

Source: Triton Inference Server, "Binary tensor data extension"; RFC 8746 (typed arrays).
"""

from gatewayd.core.request import InferenceResult
from gatewayd.core.tensor import Tensor
from gatewayd.wire.cbor import encode_cbor, typed_array
from gatewayd.wire.json_text import render_json
from gatewayd.wire.tensor_json import write_tensor
from gatewayd.wire.tensors import CBOR, JSON, InferenceBody, document_with, encode_result


def encode_reply(result: InferenceResult, body: InferenceBody) -> tuple[bytes, str]:
    """Return the answer in the encoding of the request (of raw bytes: JSON), and its content type."""
    if not body.is_cbor:
        return encode_result(result), JSON
    outputs = [
        {"name": each.name, "shape": list(each.shape), "datatype": each.dtype.value, "data": typed_array(each)}
        for each in result.outputs
    ]
    return encode_cbor(document_with(result, outputs)), CBOR


def encode_answer(result: InferenceResult, body: InferenceBody) -> tuple[bytes, int | None]:
    """Return the answer as `body` asked for it, and how long its JSON is; None when nothing follows the JSON."""
    if not body.binary and not body.binary_named:
        return encode_result(result), None
    as_bytes = [tensor for tensor in result.outputs if body.is_binary(tensor.name)]
    if not as_bytes:
        return encode_result(result), None
    outputs = [_announced(tensor) if body.is_binary(tensor.name) else write_tensor(tensor) for tensor in result.outputs]
    head = render_json(document_with(result, outputs))
    return b"".join((head, *(tensor.content for tensor in as_bytes))), len(head)


def _announced(tensor: Tensor) -> dict[str, object]:
    parameters = {"binary_data_size": len(tensor.content)}
    shape, kind = list(tensor.shape), tensor.dtype.value
    return {"name": tensor.name, "shape": shape, "datatype": kind, "parameters": parameters}
