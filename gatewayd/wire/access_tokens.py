"""The file of access tokens: one line `NAME ROLE SHA256-OF-THE-TOKEN` each; the tokens themselves are nowhere.

A token is 256 random bits, so a plain SHA-256 keeps it: there is nothing to guess that salt or stretching would protect.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record

ROLES = ("viewer", "operator", "admin")
PREFIX = "gwd_"  # lets secret scanners find a token that was committed by mistake
MAX_TOKENS = 256  # protects the loop: every one is compared, so that time tells nothing
MAX_FILE_BYTES = 2**16  # protects memory
MAX_TOKEN_CHARS = 512  # protects the loop from hashing whole headers

_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.@-]{0,62})\s+(?P<role>[a-z]+)\s+(?P<digest>[0-9a-f]{64})")


@record
class AccessToken:
    """Who has the token, what they may do, and the SHA-256 of the token."""

    name: str
    role: str
    digest: bytes

    def line(self) -> str:
        """Return the token's line in the file."""
        return f"{self.name} {self.role} {self.digest.hex()}"


def parse_tokens(text: str) -> tuple[AccessToken, ...]:
    """Read a file of tokens; empty lines and what follows a # are skipped.

    Raises: BadRequest naming the line.
    """
    if len(text) > MAX_FILE_BYTES:
        raise BadRequest(f"more than {MAX_FILE_BYTES} bytes of tokens")
    lines = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), start=1))
    tokens = tuple(_token(line, number) for number, line in lines if line)
    if len(tokens) > MAX_TOKENS:
        raise BadRequest(f"{len(tokens)} tokens: at most {MAX_TOKENS} are looked at")
    return tokens


def token_of(name: str, role: str, secret: bytes) -> tuple[str, AccessToken]:
    """Return a token made of 32 random bytes, and what the file keeps of it. Raises: BadRequest."""
    token = PREFIX + secret.hex()
    line = f"{name} {role} {_digest(token).hex()}"
    return token, _token(line, 1)


def matching_token(tokens: Sequence[AccessToken], presented: str) -> AccessToken | None:
    """Return the token that was presented. Takes as long whichever matches, and when none does."""
    digest = _digest(presented[:MAX_TOKEN_CHARS])
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _token(line: str, number: int) -> AccessToken:
    found = _LINE.fullmatch(line)
    if found is None or found["role"] not in ROLES:
        raise BadRequest(f"line {number}: must be NAME ROLE SHA256, the role one of {', '.join(ROLES)}")
    return AccessToken(found["name"], found["role"], bytes.fromhex(found["digest"]))
