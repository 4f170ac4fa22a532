"""Board profiles: one strict YAML file per kind of board → `core.device.Profile`. Text in, value out; no files here."""

from collections.abc import Hashable

import yaml

from gatewayd.core.device import Profile
from gatewayd.core.errors import BadRequest

MAX_PROFILE_BYTES = 65_536
"""Bounds parsing: a profile is 12 lines and its comments."""

_MAX_WHOLE = 2**40
_MIN_NUMBER, _MAX_NUMBER = 1e-9, 1e15
_TEXTS = ("board", "cpu", "runtime", "source")
_WHOLES = ("clock_mhz", "ram_bytes", "flash_bytes")
_NUMBERS = ("macs_per_s", "energy_nj_per_mac", "invoke_s")


class _UniqueKeyLoader(yaml.SafeLoader):
    """`yaml.safe_load`, except that a key given twice is an error (PyYAML takes the last one in silence)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002 - the base class's signature
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(set(map(repr, keys))) != len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def parse_profile(text: str) -> Profile:
    """Read one profile: exactly the fields of `Profile`, figures above 0 (`invoke_s` may be 0).

    Raises: BadRequest naming the key.
    """
    members = _mapping(text)
    for key in members:
        if key not in {*_TEXTS, *_WHOLES, *_NUMBERS}:
            raise BadRequest(
                f"profile: unknown key {str(key)[:40]!r}; known are {', '.join((*_TEXTS, *_WHOLES, *_NUMBERS))}"
            )
    board, cpu, runtime, source = (_text(members, key) for key in _TEXTS)
    clock_mhz, ram_bytes, flash_bytes = (_whole(members, key) for key in _WHOLES)
    macs_per_s, energy_nj_per_mac, invoke_s = (_number(members, key) for key in _NUMBERS)
    return Profile(
        board=board,
        cpu=cpu,
        clock_mhz=clock_mhz,
        ram_bytes=ram_bytes,
        flash_bytes=flash_bytes,
        runtime=runtime,
        macs_per_s=macs_per_s,
        energy_nj_per_mac=energy_nj_per_mac,
        invoke_s=invoke_s,
        source=source,
    )


def _mapping(text: str) -> dict[object, object]:
    if len(text) > MAX_PROFILE_BYTES:
        raise BadRequest(f"profile: {len(text)} characters, at most {MAX_PROFILE_BYTES} are read")
    try:
        parsed = yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: dates such as 2026-99-99
        raise BadRequest(f"profile: no YAML: {error}"[:400]) from None
    if not isinstance(parsed, dict):
        raise BadRequest("profile: must be a mapping of keys to values")
    return parsed


def _text(members: dict[object, object], key: str) -> str:
    value = _required(members, key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"profile.{key}: must be a text")
    return value.strip()


def _whole(members: dict[object, object], key: str) -> int:
    value = _required(members, key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_WHOLE:
        raise BadRequest(f"profile.{key}: must be a whole number of 1..{_MAX_WHOLE}")
    return value


def _number(members: dict[object, object], key: str) -> float:
    value = _required(members, key)
    low = 0.0 if key == "invoke_s" else _MIN_NUMBER
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= _MAX_NUMBER:
        raise BadRequest(f"profile.{key}: must be a number of {low:g}..{_MAX_NUMBER:g}")
    return float(value)


def _required(members: dict[object, object], key: str) -> object:
    if members.get(key) is None:
        raise BadRequest(f"profile.{key}: is missing")
    return members[key]
