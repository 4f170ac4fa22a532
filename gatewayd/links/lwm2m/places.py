"""Where a push goes on a device: our ML Model object beside /9, /9 alone, or /5. What each is asked, and how it is read.

Source: docs/lwm2m.md, "A push"; OMA LwM2M Software Management 1.0.1; OMA LwM2M Core 1.1.1, appendix E.6.
"""

from collections.abc import Sequence

from gatewayd.core.device import Packaging
from gatewayd.core.errors import BadRequest
from gatewayd.core.push import Offer
from gatewayd.core.record import record
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.slot_terms import Action, Seen
from gatewayd.links.lwm2m.slots import Kind
from gatewayd.links.lwm2m.strangers import package_prefix
from gatewayd.wire.lwm2m.objects import FIRMWARE, MODEL, SOFTWARE
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.states import read_firmware, read_model_slot, read_software
from gatewayd.wire.lwm2m.values import Record

_PUSH, _PHASE, _MANIFEST, _ACCEPT, _CANCEL = 13, 14, 18, 16, 17
_PACKAGE, _URI, _INSTALL, _UNINSTALL, _STATE, _ACTIVATE, _DEACTIVATE = 2, 3, 4, 6, 7, 10, 11
_FIRMWARE_PACKAGE, _FIRMWARE_URI, _FIRMWARE_UPDATE, _FIRMWARE_STATE = 0, 1, 2, 3


@record
class Place:
    """One instance of one object on one device."""

    kind: Kind
    instance: int
    size_exponent: int
    packaging: Packaging = Packaging.ARTIFACT

    @property
    def whole(self) -> Path:
        """What is read to see how the push goes."""
        return {Kind.ML_MODEL: Path(MODEL, self.instance), Kind.SOFTWARE: self._software}.get(
            self.kind, Path(FIRMWARE, 0)
        )

    @property
    def observed(self) -> Path:
        """The resource whose change means that there is something to see: observing all of it would tell of every block."""
        return self.whole / {Kind.ML_MODEL: _PHASE, Kind.SOFTWARE: _STATE, Kind.FIRMWARE: _FIRMWARE_STATE}[self.kind]

    def prefix(self, offer: Offer) -> bytes:
        """Return what of a package does not come from the engine. Ours get the manifest on its own."""
        return b"" if self.kind is Kind.ML_MODEL else package_prefix(offer, self.packaging)

    def package_path(self) -> Path:
        """Return where the package is written."""
        return Path(FIRMWARE, 0) / _FIRMWARE_PACKAGE if self.kind is Kind.FIRMWARE else self._software / _PACKAGE

    async def look(self, operations: Operations, *, timeout_s: float) -> Sequence[Record]:
        """Read the whole of it. Raises: as `Operations.read`."""
        return await operations.read(self.whole, timeout_s=timeout_s)

    def seen(self, records: Sequence[Record]) -> Seen | None:
        """Return what was read as values; None when they make no sense: the next look may."""
        readings = Readings(records)
        try:
            match self.kind:
                case Kind.ML_MODEL:
                    return Seen(read_model_slot(readings, self.instance))
                case Kind.SOFTWARE:
                    return Seen(read_software(readings, self.instance))
                case Kind.FIRMWARE:
                    return Seen(read_firmware(readings))
        except BadRequest:
            return None

    async def write_offer(self, operations: Operations, offer: Offer, *, timeout_s: float) -> None:
        """Write the push's id, then the signed manifest. Raises: as `Operations.write`."""
        at = Path(MODEL, self.instance)
        await operations.write_value(at / _PUSH, int(offer.push), timeout_s=timeout_s)
        await operations.write_value(at / _MANIFEST, offer.signed, timeout_s=timeout_s)

    async def write_uri(self, operations: Operations, uri: str, *, timeout_s: float) -> None:
        """Write the package's address. Raises: as `Operations.write`."""
        at = Path(FIRMWARE, 0) / _FIRMWARE_URI if self.kind is Kind.FIRMWARE else self._software / _URI
        await operations.write_value(at, uri, timeout_s=timeout_s)

    async def obey(self, operations: Operations, action: Action, *, timeout_s: float) -> None:
        """Do one of the actions that are a single write or execute. Raises: as `Operations`."""
        if isinstance(action, terms.Reset):
            await self.write_uri(operations, "", timeout_s=timeout_s)
            return
        path = self._executed(action)
        if path is not None:
            await operations.execute(path, timeout_s=timeout_s)

    def _executed(self, action: Action) -> Path | None:
        if self.kind is Kind.FIRMWARE:
            return Path(FIRMWARE, 0) / _FIRMWARE_UPDATE if isinstance(action, terms.Install) else None
        resource = {
            terms.Install: _INSTALL,
            terms.Uninstall: _UNINSTALL,
            terms.Activate: _ACTIVATE,
            terms.Deactivate: _DEACTIVATE,
        }.get(type(action))
        instance = int(getattr(action, "instance", self.instance))
        if resource is not None:
            return Path(SOFTWARE, instance) / resource
        ours = {terms.Accept: _ACCEPT, terms.Cancel: _CANCEL}.get(type(action))
        return None if ours is None else Path(MODEL, instance) / ours

    @property
    def _software(self) -> Path:
        return Path(SOFTWARE, self.instance)
