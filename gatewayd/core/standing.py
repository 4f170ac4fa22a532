"""Standing orders: a request that repeats. What is asked, when it is due next, and how it goes. Pure.

The time of the n-th request is `first + n * period`: what is late does not push back what follows, and what could not be asked in
time is missed, not asked twice later.
"""

from math import floor, inf

from gatewayd.core.names import ModelRef
from gatewayd.core.record import record
from gatewayd.core.request import Privacy, SensorRef, Target

MIN_PERIOD_S = 0.02
"""Protects the loop and the link: 50 requests a second of one order."""
MAX_PERIOD_S = 7 * 86_400.0
MAX_ORDERS = 256
"""Protects memory and start-up."""
MAX_PER_S = 500.0
"""Protects the loop: requests a second of all orders together."""


@record
class StandingOrder:
    """Data at a sensor, asked for again and again until stopped, or until `until` (seconds since 1970; None: no end).

    `topic` is where answers are published over MQTT ("": the node's own), with QoS `qos`. `stream` names the state of a model
    that keeps one. `started_at` in seconds since 1970.
    """

    id: str
    model: ModelRef
    source: SensorRef
    period_s: float
    deadline_s: float
    until: float | None
    who: str
    started_at: float
    topic: str = ""
    qos: int = 0
    request_class: str = "default"
    privacy: Privacy = Privacy.ANY
    pin: Target | None = None
    prefer: Target | None = None
    stream: str = ""

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return 1.0 / self.period_s

    def is_same_wish(self, other: "StandingOrder") -> bool:
        """Whether both ask for the same, whoever asked and whenever it began."""
        mine, theirs = _wish(self), _wish(other)
        return mine == theirs

    def left_s(self, now: float) -> float:
        """Return how long it goes on, `now` in seconds since 1970; inf without an end, never below 0."""
        return inf if self.until is None else max(0.0, self.until - now)


def _wish(order: StandingOrder) -> tuple[object, ...]:
    where = (order.topic, order.qos, order.pin, order.prefer, order.stream)
    return (order.model, order.source, order.period_s, order.deadline_s, order.request_class, order.privacy, *where)


@record
class Due:
    """When an order is asked next: request number `number`, at `first_s + number * period`, on the monotonic clock."""

    first_s: float
    number: int = 0

    def at_s(self, period_s: float) -> float:
        """Return when."""
        return self.first_s + self.number * period_s

    def after(self, now_s: float, period_s: float) -> tuple["Due", int]:
        """Return what is due next once this one was taken at `now_s`, and how many were missed: their time is over."""
        reached = max(self.number, floor((now_s - self.first_s) / period_s))
        return Due(self.first_s, reached + 1), reached - self.number


@record
class Progress:
    """How an order goes since the daemon started.

    `missed` were due while the one before was still on its way, or while the daemon could not keep up. `failing` counts the
    failures since the last answer, `failure` says why the latest one failed; `ran_on` where the latest answer came from.
    """

    answered: int = 0
    failed: int = 0
    missed: int = 0
    failing: int = 0
    failure: str = ""
    ran_on: Target | None = None
    last_s: float = 0.0

    def after_answer(self, ran_on: Target, total_s: float) -> "Progress":
        """Return how it goes after an answer that took `total_s`."""
        return Progress(self.answered + 1, self.failed, self.missed, 0, "", ran_on, total_s)

    def after_failure(self, why: str) -> "Progress":
        """Return how it goes after a failure."""
        return Progress(self.answered, self.failed + 1, self.missed, self.failing + 1, why, self.ran_on, self.last_s)

    def after_missing(self, count: int) -> "Progress":
        """Return how it goes after so many were missed."""
        return Progress(
            self.answered, self.failed, self.missed + count, self.failing, self.failure, self.ran_on, self.last_s
        )
