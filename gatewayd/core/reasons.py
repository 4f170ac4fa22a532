"""Why a placement came out as it did, in words and in numbers: its reason, and what would have turned it over."""

from collections.abc import Iterable, Sequence

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.placement import DeviceFacts, Option, Placement
from gatewayd.core.record import record
from gatewayd.core.request import NODE
from gatewayd.core.wording import duration, figure, place_name

# A reason is for people: it names the first few refusals and counts the others.
_NAMED_REFUSALS = 3


def reason_of(placement: Placement) -> str:
    """Say in one line where the request runs first, and why."""
    if not placement.ranked:
        return f"nowhere to run: {_refusals(placement.refused)}"
    if not placement.devices:
        return f"{place_name(NODE)} is the only place there is"
    question = placement.question
    best = placement.ranked_option(placement.ranked[0])
    winner = place_name(best.target)
    if len(placement.ranked) == 1:
        refused = placement.refused
        return (
            f"{winner} is the only place: {_refusals(refused)}" if refused else f"{winner} is the only place there is"
        )
    second = placement.ranked_option(placement.ranked[1])
    if question.prefer is not None and best.target != question.prefer:
        wanted = next((each.refusal for each in placement.refused if each.target == question.prefer), "it is not known")
        return f"{winner} serves instead of {place_name(question.prefer)}: {wanted}"
    if best.target == question.prefer:
        return f"{winner} is preferred by the request (cost {figure(best.total)} against {figure(second.total)})"
    figures = f"cost {figure(best.total)} against {figure(second.total)} on {place_name(second.target)}"
    sent = placement.source if second.target == NODE else None
    return f"{winner} is cheapest: {figures} ({_contrast(question.weights, best.costs, second.costs, sent=sent)})"


@record
class Flip:
    """One change that alone would have made the runner-up come first. `now` and `then` are in the unit that `what` names."""

    what: str
    unit: str
    now: float
    then: float


@record
class Margin:
    """How firm a placement is: by how much J the runner-up was dearer (hoped-for totals), and what would turn it over.

    `by` is below 0 when the request's preference overruled the costs.
    """

    winner: str
    runner_up: str
    by: float
    flips: tuple[Flip, ...]


def margin_of(placement: Placement) -> Margin | None:
    """Hold the first place against the second; None when there is no second."""
    if len(placement.ranked) < 2:  # noqa: PLR2004 - two are compared
        return None
    best, runner_up = (placement.ranked_option(rank) for rank in placement.ranked[:2])
    gap = runner_up.hoped - best.hoped
    if gap < 0 or best.costs is None or runner_up.costs is None:
        return Margin(str(best.target), str(runner_up.target), gap, ())
    weights = placement.question.weights
    flips = [*_cheaper(runner_up, runner_up.costs, weights, gap), *_dearer(best, best.costs, weights, gap)]
    return Margin(str(best.target), str(runner_up.target), gap, (*flips, *_weight_flips(best, runner_up, weights, gap)))


def _terms(costs: Costs, weights: Weights) -> tuple[tuple[str, str, float, float], ...]:
    return (
        ("latency", "s", costs.latency_s, weights.latency_per_s),
        ("energy", "uJ", costs.energy_uj, weights.energy_per_uj),
        ("link bytes", "B", costs.link_bytes, weights.bandwidth_per_byte),
        ("risk of failure", "", costs.failure, weights.risk_per_failure),
    )


def _cheaper(option: Option, costs: Costs, weights: Weights, gap: float) -> Iterable[Flip]:
    """A term of the runner-up that could fall far enough; none falls below zero."""
    for name, unit, value, weight in _terms(costs, weights):
        if weight > 0 and gap / weight < value:
            yield Flip(f"{name} of {place_name(option.target)}", unit, value, value - gap / weight)


def _dearer(option: Option, costs: Costs, weights: Weights, gap: float) -> Iterable[Flip]:
    """A term of the winner that could rise far enough; a risk does not rise above one."""
    for name, unit, value, weight in _terms(costs, weights):
        if weight > 0 and (unit or value + gap / weight <= 1.0):
            yield Flip(f"{name} of {place_name(option.target)}", unit, value, value + gap / weight)


def _weight_flips(best: Option, runner_up: Option, weights: Weights, gap: float) -> Iterable[Flip]:
    """A weight that, changed alone, makes both equal: where the terms differ, and the weight stays above zero."""
    if best.costs is None or runner_up.costs is None:
        return
    pairs = zip(_terms(best.costs, weights), _terms(runner_up.costs, weights), strict=True)
    for (name, _, mine, weight), (_, _, other, _) in pairs:
        if other != mine and (then := weight - gap / (other - mine)) >= 0:
            yield Flip(f"weight of {name}", "", weight, then)


def _refusals(options: Sequence[Option]) -> str:
    texts = [f"{place_name(each.target)}: {each.refusal}" for each in options[:_NAMED_REFUSALS]]
    more = len(options) - _NAMED_REFUSALS
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


def _contrast(weights: Weights, mine: Costs | None, other: Costs | None, *, sent: "DeviceFacts | None") -> str:
    """Name what makes the difference in the units of the world; `sent`: whose sample the dearer option must fetch."""
    if mine is None or other is None or weights.total(mine) > weights.total(other):
        return "expected to be dearer, but measured too rarely to be sure"
    if sent is not None:
        return (
            f"sending the sample costs {duration(sent.link.transfer_s(sent.sample_bytes))} and {sent.sample_bytes:,} B"
        )
    gain_s, gain_uj = other.latency_s - mine.latency_s, other.energy_uj - mine.energy_uj
    gain_bytes, gain_risk = other.link_bytes - mine.link_bytes, other.failure - mine.failure
    gains = (
        (weights.latency_per_s * gain_s, f"{duration(mine.latency_s)} against {duration(other.latency_s)}"),
        (weights.energy_per_uj * gain_uj, f"{figure(mine.energy_uj)} against {figure(other.energy_uj)} µJ"),
        (
            weights.bandwidth_per_byte * gain_bytes,
            f"{mine.link_bytes:,.0f} against {other.link_bytes:,.0f} B on the air",
        ),
        (weights.risk_per_failure * gain_risk, f"a risk of {mine.failure:.1%} against {other.failure:.1%}"),
    )
    return max(gains)[1]
