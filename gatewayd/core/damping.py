"""Devices that come and go: after so many comings in a while one is held off, each time for longer.

A device whose link flaps answers between two of its absences, so it looks idle and cheap just when it is about to vanish. Each
request placed there costs a timeout. Pure: times come from the caller's monotonic clock. The idea is route flap damping.
Source: RFC 2439, "BGP Route Flap Damping" (suppress while unstable, reuse after a time that grows); the figures are our own.
"""

from gatewayd.core.record import record

_MAX_STRIKES = 16  # bounds the doubling: 2**16 times the first while is more than any `most_s`


@record
class DampingRules:
    """`comings` within `within_s` hold a device off for `first_s`, then twice that, up to `most_s`.

    After `calm_s` without being held off the next while is the first again.
    """

    comings: int = 5
    within_s: float = 120.0
    first_s: float = 60.0
    most_s: float = 3600.0
    calm_s: float = 3600.0


USUAL = DampingRules()


@record
class Damping:
    """What is remembered of one device: its last comings, how often it was held off, and until when it is (0: it is not)."""

    comings: tuple[float, ...] = ()
    strikes: int = 0
    until_s: float = 0.0
    for_s: float = 0.0

    def came(self, now_s: float, rules: DampingRules) -> "Damping":
        """Return what is remembered after the device came (again)."""
        recent = (*(each for each in self.comings if now_s - each < rules.within_s), now_s)[-rules.comings :]
        if len(recent) < rules.comings:
            return Damping(recent, self.strikes, self.until_s, self.for_s)
        strikes = 0 if now_s - self.until_s > rules.calm_s else self.strikes
        for_s = min(rules.most_s, rules.first_s * 2.0**strikes)
        return Damping((), min(strikes + 1, _MAX_STRIKES), max(self.until_s, now_s + for_s), for_s)

    def holds(self, now_s: float) -> bool:
        """Tell whether the device is held off."""
        return now_s < self.until_s

    def words(self, rules: DampingRules) -> str:
        """Return why it is held off, and for how long in all."""
        return f"came and went {rules.comings} times within {rules.within_s:.0f} s: held off for {self.for_s:.0f} s"


STEADY = Damping()
