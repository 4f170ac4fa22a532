"""How much of a link's time pushes may take while inference needs it, too. Pure: the caller brings the time.

A budget of seconds on the air fills at `share` per second and holds at most `burst_s`; a chunk takes what it is estimated to
take. Without inference on the link there is no budget to keep: the air is free.
"""

from gatewayd.core.record import record


@record
class AirRules:
    """`share` of a link's time (above 0, at most 1) is for pushes while inference was seen within `quiet_s`.

    `most_s` bounds the wait for one chunk: a device asks again after 2 s, and a push must not die of politeness.
    """

    share: float = 0.5
    quiet_s: float = 5.0
    burst_s: float = 0.2
    most_s: float = 1.5


@record
class Airtime:
    """One link's budget: `left_s` seconds of air at `at_s`, below 0 when a chunk took more than there was."""

    left_s: float
    at_s: float


def spend(
    budget: Airtime | None, air_s: float, *, now_s: float, inference_at_s: float | None, rules: AirRules
) -> tuple[Airtime, float]:
    """Take the air of one chunk (budget None: a full one); return the budget and the seconds to wait before sending it.

    `inference_at_s` is when inference used the link last (None: never).
    """
    if budget is None or inference_at_s is None or now_s - inference_at_s > rules.quiet_s:
        budget = Airtime(rules.burst_s, now_s)
    if inference_at_s is None or now_s - inference_at_s > rules.quiet_s:
        return budget, 0.0
    filled_s = min(rules.burst_s, budget.left_s + max(0.0, now_s - budget.at_s) * rules.share)
    # debt past the longest wait is forgiven: one chunk too big for the budget must not hold back the ones after it
    left_s = max(filled_s - max(0.0, air_s), -rules.most_s * rules.share)
    return Airtime(left_s, now_s), min(rules.most_s, max(0.0, -left_s) / rules.share)
