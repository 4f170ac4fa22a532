"""What the ledger of rent and buy must not lose in a restart, as one value; its times are of the clock of who kept it.

Pure: `gatewayd.core.learned` carries it, `gatewayd.wire.checkpoint_rent` writes it down.
"""

from dataclasses import dataclass, replace

from gatewayd.core.budget import Budget
from gatewayd.core.damping import Damping
from gatewayd.core.eviction import Resident
from gatewayd.core.fleet import Fleet
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.rates import Rate
from gatewayd.core.renting import Balance, Pair, PushPrice


@dataclass(frozen=True, slots=True)
class KeptDevice:
    """One device: the models there with their credits, and what pushes may still spend (None: nothing was spent)."""

    device: DeviceId
    residents: tuple[Resident, ...] = ()
    air: Budget | None = None
    energy: Budget | None = None

    def moved(self, by_s: float) -> "KeptDevice":
        """Return it on a clock that shows `by_s` more."""
        residents = tuple(
            replace(each, paid_at_s=each.paid_at_s + by_s, used_s=each.used_s + by_s) for each in self.residents
        )
        return KeptDevice(self.device, residents, _moved_budget(self.air, by_s), _moved_budget(self.energy, by_s))


@dataclass(frozen=True, slots=True)
class Kept:
    """The whole book, made in the time it takes to copy references: the loop makes it, a thread writes it down.

    `pairs` and `devices` have those first that were asked least recently. `not_before` is from when on a pair may be pushed to
    again, `pool` what each model is asked on all devices. `pending` are pushes that were asked for and of which nobody has heard
    yet how they ended; `orders` are standing orders: when each asked last, and how often it asks, per second. `dampings` are the
    devices that came and went.
    """

    pairs: tuple[tuple[Pair, Balance], ...] = ()
    not_before: tuple[tuple[Pair, float], ...] = ()
    devices: tuple[KeptDevice, ...] = ()
    pool: tuple[tuple[ModelName, Fleet], ...] = ()
    pending: tuple[tuple[Pair, PushPrice], ...] = ()
    orders: tuple[tuple[Pair, float, float], ...] = ()
    dampings: tuple[tuple[DeviceId, Damping], ...] = ()

    def moved(self, by_s: float) -> "Kept":
        """Return the same on a clock that shows `by_s` more: after a restart a monotonic clock shows something else."""
        return Kept(
            tuple((pair, _moved_balance(balance, by_s)) for pair, balance in self.pairs),
            tuple((pair, at_s + by_s) for pair, at_s in self.not_before),
            tuple(each.moved(by_s) for each in self.devices),
            tuple((model, replace(fleet, at_s=_moved(fleet.at_s, by_s))) for model, fleet in self.pool),
            self.pending,
            tuple((pair, last_s + by_s, per_s) for pair, last_s, per_s in self.orders),
            tuple((device, _moved_damping(damping, by_s)) for device, damping in self.dampings),
        )


def _moved(time_s: float | None, by_s: float) -> float | None:
    return None if time_s is None else time_s + by_s


def _moved_balance(balance: Balance, by_s: float) -> Balance:
    return replace(
        balance,
        rate=_moved_rate(balance.rate, by_s),
        born_s=_moved(balance.born_s, by_s),
        ordered_until_s=_moved(balance.ordered_until_s, by_s),
    )


def _moved_rate(rate: Rate, by_s: float) -> Rate:
    return replace(rate, last_s=_moved(rate.last_s, by_s))


def _moved_budget(budget: Budget | None, by_s: float) -> Budget | None:
    return None if budget is None else Budget(budget.left, budget.at_s + by_s)


def _moved_damping(damping: Damping, by_s: float) -> Damping:
    comings = tuple(each + by_s for each in damping.comings)
    return Damping(comings, damping.strikes, damping.until_s + by_s if damping.strikes else 0.0, damping.for_s)
