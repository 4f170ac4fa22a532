"""Board profiles: one strict YAML file per kind of board → `core.device.Profile`. Text in, value out; no files here."""

from collections.abc import Sequence
from typing import TypeVar

from gatewayd.core.device import EnergySource, Lwm2mTraits, Packaging, Profile
from gatewayd.core.errors import BadRequest
from gatewayd.wire.strict_yaml import YamlRefused, YamlValue, load_yaml

T = TypeVar("T")

_MAX_WHOLE = 2**40
_MIN_NUMBER, _MAX_NUMBER = 1e-9, 1e15
_TEXTS = ("board", "cpu", "runtime", "source")
_WHOLES = ("clock_mhz", "ram_bytes", "flash_bytes")
_NUMBERS = ("macs_per_s", "energy_nj_per_mac", "invoke_s")
_LWM2M = "lwm2m"
_KNOWN = (*_TEXTS, *_WHOLES, *_NUMBERS, _LWM2M)
_PATTERNS = ("endpoint", "manufacturer", "model_number")
_SIZES = ("slot_bytes", "arena_bytes", "block_bytes")
_TRAITS = (*_PATTERNS, "carrier", "packaging", "transfers", "instances", *_SIZES, "tells_version", "energy")
_CARRIERS = (9, 5)
_TRANSFERS = ("push", "pull")
_MAX_INSTANCES = 8
_MAX_INSTANCE = 65_534


def parse_profile(text: str) -> Profile:
    """Read one profile: exactly the fields of `Profile`, figures above 0 (`invoke_s` may be 0); `lwm2m` may be left out.

    Raises: BadRequest naming the key.
    """
    members = _mapping(text)
    for key in members:
        if key not in _KNOWN:
            raise BadRequest(f"profile: unknown key {key[:40]!r}; known are {', '.join(_KNOWN)}")
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
        lwm2m=_traits(members[_LWM2M]) if members.get(_LWM2M) is not None else None,
    )


def _traits(given: YamlValue) -> Lwm2mTraits:
    if not isinstance(given, dict) or not any(key in given for key in _PATTERNS):
        raise BadRequest(f"profile.lwm2m: must be a mapping with at least one of {', '.join(_PATTERNS)}")
    for key in given:
        if key not in _TRAITS:
            raise BadRequest(f"profile.lwm2m: unknown key {key[:40]!r}; known are {', '.join(_TRAITS)}")
    defaults = Lwm2mTraits()
    endpoint, manufacturer, model_number = (_text(given, key) if key in given else "*" for key in _PATTERNS)
    slot_bytes, arena_bytes, block_bytes = (
        _whole(given, key) if key in given else int(getattr(defaults, key)) for key in _SIZES
    )
    return Lwm2mTraits(
        endpoint=endpoint,
        manufacturer=manufacturer,
        model_number=model_number,
        slot_bytes=slot_bytes,
        arena_bytes=arena_bytes,
        block_bytes=block_bytes,
        carrier=_one_of(given, "carrier", _CARRIERS, defaults.carrier),
        packaging=Packaging(_one_of(given, "packaging", [each.value for each in Packaging], defaults.packaging.value)),
        transfers=tuple(_list(given, "transfers", _TRANSFERS) or defaults.transfers),
        instances=_instances(given),
        tells_version=_one_of(given, "tells_version", (True, False), defaults.tells_version),
        energy_source=EnergySource(_one_of(given, "energy", [each.value for each in EnergySource], "mains")),
    )


def _one_of(members: dict[str, YamlValue], key: str, allowed: Sequence[T], default: T) -> T:
    value = members.get(key, default)
    found = next((each for each in allowed if each == value and type(each) is type(value)), None)
    if found is None:
        raise BadRequest(f"profile.lwm2m.{key}: must be one of {', '.join(map(str, allowed))}")
    return found


def _list(members: dict[str, YamlValue], key: str, allowed: Sequence[str]) -> list[str]:
    value = members.get(key, [])
    if (
        not isinstance(value, list)
        or len(set(map(str, value))) != len(value)
        or not set(map(str, value)) <= set(allowed)
    ):
        raise BadRequest(f"profile.lwm2m.{key}: must be a list of {', '.join(allowed)}, each once")
    return [str(each) for each in value]


def _instances(members: dict[str, YamlValue]) -> tuple[int, ...] | None:
    value = members.get("instances")
    if value is None:
        return None
    whole = (
        [each for each in value if isinstance(each, int) and 0 <= each <= _MAX_INSTANCE]
        if isinstance(value, list)
        else []
    )
    if not isinstance(value, list) or len(whole) != len(value) or not 1 <= len(value) <= _MAX_INSTANCES:
        raise BadRequest(f"profile.lwm2m.instances: must be a list of 1..{_MAX_INSTANCES} instance numbers")
    return tuple(whole)


def _mapping(text: str) -> dict[str, YamlValue]:
    try:
        parsed = load_yaml(text)
    except YamlRefused as error:
        raise BadRequest(f"profile: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("profile: must be a mapping of keys to values")
    return parsed


def _text(members: dict[str, YamlValue], key: str) -> str:
    value = _required(members, key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"profile.{key}: must be a text")
    return value.strip()


def _whole(members: dict[str, YamlValue], key: str) -> int:
    value = _required(members, key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_WHOLE:
        raise BadRequest(f"profile.{key}: must be a whole number of 1..{_MAX_WHOLE}")
    return value


def _number(members: dict[str, YamlValue], key: str) -> float:
    value = _required(members, key)
    low = 0.0 if key == "invoke_s" else _MIN_NUMBER
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= _MAX_NUMBER:
        raise BadRequest(f"profile.{key}: must be a number of {low:g}..{_MAX_NUMBER:g}")
    return float(value)


def _required(members: dict[str, YamlValue], key: str) -> YamlValue:
    if members.get(key) is None:
        raise BadRequest(f"profile.{key}: is missing")
    return members[key]
