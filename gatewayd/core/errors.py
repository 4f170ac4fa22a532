"""Every error gatewayd raises on purpose. The first branch says whose fault it is: caller, device or node.

The class says what went wrong (`code` is its stable name on every protocol), attributes carry ids and numbers, and the
message tells the person what to do next.
"""

from typing import ClassVar


class GatewayError(Exception):
    """Root of all errors raised on purpose."""

    code: ClassVar[str] = "error"


class CallerError(GatewayError):
    """The request cannot be served as it was made; repeating it unchanged will not help."""

    code = "caller_error"


class BadRequest(CallerError):
    """Malformed or inconsistent input; the message names the place."""

    code = "bad_request"


class TooLarge(CallerError):
    """Over a size limit; the message names the limit."""

    code = "too_large"


class NotFound(CallerError):
    """The thing named does not exist; the message lists what does, where that is short."""

    code = "not_found"


class UnknownModel(NotFound):
    """No model, alias or version of that name."""

    code = "unknown_model"


class UnknownDevice(NotFound):
    """No device of that id was ever seen."""

    code = "unknown_device"


class Conflict(CallerError):
    """The state of things forbids it now (a push is running, the alias was moved by another)."""

    code = "conflict"


class Forbidden(CallerError):
    """The caller's role does not allow it."""

    code = "forbidden"


class Unauthorized(CallerError):
    """No token, or one that is not known here."""

    code = "unauthorized"


class RateLimited(CallerError):
    """The caller asks more often than it may; later it may again."""

    code = "rate_limited"


class ModelRefused(CallerError):
    """Admission refused a model file; the message says which check and what was found."""

    code = "model_refused"


class NoPlacement(CallerError):
    """Every option was refused by a hard constraint; the message lists each option with its reason."""

    code = "no_placement"


class DeviceError(GatewayError):
    """A device did not do what it was asked."""

    code = "device_error"


class DeviceUnreachable(DeviceError):
    """Offline, or its link lost the message."""

    code = "device_unreachable"


class DeviceRefused(DeviceError):
    """The device answered no; the message carries its reason."""

    code = "device_refused"


class DeviceTimeout(DeviceError):
    """No answer within the time given."""

    code = "device_timeout"


class NodeError(GatewayError):
    """The node itself could not serve."""

    code = "node_error"


class EngineMissing(NodeError):
    """No engine on this node can run the variant; the message says what to install."""

    code = "engine_missing"


class WorkerDied(NodeError):
    """The inference worker was killed by the model (or by the system) while it served this request."""

    code = "worker_died"


class Overloaded(NodeError):
    """A bounded queue was full; try again later."""

    code = "overloaded"


class NotStored(NodeError):
    """The disk did not take it now (full, locked, failing): nothing was changed, and the same may work later."""

    code = "not_stored"


class DeadlineExceeded(NodeError):
    """The request's time ran out; the message says what was tried."""

    code = "deadline_exceeded"


class OutcomeUnknown(NodeError):
    """A command was begun before a restart, and whether it took effect cannot be told: look, then send it anew."""

    code = "outcome_unknown"


class GivenUp(NodeError):
    """A command was begun several times, and the daemon ended each time before it did."""

    code = "given_up"


class Internal(NodeError):
    """A defect of the program; the traceback is in its log."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("something unexpected happened; the log of gatewayd has the traceback")
