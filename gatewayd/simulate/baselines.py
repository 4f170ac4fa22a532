# ruff: noqa: ARG002 - a policy need not use all that it is told
"""The policies that gatewayd's is measured against. All learn with the same estimators; they differ in what they decide on."""

from collections.abc import Mapping
from dataclasses import replace

from gatewayd.core.cost import Weights
from gatewayd.core.placement import RADIO_UJ_PER_BYTE, Question, device_costs, node_costs
from gatewayd.core.renting import Balance, after_node_request, push_cost, should_push
from gatewayd.core.request import Privacy
from gatewayd.simulate.beliefs import Beliefs
from gatewayd.simulate.boards import MODELS, Board, Model
from gatewayd.simulate.gateway import FLASH_WEAR
from gatewayd.simulate.policy import Situation, Standing, Wish, least_used
from gatewayd.simulate.world import Ask, Run, Station

# A sample of at least so many bytes is not sent: one number for all models and links, set beforehand.
_THRESHOLD_BYTES = 1024
# A push that failed is tried again after this long.
_RETRY_S = 60.0


class Baseline:
    """What the baselines share: learning, and one push at a time to the least recently used slot. Alone: the node runs all."""

    name = "node-only"

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.beliefs = Beliefs()
        self._used_s: dict[tuple[str, str], float] = {}
        self._not_before_s: dict[tuple[str, str], float] = {}

    def ordered(self, order: Standing, situation: Situation) -> Wish | None:
        """Standing orders mean nothing to them."""
        return None

    def prefers_device(self, ask: Ask, situation: Situation) -> bool:
        """Whoever pushed wants it used."""
        return True

    def saw(self, ask: Ask, run: Run, situation: Situation, *, on_device: bool) -> Wish | None:
        """Learn; push when this policy wants the model there."""
        self.beliefs.saw(ask, run, on_device=on_device, now_s=situation.now_s)
        key = (ask.station.id, ask.model.name)
        self._used_s[key] = situation.now_s
        if situation.holds(ask.model) or not ask.station.can_run(ask.model):
            return None
        if situation.now_s < self._not_before_s.get(key, 0.0) or not self.wants(ask, situation):
            return None
        self._not_before_s[key] = situation.now_s + _RETRY_S
        used_s = {name: self._used_s.get((ask.station.id, name), 0.0) for name in situation.held}
        is_full = len(situation.held) >= ask.station.group.slots
        return Wish(ask.model, least_used(situation.held, used_s) if is_full else None)

    def asked(self, ask: Ask, situation: Situation) -> None:
        """What is believed when it is decided is no matter of theirs."""

    def pinged(self, station: Station, rtt_s: float, *, now_s: float) -> None:
        """Learn a round trip."""
        self.beliefs.saw_ping(station, rtt_s, now_s=now_s)

    def transfer_s(self, station: Station, byte_count: int, *, now_s: float) -> float:
        """As the link was measured."""
        return self.beliefs.link(station, now_s).transfer_s(byte_count)

    def carried(self, station: Station, byte_count: int, elapsed_s: float, *, now_s: float) -> None:
        """Learn what a chunk of a push took."""
        self.beliefs.saw_chunk(station, byte_count, elapsed_s, now_s=now_s)

    def pushed(self, station: Station, model: Model, *, elapsed_s: float, is_there: bool, now_s: float) -> None:
        """Learn how a push ended."""
        if is_there:
            self.beliefs.saw_push(station, model, elapsed_s=elapsed_s, now_s=now_s)

    def wants(self, ask: Ask, situation: Situation) -> bool:
        """Whether to push the model to where it was just asked for."""
        return False

    def totals(self, ask: Ask, situation: Situation) -> tuple[float, float]:
        """Return what node and device are expected to cost, queues aside."""
        facts = replace(self.beliefs.device_facts(ask, situation), queue_s=0.0)
        node = replace(self.beliefs.node_facts(ask, situation), queue_s=0.0)
        question = Question(True, ask.station.id, Privacy.ANY, ask.deadline_s, None, self.weights)  # noqa: FBT003 - by reference
        return self.weights.total(node_costs(node, facts)), self.weights.total(device_costs(question, facts))


