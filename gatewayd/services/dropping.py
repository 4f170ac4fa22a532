"""Models that devices are told to let go: asked for by an operator, journalled, ended by the device's own word.

A model that makes room for another one does not come this way: it gives way when the device accepts that one (`Push.instead_of`),
so that there is always one that runs.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from gatewayd.core.device import Born, DeviceView
from gatewayd.core.dropping import Drop, DropState, held_slot, is_held, is_only
from gatewayd.core.errors import (
    Conflict,
    DeviceError,
    DeviceRefused,
    DeviceTimeout,
    Forbidden,
    NodeError,
    NotFound,
    NotStored,
)
from gatewayd.core.events import ModelDropped
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.services.desires import Desires
from gatewayd.services.drop_ports import DropPorts
from gatewayd.services.pushes import Pushes
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)

# A device answers when its journal is written: a few pages. A slow link gets more time; a drop may be asked for again, it
# changes nothing then.
_TRY_S, _MOST_TRY_S, _ROUND_TRIPS, _TRIES = 3.0, 60.0, 8.0, 3
# Drops that are remembered, so that nothing brings back by itself what an operator took away. Protects memory.
_REMEMBERED = 10_000


class Drops:
    """One drop per device at a time. `load` before links start; `run` as long as the daemon does."""

    def __init__(self, ports: DropPorts, *, tracking: Tracking, pushes: Pushes, desires: Desires) -> None:
        self._ports = ports
        self._tracking = tracking
        self._pushes = pushes
        self._desires = desires
        self._asking: set[DeviceId] = set()
        # At most one for each device: how it ended is not known, and its next report tells.
        self._doubtful: dict[DeviceId, Drop] = {}
        # What its report made of a drop, and whether that is news.
        self._heard: asyncio.Queue[tuple[Drop, bool]] = asyncio.Queue()
        self._gone: OrderedDict[tuple[DeviceId, ModelName], int] = OrderedDict()

    async def load(self) -> None:
        """Take up what was asked before a restart, and what failed without the device's word on it: its next report has it."""
        for drop in await self._ports.store.load_open_drops():
            await self._settle(drop.device)  # of several the newest counts
            self._doubtful[drop.device] = drop
        for drop in reversed(await self._ports.store.recent_drops(_REMEMBERED)):
            self._remember(drop)

    def is_unwanted(self, device: DeviceId, model: ModelName, version: int) -> bool:
        """Return whether an operator took that version from the device, and nobody has wished for the model there since."""
        return self._gone.get((device, model)) == version and self._desires.wish(device, model) is None

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Drop]:
        """Return the newest drops (of one device) of the journal."""
        return await self._ports.store.recent_drops(limit, device)

    async def drop(
        self,
        device: DeviceId,
        model: ModelName,
        *,
        who: str,
        why: str = "",
        is_last: bool = False,
    ) -> Drop:
        """Have the device let go `model`, and want it there no more. `is_last` lets it be the only model that runs there.

        Raises: UnknownDevice, Forbidden (not approved), NotFound (it does not hold the model), Conflict (offline, its agent has
        no drop, a push runs, it is the only model), NodeError, and what the device made of it: DeviceRefused, DeviceTimeout,
        DeviceUnreachable.
        """
        view = self._tracking.device(device)
        planned = self._planned(view, model, who=who, why=why, is_last=is_last)
        if device in self._asking:
            raise Conflict(f"{device} is being told to drop a model already: try again in a moment")
        self._asking.add(device)
        try:
            return await self._carried_out(await self._journalled(planned), view)
        finally:
            self._asking.discard(device)

    def handle(self, event: Born) -> None:
        """Take what a device says it holds: it ends a drop whose end nobody heard. Never blocks."""
        drop = self._doubtful.get(event.device)
        if drop is None or event.device in self._asking:
            return
        del self._doubtful[event.device]
        is_there, at = is_held(drop, event.report.slots), self._ports.wall_clock()
        if not is_there:
            self._heard.put_nowait((drop.ended(DropState.DROPPED, "the device reports that it is gone", at=at), True))
        elif drop.state is DropState.ASKED:
            why = "no answer was heard, and the device holds it still"
            self._heard.put_nowait((drop.ended(DropState.FAILED, why, at=at), True))
        else:  # it had failed, and so it stays
            self._heard.put_nowait((replace(drop, ended_at=at), False))

    async def run(self) -> None:
        """Store what devices said until cancelled."""
        while True:
            drop, is_news = await self._heard.get()
            try:
                await (self._end(drop) if is_news else self._ports.store.save_drop(drop))
            except NotStored as error:  # it stays open in the journal, and the next report after a restart ends it
                pairs = {"device": drop.device, "reason": str(error)}
                logger.error("drop not journalled", extra={"fields": pairs})  # noqa: TRY400 - the message says all

    def _planned(self, view: DeviceView, model: ModelName, *, who: str, why: str, is_last: bool) -> Drop:
        """Return what is to be asked. Raises: as `drop`."""
        if not view.approved:
            raise Forbidden(f"device {view.id} waits for approval: approve it first (devices.approve)")
        if not view.online or view.report is None:
            raise Conflict(f"device {view.id} is offline: drop the model when it is back")
        if not view.report.capabilities.drops_models:
            raise Conflict(f"device {view.id} drops no models: its agent does not say that it does")
        slot = held_slot(view.report, model)
        if slot is None or slot.version is None or slot.digest is None:
            raise NotFound(f"device {view.id} holds no {model}")
        if any(push.device == view.id for push in self._pushes.live()):
            raise Conflict(f"a push to {view.id} is under way: cancel it (pushes.cancel), or wait for its end")
        if is_only(view.report, model) and not is_last:
            raise Conflict(f"{model} is the only model that runs on {view.id}: --last drops it all the same")
        what = (view.id, slot.index, model, slot.version, slot.digest, is_last)
        return Drop(*what, who, why, self._ports.wall_clock())

    async def _journalled(self, drop: Drop) -> Drop:
        """Note what is about to be asked, and want the model no more: it would be pushed again as soon as it is gone."""
        await self._settle(drop.device)
        unwanted = self._desires.wish(drop.device, drop.model)
        asked = await self._ports.store.add_drop(drop, unwanted=unwanted)
        if unwanted is not None:
            self._desires.unwish(drop.device, drop.model)
        pairs = {"id": asked.id, "device": drop.device, "version": f"{drop.model}@{drop.version}", "who": drop.who}
        logger.info("drop asked for", extra={"fields": pairs})
        return asked

    async def _carried_out(self, asked: Drop, view: DeviceView) -> Drop:
        at = self._ports.wall_clock
        try:
            await self._ask(asked, view)
        except DeviceRefused as error:
            await self._end(asked.ended(DropState.REFUSED, str(error), at=at()))
            raise
        except (
            DeviceError,
            NodeError,
        ) as error:  # of the node: its own queue is full, perhaps with an earlier try under way
            now = self._tracking.find(asked.device)
            if now is not None and now.report is not None and not is_held(asked, now.report.slots):
                return await self._end(asked.ended(DropState.DROPPED, "its report says so", at=at()))
            self._doubtful[asked.device] = await self._end(asked.ended(DropState.FAILED, str(error), at=None))
            raise
        return await self._end(asked.ended(DropState.DROPPED, "", at=at()))

    async def _ask(self, drop: Drop, view: DeviceView) -> None:
        """Ask, and again when no answer comes: a drop of what is gone changes nothing. Raises: DeviceError."""
        timeout_s = min(_MOST_TRY_S, max(_TRY_S, _ROUND_TRIPS * view.quality.rtt_s))
        for tried in range(_TRIES):
            try:
                await self._ports.link_of(drop.device).drop_model(drop, timeout_s=timeout_s)
            except DeviceTimeout:
                if tried == _TRIES - 1:
                    raise
            else:
                return

    async def _settle(self, device: DeviceId) -> None:
        """Leave an earlier drop as it stands: a later one is what the device's next report tells about."""
        earlier = self._doubtful.get(device)
        if earlier is not None:
            why = earlier.reason or "no answer was heard, and it was asked for again"
            await self._ports.store.save_drop(earlier.ended(DropState.FAILED, why, at=self._ports.wall_clock()))
            self._doubtful.pop(device, None)

    async def _end(self, drop: Drop) -> Drop:
        await self._ports.store.save_drop(drop)
        self._remember(drop)
        self._ports.notify(ModelDropped(drop))
        return drop

    def _remember(self, drop: Drop) -> None:
        if drop.state is not DropState.DROPPED:
            return
        self._gone[drop.device, drop.model] = drop.version
        self._gone.move_to_end((drop.device, drop.model))
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
