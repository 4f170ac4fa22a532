"""Which model leaves a full device for another one, if any: by prediction where that is sure, else Landlord with bypassing.

A newcomer that is sure to save its price more than one of the models there, for what is left of the horizon, takes its slot. Any
other has to miss its whole price first, however little rent would do for a free slot: it costs the device what was there.

Every model there has a credit, at most what bringing it back would cost. What it saves while it serves fills the credit; a
newcomer that has missed its price drains all of them by as much, and takes the slot of the first that has nothing left. A
newcomer whose own price is drained first, or at the same time, stays out (it is bypassed), and must miss its price again.
Source: Young 2002, "On-line file caching" (Landlord; GreedyDual of Young 1994 for equal sizes). With k slots that may be
emptied, and misses that cost what a fetch costs, it pays at most k + 1 times what a clairvoyant does. Where a miss costs less
than a fetch, no deterministic policy can: docs/placement.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import Self

from gatewayd.core.names import ModelName
from gatewayd.core.record import record
from gatewayd.core.wording import figure

# A newcomer that takes a slot by prediction saves so many times what the model there does: what either saves per request is an
# estimate, too, and two that save the same must not take turns.
_CLEARLY = 1.25
# And it has missed this share of its price: predictions that alternate bring no more than so many pushes for each price missed.
_EARNEST = 0.1
# Where a change of models seems to gain nothing, so many prices have to be missed first: two that save the same would else take
# turns, each for its price.
_UNLIKELY = 3.0


@record
class Earning:
    """What a model saves on the device, in J per second: the confidence bounds."""

    low: float = 0.0
    high: float = inf

    @property
    def middle(self) -> float:
        """The middle of the two."""
        return (self.low + self.high) / 2.0


@record
class Resident:
    """A model on the device. `price` is what bringing it back costs, `credit` 0..price, both in J.

    `is_kept`: an operator's pin, it never leaves; `is_ordered`: a standing order asks for it, it leaves only for a newcomer that
    surely saves more. `paid_at_s` is when its push has paid for itself: before that it leaves only when it earns outside of what
    was `expected` at its push, or a newcomer is sure to earn more than that. `version` 0: nobody knows which one is there.
    """

    model: ModelName
    price: float
    credit: float
    is_kept: bool = False
    paid_at_s: float = -inf
    expected: Earning = Earning()
    earns: Earning = Earning()
    used_s: float = -inf
    is_ordered: bool = False
    version: int = 0

    @property
    def is_drained(self) -> bool:
        """Whether it may leave for the rent that another one paid."""
        return not self.is_kept and not self.is_ordered

    def after_hit(self, saving: float, *, now_s: float) -> Self:
        """Return it after a request it served on the device, which saved so much."""
        return replace(self, credit=min(self.price, self.credit + max(0.0, saving)), used_s=now_s)


@record
class Newcomer:
    """A model that is to be pushed: what that costs, J, the rent it has `paid`, and what it is expected to earn for `left_s`.

    `is_ordered`: a standing order asks for it, so that how often it is asked is no guess.
    """

    model: ModelName
    price: float
    earns: Earning = Earning()
    paid: float = inf
    left_s: float = 0.0
    is_ordered: bool = False


@record
class Admission:
    """Whether to push. `evict` is who leaves first (None: nobody has to); `residents` are those that stay, credits drained.

    Bypassed (`is_admitted` False), the newcomer starts a new balance if it `is_settled`; `reason` is for people.
    """

    is_admitted: bool
    evict: ModelName | None
    residents: tuple[Resident, ...]
    reason: str = ""
    is_settled: bool = True


def admit(newcomer: Newcomer, residents: Sequence[Resident], *, slots: int, now_s: float) -> Admission:
    """Decide on a push to a device that holds `residents` in `slots` slots."""
    held = tuple(residents)
    if len(held) < slots:
        return Admission(is_admitted=True, evict=None, residents=held)
    movable = [each for each in held if not each.is_kept]
    if not movable:
        names = ", ".join(each.model for each in held)
        why = f"every model there is kept ({names}): push it instead of one of them, or drop one"
        return Admission(is_admitted=False, evict=None, residents=held, reason=why)
    if (outdone := _outdone(newcomer, movable, now_s=now_s)) is not None:
        staying = tuple(each for each in held if each is not outdone)
        return Admission(is_admitted=True, evict=outdone.model, residents=staying)
    if all(each.is_ordered for each in movable):
        why = "every model there is kept or ordered, and none is sure to save less"
        return Admission(is_admitted=False, evict=None, residents=held, reason=why, is_settled=False)
    if newcomer.paid < (due := _due(newcomer, movable)):
        paid = f"{newcomer.model} has paid {figure(newcomer.paid)} of {figure(due)} of rent so far"
        why = f"nobody there is sure to save less, and {paid}"
        return Admission(is_admitted=False, evict=None, residents=held, reason=why, is_settled=False)
    return _drained(newcomer, held, now_s=now_s)


def _drained(newcomer: Newcomer, held: tuple[Resident, ...], *, now_s: float) -> Admission:
    """Let the newcomer's price drain the credits of those that may leave for the rent it paid."""
    drained = min(newcomer.price, *(each.credit for each in held if each.is_drained))
    after = tuple(replace(each, credit=each.credit - drained) if each.is_drained else each for each in held)
    leaving = _poorest(each for each in after if each.is_drained)
    if newcomer.price <= drained:
        return Admission(
            is_admitted=False, evict=None, residents=after, reason=f"{leaving.model} is worth more there so far"
        )
    if why := _protected(leaving, newcomer, now_s=now_s):
        return Admission(is_admitted=False, evict=None, residents=after, reason=why)
    staying = tuple(each for each in after if each is not leaving)
    return Admission(is_admitted=True, evict=leaving.model, residents=staying)


