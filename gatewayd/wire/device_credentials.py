"""What a device needs to come in, as one JSON document: made by `devices.credentials.new`, read by a simulated board.

    {"device", "devices", "prefix", "node", "host", "port", "ca", "username", "password", "psk_identity", "psk_key",
     "oscore", "trusted_keys", …}

`ca` is the authority's certificate in PEM ("": the broker is reached without TLS), `psk_key` in hex,
`oscore` is {"master_secret", "master_salt", "sender_id", "recipient_id"} in hex, from the device's end, and `trusted_keys` are
the public keys, in hex, of which one signs each model. A member that a reader does not know is passed over.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import field

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import DeviceId, parse_device_id
from gatewayd.core.record import record
from gatewayd.wire.topics import Topics

MAX_BYTES = 2**18  # protects the reader's memory
_MAX_TEXT = 2**16
_MAX_PORT = 65535
_KEY = re.compile(r"[0-9a-f]{64}")


@record
class OscoreCredentials:
    """An OSCORE context from the device's end: `sender_id` is in its questions, `recipient_id` in the gateway's."""

    master_secret: bytes = field(repr=False)
    master_salt: bytes
    sender_id: bytes
    recipient_id: bytes


@record
class DeviceCredentials:
    """See the module's docstring; `username` and `psk_identity` "", `oscore` None: that kind was not asked for."""

    device: DeviceId
    devices: tuple[DeviceId, ...]
    topics: Topics
    host: str
    port: int
    ca: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    psk_identity: str = ""
    psk_key: bytes = field(default=b"", repr=False)
    trusted_keys: tuple[str, ...] = ()
    oscore: OscoreCredentials | None = None

    @property
    def base(self) -> str:
        """The device's own topics."""
        return f"{self.topics.base}/device/{self.device}"


def decode_device_credentials(content: bytes) -> DeviceCredentials:
    """Read the document. Raises: BadRequest naming the member (never its value)."""
    if len(content) > MAX_BYTES:
        raise BadRequest(f"{len(content)} bytes, over the limit of {MAX_BYTES}")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise BadRequest("is no JSON") from None
    if not isinstance(document, dict):
        raise BadRequest("is no object")

    def text(name: str) -> str:
        value = document.get(name) or ""
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise BadRequest(f"{name}: is no text")
        return value

    port = document.get("port")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _MAX_PORT:
        raise BadRequest(f"port: must be 1..{_MAX_PORT}")
    return DeviceCredentials(
        parse_device_id(text("device")),
        tuple(parse_device_id(each) for each in _texts(document, "devices")),
        Topics(text("prefix"), text("node")),
        text("host"),
        port,
        text("ca"),
        text("username"),
        text("password"),
        text("psk_identity"),
        _hex(text("psk_key"), "psk_key"),
        _trusted(document),
        _oscore(document.get("oscore")),
    )


def _texts(document: dict[str, object], name: str) -> list[str]:
    values = document.get(name, [])
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise BadRequest(f"{name}: is no list of texts")
    return values


def _trusted(document: dict[str, object]) -> tuple[str, ...]:
    keys = _texts(document, "trusted_keys")
    if not all(_KEY.fullmatch(key) for key in keys):
        raise BadRequest("trusted_keys: must be 64 hex digits each")
    return tuple(keys)


def _oscore(row: object) -> OscoreCredentials | None:
    if row is None:
        return None
    members: Mapping[str, object] = row if isinstance(row, dict) else {}
    names = ("master_secret", "master_salt", "sender_id", "recipient_id")
    return OscoreCredentials(*(_hex(members.get(name), f"oscore.{name}") for name in names))


def _hex(text: object, name: str) -> bytes:
    try:
        return bytes.fromhex(text if isinstance(text, str) else "?")
    except ValueError:
        raise BadRequest(f"{name}: is no hex") from None
