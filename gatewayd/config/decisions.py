"""What decides: classes of requests, devices that come and go; and how decisions are kept, where they are."""

from typing import Annotated, Literal, Self

from pydantic import ValidationInfo, field_validator

from gatewayd.config.types import FilePath, Seconds, Section, within
from gatewayd.config.values import Weight
from gatewayd.core.budget import Allowance
from gatewayd.core.cost import Weights
from gatewayd.core.damping import USUAL, DampingRules
from gatewayd.core.ledger import LedgerRules
from gatewayd.core.presets import RequestClass
from gatewayd.core.renting import RentTerms
from gatewayd.core.request import Privacy


class ClassSettings(Section):
    """A class of requests. `max_queue_ms` null: its requests queue as long as their deadlines allow."""

    latency_per_s: Weight = Weights().latency_per_s
    energy_per_uj: Weight = Weights().energy_per_uj
    bandwidth_per_byte: Weight = Weights().bandwidth_per_byte
    risk_per_failure: Weight = Weights().risk_per_failure
    privacy: Literal["any", "stay_on_device"] = "any"
    max_queue_ms: Annotated[float, within(0, 3_600_000)] | None = None

    @property
    def value(self) -> RequestClass:
        """The class as the services know it."""
        weights = Weights(self.latency_per_s, self.energy_per_uj, self.bandwidth_per_byte, self.risk_per_failure)
        max_queue_s = None if self.max_queue_ms is None else self.max_queue_ms / 1000
        return RequestClass(weights, Privacy(self.privacy), max_queue_s)

    @classmethod
    def of(cls, preset: RequestClass) -> Self:
        """Return the settings of a built-in class."""
        weights = preset.weights
        return cls(
            latency_per_s=weights.latency_per_s,
            energy_per_uj=weights.energy_per_uj,
            bandwidth_per_byte=weights.bandwidth_per_byte,
            risk_per_failure=weights.risk_per_failure,
            privacy="stay_on_device" if preset.privacy is Privacy.STAY_ON_DEVICE else "any",
            max_queue_ms=None if preset.max_queue_s is None else preset.max_queue_s * 1000,
        )


class Flapping(Section):
    """When a device that comes and goes is held off, and for how long: the first time, and at most."""

    comings: Annotated[int, within(2, 1000)] = USUAL.comings
    within_s: Seconds = USUAL.within_s
    hold_s: Seconds = USUAL.first_s
    hold_max_s: Seconds = USUAL.most_s

    @field_validator("hold_max_s")
    @classmethod
    def _is_no_shorter_than_the_first(cls, hold_max_s: float, info: ValidationInfo) -> float:
        hold_s = info.data.get("hold_s", 0.0)
        if hold_max_s < hold_s:
            raise ValueError(f"{hold_max_s} is below devices.flapping.hold_s ({hold_s}): raise it, or lower that")
        return hold_max_s

    @property
    def rules(self) -> DampingRules:
        """The rules as the services know them."""
        return DampingRules(self.comings, self.within_s, self.hold_s, self.hold_max_s, calm_s=self.hold_max_s)


class DecisionLog(Section):
    """The decision log. `file` null: none. The two limits protect an SD card."""

    file: FilePath | None = None
    max_bytes: Annotated[int, within(65_536, 2**34)] = 2**23
    max_bytes_per_day: Annotated[int, within(4096, 2**34)] = 2**22
    sample: Annotated[float, within(0.0001, 1)] = 1.0
    write_every_s: Seconds = 60.0


_UNASKED = RentTerms()


class Placement(Section):
    """When a model is pushed by itself: how far predicted rates are trusted, and what pushes may take of one device.

    `robustness` is the lambda of `gatewayd.core.renting`. The limits are null where there is none.
    """

    robustness: Annotated[float, within(0.01, 1)] = _UNASKED.robustness
    patience: Annotated[float, within(0, 1)] = _UNASKED.patience
    horizon_s: Annotated[float, within(60, 10 * 365 * 86_400)] = _UNASKED.horizon_s
    air_s_per_hour: Annotated[float, within(0.1, 3600)] | None = None
    energy_j_per_day: Annotated[float, within(0.001, 1e9)] | None = None

    @property
    def rules(self) -> LedgerRules:
        """The rules as the services know them."""
        air, energy = self.air_s_per_hour, self.energy_j_per_day
        return LedgerRules(
            RentTerms(self.robustness, self.horizon_s, self.patience),
            air=Allowance() if air is None else Allowance(air / 3600.0, air),
            energy=Allowance() if energy is None else Allowance(energy * 1e6 / 86_400.0, energy * 1e6),
        )
