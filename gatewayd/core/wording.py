"""Numbers and places as people read them, in every reason that gatewayd gives."""

from gatewayd.core.request import Target


def place_name(target: Target) -> str:
    """Return `the node`, or `device:<id>`."""
    return "the node" if target.device is None else str(target)


def duration(seconds: float) -> str:
    """Return seconds from one up, else milliseconds."""
    return f"{figure(seconds)} s" if seconds >= 1.0 else f"{figure(seconds * 1000.0)} ms"


def figure(number: float) -> str:
    """Return three significant digits, never an exponent where people read."""
    return f"{number:,.0f}" if number >= 100.0 else f"{number:.3g}"  # noqa: PLR2004 - from here on three digits are whole
