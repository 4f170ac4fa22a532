"""The decision where one request runs: hard constraints with their reasons, then the cheapest of what is left.

Pure and replayable: the same question and facts give the same placement, whatever order the devices come in. `place` only
ranks, which takes microseconds; options with their costs, and the reason in words, are worked out from the same facts when
somebody asks (`gatewayd.core.reasons`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.core.request import NODE, Privacy, Target
from gatewayd.core.wording import duration

# Assumed radio energy of a short-range link; a device that reports what a run cost corrects the rest of the prediction.
RADIO_UJ_PER_BYTE = 1.0
# Totals are compared one standard error below the means, so that an option that was never tried gets its chance.
OPTIMISM_Z = 1.0
# The place of the node in a ranking, where devices have their index.
NODE_INDEX = -1
_NO_BATTERY = float("inf")
_REFUSED = float("-inf")

Terms = tuple[float, float, float, float, float]
"""Seconds, µJ, bytes over the link, P(failure), and the charge (0..1) that the battery floor is held against: infinite on
mains and where none is reported, below every floor where the device is refused anyway."""

Rank = tuple[float, str, int]
"""Hoped-for total J, the device's id ("": the node), and its index among the devices (NODE_INDEX: the node)."""


@record
class Option:
    """One place a request could run. Either `refusal` says why not, or `costs` and `total` (J, see `Weights`) are predicted.

    `costs` are the expected ones; `hoped` is what options are ranked by: the total of the optimistic bounds.
    """

    target: Target
    variant: str = ""
    costs: Costs | None = None
    total: float = float("inf")
    hoped: float = float("inf")
    refusal: str = ""


@record
class NodeFacts:
    """What running on the node means for this request. `refusal` says why it cannot ("": it can); times in seconds."""

    refusal: str
    variant: str
    compute: Estimate
    queue_s: float


@record
class DeviceFacts:
    """What one device means for this request. `refusal` says why the model cannot run there now ("": it can).

    `compute` in seconds, `energy` and `sample_energy_uj` in µJ per inference and per sample read and sent. `input_bytes` cross
    the link when the data is elsewhere, `sample_bytes` when the node runs on this device's sensor (0: it is not the source).
    `battery` is 0..1, None when not reported.
    """

    device: DeviceId
    refusal: str
    variant: str
    compute: Estimate
    energy: Estimate
    link: LinkEstimate
    queue_s: float
    is_source: bool
    on_battery: bool
    battery: float | None
    input_bytes: int
    output_bytes: int
    sample_bytes: int
    sample_energy_uj: Estimate
    # What follows from the fields above and is asked for at every decision, worked out once: facts change far less often.
    _inline: Terms | None = field(default=None, init=False, repr=False, compare=False)
    _at_hand: Terms | None = field(default=None, init=False, repr=False, compare=False)

    def hoped_terms(self, *, is_at_hand: bool) -> Terms:
        """Return the optimistic terms of a run here, with the data in the device's sensor or elsewhere."""
        known = self._at_hand if is_at_hand else self._inline
        if known is not None:
            return known
        charge = _REFUSED if self.refusal else self.charge
        costs = _device_costs(self, is_at_hand=is_at_hand, z=OPTIMISM_Z)
        terms = (costs.latency_s, costs.energy_uj, costs.link_bytes, costs.failure, charge)
        object.__setattr__(self, "_at_hand" if is_at_hand else "_inline", terms)
        return terms

    def with_sample(self, sample_bytes: int, energy_uj: Estimate) -> "DeviceFacts":
        """Return the same of a device that has the data in its sensor."""
        return DeviceFacts(
            self.device, self.refusal, self.variant, self.compute, self.energy, self.link, self.queue_s, True,  # noqa: FBT003 - it is the source
            self.on_battery, self.battery, self.input_bytes, self.output_bytes, sample_bytes, energy_uj,
        )  # fmt: skip

    @property
    def charge(self) -> float:
        """What the battery floor is held against: infinite on mains and where nothing is reported."""
        return self.battery if self.on_battery and self.battery is not None else _NO_BATTERY


