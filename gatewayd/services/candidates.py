"""The candidate index: for each version asked for, the facts of the devices that hold it, brought up to date when they change.

A decision looks at the few best of a shortlist instead of at every device. Devices that come, go, report, run something or are
measured are noted as changed and looked at anew: at the end of the loop's turn, or at the next decision if that is sooner.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from gatewayd.core.device import RUNNING, DeviceView, EnergySource, Report, Sensor, Slot
from gatewayd.core.estimate import Estimate
from gatewayd.core.fit import Fitter, fit
from gatewayd.core.model import Variant, Version
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.placement import DeviceFacts
from gatewayd.core.record import record
from gatewayd.core.shortlist import Shortlist
from gatewayd.services.estimates import Estimates
from gatewayd.services.tracking import Tracking

# Bounds memory: versions whose holders are indexed; the one asked for longest ago is indexed anew when it is asked for again.
MAX_LISTS = 256
# Bounds memory: candidates kept per device beside the shortlists, for data at its sensors.
_MAX_SINGLE = 16
_MAX_SIZES = 4096  # bounds memory: variants whose sizes are remembered
_NO_SAMPLE = Estimate.prior(0.0)

_Key = tuple[ModelName, int]


@record
class Source:
    """Where by-reference data is: the device as it is now, and which of its sensors."""

    view: DeviceView
    sensor: Sensor
    index: int


@record
class Holding:
    """What runs on a device when a version is asked for there; both None when it does not hold the version."""

    slot: Slot | None
    variant: Variant | None


@record
class Candidate:
    """A device that may serve: its facts, and (when it holds the model) which slot and variant would run."""

    facts: DeviceFacts
    holding: Holding


@dataclass(slots=True)
class Holders:
    """Who holds one version."""

    version: Version
    shortlist: Shortlist = field(default_factory=Shortlist)
    holdings: dict[DeviceId, Holding] = field(default_factory=dict)


class Candidates:
    """The index. Not shared between threads."""

    def __init__(self, *, tracking: Tracking, estimates: Estimates, fitter: Fitter = fit) -> None:
        self._tracking = tracking
        self._estimates = estimates
        self._fit = fitter
        self._lists: OrderedDict[_Key, Holders] = OrderedDict()
        self._listed: dict[DeviceId, set[_Key]] = {}
        self._single: dict[DeviceId, dict[tuple[int, int], tuple[Version, Candidate]]] = {}
        self._dirty: set[DeviceId] = set()
        self._views: dict[DeviceId, DeviceView] = {}
        self._sizes: dict[Digest, tuple[int, int]] = {}
        tracking.watch(self.changed)
        estimates.watch(self.changed)

    def changed(self, device: DeviceId) -> None:
        """Note that something about the device is new."""
        if not self._dirty and _is_looping():
            asyncio.get_running_loop().call_soon(self.settle)
        self._dirty.add(device)

    def settle(self) -> None:
        """Look anew at every device that changed."""
        touched: dict[_Key, Holders] = {}
        while self._dirty:
            self._look(self._dirty.pop(), touched)
        for holders in touched.values():
            holders.shortlist.refresh()

    def holders(self, version: Version) -> Holders:
        """Return who holds the version now."""
        key = (version.model, version.number)
        found = self._lists.get(key)
        if found is None or found.version is not version:
            found = self._indexed(key, version)
        elif len(self._lists) >= MAX_LISTS:
            self._lists.move_to_end(key)
        for device in self._dirty:  # the other versions on these can wait until the end of the loop's turn
            self._look_at(device, self._tracking.find(device), key, found)
        return found

    def view(self, device: DeviceId) -> DeviceView:
        """Return the device as it is now, but for what is desired of it. Raises: UnknownDevice."""
        known = None if device in self._dirty else self._views.get(device)
        return self._tracking.device(device) if known is None else known

    def single(self, device: DeviceId, version: Version, source: Source | None) -> Candidate | None:
        """Return one device as a candidate, whether or not it holds the version; None when it never reported.

        Raises: UnknownDevice.
        """
        if device in self._dirty:
            self._single.pop(device, None)
        if source is None:
            return self._candidate(self._tracking.device(device), version, None)
        kept = self._single.setdefault(device, {})
        # A version is known by its identity here: hashing one costs more than the rest.
        key = (id(version), source.index)
        known = kept.get(key)
        if known is not None and known[0] is version:
            return known[1]
        if len(kept) >= _MAX_SINGLE:
            kept.clear()
        made = self._held(source, version) or self._candidate(source.view, version, source)
        if made is not None:
            kept[key] = (version, made)
        return made

    def _indexed(self, key: _Key, version: Version) -> Holders:
        found = self._lists[key] = Holders(version)
        for view in self._tracking.holding(version.model, version.number):
            self._look_at(view.id, view, key, found)
        if len(self._lists) > MAX_LISTS:
            gone, holders = self._lists.popitem(last=False)
            for device in holders.holdings:
                self._listed[device].discard(gone)
        return found

    def _look(self, device: DeviceId, touched: dict[_Key, Holders]) -> None:
        self._single.pop(device, None)
        view = self._tracking.find(device)
        if view is None:
            self._views.pop(device, None)
        else:
            self._views[device] = view
        runs = _runs(view.report.slots) if view is not None and view.report is not None else ()
        for key in {*self._listed.get(device, ()), *runs}:
            if key in self._lists:
                self._look_at(device, view, key, self._lists[key])
                touched[key] = self._lists[key]

    def _look_at(self, device: DeviceId, view: DeviceView | None, key: _Key, holders: Holders) -> None:
        """Bring one device up to date in one list; `_listed` is what takes it out of lists it is gone from."""
        report = None if view is None else view.report
        slot = None if report is None else holding(report, holders.version)
        if view is not None and report is not None and slot is not None:
            made = self._made(view, report, holders.version, slot=slot, source=None, is_named=False)
            holders.shortlist.put(made.facts)
            holders.holdings[device] = made.holding
            self._listed.setdefault(device, set()).add(key)
        elif device in holders.holdings:
            holders.shortlist.drop(device)
            del holders.holdings[device]
            self._listed[device].discard(key)
            if not self._listed[device]:
                del self._listed[device]

    def _held(self, source: Source, version: Version) -> Candidate | None:
        """Return the source as a candidate by the facts that the list of holders has already; None when they will not do."""
        device, found = source.view.id, self._lists.get((version.model, version.number))
        if found is None or found.version is not version or device in self._dirty:
            return None
        facts = found.shortlist.facts(device)
        if facts is None or facts.refusal or mismatch(version, source.sensor):
            return None
        sample_bytes = source.sensor.spec.byte_count
        energy = self._estimates.sample_energy(device, sensor=source.index, sample_bytes=sample_bytes)
        return Candidate(facts.with_sample(sample_bytes, energy), found.holdings[device])

    def _candidate(self, view: DeviceView, version: Version, source: Source | None) -> Candidate | None:
        report = view.report
        if report is None:
            return None
        slot = holding(report, version)
        return self._made(view, report, version, slot=slot, source=source, is_named=True)

    def _made(
        self,
        view: DeviceView,
        report: Report,
        version: Version,
        *,
        slot: Slot | None,
        source: Source | None,
        is_named: bool,
    ) -> Candidate:
        """Put together what is known. One that a request names is not refused for coming and going: it was asked for."""
        variant = next((v for v in version.variants if slot is not None and v.digest == slot.digest), None)
        refusal = self._refusal(view, report, version, source=source, held=variant)
        if not refusal and not is_named:
            refusal = view.held_off
        priced = variant or self._fit(version, report.capabilities).variant or version.variants[0]
        return Candidate(self._facts(view, report, priced, source=source, refusal=refusal), Holding(slot, variant))

    def _refusal(
        self, view: DeviceView, report: Report, version: Version, *, source: Source | None, held: Variant | None
    ) -> str:
        if not view.approved:
            return "waits for approval"
        if not view.online:
            return "offline"
        if not report.capabilities.runs_on_request:
            return "runs no model on request"
        if source is not None and (why := mismatch(version, source.sensor)):
            return why
        if held is not None:
            return "" if len(held.structure.inputs) == 1 else "a device takes one input"
        return self._not_installed(report, version)

    def _not_installed(self, report: Report, version: Version) -> str:
        found = self._fit(version, report.capabilities)
        if found.variant is None:
            return f"{version} does not fit: {'; '.join(found.reasons)}"
        other = next((s.version for s in report.slots if s.model == version.model and s.state in RUNNING), None)
        return f"runs {version.model}@{other}, not {version}" if other else f"{version} is not installed (it would fit)"

    def _facts(
        self, view: DeviceView, report: Report, variant: Variant, *, source: Source | None, refusal: str
    ) -> DeviceFacts:
        told, estimates = report.capabilities, self._estimates
        input_bytes, output_bytes = self._sizes_of(variant)
        pair = estimates.on_device(view.id, variant, capabilities=told, profile=view.profile)
        sample_bytes, sample_energy = 0, _NO_SAMPLE
        if source is not None:
            sample_bytes = source.sensor.spec.byte_count
            sample_energy = estimates.sample_energy(view.id, sensor=source.index, sample_bytes=sample_bytes)
        return DeviceFacts(
            device=view.id,
            refusal=refusal,
            variant=variant.name,
            compute=pair.compute,
            energy=pair.energy,
            link=estimates.link(view.id),
            queue_s=view.running * pair.compute.mean,
            is_source=source is not None,
            on_battery=told.energy_source is EnergySource.BATTERY,
            battery=report.battery,
            input_bytes=input_bytes,
            output_bytes=output_bytes,
            sample_bytes=sample_bytes,
            sample_energy_uj=sample_energy,
        )

    def _sizes_of(self, variant: Variant) -> tuple[int, int]:
        """Return the bytes of the inputs and of the first output; they are asked for at every change of a device."""
        known = self._sizes.get(variant.digest)
        if known is None:
            if len(self._sizes) >= _MAX_SIZES:
                self._sizes.clear()
            inputs = sum(spec.byte_count for spec in variant.structure.inputs)
            outputs = sum(spec.byte_count for spec in variant.structure.outputs[:1])
            known = self._sizes[variant.digest] = inputs, outputs
        return known


def holding(report: Report, version: Version) -> Slot | None:
    """Return the slot in which the device runs `version`."""
    model, number = version.model, version.number
    for slot in report.slots:
        # The state last: an enum's hash is a call, and most slots hold something else.
        if slot.model == model and slot.version == number and slot.state in RUNNING:
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


def _runs(slots: Sequence[Slot]) -> tuple[_Key, ...]:
    found = {(slot.model, slot.version) for slot in slots if slot.state in RUNNING}
    return tuple((model, version) for model, version in found if model is not None and version is not None)


def _is_looping() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
