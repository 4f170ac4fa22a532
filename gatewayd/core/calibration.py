"""How good predictions are: what was predicted against what was seen. A value for a metric and for `why`; decides nothing."""

from math import isfinite
from typing import Self

from gatewayd.core.record import record

# About so many answers are remembered: the figure follows a change within a minute of ordinary load.
_MEMORY = 100.0
# One answer that took a thousand times its prediction says no more than one that took ten times: it was wrong.
_LARGEST_ERROR = 10.0
# Below a microsecond (or a millionth of any unit) a ratio says nothing.
_LEAST = 1e-6


@record
class Calibration:
    """Recency-weighted figures over answers.

    `error` is |seen - predicted| / predicted (0: perfect), `bias` the same signed (above 0: answers take longer than
    predicted), `covered` the share within the confidence bounds; `count` is at most 100.
    """

    error: float = 0.0
    bias: float = 0.0
    covered: float = 0.0
    count: float = 0.0

    def after(self, predicted: float, seen: float, *, is_within: bool) -> Self:
        """Return the figures after one answer; numbers that are negative or not finite are ignored."""
        if not (isfinite(predicted) and isfinite(seen)) or predicted < 0.0 or seen < 0.0:
            return self
        relative = min(_LARGEST_ERROR, (seen - predicted) / max(predicted, _LEAST))
        count = min(self.count + 1.0, _MEMORY)
        return type(self)(
            self.error + (abs(relative) - self.error) / count,
            self.bias + (relative - self.bias) / count,
            self.covered + (float(is_within) - self.covered) / count,
            count,
        )
