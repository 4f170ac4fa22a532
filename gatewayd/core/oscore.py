"""What survives a restart of an OSCORE context: how far its sequence numbers may have been used."""

from gatewayd.core.record import record


@record
class StoredNumbers:
    """Numbers of ours below `sender`, and of the peer's below `recipient`, may have been used.

    `window` after an orderly end: which of the numbers up to `newest` were taken, bit i for `newest` - i; None: nobody knows.
    """

    sender: int = 0
    recipient: int = 0
    newest: int = -1
    window: int | None = None
