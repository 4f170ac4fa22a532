"""What pushes may spend on one device over time: seconds on the air (duty cycle) and energy from the battery.

A bucket that fills steadily. A push larger than the bucket may go when the bucket is full; the debt then holds back the next.
"""

from math import inf

from gatewayd.core.record import record


@record
class Allowance:
    """`per_s` units flow in each second, at most `most` are kept. inf: not limited.

    Source of the radio's: ETSI EN 300 220, 1 % duty cycle in most of the 868 MHz band: 36 s an hour.
    """

    per_s: float = inf
    most: float = inf


@record
class Budget:
    """What was left at `at_s` (below 0: debt)."""

    left: float
    at_s: float


def left_of(budget: Budget | None, allowance: Allowance, *, now_s: float) -> float:
    """Return what may be spent now; a budget that was never touched (None) is full."""
    if budget is None:
        return allowance.most
    return min(allowance.most, budget.left + allowance.per_s * max(0.0, now_s - budget.at_s))


def can_spend(budget: Budget | None, amount: float, allowance: Allowance, *, now_s: float) -> bool:
    """Return whether `amount` may be spent now: there is enough, or the bucket is full."""
    left = left_of(budget, allowance, now_s=now_s)
    return left >= min(amount, allowance.most)


def spent(budget: Budget | None, amount: float, allowance: Allowance, *, now_s: float) -> Budget:
    """Return the budget after spending, which may leave a debt."""
    return Budget(left_of(budget, allowance, now_s=now_s) - amount, now_s)


def wait_s(budget: Budget | None, amount: float, allowance: Allowance, *, now_s: float) -> float:
    """Return the seconds until `amount` may be spent (0: now)."""
    missing = min(amount, allowance.most) - left_of(budget, allowance, now_s=now_s)
    if missing <= 0.0:
        return 0.0
    return missing / allowance.per_s if allowance.per_s > 0.0 else inf
