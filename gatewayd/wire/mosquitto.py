"""Mosquitto's files: lines of a password file and of an access list. Text only; who writes them is `adapters.credentials`.

Passwords are hashed as mosquitto_passwd does it: `$7$<iterations>$<salt>$<PBKDF2-HMAC-SHA512>`, both in base64.
Source: mosquitto-password-file(5), mosquitto.conf(5) "acl_file", mosquitto 2.0 src/password_mosq.c.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence

from gatewayd.core.credentials import BrokerUser
from gatewayd.core.errors import BadRequest
from gatewayd.wire.topics import Topics

SALT_BYTES = 12  # mosquitto 2.0 refuses any other length
# Mosquitto's own default. It hashes on its only thread at each connect, and the passwords here are random, not guessable.
ITERATIONS = 101
_HASH = re.compile(r"\$7\$([1-9][0-9]{0,8})\$([A-Za-z0-9+/]{16})\$([A-Za-z0-9+/]{86}==)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,126}")

ROLES = ("gateway", "admin", "operator", "client", "viewer")

Granted = Mapping[str, Sequence[str]]
"""The verbs that each of the roles viewer and operator may use."""


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


def client_access(
    topics: Topics, reply_prefixes: Iterable[str], users: Iterable[tuple[str, str]], *, granted: Granted
) -> str:
    """Return the access list of the clients' listener for (name, role) pairs; `granted` has the verbs of a role.

    `gateway` is gatewayd itself. A `viewer` asks what changes nothing and hears events. A `client` asks for inferences. An
    `operator` may do both and gives the commands of that role. An `admin` may give every command and hears everything. But
    for admins, who see every answer, each hears what it asked itself, under `<reply prefix><its name>/`, and the
    answers without a reply topic to the verbs that it may use: none of those holds a secret.

    Raises: BadRequest (no such role).
    """
    prefixes = tuple(reply_prefixes)
    return "".join(
        f"user {name}\n"
        + "".join(f"topic {right}\n" for right in _rights(topics, prefixes, name, role, granted))
        + "\n"
        for name, role in users
    )


def _rights(topics: Topics, prefixes: tuple[str, ...], name: str, role: str, granted: Granted) -> list[str]:
    base = topics.base
    if role == "gateway":
        return [f"readwrite {base}/#", *(f"readwrite {prefix}#" for prefix in prefixes)]
    if role == "admin":
        told = (f"read {base}/{part}" for part in ("status", "event/#", "reply/#", "stream/#", "device/#"))
        asks = (f"write {base}/{part}" for part in ("cmd/#", "infer/#"))
        return [*told, *asks, *(f"readwrite {prefix}#" for prefix in prefixes)]
    if role not in ROLES:
        raise BadRequest(f"{role!r} is no role at the broker: {', '.join(ROLES)}")
    rights = [f"read {base}/status", *(f"read {prefix}{name}/#" for prefix in prefixes)]
    if role in {"viewer", "operator"}:
        rights += [f"read {base}/{part}" for part in ("event/#", "stream/#")]
        rights += [f"{may} {base}/{where}/{verb}" for verb in granted[role] for may, where in _OF_A_VERB]
    if role in {"client", "operator"}:
        rights.append(f"write {base}/infer/#")
    if role == "operator":
        rights += [f"read {base}/{part}" for part in ("reply/infer/#", "device/#")]
    return rights


_OF_A_VERB = (("write", "cmd"), ("read", "reply"))