@record
class Question:
    """What placement must know of a request. `source` is the device that has the data (None: the data is in the request).

    `pin` refuses every other target; `prefer` only comes first among those that can serve.
    """

    by_reference: bool
    source: DeviceId | None
    privacy: Privacy
    time_left_s: float
    pin: Target | None
    weights: Weights
    battery_floor: float = 0.1
    prefer: Target | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The outcome: everything that was seen, and the feasible places in the order in which they are to be tried."""

    question: Question
    node: NodeFacts
    devices: tuple[DeviceFacts, ...]
    ranked: tuple[Rank, ...]

    @property
    def source(self) -> DeviceFacts | None:
        """The facts of the device that has the data; None when the data is in the request, or its device is not there."""
        return _source(self.question, self.devices)

    @property
    def feasible(self) -> tuple[Option, ...]:
        """Options that no constraint refuses, the cheapest first."""
        return tuple(self.ranked_option(rank) for rank in self.ranked)

    @property
    def refused(self) -> tuple[Option, ...]:
        """The other options, with their refusals: the preferred one first, then the node, then devices by id."""
        ranked = {index for _, _, index in self.ranked}
        others = [self.option(index) for index in range(NODE_INDEX, len(self.devices)) if index not in ranked]
        prefer = self.question.prefer
        return tuple(sorted(others, key=lambda each: (each.target != prefer, each.target.device or "")))

    @property
    def options(self) -> tuple[Option, ...]:
        """Every option: the feasible ones cheapest first, then the refused ones."""
        return (*self.feasible, *self.refused)

    def ranked_option(self, rank: Rank) -> Option:
        """Return the option of one of `ranked`."""
        hoped, _, index = rank
        if index == NODE_INDEX:
            variant, target, costs = self.node.variant, NODE, node_costs(self.node, self.source)
        else:
            facts = self.devices[index]
            variant, target, costs = facts.variant, Target(facts.device), device_costs(self.question, facts)
        return Option(target, variant, costs, self.question.weights.total(costs), hoped)

    def option(self, index: int) -> Option:
        """Return the option of `devices[index]`, or (NODE_INDEX) of the node."""
        if index == NODE_INDEX:
            return _node_option(self.question, self.node, self.source)
        return _device_option(self.question, self.devices[index])


def place(question: Question, node: NodeFacts, devices: Sequence[DeviceFacts]) -> Placement:
    """Weigh the node and every device; ties go to the node, then to the lower device id.

    Privacy `stay_on_device` means that the data does not cross a device's link: data at a sensor stays with its device, so
    only that device may run it; data that came in the request is at the node already, so only the node may.
    """
    ranked: list[Rank] = []
    pin = question.pin
    if pin is None or pin == NODE:
        _rank_node(ranked, question, node, devices)
    if pin is not None:
        _rank_devices(
            ranked, question, ((index, each) for index, each in enumerate(devices) if each.device == pin.device)
        )
    elif question.by_reference:
        _rank_devices(ranked, question, ((index, each) for index, each in enumerate(devices) if each.is_source))
    else:
        _rank_devices(ranked, question, enumerate(devices))
    ranked.sort()
    if question.prefer is not None:
        preferred = question.prefer.device or ""
        ranked.sort(key=lambda rank: rank[1] != preferred)
    return Placement(question, node, tuple(devices), tuple(ranked))


def _rank_node(ranked: list[Rank], question: Question, node: NodeFacts, devices: Sequence[DeviceFacts]) -> None:
    source = _source(question, devices)
    if node.refusal or _node_refusal(question, source):
        return
    hoped = node_costs(node, source, z=OPTIMISM_Z)
    if hoped.latency_s < question.time_left_s:
        ranked.append((question.weights.total(hoped), "", NODE_INDEX))


def _rank_devices(ranked: list[Rank], question: Question, devices: Iterable[tuple[int, DeviceFacts]]) -> None:
    """Add each device that may run it. This loop is the decision's time: nothing is built in it but what is kept."""
    by_reference, floor, time_left_s = question.by_reference, question.battery_floor, question.time_left_s
    if question.privacy is Privacy.STAY_ON_DEVICE and not by_reference:
        return
    weights = question.weights
    per_s, per_uj = weights.latency_per_s, weights.energy_per_uj
    per_byte, per_failure = weights.bandwidth_per_byte, weights.risk_per_failure
    for index, facts in devices:
        if by_reference and not facts.is_source:
            continue
        known = facts._at_hand if by_reference else facts._inline  # noqa: SLF001 - this module's own; a call costs as much as the rest
        latency_s, energy_uj, link_bytes, failure, charge = known or facts.hoped_terms(is_at_hand=by_reference)
        if charge >= floor and latency_s < time_left_s:
            # The same sum in the same order as `Weights.total`: equal to the last bit.
            total = per_s * latency_s + per_uj * energy_uj + per_byte * link_bytes + per_failure * failure
            ranked.append((total, facts.device, index))


