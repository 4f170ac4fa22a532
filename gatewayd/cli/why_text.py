"""`gatewayd why` for people: the options, the rent, and what would have turned the decision over."""

from gatewayd.api.inference import Explanation, FlipRow, MarginRow, OptionRow, RentRow
from gatewayd.api.opinions import OpinionList
from gatewayd.cli.tables import costs_text, measured_text, quantity_text, table_text
from gatewayd.core.wording import figure


def explanation_text(told: Explanation) -> str:
    """Return the explanation of one decision as lines of text."""
    lines = [
        f"{told.request}: {told.model} (version {told.version}) on {told.served_by or 'nothing'}: {told.outcome}",
        f"because: {told.reason}",
        *(f"tried {attempt}" for attempt in told.attempts),
        *([f"measured {measured_text(told.measured)}"] if told.measured else []),
        *([f"second opinion: {told.opinion}"] if told.opinion else []),
        f"decided at {told.decided_at}, class {told.request_class}",
        *([_rent(told.rent)] if told.rent else []),
        *(_margin(told.margin) if told.margin else []),
        "",
        table_text(("OPTION", "VARIANT", "COST", "PREDICTED"), [_option_cells(option) for option in told.options]),
    ]
    return "\n".join(lines)


def opinions_text(told: OpinionList) -> str:
    """Return second opinions as a table."""
    if not told.opinions:
        return "no model has a second opinion: gatewayd opinions set MODEL BIGGER"
    rows = [(each.model, each.bigger, quantity_text(each.wrong_cost, "")) for each in told.opinions]
    return table_text(("MODEL", "ASKED ON THE NODE", "A WRONG ANSWER COSTS"), rows)


def _rent(rent: RentRow) -> str:
    price = "" if rent.price is None else f" against {figure(rent.price)} for a push"
    requests = "1 request" if rent.requests == 1 else f"{rent.requests:,} requests"
    return f"rent paid for {rent.device}: {figure(rent.saved)}{price}, over {requests}: {rent.state}"


def _margin(margin: MarginRow) -> list[str]:
    if margin.by < 0:
        return [
            f"{margin.runner_up} would have been cheaper by {-margin.by:,.4g}: the request preferred {margin.winner}"
        ]
    head = f"{margin.winner} was ahead of {margin.runner_up} by {margin.by:,.4g} (hoped-for cost)"
    if not margin.flips:
        return [f"{head}; no single change turns it over"]
    return [f"{head}; each of these alone turns it over:", *(f"  {_flip(flip)}" for flip in margin.flips)]


def _flip(flip: FlipRow) -> str:
    unit, factor = ("ms", 1000.0) if flip.unit == "s" else ("µJ", 1.0) if flip.unit == "uJ" else (flip.unit, 1.0)
    return f"{flip.what}: {quantity_text(flip.then * factor, unit)} instead of {quantity_text(flip.now * factor, unit)}"


def _option_cells(option: OptionRow) -> tuple[str, ...]:
    predicted = costs_text(option.costs) if option.costs else ""
    return (option.target, option.variant or "-", quantity_text(option.total, ""), option.refusal or predicted)
