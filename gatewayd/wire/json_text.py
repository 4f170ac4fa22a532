"""JSON as bytes: how it is read and written, for callers and for devices.

For callers orjson: a fifth of the time of `json` on the lists of numbers that inference is made of. It is stricter, too: no NaN,
no lone surrogates, no more than 1,024 levels, text that is UTF-8. But of a member that stands twice it takes the last, silently:
in what a device reports of itself that would hide a defect (or somebody's choice), so for those the standard library reads.
"""

import json
from math import isfinite
from typing import NoReturn

import orjson

from gatewayd.core.errors import BadRequest

_MAX_DIGITS = 24  # of a whole number; protects time, 64 bits have 20


def parse_json(payload: bytes | memoryview, *, what: str = "the body") -> object:
    """Read one JSON document. Whole numbers beyond 64 bits come as floats.

    Raises: BadRequest saying where it stops being JSON.
    """
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        if "depth limit" in error.msg:
            raise BadRequest(f"{what} is nested too deeply") from error
        raise BadRequest(f"{what} is not valid JSON: {error}") from error


def render_json(document: object) -> bytes:
    """Write a document of dicts with text keys, lists, text, numbers, booleans and None; floats must be finite to stay numbers.

    Raises: TypeError on anything else, which is a defect of the caller.
    """
    return orjson.dumps(document)


def parse_device_json(payload: bytes) -> object:
    """Read what a device sent.

    Raises: BadRequest: no UTF-8, no JSON, nested too deep, a member twice, NaN, a number that never ends.
    """
    try:
        parsed: object = json.loads(
            payload.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_whole,
            parse_float=_finite,
        )
    except RecursionError:
        raise BadRequest("JSON: nested too deep") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise BadRequest(f"no JSON: {str(error)[:100]}") from None
    return parsed


def render_device_json(value: object) -> bytes:
    """Write for a device, compact. Raises: BadRequest for NaN and infinities, which JSON has no number for."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        raise BadRequest("JSON has no number for NaN and infinities") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("a whole number of more than 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("a number that is no float")
    return number
