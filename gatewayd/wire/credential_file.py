"""The file of credentials, as JSON: `{"users": [...], "keys": [...], "oscore": [...]}`.

Passwords are hashes; pre-shared keys and the master secrets of OSCORE contexts are what they are.
`"leaving": [...]` stands there only between the two steps in which a device is taken out.
"""

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from gatewayd.core.credentials import MAX_LEAVING, MAX_USERS, BrokerUser, Credentials, OscoreKey, PreSharedKey
from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.core.names import DeviceId, parse_device_id
from gatewayd.wire.mosquitto import is_hash, password_line

T = TypeVar("T")

MAX_FILE_BYTES = 16 * 2**20  # protects memory: 10,000 users with their keys take 4 MB
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 16, 64  # below, a key could be guessed. Source for 64: RFC 4279 section 5.3
_MAX_OSCORE_ID_BYTES = 7  # Source: RFC 8613, section 3.3
_MAX_WHO_CHARS = 200


def encode_credentials(credentials: Credentials) -> bytes:
    """Return the file's content."""
    users = [
        {
            "name": each.name,
            "devices": each.devices,
            "password": each.password,
            "made_at": each.made_at,
            "who": each.who,
        }
        for each in credentials.users
    ]
    keys = [
        {"device": each.device, "key": each.key.hex(), "made_at": each.made_at, "who": each.who}
        for each in credentials.keys
    ]
    oscore = [
        {
            "device": each.device,
            "secret": each.secret.hex(),
            "salt": each.salt.hex(),
            "kid": each.kid.hex(),
            "gateway_id": each.gateway_id.hex(),
            "made_at": each.made_at,
            "who": each.who,
            "is_used": each.is_used,
        }
        for each in credentials.oscore
    ]
    leaving = {"leaving": credentials.leaving} if credentials.leaving else {}
    return json.dumps({"users": users, "keys": keys, "oscore": oscore} | leaving, indent=1).encode()


def decode_credentials(content: bytes) -> Credentials:
    """Read the file, which a person may have edited.

    Raises: BadRequest naming the row (never what stands in it: it is secret), TooLarge.
    """
    if len(content) > MAX_FILE_BYTES:
        raise TooLarge(f"{len(content)} bytes of credentials, over the limit of {MAX_FILE_BYTES}")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadRequest("is no JSON") from error
    if not isinstance(document, dict):
        raise BadRequest("is no object with users and keys")
    users = [_read(_user, row, f"users[{number}]") for number, row in enumerate(_rows(document, "users"))]
    keys = [_read(_key, row, f"keys[{number}]") for number, row in enumerate(_rows(document, "keys"))]
    oscore = [_read(_oscore, row, f"oscore[{number}]") for number, row in enumerate(_rows(document, "oscore"))]
    named = ([each.name for each in users], [each.device for each in keys], [each.device for each in oscore])
    if any(len(set(names)) < len(names) for names in named):
        raise BadRequest("a name stands twice")
    if len({each.kid for each in oscore}) < len(oscore):
        raise BadRequest("oscore: a kid stands twice")
    leaving = [
        _read(_device, {"device": row}, f"leaving[{number}]") for number, row in enumerate(_rows(document, "leaving"))
    ]
    return Credentials(tuple(users), tuple(keys), tuple(leaving[-MAX_LEAVING:]), tuple(oscore))


def _rows(document: Mapping[str, object], name: str) -> list[object]:
    rows = document.get(name, [])
    if not isinstance(rows, list) or len(rows) > MAX_USERS:
        raise BadRequest(f"{name}: is no list of at most {MAX_USERS}")
    return rows


def _read(read: Callable[[Mapping[str, object]], T], row: object, place: str) -> T:
    try:
        return read(row if isinstance(row, dict) else {})
    except (KeyError, TypeError, ValueError, BadRequest) as error:
        told = f"lacks {error}" if isinstance(error, KeyError) else "cannot be read"
        raise BadRequest(f"{place}: {told}: restore it from a backup, or make the credentials anew") from None


def _user(row: Mapping[str, object]) -> BrokerUser:
    name, devices, password = row["name"], row["devices"], row["password"]
    if not isinstance(name, str) or not isinstance(devices, list) or not isinstance(password, str):
        raise TypeError
    if not is_hash(password):
        raise ValueError("password")
    password_line(name, password)
    return BrokerUser(
        parse_device_id(name), tuple(parse_device_id(_text(each)) for each in devices), password, *_record(row)
    )


def _key(row: Mapping[str, object]) -> PreSharedKey:
    key = bytes.fromhex(_text(row["key"]))
    if not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise ValueError("key")
    return PreSharedKey(parse_device_id(_text(row["device"])), key, *_record(row))


def _oscore(row: Mapping[str, object]) -> OscoreKey:
    secret, salt, kid, gateway_id = (
        bytes.fromhex(_text(row[name])) for name in ("secret", "salt", "kid", "gateway_id")
    )
    if not _MIN_KEY_BYTES <= len(secret) <= _MAX_KEY_BYTES or len(salt) > _MAX_KEY_BYTES:
        raise ValueError("secret")
    if max(len(kid), len(gateway_id)) > _MAX_OSCORE_ID_BYTES or kid == gateway_id:
        raise ValueError("kid")
    is_used = row.get("is_used", True)  # who is not told has to expect it
    if not isinstance(is_used, bool):
        raise TypeError("is_used")
    return OscoreKey(parse_device_id(_text(row["device"])), secret, salt, kid, gateway_id, *_record(row), is_used)


def _device(row: Mapping[str, object]) -> DeviceId:
    return parse_device_id(_text(row["device"]))


def _record(row: Mapping[str, object]) -> tuple[float, str]:
    made_at = row.get("made_at", 0.0)
    if isinstance(made_at, bool) or not isinstance(made_at, int | float):
        raise TypeError("made_at")
    return float(made_at), _text(row.get("who", ""))[:_MAX_WHO_CHARS]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
