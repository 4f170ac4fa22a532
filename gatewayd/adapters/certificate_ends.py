"""How long certificates are valid still: what the daemon tells before devices and clients stay out."""

from datetime import UTC, datetime
from pathlib import Path

from gatewayd.wire.certificate import valid_until


def days_left(certificate: Path, *, now: datetime) -> float | None:
    """Return for how many days the first certificate of a PEM file is valid still; None when it cannot be read."""
    try:
        end = valid_until(certificate.read_bytes())
    except (OSError, ValueError):
        return None
    return (end - now).total_seconds() / 86_400


def utc_now() -> datetime:
    """Return the wall clock's time."""
    return datetime.now(UTC)
