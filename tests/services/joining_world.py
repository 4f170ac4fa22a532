"""A world whose devices join and leave: real credential files beside the real store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gatewayd.adapters.credentials import CredentialFiles, open_credentials
from gatewayd.core.events import DeviceChanged
from gatewayd.core.names import DeviceId
from gatewayd.services.collecting import Collector, CollectorPorts
from gatewayd.services.joining import Joining, JoiningPorts
from gatewayd.services.ports import ModelReader
from gatewayd.services.renting import Renting
from gatewayd.services.standing import OrderPorts, StandingOrders
from gatewayd.wire.mosquitto import hash_for
from gatewayd.wire.topics import Topics
from tests.services.fake_device import FakeDevice
from tests.services.world import DEVICE, World, world


@dataclass
class Stage:
    """A world whose devices join; `told` counts how often the broker was told."""

    w: World
    joining: Joining
    files: CredentialFiles
    renting: Renting
    orders: StandingOrders
    told: list[str] = field(default_factory=list)

    def what(self, device: DeviceId = DEVICE) -> list[str]:
        return [event.what for event in self.w.events if isinstance(event, DeviceChanged) and event.device == device]


@asynccontextmanager
async def stage(folder: Path, *, open_join: bool = False, read: ModelReader | None = None) -> AsyncIterator[Stage]:
    async with world(folder, open_join=open_join, read=read) as w:
        files = open_credentials(folder / "credentials", Topics("gatewayd", "gw"))
        numbers = iter(range(1, 250))

        def tell() -> str:
            found.told.append("told")
            return ""

        ports = JoiningPorts(
            files,
            lambda count: bytes([next(numbers)]) * count,
            lambda user, password: hash_for(user, password, bytes(12)),
            tell,
            lambda device: (
                w.device if w.tracking.find(device) else FakeDevice(device)
            ),  # as the daemon: by what is tracked
            w.events.append,
            lambda: 1.7e9,
        )
        collecting = Collector(
            CollectorPorts(w.artifacts, w.store, w.store, w.events.append, lambda: 1.7e9),
            catalog=w.catalog,
            tracking=w.tracking,
            pushes=w.pushes,
            keep_retired_s=1,
            every_s=1000,
        )
        await collecting.load()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        orders = StandingOrders(
            OrderPorts(
                w.store, w.inference, w.catalog, w.tracking, w.events.append, w.clock, lambda: 1.7e9, lambda: "r"
            )
        )
        joining = Joining(
            ports,
            tracking=w.tracking,
            desires=w.desires,
            pushes=w.pushes,
            collecting=collecting,
            renting=renting,
            orders=orders,
        )
        found = Stage(w, joining, files, renting, orders)
        yield found
