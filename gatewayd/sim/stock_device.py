"""A simulated board with a stock LwM2M client: standard objects only, a software management that takes models, and its habits.

It runs no model: what it was given is kept in its folder, as it came. Sources: see `sim.stock_software`; registration and formats
as docs/simulated-boards.md says.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gatewayd.sim.coap_site import DeviceSite
from gatewayd.sim.log import Log
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.objects import Fixed, ObjectTree
from gatewayd.sim.pull import pull
from gatewayd.sim.relay import Link
from gatewayd.sim.standard_objects import DeviceObject, ServerObject, connectivity
from gatewayd.sim.stock_software import HABITS, Held, Persona, StockSoftware
from gatewayd.sim.uplink import Uplink
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.objects import FIRMWARE, SOFTWARE, STANDARD
from gatewayd.wire.lwm2m.states import SoftwareState

_PACKAGE = 2
_INSTALL_S = 0.05


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stock client registers and speaks, by its version. `confirms`: notifications ask for an acknowledgement."""

    version: str
    block_exponent: int
    formats: Mapping[str, tuple[Format, ...]]
    names_root: Mapping[str, bool]
    binding: str | None
    needs_accept: Sequence[str]
    confirms: bool


_OLD = (Format.TLV, Format.TEXT, Format.OPAQUE)
_MANY = (Format.SENML_CBOR, Format.SENML_JSON, Format.TLV, Format.TEXT, Format.OPAQUE, Format.CBOR)
MANNERS = {
    Persona.ZEPHYR: Manner(
        version="1.0",
        block_exponent=4,
        formats={"1.0": _OLD, "1.1": (Format.SENML_JSON, Format.TEXT, Format.OPAQUE)},
        names_root={"1.0": False, "1.1": True},
        binding=None,
        needs_accept=("1.1",),
        confirms=True,
    ),
    Persona.ANJAY: Manner(
        version="1.1",
        block_exponent=6,
        formats={"1.0": _OLD, "1.1": _MANY, "1.2": (Format.SENML_CBOR, Format.LWM2M_CBOR, *_MANY[1:])},
        names_root={"1.0": True, "1.1": True, "1.2": True},
        binding="U",
        needs_accept=(),
        confirms=False,
    ),
}


class _Absent(Fixed):
    """An object that is there without an instance."""

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return ()


class StockDevice:
    """One device. `run` ends after `stop`; `folder` is its flash. `software` is its /9."""

    def __init__(
        self,
        options: Lwm2mOptions,
        *,
        radio: Link | None,
        keys: Mapping[bytes, bytes],
        slot_bytes: int,
        folder: Path,
        log: Log,
    ) -> None:
        persona = options.persona or Persona.ANJAY
        self._options, self._folder, self._log = options, folder, log
        self._manner = MANNERS[persona]
        self.software = StockSoftware(HABITS[persona], slot_bytes, keys, self._changed, self._fetch)
        self.uplink = Uplink(options, radio, log)
        self._site = DeviceSite(
            self._tree(persona),
            package=(SOFTWARE, _PACKAGE),
            feed=self._feed,
            block_exponent=options.block_exponent,
            is_confirmed=lambda _: self._manner.confirms,
        )
        self._group = asyncio.TaskGroup()
        self._pull: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Register, serve until `stop`, deregister. Raises: OSError."""
        self.software.held = await asyncio.to_thread(self._load)
        async with self._group:
            await self.uplink.open(self._site)
            beside = [
                self._group.create_task(self.uplink.registration.run(), name="registration"),
                self._group.create_task(self._work(), name="work"),
            ]
            await self._stopped.wait()
            for each in (*beside, *([self._pull] if self._pull is not None else [])):
                each.cancel()
            await self.uplink.close()
        await asyncio.to_thread(self._save, tuple(self.software.held))

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopped.set()

    async def _feed(self, instance: int, start: int, content: bytes, is_last: bool) -> None:  # noqa: FBT001 - a feed's shape
        await self.software.push(instance, start, content, is_last=is_last)

    def _fetch(self, instance: int, uri: str) -> None:
        self._pull = self._group.create_task(self._pulled(instance, uri), name="pull")

    async def _pulled(self, instance: int, uri: str) -> None:
        way, exponent = (self.uplink.context, self.uplink.gateway), self._options.block_exponent
        if await pull(*way, uri, slots=self.software, instance=instance, exponent=exponent, log=self._log):
            self.software.pulled(instance)
        else:
            self.software.lost(instance)

    async def _work(self) -> None:
        """Install what is to be installed, and keep what is to outlive a restart."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            await asyncio.to_thread(self._save, tuple(self.software.held))
            if any(each.is_installing for each in self.software.held):
                await asyncio.sleep(_INSTALL_S)
                self.software.installed()

    def _changed(self) -> None:
        states = [(each.state.value, each.result, each.is_active) for each in self.software.held]
        self._log("software", states=states)
        self._site.changed()
        self._stirred.set()

    async def _reboot(self) -> None:
        self._log("reboot")
        self.uplink.update()

    def _tree(self, persona: Persona) -> ObjectTree:
        options, manner, version = self._options, self._manner, self._options.terms.version
        hooks = self.uplink.hooks(reboot=self._reboot, battery_percent=lambda: None)
        binding, serial = "UQ" if options.terms.is_sleepy else "U", options.terms.endpoint
        parts = (
            ServerObject(hooks, binding=binding),
            DeviceObject(hooks, board=persona.value, serial=serial, ram_bytes=262_144, binding=binding),
            connectivity(options.link),
            _Absent(FIRMWARE, {}),
            self.software,
        )
        return ObjectTree(
            parts,
            formats=options.formats or manner.formats[version],
            definitions=STANDARD,
            names_root=manner.names_root[version],
            needs_accept=version in manner.needs_accept,
        )

    def _load(self) -> list[Held]:
        """Read what outlived the last power cut; what was on its way is gone."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            rows = json.loads((self._folder / "software.json").read_text())
            return [self._restored(index, row) for index, row in enumerate(rows)]
        return [Held(), Held()]

    def _restored(self, index: int, row: Mapping[str, object]) -> Held:
        state = SoftwareState(int(str(row["state"])))
        if state < SoftwareState.DELIVERED:
            return Held()
        package = (self._folder / f"package-{index}").read_bytes()
        return Held(
            state, int(str(row["result"])), str(row["name"]), str(row["version"]), bool(row["active"]), package=package
        )

    def _save(self, held: Sequence[Held]) -> None:
        rows = []
        for index, each in enumerate(held):
            if each.state >= SoftwareState.DELIVERED:
                (self._folder / f"package-{index}").write_bytes(each.package)
            rows.append(
                {
                    "state": int(each.state),
                    "result": each.result,
                    "name": each.name,
                    "version": each.version,
                    "active": each.is_active,
                }
            )
        (self._folder / "software.json").write_text(json.dumps(rows))
