"""The members of a manifest as plain CBOR values and back, each checked for type and range.

Keys are small integers, so that a map's order is their order and a reader on a microcontroller needs a switch, no strings.
Source: docs/inference-module.md, "The manifest".
"""

import struct
from math import isfinite

from gatewayd.core.errors import BadRequest
from gatewayd.core.model import SelfTest
from gatewayd.core.module import Deflate, Delta, Encoding, Held, Manifest, Raw
from gatewayd.core.names import Digest, parse_model_name
from gatewayd.core.tensor import DType, Quantization, TensorSpec

FORMAT = 1
MAX_OPERATORS, MAX_TENSORS, MAX_DIMENSIONS = 64, 8, 6
_MAX_TEXT = 64
_MAX_EXPECTED = 1024
_MAX_TOLERANCE = 65_535
_MAX_ZERO_POINT = 65_535
_U31, _U32 = 2**31 - 1, 2**32 - 1
_DIGEST_BYTES = 32
_WINDOW_BITS = range(9, 16)
_RAW, _DEFLATE, _DELTA = range(3)
_DTYPES = (DType.FP32, DType.INT8, DType.UINT8, DType.INT16, DType.INT32, DType.INT64, DType.BOOL)
_KEYS = range(1, 13)
_SELF_TEST, _REPLACES, _INSTEAD = 13, 14, 15
_OPTIONAL = {_SELF_TEST, _REPLACES, _INSTEAD}


def manifest_members(manifest: Manifest) -> dict[int, object]:
    """Return what `read_members` reads. Scales are rounded to 32-bit floats, which is what models hold."""
    members: dict[int, object] = {
        1: FORMAT, 2: manifest.model, 3: manifest.version, 4: manifest.target, 5: bytes.fromhex(manifest.digest),
        6: manifest.size_bytes, 7: _encoding_items(manifest.encoding), 8: manifest.runtime_abi,
        9: list(manifest.operators), 10: manifest.arena_bytes, 11: [_tensor_items(each) for each in manifest.inputs],
        12: [_tensor_items(each) for each in manifest.outputs],
    }  # fmt: skip
    if (test := manifest.self_test) is not None:
        members[_SELF_TEST] = [test.seed, test.expected, test.tolerance]
    if manifest.replaces:
        members[_REPLACES] = manifest.replaces
    if manifest.instead_of is not None:
        members[_INSTEAD] = [manifest.instead_of.model, manifest.instead_of.version]
    return members


def read_members(value: object) -> Manifest:
    """Raises: BadRequest naming the first member that is wrong."""
    if not isinstance(value, dict) or set(value) - _OPTIONAL != set(_KEYS):
        raise BadRequest(f"manifest: must be a map of the keys 1..12, and perhaps {sorted(_OPTIONAL)}")
    if _whole(value[1], "format", 1, _U31) != FORMAT:
        raise BadRequest(f"manifest.format: {value[1]}, this program reads {FORMAT}")
    operators = tuple(_text(each, "operators") for each in _items(value[9], "operators", MAX_OPERATORS))
    if list(operators) != sorted(set(operators)):
        raise BadRequest("manifest.operators: must ascend, each once")
    return Manifest(
        model=parse_model_name(_text(value[2], "model")),
        version=_whole(value[3], "version", 1, _U31),
        target=_text(value[4], "target"),
        digest=_digest(value[5], "digest"),
        size_bytes=_whole(value[6], "size", 1, _U31),
        encoding=_encoding(_items(value[7], "encoding", 4)),
        runtime_abi=_whole(value[8], "abi", 0, _U31),
        operators=operators,
        arena_bytes=_whole(value[10], "arena", 0, _U31),
        inputs=tuple(_tensor(each, "inputs") for each in _items(value[11], "inputs", MAX_TENSORS)),
        outputs=tuple(_tensor(each, "outputs") for each in _items(value[12], "outputs", MAX_TENSORS)),
        self_test=_self_test(value[_SELF_TEST]) if _SELF_TEST in value else None,
        replaces=_whole(value[_REPLACES], "replaces", 1, _U31) if _REPLACES in value else 0,
        instead_of=_held(value[_INSTEAD], of=value[2]) if _INSTEAD in value else None,
    )


