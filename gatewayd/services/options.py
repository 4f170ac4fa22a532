"""What the main path asks before it decides: for one request and version, the facts of the node and of each candidate."""

from collections.abc import Mapping
from dataclasses import dataclass

from gatewayd.core.cost import Weights
from gatewayd.core.device import RUNNING, DeviceView, EnergySource, Report, Sensor, Slot
from gatewayd.core.errors import BadRequest, DeviceUnreachable, Forbidden
from gatewayd.core.estimate import Estimate
from gatewayd.core.fit import Fitter, fit
from gatewayd.core.model import Place, Variant, Version
from gatewayd.core.names import ModelName
from gatewayd.core.placement import DeviceFacts, NodeFacts, Question
from gatewayd.core.request import InferenceRequest
from gatewayd.services.estimates import Estimates
from gatewayd.services.ports import NodeRuntime
from gatewayd.services.tracking import Tracking

# Candidates per decision: `place` stays within microseconds, and a decision kept for `why` within kilobytes.
MAX_CANDIDATES = 32
_MAX_REMEMBERED = 4096  # protects memory: versions whose node variant is remembered


@dataclass(frozen=True, slots=True)
class Source:
    """Where by-reference data is: the device as it is now, and which of its sensors."""

    view: DeviceView
    sensor: Sensor
    index: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that may serve: its facts, and (when it holds the model) which slot and variant would run."""

    facts: DeviceFacts
    slot: Slot | None
    variant: Variant | None


@dataclass(frozen=True, slots=True)
class Options:
    """Everything `place` needs for one request, and what running the choice needs."""

    question: Question
    source: Source | None
    node_variant: Variant | None
    node: NodeFacts
    candidates: tuple[Candidate, ...]


class OptionFinder:
    """Gathers `Options` from the trackers. Reads only."""

    def __init__(
        self,
        *,
        tracking: Tracking,
        estimates: Estimates,
        runtime: NodeRuntime,
        classes: Mapping[str, Weights],
        fitter: Fitter = fit,
    ) -> None:
        self._tracking = tracking
        self._estimates = estimates
        self._runtime = runtime
        self._classes = classes
        self._fit = fitter
        self._node_variants: dict[tuple[ModelName, int], tuple[Version | None, Variant | None]] = {}

    def find(self, request: InferenceRequest, version: Version, *, now_s: float) -> Options:
        """Return the facts.

        Raises: BadRequest (no such class or sensor), UnknownDevice, DeviceUnreachable, Forbidden: a request by reference
        to data that cannot be had at all.
        """
        source = self._source(request)
        variant, node = self._node(version, source)
        question = Question(
            by_reference=source is not None,
            source=source.view.id if source else None,
            privacy=request.privacy,
            time_left_s=request.deadline_s - now_s,
            pin=request.pin,
            prefer=request.prefer,
            weights=self._weights(request.request_class),
        )
        return Options(question, source, variant, node, self._candidates(request, version, source))

    def _weights(self, request_class: str) -> Weights:
        found = self._classes.get(request_class)
        if found is None:
            raise BadRequest(
                f"parameters.class: no class {request_class!r}; there are {', '.join(sorted(self._classes))}"
            )
        return found

    def _source(self, request: InferenceRequest) -> Source | None:
        if request.source is None:
            return None
        view = self._tracking.device(request.source.device)
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

    def _node(self, version: Version, source: Source | None) -> tuple[Variant | None, NodeFacts]:
        variant = self._fastest(version)
        if variant is None:
            return None, NodeFacts(_nothing_runs(version), "", Estimate.prior(0.0), 0.0)
        refusal = mismatch(version, source.sensor) if source else ""
        compute = self._estimates.on_node(variant)
        return variant, NodeFacts(refusal, variant.name, compute, self._runtime.expected_wait_s(variant))

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

    def _candidates(self, request: InferenceRequest, version: Version, source: Source | None) -> tuple[Candidate, ...]:
        views = [source.view] if source else self._holders(request, version)
        return tuple(self._candidate(view, version, source) for view in views if view.report is not None)

    def _holders(self, request: InferenceRequest, version: Version) -> list[DeviceView]:
        named = [target.device for target in (request.pin, request.prefer) if target and target.device]
        views = {device: self._tracking.device(device) for device in named}
        if request.pin is None:
            held = self._tracking.holding(version.model, version.number)
            for view in sorted(held, key=lambda each: (not each.online, each.running))[:MAX_CANDIDATES]:
                views.setdefault(view.id, view)
        return list(views.values())

    def _candidate(self, view: DeviceView, version: Version, source: Source | None) -> Candidate:
        report = view.report
        if report is None:
            raise DeviceUnreachable(f"device {view.id} has not reported yet")
        slot = holding(report, version)
        variant = next((v for v in version.variants if slot is not None and v.digest == slot.digest), None)
        refusal = _device_refusal(view, version, source=source, held=variant, fitter=self._fit)
        priced = variant or self._fit(version, report.capabilities).variant
        return Candidate(
            self._facts(view, report, version, priced=priced, source=source, refusal=refusal), slot, variant
        )

    def _facts(
        self,
        view: DeviceView,
        report: Report,
        version: Version,
        *,
        priced: Variant | None,
        source: Source | None,
        refusal: str,
    ) -> DeviceFacts:
        variant = priced or version.variants[0]
        pair = self._estimates.on_device(view.id, variant, capabilities=report.capabilities, profile=view.profile)
        sample_bytes = source.sensor.spec.byte_count if source else 0
        return DeviceFacts(
            device=view.id,
            refusal=refusal,
            variant=variant.name,
            compute=pair.compute,
            energy=pair.energy,
            link=self._estimates.link(view.id),
            queue_s=view.running * pair.compute.mean,
            is_source=source is not None,
            on_battery=report.capabilities.energy_source is EnergySource.BATTERY,
            battery=report.battery,
            input_bytes=sum(spec.byte_count for spec in variant.structure.inputs),
            output_bytes=sum(spec.byte_count for spec in variant.structure.outputs[:1]),
            sample_bytes=sample_bytes,
            sample_energy_uj=self._estimates.sample_energy(
                view.id, sensor=source.index if source else 0, sample_bytes=sample_bytes
            ),
        )


def holding(report: Report, version: Version) -> Slot | None:
    """Return the slot in which the device runs `version`."""
    for slot in report.slots:
        if slot.state in RUNNING and slot.model == version.model and slot.version == version.number:
            return slot
    return None


def mismatch(version: Version, sensor: Sensor) -> str:
    """Return why the sensor's samples cannot be the model's input, or "" when they can."""
    inputs = version.signature.inputs
    if len(inputs) != 1:
        return f"{version} takes {len(inputs)} inputs, a sensor gives one"
    if sensor.preprocessing != version.signature.preprocessing:
        ours, theirs = version.signature.preprocessing or "none", sensor.preprocessing or "none"
        return f"preprocessing differs: {version} expects {ours}, sensor {sensor.name} gives {theirs}"
    if sensor.spec.element_count != inputs[0].element_count:
        return f"{version} takes {list(inputs[0].shape)}, sensor {sensor.name} gives {list(sensor.spec.shape)}"
    return ""


def _device_refusal(
    view: DeviceView, version: Version, *, source: Source | None, held: Variant | None, fitter: Fitter
) -> str:
    if not view.approved:
        return "waits for approval"
    if not view.online:
        return "offline"
    if view.report is not None and not view.report.capabilities.runs_on_request:
        return "runs no model on request"
    if source is not None and (why := mismatch(version, source.sensor)):
        return why
    if held is not None:
        return "" if len(held.structure.inputs) == 1 else "a device takes one input"
    return _not_installed(view, version, fitter)


def _not_installed(view: DeviceView, version: Version, fitter: Fitter) -> str:
    if view.report is None:
        return "has not reported yet"
    found = fitter(version, view.report.capabilities)
    if found.variant is None:
        return f"{version} does not fit: {'; '.join(found.reasons)}"
    other = next((s.version for s in view.report.slots if s.model == version.model and s.state in RUNNING), None)
    return f"runs {version.model}@{other}, not {version}" if other else f"{version} is not installed (it would fit)"


def _nothing_runs(version: Version) -> str:
    found = [(variant.name, variant.verdict(Place.NODE)) for variant in version.variants]
    reasons = [f"{name} on {verdict.engine}: {verdict.reason}" for name, verdict in found if verdict is not None]
    return f"no variant runs on the node ({'; '.join(reasons) or 'it has no engine'})"
