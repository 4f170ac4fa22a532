"""What follows a push that ended: try again (when?), give up, or leave the device alone because it looks poisonous. Pure."""

from dataclasses import replace

from gatewayd.core.device import DeviceView, Slot, SlotState
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.push import Push, PushState
from gatewayd.core.record import record

PLACEMENT = "placement"
"""In whose name pushes are wished for that nobody asked for; what others wished for is theirs, and stays."""


@record
class Retry:
    """`tries` pushes of one wish, the pauses between them doubling from `first_s` to at most `most_s`.

    `quarantine_after` pushes that failed in a row on one device (protects its flash from wear and the air from a device that
    always fails) stop all pushes to it until an operator releases it.
    """

    tries: int = 4
    first_s: float = 30.0
    most_s: float = 3600.0
    quarantine_after: int = 5


@record
class Desire:
    """What the gateway wants on a device, kept apart from what the device reports.

    `failures` are the failed pushes since it was wished; `settled` says why it is not tried again ("": it is, while unmet).
    `downgrade` that an older version than the one that runs is meant; `instead_of` is another model that is to give way to it.
    `wished_at` is in seconds since 1970.
    """

    device: DeviceId
    model: ModelName
    version: int
    who: str
    wished_at: float
    downgrade: bool = False
    failures: int = 0
    settled: str = ""
    instead_of: ModelName | None = None


@record
class Terms:
    """On which terms a device is pushed to. `one_slot`: the operator allows it to be without a model during a push.

    `failures` counts the failed pushes in a row; `quarantine` says why it is left alone ("": it is not).
    """

    device: DeviceId
    one_slot: bool = False
    failures: int = 0
    quarantine: str = ""


@record
class Aftermath:
    """What a push's end led to. `again_in_s` None: no further try by itself. `desire` None: nothing is wanted any more."""

    desire: Desire | None
    terms: Terms
    again_in_s: float | None = None


def after_end(push: Push, desire: Desire | None, terms: Terms, *, retry: Retry, jitter: float) -> Aftermath:
    """Return what follows the end of `push`; `jitter` is a random number of 0..1, so that a fleet does not retry as one.

    A push that was cancelled leaves the wish to whoever cancelled it. One that the device rejected would be rejected again.
    """
    match push.state:
        case PushState.ACCEPTED:
            met = replace(desire, failures=0, settled="") if desire is not None else None
            return Aftermath(met, replace(terms, failures=0))
        case PushState.REJECTED:
            refused = replace(desire, settled=f"the device rejected it: {push.reason}") if desire is not None else None
            return Aftermath(refused, terms)
        case PushState.FAILED | PushState.ROLLED_BACK:
            return _after_failure(push, desire, terms, retry=retry, jitter=jitter)
        case _:
            return Aftermath(desire, terms)


def pause_s(failures: int, *, retry: Retry, jitter: float) -> float:
    """Return how long to wait after so many failures (at least 1): the pause doubles, and half of it is random.

    Source: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), "equal jitter".
    """
    # 2**30 is past any limit; the exponent is bounded so that it stays a small number
    whole_s = min(retry.most_s, retry.first_s * 2.0 ** min(failures - 1, 30))
    return whole_s * (0.5 + 0.5 * min(max(jitter, 0.0), 1.0))


def is_met(desire: Desire, slots: tuple[Slot, ...]) -> bool:
    """Return whether the device reports what is wanted."""
    return any(
        slot.state is SlotState.ACTIVE and (slot.model, slot.version) == (desire.model, desire.version)
        for slot in slots
    )


def obstacle(desire: Desire, terms: Terms, view: DeviceView) -> str:
    """Return why a wish is not tried now, or "" when it is to be."""
    if desire.settled or terms.quarantine:
        return desire.settled or terms.quarantine
    if not (view.approved and view.online) or view.report is None:
        return "the device is not there"
    if is_met(desire, view.report.slots):
        return "the device has it"
    newest = newest_version(view.report.slots, desire.model)
    if newest > desire.version and not desire.downgrade:
        return f"the device runs version {newest}, which is newer"
    return ""


def newest_version(slots: tuple[Slot, ...], model: ModelName) -> int:
    """Return the newest version of `model` that runs, 0 when none does."""
    return max(
        (slot.version or 0 for slot in slots if slot.state is SlotState.ACTIVE and slot.model == model), default=0
    )


def _after_failure(push: Push, desire: Desire | None, terms: Terms, *, retry: Retry, jitter: float) -> Aftermath:
    in_a_row = terms.failures + 1
    counted = replace(terms, failures=in_a_row)
    if in_a_row >= retry.quarantine_after:
        counted = replace(counted, quarantine=f"{in_a_row} pushes in a row failed; the last one: {push.reason}")
    if desire is None or (desire.model, desire.version) != (push.model, push.version):
        return Aftermath(desire, counted)
    tried = replace(desire, failures=desire.failures + 1)
    if counted.quarantine:
        return Aftermath(tried, counted)
    if tried.failures >= retry.tries:
        return Aftermath(replace(tried, settled=f"given up after {tried.failures} tries: {push.reason}"), counted)
    return Aftermath(tried, counted, pause_s(tried.failures, retry=retry, jitter=jitter))