def _encoding_items(encoding: Encoding) -> list[object]:
    match encoding:
        case Raw():
            return [_RAW]
        case Deflate(window_bits, size_bytes, digest):
            return [_DEFLATE, window_bits, size_bytes, bytes.fromhex(digest)]
        case Delta(base, size_bytes, digest):
            return [_DELTA, bytes.fromhex(base), size_bytes, bytes.fromhex(digest)]


def _encoding(items: list[object]) -> Encoding:
    kind = _whole(items[0], "encoding[0]", _RAW, _DELTA) if items else -1
    if len(items) != (1 if kind == _RAW else 4):
        raise BadRequest("manifest.encoding: must be [0], [1, window bits, size, digest] or [2, base, size, digest]")
    if kind == _RAW:
        return Raw()
    size_bytes, digest = _whole(items[2], "encoding[2]", 1, _U31), _digest(items[3], "encoding[3]")
    if kind == _DEFLATE:
        return Deflate(_whole(items[1], "encoding[1]", _WINDOW_BITS[0], _WINDOW_BITS[-1]), size_bytes, digest)
    return Delta(_digest(items[1], "encoding[1]"), size_bytes, digest)


def _tensor_items(spec: TensorSpec) -> list[object]:
    name = "".join(each if each.isprintable() else " " for each in spec.name[:_MAX_TEXT])
    items: list[object] = [name, _DTYPES.index(spec.dtype), list(spec.shape)]
    if spec.quantization is not None:
        items += [_single(spec.quantization.scale), spec.quantization.zero_point]
    return items


def _single(scale: float) -> float:
    try:
        (single,) = struct.unpack("<f", struct.pack("<f", scale))
    except OverflowError:
        raise BadRequest(f"manifest: scale {scale} is no 32-bit float") from None
    return float(single)


def _tensor(value: object, where: str) -> TensorSpec:
    items = _items(value, where, 5)
    if len(items) not in {3, 5}:
        raise BadRequest(f"manifest.{where}: a tensor is [name, type, shape] and, when quantised, scale and zero point")
    name, dtype = _text(items[0], f"{where}.name"), _DTYPES[_whole(items[1], f"{where}.type", 0, len(_DTYPES) - 1)]
    shape = tuple(
        _whole(each, f"{where}.shape", 1, _U31) for each in _items(items[2], f"{where}.shape", MAX_DIMENSIONS)
    )
    if len(items) == 3:  # noqa: PLR2004 - the three above
        return TensorSpec(name, dtype, shape)
    if not isinstance(items[3], float) or not isfinite(items[3]) or items[3] <= 0:
        raise BadRequest(f"manifest.{where}.scale: must be a finite float above 0")
    zero_point = _whole(items[4], f"{where}.zero", -_MAX_ZERO_POINT, _MAX_ZERO_POINT)
    return TensorSpec(name, dtype, shape, Quantization(items[3], zero_point))


def _self_test(value: object) -> SelfTest:
    items = _items(value, "self-test", 3)
    if len(items) != 3 or not isinstance(items[1], bytes) or not 0 < len(items[1]) <= _MAX_EXPECTED:  # noqa: PLR2004 - its three
        raise BadRequest("manifest.self-test: must be [seed, expected bytes, tolerance]")
    seed = _whole(items[0], "self-test.seed", 1, _U32)
    return SelfTest(seed, items[1], _whole(items[2], "self-test.tolerance", 0, _MAX_TOLERANCE))


def _held(value: object, *, of: object) -> Held:
    items = _items(value, "instead", 2)
    if len(items) != 2 or items[0] == of:  # noqa: PLR2004 - its two
        raise BadRequest("manifest.instead: must be [name, version] of another model")
    return Held(parse_model_name(_text(items[0], "instead[0]")), _whole(items[1], "instead[1]", 1, _U31))


def _whole(value: object, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequest(f"manifest.{where}: must be a whole number of {low}..{high}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_TEXT:
        raise BadRequest(f"manifest.{where}: must be at most {_MAX_TEXT} printable characters")
    return value


def _digest(value: object, where: str) -> Digest:
    if not isinstance(value, bytes) or len(value) != _DIGEST_BYTES:
        raise BadRequest(f"manifest.{where}: must be the {_DIGEST_BYTES} bytes of a SHA-256")
    return Digest(value.hex())


def _items(value: object, where: str, most: int) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise BadRequest(f"manifest.{where}: must be an array of at most {most}")
    return value
