"""Rent or buy: watch what the node serves that a device could serve cheaper, and push when the saving missed would have paid.

Source: Karlin et al. 1988 (ski rental); see `gatewayd.core.renting` for the bound.
"""

import asyncio
import logging
from collections import OrderedDict

from gatewayd.core.decision import Rent
from gatewayd.core.errors import GatewayError
from gatewayd.core.fit import Fitter, fit, room_for
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId, ModelName, ModelRef
from gatewayd.core.placement import RADIO_UJ_PER_BYTE, device_costs, node_costs
from gatewayd.core.renting import Balance, after_node_request, push_cost, should_push
from gatewayd.core.request import NODE
from gatewayd.services.estimates import Estimates
from gatewayd.services.inference import Served
from gatewayd.services.ports import Clock
from gatewayd.services.pushes import Pushes

logger = logging.getLogger(__name__)

# Active (device, model) pairs that keep a balance; the least recently used one starts anew at zero.
MAX_BALANCES = 20_000

# After a push that could not start or failed, its pair waits this long: a device that refuses is not asked at every request.
RETRY_S = 60.0

# Cost of wear per push, in the units of J: a sector endures about 10,000 erases, so one push is worth little but not nothing.
FLASH_WEAR = 5.0
_PUSH_FAILURE = 0.05


class Renting:
    """Keeps the balances and starts the pushes that pay. `served` is cheap and never blocks."""

    def __init__(self, *, pushes: Pushes, estimates: Estimates, clock: Clock, fitter: Fitter = fit) -> None:
        self._pushes = pushes
        self._estimates = estimates
        self._clock = clock
        self._fit = fitter
        self._balances: OrderedDict[tuple[DeviceId, ModelName, int], Balance] = OrderedDict()
        self._not_before_s: dict[tuple[DeviceId, ModelName, int], float] = {}
        self._wanted: asyncio.Queue[tuple[DeviceId, Version]] = asyncio.Queue(maxsize=256)

    def balance(self, device: DeviceId, version: Version) -> Balance:
        """Return what is saved up for a pair."""
        return self._balances.get((device, version.model, version.number), Balance())

    def served(self, served: Served) -> Rent | None:
        """Learn from one answer: only by-reference data that the node served can be served cheaper by its device.

        Returns where the pair stands; None when the request was not about one.
        """
        source = served.options.source
        if source is None or served.result.ran_on != NODE or served.request.pin is not None:
            return None
        report = source.view.report
        candidate = served.options.candidate(0)
        if report is None or candidate.holding.slot is not None:
            return None
        full = room_for(report.slots, served.version.model)
        found = self._fit(served.version, report.capabilities)
        if full or found.variant is None:
            balance = self.balance(source.view.id, served.version)
            state = full or f"does not fit: {'; '.join(found.reasons)}"
            return Rent(source.view.id, balance.saved_missed, balance.requests, None, state)
        return self._add(served, size_bytes=found.variant.size_bytes, held_off=source.view.held_off)

    async def run(self) -> None:
        """Start the pushes that pay until cancelled."""
        while True:
            device, version = await self._wanted.get()
            key = (device, version.model, version.number)
            self._not_before_s[key] = self._clock() + RETRY_S
            try:
                await self._pushes.start(device, ModelRef(version.model, version=version.number), who="placement")
            except GatewayError as error:
                logger.info("push not started device=%s version=%s reason=%r", device, version, str(error))
            else:
                self._balances.pop(key, None)

    def _add(self, served: Served, *, size_bytes: int, held_off: str) -> Rent:
        facts, question = served.options.devices[0], served.options.question
        key = (facts.device, served.version.model, served.version.number)
        node_total = question.weights.total(node_costs(served.options.node, facts))
        device_total = question.weights.total(device_costs(question, facts))
        balance = after_node_request(
            self._balances.get(key, Balance()), node_total=node_total, device_total=device_total
        )
        self._keep(key, balance)
        cost = push_cost(
            size_bytes=size_bytes,
            link=facts.link,
            weights=question.weights,
            energy_uj_per_byte=RADIO_UJ_PER_BYTE if facts.on_battery else 0.0,
            failure=_PUSH_FAILURE,
            flash_wear=FLASH_WEAR,
        )
        return Rent(
            facts.device, balance.saved_missed, balance.requests, cost, self._ask(key, served, balance, cost, held_off)
        )

    def _ask(
        self, key: tuple[DeviceId, ModelName, int], served: Served, balance: Balance, cost: float, held_off: str
    ) -> str:
        """Start a push when it pays and may be; return where the pair stands."""
        if not should_push(balance, cost):
            return "the rent paid is below the price of a push"
        if held_off:
            return f"a push would pay, but the device {held_off}"
        if self._clock() < self._not_before_s.get(key, 0.0):
            return "a push would pay, and was asked for within the last minute"
        if self._wanted.full():
            return "a push would pay, but too many wait already"
        self._not_before_s[key] = self._clock() + RETRY_S
        self._wanted.put_nowait((key[0], served.version))
        return "a push pays: it is asked for"

    def _keep(self, key: tuple[DeviceId, ModelName, int], balance: Balance) -> None:
        self._balances[key] = balance
        self._balances.move_to_end(key)
        if len(self._balances) > MAX_BALANCES:
            dropped, _ = self._balances.popitem(last=False)
            self._not_before_s.pop(dropped, None)
