"""What the pushes service is given: its ports, its options, and what goes with the end of a push."""

from collections.abc import Callable

from gatewayd.core.airtime import AirRules
from gatewayd.core.command import Note
from gatewayd.core.device import Departure
from gatewayd.core.fit import Fitter, fit
from gatewayd.core.names import DeviceId
from gatewayd.core.push import Limits, Push
from gatewayd.core.record import record
from gatewayd.core.retry import Desire
from gatewayd.services.ports import Artifacts, Clock, DeviceLink, Notify, PushStore, Signer


@record
class PushPorts:
    """What the pushes service needs from outside; `wall_clock` gives seconds since 1970."""

    store: PushStore
    artifacts: Artifacts
    signer: Signer
    link_of: Callable[[DeviceId], DeviceLink]
    notify: Notify
    clock: Clock
    wall_clock: Clock


@record
class PushOptions:
    """`limits` are the floor of every deadline; `max_concurrent` protects the air and the node's memory."""

    limits: Limits
    max_concurrent: int
    air: AirRules
    fitter: Fitter = fit


@record
class Ending:
    """What is stored together with the end of a push that an operator ends.

    What is wanted no more, the device when it is taken out, and the command.
    """

    unwanted: Desire | None = None
    departure: Departure | None = None
    note_of: Note[Push] | None = None


NOTHING_MORE = Ending()
