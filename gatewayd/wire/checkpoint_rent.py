"""The book of rent and buy in a checkpoint: rows of JSON, bounded, and read without trust.

Times are seconds before or after the moment of the checkpoint, so that they mean something on another clock.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, isinf
from typing import TypeVar

from gatewayd.core.budget import Budget
from gatewayd.core.damping import Damping
from gatewayd.core.eviction import Earning, Resident
from gatewayd.core.fleet import Fleet
from gatewayd.core.kept import Kept, KeptDevice
from gatewayd.core.names import DeviceId, ModelName, parse_device_id, parse_model_name
from gatewayd.core.rates import Rate
from gatewayd.core.renting import Balance, Pair, PushPrice

Document = Mapping[str, object]
MAX_ROWS = 50_000
"""Of each list: protects memory, the ledger keeps 20,000 pairs."""
_MAX_RESIDENTS = 1000
_MAX_COMINGS = 1000
_RATE_BEFORE = 4  # numbers
_RESIDENT_ONCE = 9
_LARGEST = 1e30  # keeps sums and squares finite
_LARGEST_WHOLE = 2**31

_Row = TypeVar("_Row")


def rent_members(kept: Kept) -> dict[str, object]:
    """Return the members of the checkpoint's document; times are written as they are in `kept`."""
    return {
        "rent": [[*pair, *_balance_row(balance)] for pair, balance in kept.pairs],
        "not_before": [[*pair, _number(at_s)] for pair, at_s in kept.not_before],
        "held": [
            [each.device, [_resident_row(there) for there in each.residents], _budget_row(each.air), _budget_row(each.energy)]
            for each in kept.devices
        ],
        "fleets": [[model, *_fleet_row(fleet)] for model, fleet in kept.pool],
        "pending": [[*pair, price.cost, price.air_s, price.energy_uj] for pair, price in kept.pending],
        "orders": [[*pair, _number(last_s), _number(per_s)] for pair, last_s, per_s in kept.orders],
        "dampings": [
            [device, [_number(at_s) for at_s in each.comings], each.strikes, _number(each.until_s), _number(each.for_s)]
            for device, each in kept.dampings
        ],
    }  # fmt: skip


def read_rent(document: Document) -> Kept:
    """Return what the members say; a checkpoint of an earlier gatewayd has none, or no fleets. Raises: ValueError, BadRequest."""
    return Kept(
        _rows(document, "rent", lambda row: (_pair(row), _balance(row[3:]))),
        _rows(document, "not_before", lambda row: (_pair(row), _finite(row[3]))),
        _rows(document, "held", _device_of),
        _rows(document, "fleets", lambda row: (_model(row[0]), _fleet(row[1:]))),
        _rows(document, "pending", lambda row: (_pair(row), PushPrice(*(_positive(each) for each in row[3:6])))),
        _rows(document, "orders", lambda row: (_pair(row), _finite(row[3]), _positive(row[4]))),
        _rows(document, "dampings", _damping_of),
    )


def _number(value: float | None) -> float | str | None:
    """Six digits, and milliseconds of times; JSON has no infinity."""
    if value is None:
        return None
    if isinf(value):
        return "inf" if value > 0 else "-inf"
    value = max(-_LARGEST, min(value, _LARGEST))
    return round(value, 3) if abs(value) >= 1.0 else float(f"{value:.6g}")


def _balance_row(balance: Balance) -> list[object]:
    sums = [_number(each) for each in (balance.saved_missed, balance.hoped_missed, balance.saving)]
    times = [_number(balance.ordered_until_s), _number(balance.born_s)]
    return [*sums, balance.requests, balance.failures, *times, *_rate_row(balance.rate)]


def _rate_row(rate: Rate) -> list[object]:
    return [_number(each) for each in (rate.count, rate.gaps_s, rate.bursts, rate.last_s, rate.shared, rate.ordered)]


def _fleet_row(fleet: Fleet) -> list[object]:
    sums = (fleet.device_s, fleet.requests, fleet.bursts, fleet.pairs)
    return [fleet.devices, *(_number(each) for each in sums), _number(fleet.at_s)]


def _resident_row(there: Resident) -> list[object]:
    times = [_number(there.paid_at_s), _number(there.used_s)]
    earnings = [_number(each) for one in (there.expected, there.earns) for each in (one.low, one.high)]
    return [there.model, _number(there.price), _number(there.credit), *times, *earnings, there.version]


def _budget_row(budget: Budget | None) -> list[object] | None:
    return None if budget is None else [_number(budget.left), _number(budget.at_s)]


def _balance(of: Sequence[object]) -> Balance:
    saved, hoped, saving = (_positive(each) for each in of[:3])
    return Balance(saved, _whole(of[3]), hoped, saving, _rate(of[7:]), _whole(of[4]), _time(of[5]), _moment(of[6]))