def _outdone(newcomer: Newcomer, movable: Iterable[Resident], *, now_s: float) -> Resident | None:
    """Return who is to leave because the newcomer is sure to save its price more than they do; None: nobody."""
    if newcomer.paid < _EARNEST * newcomer.price and not newcomer.is_ordered:
        return None
    outdone = (each for each in movable if _is_outdone(newcomer, each) and not _protected(each, newcomer, now_s=now_s))
    return min(outdone, key=lambda each: (each.earns.high, each.used_s, each.model), default=None)


def _is_outdone(newcomer: Newcomer, resident: Resident) -> bool:
    low, high = newcomer.earns.low, resident.earns.high
    return low >= _CLEARLY * high and (low - high) * newcomer.left_s >= newcomer.price


def _due(newcomer: Newcomer, movable: Sequence[Resident]) -> float:
    """Return the rent that makes it due without being sure to save more: its price, or more where a change gains nothing."""
    least = min(each.earns.middle for each in movable if each.is_drained)
    gains = (newcomer.earns.middle - least) * newcomer.left_s >= newcomer.price
    return newcomer.price if gains or newcomer.left_s <= 0.0 else _UNLIKELY * newcomer.price


def _poorest(residents: Iterable[Resident]) -> Resident:
    """Least credit first, then least recently used; the name decides the rest, so that a replay decides alike."""
    return min(residents, key=lambda each: (each.credit, each.used_s, each.model))


def _protected(leaving: Resident, newcomer: Newcomer, *, now_s: float) -> str:
    """Return why a push is not undone yet ("": it may be): it has not paid for itself, and nothing moved past its bounds."""
    if now_s >= leaving.paid_at_s:
        return ""
    is_as_expected = leaving.earns.high >= leaving.expected.low
    is_outdone = newcomer.earns.low > leaving.expected.high
    if is_as_expected and not is_outdone:
        return f"{leaving.model} was pushed {leaving.paid_at_s - now_s:,.0f} s too recently to have paid for itself"
    return ""