def device_costs(question: Question, facts: DeviceFacts, *, z: float = 0.0) -> Costs:
    """Predict what a run on the device costs, whether or not the model is there yet (`z` > 0: optimistic bounds).

    Latency: round trip + what crosses the link + queue + compute. Energy counts only on a battery.
    """
    return _device_costs(facts, is_at_hand=question.by_reference and facts.is_source, z=z)


def node_costs(node: NodeFacts, source: DeviceFacts | None, *, z: float = 0.0) -> Costs:
    """Predict what a run on the node costs; `source` is the device that must send its sample first (None: data is here)."""
    here_s = node.queue_s + node.compute.optimistic(z)
    if source is None:
        return Costs(here_s, 0.0, 0, 0.0)
    sending_s = source.link.transfer_s(source.sample_bytes, z=z)
    energy_uj = source.sample_energy_uj.optimistic(z) if source.on_battery else 0.0
    return Costs(sending_s + here_s, energy_uj, source.sample_bytes, source.link.failures.optimistic(z))


def _device_costs(facts: DeviceFacts, *, is_at_hand: bool, z: float) -> Costs:
    crossing = facts.output_bytes if is_at_hand else facts.input_bytes + facts.output_bytes
    latency_s = facts.link.transfer_s(crossing, z=z) + facts.queue_s + facts.compute.optimistic(z)
    energy_uj = facts.energy.optimistic(z) if facts.on_battery else 0.0
    if facts.on_battery and not is_at_hand:
        energy_uj += crossing * RADIO_UJ_PER_BYTE
    return Costs(latency_s, energy_uj, crossing, facts.link.failures.optimistic(z))


def _source(question: Question, devices: Sequence[DeviceFacts]) -> DeviceFacts | None:
    if question.by_reference:
        for each in devices:
            if each.is_source:
                return each
    return None


def _node_option(question: Question, node: NodeFacts, source: DeviceFacts | None) -> Option:
    refusal = _pinned_elsewhere(question, NODE) or node.refusal or _node_refusal(question, source)
    if refusal:
        return Option(NODE, node.variant, refusal=refusal)
    hoped = node_costs(node, source, z=OPTIMISM_Z)
    late = _lateness(question, hoped)
    if late:
        return Option(NODE, node.variant, refusal=late)
    costs = node_costs(node, source)
    return Option(NODE, node.variant, costs, question.weights.total(costs), question.weights.total(hoped))


def _device_option(question: Question, facts: DeviceFacts) -> Option:
    target = Target(facts.device)
    refusal = _pinned_elsewhere(question, target) or facts.refusal or _device_refusal(question, facts)
    if refusal:
        return Option(target, facts.variant, refusal=refusal)
    hoped = device_costs(question, facts, z=OPTIMISM_Z)
    late = _lateness(question, hoped)
    if late:
        return Option(target, facts.variant, refusal=late)
    costs = device_costs(question, facts)
    return Option(target, facts.variant, costs, question.weights.total(costs), question.weights.total(hoped))


def _pinned_elsewhere(question: Question, target: Target) -> str:
    return "" if question.pin is None or question.pin == target else f"the request is pinned to {question.pin}"


def _node_refusal(question: Question, source: DeviceFacts | None) -> str:
    if not question.by_reference:
        return ""
    if question.privacy is Privacy.STAY_ON_DEVICE:
        return f"privacy: the sample must stay on device:{question.source}"
    return "" if source is not None else f"the sample is at device:{question.source}, which is not there"


def _device_refusal(question: Question, facts: DeviceFacts) -> str:
    if question.by_reference and not facts.is_source:
        return f"the sample is at device:{question.source}"
    if not question.by_reference and question.privacy is Privacy.STAY_ON_DEVICE:
        return "privacy: the input must not cross the link to a device"
    if facts.charge < question.battery_floor:
        return f"battery at {facts.battery:.0%}, below the floor of {question.battery_floor:.0%}"
    return ""


def _lateness(question: Question, hoped: Costs) -> str:
    """Refuse only what is late even at its optimistic bound."""
    if hoped.latency_s < question.time_left_s:
        return ""
    return f"predicted {duration(hoped.latency_s)}, but only {duration(max(0.0, question.time_left_s))} are left"
