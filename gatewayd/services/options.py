"""What the main path asks before it decides: for one request and version, the facts of the node and of each candidate."""

from collections import ChainMap
from collections.abc import Mapping, Sequence

from gatewayd.core.cost import Weights
from gatewayd.core.errors import BadRequest, DeviceUnreachable, Forbidden
from gatewayd.core.estimate import Estimate
from gatewayd.core.model import Place, Variant, Version
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.placement import DeviceFacts, NodeFacts, Question
from gatewayd.core.presets import RequestClass
from gatewayd.core.record import record
from gatewayd.core.request import InferenceRequest, Privacy
from gatewayd.core.shortlist import MAX_CANDIDATES
from gatewayd.core.wording import duration
from gatewayd.services.candidates import Candidate, Candidates, Holding, Source, mismatch
from gatewayd.services.estimates import Estimates
from gatewayd.services.ports import NodeRuntime

_MAX_REMEMBERED = 4096  # protects memory: versions whose node variant is remembered
_NOWHERE = Estimate.prior(0.0)
_NOTHING = Holding(None, None)  # what was held when it was decided, and is no more when it is to run


@record
class Options:
    """Everything `place` needs for one request, and what running the choice needs: `holdings` of each device in `devices`."""

    question: Question
    source: Source | None
    node_variant: Variant | None
    node: NodeFacts
    devices: Sequence[DeviceFacts]
    holdings: Mapping[DeviceId, Holding]

    @property
    def is_overloaded(self) -> bool:
        """Whether the node's queue, not the request, is why the node cannot: later the same request may be served."""
        node = self.node
        is_late = node.queue_s > 0 and node.compute.mean < self.question.time_left_s <= node.queue_s + node.compute.mean
        return node.refusal.startswith("overloaded") or (not node.refusal and is_late)

    def candidate(self, index: int) -> Candidate:
        """Return one of `devices` with what runs there."""
        facts = self.devices[index]
        return Candidate(facts, self.holdings.get(facts.device, _NOTHING))


class OptionFinder:
    """Gathers `Options` from the trackers. Reads only."""

    def __init__(
        self,
        *,
        estimates: Estimates,
        runtime: NodeRuntime,
        classes: Mapping[str, RequestClass],
        candidates: Candidates,
    ) -> None:
        self._estimates = estimates
        self._runtime = runtime
        self._classes = classes
        self._candidates = candidates
        self._node_variants: dict[tuple[ModelName, int], tuple[Version | None, Variant | None]] = {}

    def find(self, request: InferenceRequest, version: Version, *, now_s: float) -> Options:
        """Return the facts.

        Raises: BadRequest (no such class or sensor), UnknownDevice, DeviceUnreachable, Forbidden: a request by reference
        to data that cannot be had at all.
        """
        source = None if request.source is None else self._source(request)
        settings = self._settings(request.request_class)
        variant, node = self._node(version, source, settings)
        question = Question(
            source is not None,
            source.view.id if source else None,
            request.privacy if settings.privacy is Privacy.ANY else settings.privacy,
            request.deadline_s - now_s,
            request.pin,
            settings.weights,
            prefer=request.prefer,
        )
        devices, holdings = self._devices(request, version, source, question.weights)
        return Options(question, source, variant, node, devices, holdings)

    def _settings(self, request_class: str) -> RequestClass:
        found = self._classes.get(request_class)
        if found is None:
            raise BadRequest(
                f"parameters.class: no class {request_class!r}; there are {', '.join(sorted(self._classes))}"
            )
        return found

    def _source(self, request: InferenceRequest) -> Source | None:
        if request.source is None:
            return None
        view = self._candidates.view(request.source.device)
        if not view.approved:
            raise Forbidden(f"device {view.id} waits for approval: approve it first (devices.approve)")
        if view.report is None or not view.online:
            raise DeviceUnreachable(f"device {view.id} is offline, so its sensor cannot be read")
        sensors = view.report.capabilities.sensors
        for index, sensor in enumerate(sensors):
            if sensor.name == request.source.sensor:
                return Source(view, sensor, index)
        names = ", ".join(sensor.name for sensor in sensors) or "none"
        raise BadRequest(f"input: device {view.id} has no sensor {request.source.sensor!r}; it has {names}")

    def _node(
        self, version: Version, source: Source | None, settings: RequestClass
    ) -> tuple[Variant | None, NodeFacts]:
        variant = self._fastest(version)
        if variant is None:
            return None, NodeFacts(_nothing_runs(version), "", _NOWHERE, 0.0)
        refusal = mismatch(version, source.sensor) if source else ""
        compute = self._estimates.on_node(variant)
        wait_s = self._runtime.expected_wait_s(variant)
        if settings.max_queue_s is not None and wait_s > settings.max_queue_s and not refusal:
            refusal = f"overloaded: {duration(wait_s)} of requests wait, the class queues for {duration(settings.max_queue_s)}"
        return variant, NodeFacts(refusal, variant.name, compute, wait_s)

    def _fastest(self, version: Version) -> Variant | None:
        """Return the variant that the node runs; a version never changes, so it is chosen once."""
        known, variant = self._node_variants.get((version.model, version.number), (None, None))
        if known is version:
            return variant
        variant = next(iter(version.runnable(Place.NODE)), None)
        if len(self._node_variants) >= _MAX_REMEMBERED:
            self._node_variants.clear()
        self._node_variants[version.model, version.number] = (version, variant)
        return variant

    def _devices(
        self, request: InferenceRequest, version: Version, source: Source | None, weights: Weights
    ) -> tuple[Sequence[DeviceFacts], Mapping[DeviceId, Holding]]:
        """Return the candidates: the one that has the data, or those named, and unless one is forced the best holders."""
        if source is not None:
            return _alone(self._candidates.single(source.view.id, version, source))
        pin = request.pin
        if pin is not None:
            found = None if pin.device is None else self._candidates.single(pin.device, version, None)
            return _alone(found)
        holders = self._candidates.holders(version)
        best = holders.shortlist.best(weights)
        prefer = request.prefer
        if prefer is None or prefer.device is None or any(each.device == prefer.device for each in best):
            return best, holders.holdings
        wanted = self._candidates.single(prefer.device, version, None)
        if wanted is None:
            return best, holders.holdings
        return [wanted.facts, *best[: MAX_CANDIDATES - 1]], ChainMap({prefer.device: wanted.holding}, holders.holdings)


def _alone(found: Candidate | None) -> tuple[Sequence[DeviceFacts], Mapping[DeviceId, Holding]]:
    return ([], {}) if found is None else ([found.facts], {found.facts.device: found.holding})


def _nothing_runs(version: Version) -> str:
    found = [(variant.name, variant.verdict(Place.NODE)) for variant in version.variants]
    reasons = [f"{name} on {verdict.engine}: {verdict.reason}" for name, verdict in found if verdict is not None]
    return f"no variant runs on the node ({'; '.join(reasons) or 'it has no engine'})"
