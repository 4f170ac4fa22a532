"""How a simulated board reaches its gateway: from a file of credentials, or option by option."""

import argparse
import ssl
from collections.abc import Iterator
from pathlib import Path

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import DeviceId, parse_device_id
from gatewayd.sim.client import ClientOptions
from gatewayd.wire.device_credentials import MAX_BYTES, DeviceCredentials, decode_device_credentials
from gatewayd.wire.topics import Topics

_MAX_PORT = 65535
_BROKER, _PREFIX = "127.0.0.1:1883", "gatewayd"


def given_credentials(args: argparse.Namespace) -> DeviceCredentials | None:
    """Return what the file of `--credentials` holds. Raises: BadRequest."""
    if args.credentials is None:
        return None
    try:
        with args.credentials.open("rb") as file:
            return decode_device_credentials(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise BadRequest(f"--credentials {args.credentials}: {error.strerror}") from None
    except BadRequest as error:
        raise BadRequest(f"--credentials {args.credentials}: {error}") from None


def unprotected(given: DeviceCredentials | None) -> None:
    """Refuse credentials that a board over LwM2M would have to come with: it speaks plain CoAP only. Raises: BadRequest."""
    if given is not None and (given.psk_identity or given.oscore is not None):
        raise BadRequest(
            "--credentials: a simulated board over LwM2M speaks neither DTLS nor OSCORE, and a device that has such a key is let "
            "in with it only: leave out --credentials and take another --id (and --trust)"
        )


def device_id(args: argparse.Namespace, given: DeviceCredentials | None) -> DeviceId:
    """Return who the board is. Raises: BadRequest."""
    device = args.id or (given.device if given else None)
    if device is None:
        raise BadRequest(
            "--id: name the device, or give the file that `devices credentials new --save` wrote (--credentials)"
        )
    return parse_device_id(device)


def client_options(args: argparse.Namespace, given: DeviceCredentials | None) -> ClientOptions:
    """Return where the broker is and who the board is there; an option counts more than the file. Raises: BadRequest."""
    host, port = _broker(args.broker, given)
    node = args.node or (given.topics.node if given else None)
    if node is None:
        raise BadRequest(
            "--node: must name the gateway, whose boards are below it on the broker; or give --credentials"
        )
    prefix = args.prefix or (given.topics.prefix if given else _PREFIX)
    username = args.username or (given.username if given else None) or None
    password = _password(args.password_file) if args.password_file is not None else (given.password if given else None)
    gateway = Topics(prefix, node).base
    tls = _tls(args.ca, given)
    return ClientOptions(
        host, port, device_id(args, given), gateway, args.mqtt_version, username, password or None, tls
    )


def trusted_texts(args: argparse.Namespace, given: DeviceCredentials | None) -> Iterator[str]:
    """Return the keys (or files of them) that sign what may be installed. Raises: BadRequest when there are none."""
    named = [*args.trust, *(given.trusted_keys if given else ())]
    if not named:
        raise BadRequest("--trust: name the keys that sign models (gatewayd keys export), or give --credentials")
    return iter(named)


def _broker(text: str | None, given: DeviceCredentials | None) -> tuple[str, int]:
    if text is None and given is not None:
        return given.host, given.port
    host, _, port = (text or _BROKER).rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= _MAX_PORT:
        raise BadRequest(f"--broker {text}: must be host:port")
    return host.strip("[]"), int(port)


def _tls(ca: Path | None, given: DeviceCredentials | None) -> ssl.SSLContext | None:
    try:
        if ca is not None:
            return ssl.create_default_context(cafile=str(ca))
        return ssl.create_default_context(cadata=given.ca) if given is not None and given.ca else None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadRequest(f"--ca: no certificate that can be read: {error}") from None


def _password(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"--password-file {path}: {error}") from None
