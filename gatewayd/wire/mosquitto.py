"""Mosquitto's files: lines of a password file and of an access list. Text only; who writes them is `adapters.credentials`.

Passwords are hashed as mosquitto_passwd does it: `$7$<iterations>$<salt>$<PBKDF2-HMAC-SHA512>`, both in base64.
Source: mosquitto-password-file(5), mosquitto.conf(5) "acl_file", mosquitto 2.0 src/password_mosq.c.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

from gatewayd.core.credentials import BrokerUser
from gatewayd.core.errors import BadRequest
from gatewayd.wire.topics import Topics

SALT_BYTES = 12  # mosquitto 2.0 refuses any other length
# Mosquitto's own default. It hashes on its only thread at each connect, and the passwords here are random, not guessable.
ITERATIONS = 101
_HASH = re.compile(r"\$7\$([1-9][0-9]{0,8})\$([A-Za-z0-9+/]{16})\$([A-Za-z0-9+/]{86}==)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,126}")

ROLES = ("gateway", "operator", "client")


def hash_password(password: str, salt: bytes) -> str:
    """Return what the password file keeps of a password. `salt` is `SALT_BYTES` random bytes."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def hash_for(user: str, password: str, salt: bytes) -> str:
    """As `hash_password`, for a user that can stand in the file. Raises: BadRequest."""
    hashed = hash_password(password, salt)
    password_line(user, hashed)
    return hashed


def is_hash(text: str) -> bool:
    """Whether a text is such a hash."""
    return _HASH.fullmatch(text) is not None


def is_password(hashed: str, password: str) -> bool:
    """Whether the hash is of that password; takes as long either way."""
    found = _HASH.fullmatch(hashed)
    if found is None:
        return False
    salt, digest = base64.b64decode(found[2]), base64.b64decode(found[3])
    return hmac.compare_digest(hashlib.pbkdf2_hmac("sha512", password.encode(), salt, int(found[1])), digest)


def password_line(user: str, hashed: str) -> str:
    """Return a user's line, without its end. Raises: BadRequest (a name that would forge another line)."""
    # A colon ends the name: mosquitto reads the line up to the first one.
    if _NAME.fullmatch(user) is None or ":" in user:
        raise BadRequest(
            f"{user[:80]!r} cannot be a user of the broker: letters, digits, '_', '.', '@' and '-' only (no ':')"
        )
    return f"{user}:{hashed}"


def device_access(topics: Topics, users: Iterable[BrokerUser]) -> str:
    """Return the access list of the devices' listener: each user speaks as its own devices, and hears what is said to them.

    Every user stands for itself rather than in a pattern: a user without devices may do nothing, and the node is named.
    """
    return "".join(
        f"user {user.name}\ntopic read {topics.status}\n"
        + "".join(
            f"topic read {topics.base}/device/{device}/down/#\ntopic write {topics.base}/device/{device}/up/#\n"
            for device in user.devices
        )
        + "\n"
        for user in users
    )


def client_access(topics: Topics, reply_prefixes: Iterable[str], users: Iterable[tuple[str, str]]) -> str:
    """Return the access list of the clients' listener for (name, role) pairs.

    `gateway` is gatewayd itself. An `operator` may give every command and hears every answer and event. A `client` may ask for
    inferences, and hears the answers to what it asked: under `<reply prefix><its name>/`.
    """
    prefixes = tuple(reply_prefixes)
    return "".join(f"user {name}\n{_rights(topics, prefixes, name=name, role=role)}\n" for name, role in users)


def _rights(topics: Topics, prefixes: tuple[str, ...], *, name: str, role: str) -> str:
    base = topics.base
    match role:
        case "gateway":
            rights = [f"readwrite {base}/#", *(f"readwrite {prefix}#" for prefix in prefixes)]
        case "operator":
            told = (f"read {base}/{part}" for part in ("status", "event/#", "reply/#", "stream/#", "device/#"))
            asks = (f"write {base}/{part}" for part in ("cmd/#", "infer/#"))
            rights = [*told, *asks, *(f"readwrite {prefix}#" for prefix in prefixes)]
        case "client":
            rights = [f"read {base}/status", f"write {base}/infer/#", *(f"read {each}{name}/#" for each in prefixes)]
        case _:
            raise BadRequest(f"{role!r} is no role at the broker: {', '.join(ROLES)}")
    return "".join(f"topic {right}\n" for right in rights)
