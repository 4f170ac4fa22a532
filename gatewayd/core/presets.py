"""Classes of requests: what each pays for the terms of a cost, where its data may go, and how long it queues at most."""

from collections.abc import Mapping

from gatewayd.core.cost import Weights
from gatewayd.core.record import record
from gatewayd.core.request import Privacy


@record
class RequestClass:
    """`privacy` holds for every request of the class, whatever the request says. `max_queue_s` None: as long as its deadline.

    When the node is overloaded, classes with a short `max_queue_s` are turned away first.
    """

    weights: Weights = Weights()
    privacy: Privacy = Privacy.ANY
    max_queue_s: float | None = None


# The figures are ours: a tenth or ten times of what `default` pays, so that a preset leans clearly but not blindly.
PRESETS: Mapping[str, RequestClass] = {
    "default": RequestClass(),
    "fast": RequestClass(Weights(energy_per_uj=0.005, bandwidth_per_byte=0.001)),
    "battery": RequestClass(Weights(latency_per_s=100.0, energy_per_uj=0.5)),
    "airtime": RequestClass(Weights(latency_per_s=100.0, bandwidth_per_byte=0.1)),
    "private": RequestClass(privacy=Privacy.STAY_ON_DEVICE),
}
