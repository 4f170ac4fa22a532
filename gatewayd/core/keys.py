"""What is known of a key that signs modules; its secret half never leaves the adapter that keeps it."""

from dataclasses import dataclass
from enum import Enum


class KeyState(Enum):
    """Exactly one key signs; a revoked one is not believed any more."""

    SIGNING = "signing"
    TRUSTED = "trusted"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Key:
    """A key's public half. `id` is its name in 16 hex digits; `made_at` in seconds since 1970."""

    id: str
    public: bytes
    state: KeyState
    made_at: float
