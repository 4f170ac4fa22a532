"""What requests cost, predicted and measured, as Prometheus series.

Every request passes here, so its numbers are kept as plain lists and become series when somebody scrapes: the library's own
counters take a lock for each number, which together cost as much as a placement.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gatewayd.core.events import RequestFailed, RequestServed
from gatewayd.core.request import Target

# From a small model on the node (tens of microseconds) to a request that waited for a sleepy device.
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
RATIO_BUCKETS = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
_NOWHERE = "none"

_Labels = tuple[str, ...]


class Buckets:
    """A histogram: how many values were at most each of `bounds`, which rise, or above all of them; and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: _Labels) -> None:
        """Give the counts, as many as are at most each bound."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


@dataclass(slots=True)
class _Answered:
    """The answers of one model by the node or by devices."""

    requests: int = 0
    energy_j: float = 0.0
    link_bytes: int = 0
    duration: Buckets = field(default_factory=lambda: Buckets(LATENCY_BUCKETS_S))


@dataclass(slots=True)
class _Predicted:
    """How far predictions were off for the node or for devices."""

    latency: Buckets = field(default_factory=lambda: Buckets(RATIO_BUCKETS))
    energy: Buckets = field(default_factory=lambda: Buckets(RATIO_BUCKETS))
    has_energy: bool = False


class RequestMetrics(Collector):
    """Counts answers and failures. The model label is capped by who calls, so there are few series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answered: dict[tuple[str, str], _Answered] = {}
        self._predicted: dict[str, _Predicted] = {}
        self._failed: dict[tuple[str, str], int] = {}
        self._failed_after: dict[str, Buckets] = {}
        registry.register(self)

    def served(self, event: RequestServed, model: str) -> None:
        """Count an answer."""
        result = event.result
        measured, predicted, target = result.measured, result.predicted, _kind(result.ran_on)
        answered = self._answered.get((model, target))
        if answered is None:
            answered = self._answered[model, target] = _Answered()
        answered.requests += 1
        answered.energy_j += measured.energy_uj / 1e6
        answered.link_bytes += measured.link_bytes
        answered.duration.observe(measured.total_s)
        if predicted is None:
            return
        ratios = self._predicted.get(target)
        if ratios is None:
            ratios = self._predicted[target] = _Predicted()
        if measured.total_s > 0:
            ratios.latency.observe(predicted.latency_s / measured.total_s)
        if predicted.energy_uj > 0 and measured.energy_uj > 0:
            ratios.energy.observe(predicted.energy_uj / measured.energy_uj)
            ratios.has_energy = True

    def failed(self, event: RequestFailed, model: str) -> None:
        """Count a request that ended in an error."""
        self._failed[model, event.code] = self._failed.get((model, event.code), 0) + 1
        self._failed_after.setdefault(model, Buckets(LATENCY_BUCKETS_S)).observe(event.total_s)

    def collect(self) -> Iterator[Metric]:
        """Yield everything; the library calls it at each scrape."""
        yield self._requests()
        yield self._durations()
        yield _ratios(
            "gatewayd_prediction_latency_ratio",
            "Predicted over measured latency; 1 is a perfect prediction.",
            {target: each.latency for target, each in self._predicted.items()},
        )
        yield _ratios(
            "gatewayd_prediction_energy_ratio",
            "Predicted over reported energy of devices; 1 is a perfect prediction.",
            {target: each.energy for target, each in self._predicted.items() if each.has_energy},
        )
        energy = CounterMetricFamily(
            "gatewayd_device_energy_joules", "Energy that devices spent on requests.", labels=["model"]
        )
        link = CounterMetricFamily(
            "gatewayd_device_link_bytes", "Bytes of requests over the links of devices.", labels=["model"]
        )
        for model, joules, link_bytes in self._of_devices():
            energy.add_metric([model], joules)
            link.add_metric([model], link_bytes)
        yield energy
        yield link

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            "gatewayd_requests",
            "Inference requests, by where they ran (none: nowhere) and how they ended (ok or the error's code).",
            labels=["model", "target", "outcome"],
        )
        for (model, target), answered in self._answered.items():
            family.add_metric([model, target, "ok"], answered.requests)
        for (model, code), count in self._failed.items():
            family.add_metric([model, _NOWHERE, code], count)
        return family

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            "gatewayd_request_duration_seconds",
            "Time from a request's arrival to its answer.",
            labels=["model", "target"],
        )
        for labels, answered in self._answered.items():
            answered.duration.add_to(family, labels)
        for model, after in self._failed_after.items():
            after.add_to(family, (model, _NOWHERE))
        return family

    def _of_devices(self) -> Iterator[tuple[str, float, int]]:
        """Yield each model that cost devices something, with J and bytes: of the samples that the node asked for, too."""
        for model in dict.fromkeys(model for model, _ in self._answered):
            parts = [each for (name, _), each in self._answered.items() if name == model]
            joules, link_bytes = sum(each.energy_j for each in parts), sum(each.link_bytes for each in parts)
            if joules or link_bytes:
                yield model, joules, link_bytes


def _ratios(name: str, documentation: str, buckets: Mapping[str, Buckets]) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=["target"])
    for target, each in buckets.items():
        each.add_to(family, (target,))
    return family


def _kind(target: Target) -> str:
    return "node" if target.device is None else "device"
