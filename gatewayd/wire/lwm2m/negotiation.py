"""Which content format to use with one device: a pure memory of what it said, what it refused and what worked.

A format is tried in the order of `candidates`; an answer that means "not in this format" leads to the next. What worked is
used from then on, apart for reading and writing and for the three shapes of what is transferred.
Source: OMA LwM2M Core 1.2.2, section 7.4 (which version has which formats); behaviour of clients in the field.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from enum import Enum

from gatewayd.core.record import record
from gatewayd.wire.lwm2m.definitions import Definitions
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.paths import RESOURCE, Path
from gatewayd.wire.lwm2m.registration import Registration, Version
from gatewayd.wire.lwm2m.values import Type


class Use(Enum):
    """What a format is needed for."""

    READ_TREE = "read several values"
    READ_VALUE = "read one value"
    READ_BYTES = "read one opaque value"
    WRITE_TREE = "write several values"
    WRITE_VALUE = "write one value"
    WRITE_BYTES = "write one opaque value"

    @property
    def is_read(self) -> bool:
        """Whether it names an Accept option, not a Content-Format."""
        return self in {Use.READ_TREE, Use.READ_VALUE, Use.READ_BYTES}


_SENML = (Format.SENML_CBOR, Format.SENML_JSON)
# Compact before verbose, new before old: what a device of that version most likely speaks comes first.
_BY_VERSION: Mapping[Version, tuple[Format, ...]] = {
    Version.V1_0: (Format.TLV, Format.JSON, *_SENML),
    Version.V1_1: (*_SENML, Format.TLV, Format.JSON),
    Version.V1_2: (*_SENML, Format.LWM2M_CBOR, Format.TLV, Format.JSON),
}
_PREFERENCE = (Format.SENML_CBOR, Format.LWM2M_CBOR, Format.TLV, Format.SENML_JSON, Format.JSON)
_NOT_ACCEPTABLE, _UNSUPPORTED = (4, 6), (4, 15)
_SERVER_ERROR, _NOT_IMPLEMENTED = (5, 0), (5, 1)
_SAYS_FORMAT = frozenset({_NOT_ACCEPTABLE, _UNSUPPORTED})
_MAY_MEAN_FORMAT = frozenset({_SERVER_ERROR, _NOT_IMPLEMENTED})


def use_of(path: Path, definitions: Definitions, *, is_read: bool) -> Use:
    """Return what a format is needed for at `path`: a single resource that is not multiple is one value."""
    if path.depth < RESOURCE or (path.depth == RESOURCE and definitions.is_multiple(path)):
        return Use.READ_TREE if is_read else Use.WRITE_TREE
    if definitions.kind(path) is Type.OPAQUE:
        return Use.READ_BYTES if is_read else Use.WRITE_BYTES
    return Use.READ_VALUE if is_read else Use.WRITE_VALUE


@record
class Negotiation:
    """What is known of one device. None as a format means: no Accept option (it answers as it likes)."""

    trees: tuple[Format, ...]
    says: frozenset[Format] = frozenset()
    settled: Mapping[Use, Format | None] = field(default_factory=dict)

    def candidates(self, use: Use) -> tuple[Format | None, ...]:
        """Return the formats to try, in this order: what worked last, then what it said it speaks, then all others."""
        found: Iterable[Format | None] = self._in_order(use)
        if use in self.settled:
            found = (self.settled[use], *found)
        return tuple(dict.fromkeys(found))

    def goes_on(self, use: Use, tried: Format | None, code: tuple[int, int]) -> bool:
        """Return whether an answer's code (class, detail) means that the next format should be tried.

        5.00 is what some clients answer to a format that they lack; it is the device's trouble where that format worked before.
        """
        if code in _SAYS_FORMAT:
            return True
        is_known = use in self.settled and self.settled[use] == tried
        return code in _MAY_MEAN_FORMAT and not is_known

    def worked(self, use: Use, format: Format | None) -> "Negotiation":  # noqa: A002 - CoAP's word for it
        """Return the memory after a success."""
        if use in self.settled and self.settled[use] == format:
            return self
        return replace(self, settled={**self.settled, use: format})

    def failed(self, use: Use, tried: Format | None, code: tuple[int, int]) -> "Negotiation":
        """Return the memory after an answer that was no success: what worked before and is refused now is forgotten."""
        if code in _SAYS_FORMAT and use in self.settled and self.settled[use] == tried:
            return replace(self, settled={key: value for key, value in self.settled.items() if key != use})
        return self

    def _in_order(self, use: Use) -> tuple[Format | None, ...]:
        match use:
            case Use.READ_TREE:
                return (*self.trees, None)
            case Use.READ_VALUE:
                return (*self.trees, Format.TEXT, None)
            case Use.READ_BYTES:
                return (Format.OPAQUE, *self.trees, Format.TEXT, None)
            case Use.WRITE_TREE:
                return self.trees
            case Use.WRITE_VALUE:
                return (*self.trees, Format.TEXT, *self._if_said(Format.CBOR))
            case Use.WRITE_BYTES:
                return (Format.OPAQUE, *self.trees, Format.TEXT, *self._if_said(Format.CBOR))

    def _if_said(self, format: Format) -> tuple[Format, ...]:  # noqa: A002 - CoAP's word for it
        return (format,) if format in self.says else ()


def negotiation_of(registration: Registration) -> Negotiation:
    """Return what a registration tells: its `ct` first, then what its version has, then the rest."""
    said = [each for each in _PREFERENCE if each in registration.formats]
    rest = [*_BY_VERSION[registration.version], *_PREFERENCE]
    return Negotiation(tuple(dict.fromkeys((*said, *rest))), frozenset(registration.formats))


def renewed(negotiation: Negotiation, registration: Registration) -> Negotiation:
    """Return the memory after the device registered anew: what worked stays unless it says other formats now."""
    fresh = negotiation_of(registration)
    return negotiation if (fresh.trees, fresh.says) == (negotiation.trees, negotiation.says) else fresh


def format_answered(asked: Format | None, answered: Format | None, path: Path) -> Format | None:
    """Return the format of an answer; one without a Content-Format is in the one asked for, or text for a single value.

    None: it cannot be known.
    """
    if answered is not None or asked is not None:
        return asked if answered is None else answered
    return Format.TEXT if path.depth >= RESOURCE else None