def _device_of(row: Sequence[object]) -> KeptDevice:
    residents = tuple(_resident(_listed(each)) for each in _bounded(row[1], _MAX_RESIDENTS))
    return KeptDevice(_device(row[0]), residents, _budget(row[2]), _budget(row[3]))


def _resident(of: Sequence[object]) -> Resident:
    price, credit = _positive(of[1]), _positive(of[2])
    expected, earns = (Earning(_positive(low), _limit(high)) for low, high in (of[5:7], of[7:9]))
    paid_at_s, used_s = (_time(each) for each in of[3:5])
    if paid_at_s is None or used_s is None or credit > price * (1 + 1e-6):
        raise ValueError("a resident has times, and a credit up to its price")
    version = _whole(of[9]) if len(of) > _RESIDENT_ONCE else 0
    return Resident(
        _model(of[0]),
        price,
        min(credit, price),
        paid_at_s=paid_at_s,
        expected=expected,
        earns=earns,
        used_s=used_s,
        version=version,
    )


def _damping_of(row: Sequence[object]) -> tuple[DeviceId, Damping]:
    comings = tuple(_finite(each) for each in _bounded(row[1], _MAX_COMINGS))
    return _device(row[0]), Damping(comings, min(_whole(row[2]), 64), _finite(row[3]), _positive(row[4]))


def _rate(given: Sequence[object]) -> Rate:
    if len(given) == _RATE_BEFORE:
        return _rate_before(given)
    count, gaps_s, bursts, last_s, shared, *ordered = given
    if count == "inf":
        return _ordered_before(_limit(gaps_s), _moment(last_s))
    known = _positive(ordered[0]) if ordered else 0.0
    return Rate(_positive(count), _limit(gaps_s), _positive(bursts), _moment(last_s), _positive(shared), known)


def _rate_before(given: Sequence[object]) -> Rate:
    """Return a rate as it was kept before bursts were counted: the sum of the gaps' squares tells about as much."""
    count, gaps_s, squares, last_s = _limit(given[0]), _limit(given[1]), _positive(given[2]), _moment(given[3])
    if isinf(count):
        return _ordered_before(gaps_s, last_s)
    if count <= 0.0 or gaps_s <= 0.0:
        return Rate(count, gaps_s, 0.0, last_s)
    spread = squares * count / (gaps_s * gaps_s) - 1.0
    return Rate(count, gaps_s, count / max(1.0, spread), last_s)


def _ordered_before(gaps_s: float, last_s: float | None) -> Rate:
    """Return an order's rate as it was kept before requests beside an order counted: gaps without an end to their number."""
    return Rate(last_s=last_s, ordered=1.0 / gaps_s if gaps_s > 0.0 else 0.0)


def _fleet(given: Sequence[object]) -> Fleet:
    devices, *sums, at_s = given
    device_s, requests, bursts, pairs = (_positive(each) for each in sums)
    return Fleet(_whole(devices), device_s, requests, bursts, pairs, _moment(at_s))


def _budget(given: object) -> Budget | None:
    if given is None:
        return None
    left, at_s = _listed(given)
    return Budget(inf if left == "inf" else _finite(left), _finite(at_s))


def _pair(row: Sequence[object]) -> Pair:
    return _device(row[0]), _model(row[1]), _whole(row[2])


def _rows(document: Document, name: str, read: Callable[[Sequence[object]], _Row]) -> tuple[_Row, ...]:
    return tuple(read(_listed(row)) for row in _bounded(document.get(name, []), MAX_ROWS))


def _bounded(given: object, most: int) -> Sequence[object]:
    rows = _listed(given)
    if len(rows) > most:
        raise ValueError(f"more than {most} rows")
    return rows


def _listed(given: object) -> Sequence[object]:
    if not isinstance(given, list):
        raise ValueError("a list is due")  # noqa: TRY004 - whoever wrote the file is at fault, not the caller
    return given


def _time(given: object) -> float | None:
    """Return a moment, also one that never comes or is for ever past."""
    return inf if given == "inf" else -inf if given == "-inf" else _moment(given)


def _moment(given: object) -> float | None:
    return None if given is None else _finite(given)


def _limit(given: object) -> float:
    return inf if given == "inf" else _positive(given)


def _positive(given: object) -> float:
    value = _finite(given)
    if value < 0.0:
        raise ValueError("a number from 0 up is due")
    return value


def _finite(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not isfinite(given) or abs(given) > _LARGEST:
        raise ValueError("a finite number is due")
    return float(given)


def _whole(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= _LARGEST_WHOLE:
        raise ValueError("a whole number is due")
    return given


def _device(given: object) -> DeviceId:
    return parse_device_id(given if isinstance(given, str) else "")


def _model(given: object) -> ModelName:
    return parse_model_name(given if isinstance(given, str) else "")