class DeviceOnly(Baseline):
    """Pushes every model to where it is first asked for, and runs it there: inference on the device, as firmware does."""

    name = "device-only"

    def wants(self, ask: Ask, situation: Situation) -> bool:
        """Always."""
        return True


class Threshold(Baseline):
    """One number set beforehand, as KubeEdge Sedna's joint inference ships it: samples from 1 KiB up are not sent."""

    name = "threshold"

    def wants(self, ask: Ask, situation: Situation) -> bool:
        """Whether the sample is large."""
        return ask.model.input_bytes >= _THRESHOLD_BYTES


class Regression(Baseline):
    """After Neurosurgeon (Kang et al. 2017): a regression of time and energy on the model's work, and the current bandwidth.

    It takes the cheaper place for each request and pushes as soon as that is the device; what a push costs, or the device's own
    measurements, it does not count. The regression is over the other models on the same board, by least squares.
    """

    name = "regression"

    def prefers_device(self, ask: Ask, situation: Situation) -> bool:
        """Whether the regression says so."""
        node_total, device_total = self._regressed(ask, situation)
        return device_total < node_total

    def wants(self, ask: Ask, situation: Situation) -> bool:
        """As for a request."""
        return self.prefers_device(ask, situation)

    def _regressed(self, ask: Ask, situation: Situation) -> tuple[float, float]:
        node_total, _ = self.totals(ask, situation)
        seconds = _fitted(ask.station.board, ask.model, ask.station.board.seconds)
        energy_uj = _fitted(ask.station.board, ask.model, ask.station.board.energy_uj)
        weights, link = self.weights, self.beliefs.link(ask.station, situation.now_s)
        total = weights.latency_per_s * (seconds + link.transfer_s(ask.model.output_bytes))
        total += weights.bandwidth_per_byte * ask.model.output_bytes + weights.risk_per_failure * link.failures.mean
        return node_total, total + (
            weights.energy_per_uj * energy_uj if ask.station.group.battery_j is not None else 0.0
        )


class BreakEven(Baseline):
    """Plain ski rental (Karlin et al. 1988): pushes when the saving missed has reached the price; the cheaper place after it."""

    name = "break-even"

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self._balances: dict[tuple[str, str], Balance] = {}

    def prefers_device(self, ask: Ask, situation: Situation) -> bool:
        """The cheaper one, by what was measured."""
        node_total, device_total = self.totals(ask, situation)
        return device_total < node_total

    def wants(self, ask: Ask, situation: Situation) -> bool:
        """Whether the rent has paid for the push."""
        key = (ask.station.id, ask.model.name)
        node_total, device_total = self.totals(ask, situation)
        balance = after_node_request(
            self._balances.get(key, Balance()), node_total=node_total, device_total=device_total
        )
        is_due = should_push(balance, _price(self, ask, situation))
        self._balances[key] = Balance() if is_due else balance
        return is_due


def _price(policy: Baseline, ask: Ask, situation: Situation) -> float:
    on_battery = ask.station.group.battery_j is not None
    return push_cost(
        size_bytes=ask.model.size_bytes,
        link=policy.beliefs.link(ask.station, situation.now_s),
        weights=policy.weights,
        energy_uj_per_byte=RADIO_UJ_PER_BYTE if on_battery else 0.0,
        failure=0.05,
        flash_wear=FLASH_WEAR,
        chunk_bytes=ask.station.link.chunk_bytes,
    )


def _fitted(board: Board, model: Model, figures: object) -> float:
    """Return what a straight line through the board's other models gives for this one's MACs, never below 0."""
    known = board.seconds if figures is board.seconds else board.energy_uj
    points = [
        (MODELS[name].macs, value)
        for name, value in known.items()
        if name in MODELS and name not in {model.name, "speaker"}
    ]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    return max(0.0, mean_y + slope * (model.macs - mean_x))


BASELINES: Mapping[str, type[Baseline]] = {
    each.name: each for each in (Baseline, DeviceOnly, Threshold, Regression, BreakEven)
}
"""Every baseline by its name."""
