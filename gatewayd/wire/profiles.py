"""Board profiles: one strict YAML file per kind of board → `core.device.Profile`. Text in, value out; no files here."""

from gatewayd.core.device import Profile
from gatewayd.core.errors import BadRequest
from gatewayd.wire.strict_yaml import YamlRefused, YamlValue, load_yaml

_MAX_WHOLE = 2**40
_MIN_NUMBER, _MAX_NUMBER = 1e-9, 1e15
_TEXTS = ("board", "cpu", "runtime", "source")
_WHOLES = ("clock_mhz", "ram_bytes", "flash_bytes")
_NUMBERS = ("macs_per_s", "energy_nj_per_mac", "invoke_s")


def parse_profile(text: str) -> Profile:
    """Read one profile: exactly the fields of `Profile`, figures above 0 (`invoke_s` may be 0).

    Raises: BadRequest naming the key.
    """
    members = _mapping(text)
    for key in members:
        if key not in {*_TEXTS, *_WHOLES, *_NUMBERS}:
            raise BadRequest(
                f"profile: unknown key {key[:40]!r}; known are {', '.join((*_TEXTS, *_WHOLES, *_NUMBERS))}"
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
