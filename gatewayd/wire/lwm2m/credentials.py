"""The file of pre-shared keys: one line per device, `endpoint identity key`, the key in hex. Text → values, checked."""

import re

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import DeviceId, parse_device_id
from gatewayd.core.record import record

OSCORE_IDENTITY = "oscore/"
"""Before the name of a device whose messages were proved by its OSCORE context; no device's name has a slash."""
_FIELDS = 3
_KEY_BYTES = (4, 64)  # 32 bits are what a debugger can type in; RFC 4279 asks for 64 bytes to be taken
_IDENTITY = re.compile(r"[!-~]{1,128}")  # RFC 4279, section 5.3: 128 bytes have to be taken
_MAX_LINES = 10_000


@record
class Credential:
    """A device's key, and the identity under which it names it."""

    device: DeviceId
    identity: str
    key: bytes


def parse_credentials(text: str) -> tuple[Credential, ...]:
    """Read the file; empty lines and those that begin with # are left out.

    Raises: BadRequest naming the line, never the key.
    """
    lines = text.splitlines()
    if len(lines) > _MAX_LINES:
        raise BadRequest(f"credentials: {len(lines)} lines, at most {_MAX_LINES} are read")
    found = tuple(
        _credential(line.split(), number)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    _check_once("device", [str(each.device) for each in found])
    _check_once("identity", [each.identity for each in found])
    return found


def _check_once(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"credentials: {what} {name} stands twice")
        seen.add(name)


def _credential(fields: list[str], line: int) -> Credential:
    if len(fields) != _FIELDS:
        raise BadRequest(f"credentials, line {line}: must be an endpoint name, an identity and a key in hex")
    name, identity, key = fields
    if not _IDENTITY.fullmatch(identity):
        raise BadRequest(f"credentials, line {line}: an identity has 1 to 128 printable characters")
    if identity.startswith(OSCORE_IDENTITY):
        raise BadRequest(
            f"credentials, line {line}: an identity that begins with {OSCORE_IDENTITY} is an OSCORE context's"
        )
    try:
        content = bytes.fromhex(key)
        device = parse_device_id(name)
    except ValueError:
        raise BadRequest(f"credentials, line {line}: the key is not in hex") from None
    except BadRequest as error:
        raise BadRequest(f"credentials, line {line}: {error}") from None
    if not _KEY_BYTES[0] <= len(content) <= _KEY_BYTES[1]:
        raise BadRequest(f"credentials, line {line}: a key has {_KEY_BYTES[0]} to {_KEY_BYTES[1]} bytes")
    return Credential(device, identity, content)
