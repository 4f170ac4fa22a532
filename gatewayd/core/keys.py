"""What is known of a key that signs modules; its secret half never leaves the adapter that keeps it."""

from enum import Enum

from gatewayd.core.record import record


class KeyState(Enum):
    """Exactly one key signs; a revoked one is not believed any more."""

    SIGNING = "signing"
    TRUSTED = "trusted"
    REVOKED = "revoked"


@record
class Key:
    """A key's public half. `id` is its name in 16 hex digits; `made_at` in seconds since 1970."""

    id: str
    public: bytes
    state: KeyState
    made_at: float
