"""The decision where one request runs: hard constraints with their reasons, then the cheapest of what is left.

Pure and replayable: the same question and facts give the same placement, whatever order the devices come in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.names import DeviceId, RequestId
from gatewayd.core.request import NODE, Measured, Privacy, Target

# Assumed radio energy of a short-range link; a device that reports what a run cost corrects the rest of the prediction.
RADIO_UJ_PER_BYTE = 1.0
# Totals are compared one standard error below the means, so that an option that was never tried gets its chance.
_OPTIMISM_Z = 1.0
# A reason is for people: it names the first few refusals and counts the others.
_NAMED_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Option:
    """One place a request could run. Either `refusal` says why not, or `costs` and `total` (J, see `Weights`) are predicted.

    `costs` are the expected ones; `total` is what options are ranked by, taken from the optimistic bounds.
    """

    target: Target
    variant: str = ""
    costs: Costs | None = None
    total: float = float("inf")
    hoped: float = float("inf")
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The outcome: feasible options cheapest first, then the refused ones; `reason` in words for people."""

    options: tuple[Option, ...]
    reason: str

    @property
    def feasible(self) -> tuple[Option, ...]:
        """Options that no constraint refuses, the cheapest first."""
        return tuple(option for option in self.options if not option.refusal)


@dataclass(frozen=True, slots=True)
class Decision:
    """What `why` tells of one request: the placement, what was tried in turn, and how it ended."""

    request: RequestId
    model: str
    version: int
    placement: Placement
    attempts: tuple[str, ...]
    outcome: str
    served_by: Target | None
    measured: Measured | None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What running on the node means for this request. `refusal` says why it cannot ("": it can); times in seconds."""

    refusal: str
    variant: str
    compute: Estimate
    queue_s: float


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


def place(question: Question, node: NodeFacts, devices: Sequence[DeviceFacts]) -> Placement:
    """Weigh the node and every device; ties go to the node, then to the lower device id.

    Privacy `stay_on_device` means that the data does not cross a device's link: data at a sensor stays with its device, so
    only that device may run it; data that came in the request is at the node already, so only the node may.
    """
    source = next((each for each in devices if each.is_source), None) if question.by_reference else None
    options = [_node_option(question, node, source), *(_device_option(question, each) for each in devices)]
    options.sort(key=lambda option: _rank(option, question.prefer))
    return Placement(tuple(options), _reason(question, options, source))


def device_costs(question: Question, facts: DeviceFacts, *, z: float = 0.0) -> Costs:
    """Predict what a run on the device costs, whether or not the model is there yet (`z` > 0: optimistic bounds).

    Latency: round trip + what crosses the link + queue + compute. Energy counts only on a battery.
    """
    is_at_hand = question.by_reference and facts.is_source
    crossing = facts.output_bytes if is_at_hand else facts.input_bytes + facts.output_bytes
    latency_s = facts.link.transfer_s(crossing, z=z) + facts.queue_s + facts.compute.optimistic(z)
    energy_uj = facts.energy.optimistic(z) if facts.on_battery else 0.0
    if facts.on_battery and not is_at_hand:
        energy_uj += crossing * RADIO_UJ_PER_BYTE
    return Costs(latency_s, energy_uj, crossing, facts.link.failures.optimistic(z))


def node_costs(node: NodeFacts, source: DeviceFacts | None, *, z: float = 0.0) -> Costs:
    """Predict what a run on the node costs; `source` is the device that must send its sample first (None: data is here)."""
    here_s = node.queue_s + node.compute.optimistic(z)
    if source is None:
        return Costs(here_s, 0.0, 0, 0.0)
    sending_s = source.link.transfer_s(source.sample_bytes, z=z)
    energy_uj = source.sample_energy_uj.optimistic(z) if source.on_battery else 0.0
    return Costs(sending_s + here_s, energy_uj, source.sample_bytes, source.link.failures.optimistic(z))


def _node_option(question: Question, node: NodeFacts, source: DeviceFacts | None) -> Option:
    refusal = _pinned_elsewhere(question, NODE) or node.refusal or _node_refusal(question, source)
    if refusal:
        return Option(NODE, node.variant, refusal=refusal)
    hoped = node_costs(node, source, z=_OPTIMISM_Z)
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
    hoped = device_costs(question, facts, z=_OPTIMISM_Z)
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
    if facts.on_battery and facts.battery is not None and facts.battery < question.battery_floor:
        return f"battery at {facts.battery:.0%}, below the floor of {question.battery_floor:.0%}"
    return ""


def _lateness(question: Question, hoped: Costs) -> str:
    """Refuse only what is late even at its optimistic bound."""
    if hoped.latency_s < question.time_left_s:
        return ""
    return f"predicted {_duration(hoped.latency_s)}, but only {_duration(max(0.0, question.time_left_s))} are left"


def _rank(option: Option, prefer: Target | None) -> tuple[bool, bool, float, str]:
    return bool(option.refusal), option.target != prefer, option.hoped, option.target.device or ""


def _reason(question: Question, options: Sequence[Option], source: DeviceFacts | None) -> str:
    best, *others = options
    if best.refusal:
        return f"nowhere to run: {_refusals(options)}"
    winner = _place_name(best.target)
    if not others:
        return f"{winner} is the only place there is"
    second = others[0]
    if second.refusal:
        return f"{winner} is the only place: {_refusals(others)}"
    if question.prefer is not None and best.target != question.prefer:
        wanted = next((each.refusal for each in others if each.target == question.prefer), "it is not known")
        return f"{winner} serves instead of {_place_name(question.prefer)}: {wanted}"
    if best.target == question.prefer:
        return f"{winner} is preferred by the request (cost {_figure(best.total)} against {_figure(second.total)})"
    figures = f"cost {_figure(best.total)} against {_figure(second.total)} on {_place_name(second.target)}"
    sent = source if second.target == NODE else None
    return f"{winner} is cheapest: {figures} ({_contrast(question.weights, best.costs, second.costs, sent=sent)})"


def _refusals(options: Iterable[Option]) -> str:
    texts = [f"{_place_name(each.target)}: {each.refusal}" for each in options if each.refusal]
    more = len(texts) - _NAMED_REFUSALS
    return "; ".join(texts[:_NAMED_REFUSALS]) + (f"; and {more} more" if more > 0 else "")


def _contrast(weights: Weights, mine: Costs | None, other: Costs | None, *, sent: DeviceFacts | None) -> str:
    """Name what makes the difference in the units of the world; `sent`: whose sample the dearer option must fetch."""
    if mine is None or other is None or weights.total(mine) > weights.total(other):
        return "expected to be dearer, but measured too rarely to be sure"
    if sent is not None:
        return (
            f"sending the sample costs {_duration(sent.link.transfer_s(sent.sample_bytes))} and {sent.sample_bytes:,} B"
        )
    gain_s, gain_uj = other.latency_s - mine.latency_s, other.energy_uj - mine.energy_uj
    gain_bytes, gain_risk = other.link_bytes - mine.link_bytes, other.failure - mine.failure
    gains = (
        (weights.latency_per_s * gain_s, f"{_duration(mine.latency_s)} against {_duration(other.latency_s)}"),
        (weights.energy_per_uj * gain_uj, f"{_figure(mine.energy_uj)} against {_figure(other.energy_uj)} µJ"),
        (
            weights.bandwidth_per_byte * gain_bytes,
            f"{mine.link_bytes:,.0f} against {other.link_bytes:,.0f} B on the air",
        ),
        (weights.risk_per_failure * gain_risk, f"a risk of {mine.failure:.1%} against {other.failure:.1%}"),
    )
    return max(gains)[1]


def _place_name(target: Target) -> str:
    return "the node" if target.device is None else str(target)


def _duration(seconds: float) -> str:
    return f"{_figure(seconds)} s" if seconds >= 1.0 else f"{_figure(seconds * 1000.0)} ms"


def _figure(number: float) -> str:
    """Three significant digits, never an exponent where people read."""
    return f"{number:,.0f}" if number >= 100.0 else f"{number:.3g}"  # noqa: PLR2004 - from here on three digits are whole
