"""The daemon's own policy, as `core` has it: `place`, the estimators, and the ledger of rent and buy."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from gatewayd.core.calibration import Calibration
from gatewayd.core.cost import Weights
from gatewayd.core.estimate import LinkEstimate
from gatewayd.core.ledger import WATCHED_S, Ledger, LedgerRules, Missed, Order, Room
from gatewayd.core.names import ModelName
from gatewayd.core.placement import RADIO_UJ_PER_BYTE, DeviceFacts, NodeFacts, Question, device_costs, node_costs, place
from gatewayd.core.renting import Pair, PushPrice, hoped, push_cost, push_failure, push_s
from gatewayd.core.request import NODE, Privacy
from gatewayd.simulate.beliefs import Beliefs
from gatewayd.simulate.boards import Model
from gatewayd.simulate.policy import Situation, Standing, Wish
from gatewayd.simulate.world import Ask, Run, Station

FLASH_WEAR = 5.0  # J per push, as in the daemon

_Believed = tuple[DeviceFacts, NodeFacts]


class GatewayPolicy:
    """Places with `core.placement.place`, pushes when `core.ledger.Ledger` says so.

    `watched_s` is how long the gateway has run already when the scenario begins. `fleets` are the devices that could be asked
    for each model, as the daemon counts those that are connected (a model that is not in it: only the one that is asked).
    """

    name = "gatewayd"

    def __init__(
        self,
        weights: Weights,
        rules: LedgerRules,
        *,
        watched_s: float = WATCHED_S,
        fleets: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._weights, self._fleets = weights, fleets
        self._watched_s, self._horizon_s = watched_s, rules.terms.horizon_s
        # What was believed when a request was placed, until it ends: its answer is entered with that.
        self._believed: dict[int, _Believed] = {}
        self._beliefs = Beliefs()
        self._ledger = Ledger(rules)
        self.calibration = Calibration()

    def ordered(self, order: Standing, situation: Situation) -> Wish | None:
        """Decide at once: the rate is known."""
        ask = Ask(situation.now_s, order.station, order.model, 60.0, False, 1.0, 1.0, 1.0, 1.0)  # noqa: FBT003 - no luck yet
        believed = self._believe(ask, situation)
        node_total, device_total, _ = self._totals(ask, situation, believed)
        pair = _pair(order.station, order.model)
        verdict = self._ledger.ordered(
            Order(
                pair,
                order.per_s,
                situation.now_s + order.left_s,
                max(0.0, node_total - device_total),
                self._price(order.station, order.model, believed[0].link),
                self._room(order.station, situation),
                is_measured=self._beliefs.link(order.station, situation.now_s).goodput.count > 0.0,
            ),
            now_s=situation.now_s,
        )
        return self._started(pair, order.station, order.model, verdict.evict, situation) if verdict.is_push else None

    def asked(self, ask: Ask, situation: Situation) -> None:
        """Take what is believed now for what this request is placed and entered with, as the daemon does."""
        self._believed[id(ask)] = self._believe(ask, situation)

    def prefers_device(self, ask: Ask, situation: Situation) -> bool:
        """Let `place` choose."""
        facts, node = self._believed.get(id(ask)) or self._believe(ask, situation)
        feasible = place(self._question(ask, situation), node, [facts]).feasible
        return bool(feasible) and feasible[0].target != NODE

    def saw(self, ask: Ask, run: Run, situation: Situation, *, on_device: bool) -> Wish | None:
        """Learn, and enter it into the ledger."""
        now_s, station, model = situation.now_s, ask.station, ask.model
        believed = self._believed.pop(id(ask), None) or self._believe(ask, situation)
        self._compare(ask, run, now_s, on_device=on_device)
        self._beliefs.saw(ask, run, on_device=on_device, now_s=now_s)
        # With what this answer showed of the link: before a device's first answer that was a guess by its kind.
        link = self._beliefs.link(station, now_s)
        learned = replace(believed[0], link=link), believed[1]
        node_total, device_total, hoped_total = self._totals(ask, situation, learned)
        pair = _pair(station, model)
        devices = self._fleets.get(model.name, 1)
        held_then = not believed[0].refusal
        if held_then:
            saving = node_total - device_total if on_device else 0.0
            self._ledger.served(pair, saving=saving, now_s=now_s, devices=devices)
            return None
        if on_device or not station.can_run(model):
            return None
        price, room = self._price(station, model, link), self._room(station, situation)
        since_s = self._since_s(now_s)
        missed = Missed(pair, node_total, device_total, hoped_total, price, room, since_s, 0.0, devices)
        verdict = self._ledger.missed(missed, now_s=now_s)
        if not verdict.is_push or situation.pushing is not None or situation.holds(model):
            return None
        return self._started(pair, station, model, verdict.evict, situation)

    def pushed(self, station: Station, model: Model, *, elapsed_s: float, is_there: bool, now_s: float) -> None:
        """Enter how it ended."""
        if is_there:
            self._beliefs.saw_push(station, model, elapsed_s=elapsed_s, now_s=now_s)
        price = self._price(station, model, self._beliefs.link(station, now_s))
        self._ledger.ended(_pair(station, model), price, is_there=is_there, now_s=now_s)

    def pinged(self, station: Station, rtt_s: float, *, now_s: float) -> None:
        """Learn a round trip."""
        self._beliefs.saw_ping(station, rtt_s, now_s=now_s)

    def transfer_s(self, station: Station, byte_count: int, *, now_s: float) -> float:
        """As the link was measured."""
        return self._beliefs.link(station, now_s).transfer_s(byte_count)

    def carried(self, station: Station, byte_count: int, elapsed_s: float, *, now_s: float) -> None:
        """Learn what a chunk of a push took."""
        self._beliefs.saw_chunk(station, byte_count, elapsed_s, now_s=now_s)

    def _since_s(self, now_s: float) -> float | None:
        """Return from when on silence before the first request counts; devices are there from 0 on."""
        has_watched = now_s + self._watched_s >= WATCHED_S
        return max(0.0, now_s - self._horizon_s) if has_watched else None

    def _believe(self, ask: Ask, situation: Situation) -> _Believed:
        return self._beliefs.device_facts(ask, situation), self._beliefs.node_facts(ask, situation)

    def _compare(self, ask: Ask, run: Run, now_s: float, *, on_device: bool) -> None:
        """Hold what was predicted, queues aside, against what was seen; two standard errors of the mean are the bounds."""
        link = self._beliefs.link(ask.station, now_s)
        compute = self._beliefs.compute(ask.station, ask.model) if on_device else self._beliefs.on_node(ask.model)
        predicted_s = link.transfer_s(run.link_bytes) + compute.mean
        least_s = link.transfer_s(run.link_bytes, z=2.0) + compute.optimistic(2.0)
        seen_s = run.link_s + run.compute_s
        is_within = abs(seen_s - predicted_s) <= predicted_s - least_s
        self.calibration = self.calibration.after(predicted_s, seen_s, is_within=is_within)

    def _started(
        self, pair: Pair, station: Station, model: Model, evict: ModelName | None, situation: Situation
    ) -> Wish:
        price = self._price(station, model, self._beliefs.link(station, situation.now_s))
        self._ledger.started(pair, price, now_s=situation.now_s)
        if evict is not None:
            self._ledger.left(station.id, evict)
        return Wish(model, str(evict) if evict is not None else None)

    def _totals(self, ask: Ask, situation: Situation, believed: _Believed) -> tuple[float, float, float]:
        """Return what node, device, and the device at its best are expected to cost; queues pass and are left out."""
        facts, node = replace(believed[0], queue_s=0.0), replace(believed[1], queue_s=0.0)
        question, total = self._question(ask, situation), self._weights.total
        return (
            total(node_costs(node, facts)),
            total(device_costs(question, facts)),
            total(device_costs(question, hoped(facts))),
        )

    def _question(self, ask: Ask, situation: Situation) -> Question:
        left_s = ask.at_s + ask.deadline_s - situation.now_s
        return Question(True, ask.station.id, Privacy.ANY, left_s, None, self._weights)  # noqa: FBT003 - by reference

    def _price(self, station: Station, model: Model, link: LinkEstimate) -> PushPrice:
        chunk_bytes, on_battery = station.link.chunk_bytes, station.group.battery_j is not None
        per_byte_uj = RADIO_UJ_PER_BYTE if on_battery else 0.0
        cost = push_cost(
            size_bytes=model.size_bytes,
            link=link,
            weights=self._weights,
            energy_uj_per_byte=per_byte_uj,
            failure=push_failure(self._ledger.balance(_pair(station, model)).failures),
            flash_wear=FLASH_WEAR,
            chunk_bytes=chunk_bytes,
        )
        air_s = push_s(model.size_bytes, link, chunk_bytes=chunk_bytes)
        return PushPrice(cost, air_s, per_byte_uj * model.size_bytes)

    def _room(self, station: Station, situation: Situation) -> Room:
        held = tuple(ModelName(name) for name in situation.held)
        now_s, ledger = situation.now_s, self._ledger
        ordered = frozenset(name for name in held if ledger.is_ordered((station.id, name, 1), now_s=now_s))
        return Room(station.group.slots, held, ordered=ordered)


def _pair(station: Station, model: Model) -> Pair:
    return station.id, ModelName(model.name), 1
