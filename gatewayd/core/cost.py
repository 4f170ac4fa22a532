"""The five terms of a placement's cost: latency, energy, bandwidth, reliability; privacy is a hard constraint, not a cost."""

from gatewayd.core.record import record


@record
class Costs:
    """Predicted cost of one option: seconds to the answer, µJ from the device's battery, bytes over its link, P(failure)."""

    latency_s: float
    energy_uj: float
    link_bytes: float
    failure: float


@record
class Weights:
    """What one unit of each term is worth to a class of requests, in the same abstract unit (read it as milliseconds).

    A weight of 1000 for a second of latency makes the unit one millisecond.
    """

    latency_per_s: float = 1000.0
    energy_per_uj: float = 0.05
    bandwidth_per_byte: float = 0.01
    risk_per_failure: float = 500.0

    def total(self, costs: Costs) -> float:
        """Return J = w_latency·T + w_energy·E + w_bytes·B + w_risk·P(failure)."""
        return (
            self.latency_per_s * costs.latency_s
            + self.energy_per_uj * costs.energy_uj
            + self.bandwidth_per_byte * costs.link_bytes
            + self.risk_per_failure * costs.failure
        )
