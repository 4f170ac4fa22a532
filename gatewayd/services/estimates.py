"""What things cost, learned from what was measured: compute per (place, artifact) and the link of each device.

Starts from profile priors, so that a first decision is possible; every served request sharpens it. What was learned survives
a restart in a checkpoint (`gatewayd.services.checkpoints`).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.core.device import Bearer, Capabilities, LinkKind, Profile
from gatewayd.core.estimate import Estimate, LinkEstimate, default_link
from gatewayd.core.learned import Learned
from gatewayd.core.model import Place, Variant
from gatewayd.core.names import DeviceId, Digest
from gatewayd.core.placement import RADIO_UJ_PER_BYTE
from gatewayd.core.priors import compute_prior, energy_prior
from gatewayd.core.record import record
from gatewayd.services.ports import Clock

# Bounds the memory at about 0.5 KB a pair; the least recently used pair falls back to its prior.
MAX_PAIRS = 20_000

# An exchange this small says more about the round trip than about goodput: it fits one frame of every link we know.
SMALL_BYTES = 64

# What an untried variant costs on the node when admission could not measure it.
_NODE_PRIOR_S = 0.002
_MAX_NODE_PRIORS = 1000  # kept because a decision asks for one: more than any registry has that was never run


@record
class DevicePair:
    """Learned cost of one artifact on one device: seconds and µJ per inference."""

    compute: Estimate
    energy: Estimate


@dataclass(slots=True)
class Estimates:
    """The estimators. Not shared between threads. With a `clock` (steady seconds), what was not measured for long counts less."""

    clock: Clock | None = None
    _pairs: OrderedDict[tuple[DeviceId, Digest], DevicePair] = field(default_factory=OrderedDict)
    _node: dict[Digest, Estimate] = field(default_factory=dict)
    _node_priors: dict[Digest, Estimate] = field(default_factory=dict)
    _links: dict[DeviceId, LinkEstimate] = field(default_factory=dict)
    _reached: dict[DeviceId, tuple[LinkKind, Bearer | None]] = field(default_factory=dict)
    _samples: dict[tuple[DeviceId, int], Estimate] = field(default_factory=dict)
    _watchers: list[Callable[[DeviceId], None]] = field(default_factory=list)

    def watch(self, watcher: Callable[[DeviceId], None]) -> None:
        """Have `watcher` called after every change of what is believed of a device; it must return at once."""
        self._watchers.append(watcher)

    def learned(self) -> Learned:
        """Return everything that was learned, for a checkpoint."""
        return Learned(
            tuple((device, digest, pair.compute, pair.energy) for (device, digest), pair in self._pairs.items()),
            tuple(self._node.items()),
            tuple(self._links.items()),
            tuple((device, sensor, energy) for (device, sensor), energy in self._samples.items()),
        )

    def recall(self, learned: Learned) -> None:
        """Take over what was learned before a restart, as far as there is room; once, before anything is measured."""
        recalled = learned.recalled()
        for device, digest, compute, energy in recalled.pairs[-MAX_PAIRS:]:
            self._pairs[device, digest] = DevicePair(compute, energy)
        self._node.update(recalled.node)
        self._links.update(recalled.links)
        self._samples.update(((device, sensor), energy) for device, sensor, energy in recalled.samples)

    def _now(self) -> float | None:
        return None if self.clock is None else self.clock()

    def _aged(self, estimate: Estimate) -> Estimate:
        return estimate if self.clock is None else estimate.aged(self.clock())

    def _changed(self, device: DeviceId) -> None:
        for watcher in self._watchers:
            watcher(device)

    def on_node(self, variant: Variant) -> Estimate:
        """Return the compute seconds of `variant` on the node; prior: what admission measured."""
        known = self._node.get(variant.digest)
        if known is not None:
            return self._aged(known)
        prior = self._node_priors.get(variant.digest)
        if prior is None:
            if len(self._node_priors) >= _MAX_NODE_PRIORS:
                self._node_priors.clear()
            verdict = variant.verdict(Place.NODE)
            measured = verdict.latency_s if verdict is not None else None
            prior = self._node_priors[variant.digest] = Estimate.prior(measured or _NODE_PRIOR_S)
        return prior

    def on_device(
        self, device: DeviceId, variant: Variant, *, capabilities: Capabilities, profile: Profile | None
    ) -> DevicePair:
        """Return seconds and µJ of `variant` on `device`; prior: the board's profile, or its clock without one."""
        known = self._pairs.get((device, variant.digest))
        if known is None:
            return _device_prior(variant.structure.macs, capabilities=capabilities, profile=profile)
        return DevicePair(self._aged(known.compute), self._aged(known.energy))

    def link(self, device: DeviceId) -> LinkEstimate:
        """Return the link of `device`; prior: nominal figures of its kind."""
        known = self._links.get(device)
        if known is None:
            return default_link(*self._reached.get(device, (LinkKind.MQTT, None)))
        return known if self.clock is None else known.aged(self.clock())

    def reached_by(self, device: DeviceId, kind: LinkKind, bearer: Bearer | None) -> None:
        """Take what a device says of its link: a guess until it is measured. What was measured over another bearer is dropped."""
        before = self._reached.get(device)
        if before == (kind, bearer):
            return
        self._reached[device] = (kind, bearer)
        if before is not None and before[1] is not None and bearer is not None:
            self._links.pop(device, None)
        self._changed(device)

    def sample_energy(self, device: DeviceId, *, sensor: int, sample_bytes: int) -> Estimate:
        """Return the µJ of reading and sending one sample; prior: the assumed radio energy per byte."""
        return self._samples.get((device, sensor)) or Estimate.prior(sample_bytes * RADIO_UJ_PER_BYTE)

    def saw_node_run(self, variant: Variant, compute_s: float) -> None:
        """Learn from one inference on the node."""
        self._node[variant.digest] = self.on_node(variant).observed(compute_s, at_s=self._now())

    def saw_device_run(
        self, device: DeviceId, variant: Variant, *, before: DevicePair, compute_s: float, energy_uj: float
    ) -> None:
        """Learn from one inference on `device`; `before` is what was believed."""
        at_s = self._now()
        compute, energy = before.compute.observed(compute_s, at_s=at_s), before.energy.observed(energy_uj, at_s=at_s)
        pair = DevicePair(compute, energy)
        self._pairs[device, variant.digest] = pair
        self._pairs.move_to_end((device, variant.digest))
        if len(self._pairs) > MAX_PAIRS:
            self._pairs.popitem(last=False)
        self._changed(device)

    def saw_sample(self, device: DeviceId, *, sensor: int, sample_bytes: int, energy_uj: float) -> None:
        """Learn what one sample cost the device."""
        before = self.sample_energy(device, sensor=sensor, sample_bytes=sample_bytes)
        self._samples[device, sensor] = before.observed(energy_uj, at_s=self._now())
        self._changed(device)

    def saw_ping(self, device: DeviceId, rtt_s: float) -> None:
        """Learn the round trip of a small message."""
        self._links[device] = self.link(device).after_ping(rtt_s, at_s=self._now()).after_outcome(ok=True)
        self._changed(device)

    def saw_transfer(self, device: DeviceId, *, byte_count: int, elapsed_s: float) -> None:
        """Learn from `byte_count` bytes that took `elapsed_s`, one round trip included: the round trip from few, else goodput."""
        if byte_count <= SMALL_BYTES:
            self.saw_ping(device, elapsed_s)
            return
        link = self.link(device).after_transfer(byte_count, elapsed_s, at_s=self._now())
        self._links[device] = link.after_outcome(ok=True)
        self._changed(device)

    def saw_failure(self, device: DeviceId) -> None:
        """Learn that an exchange got no answer."""
        self._links[device] = self.link(device).after_outcome(ok=False)
        self._changed(device)

    def forget_device(self, device: DeviceId) -> None:
        """Drop what was learned of a device that is gone for good."""
        self._links.pop(device, None)
        self._reached.pop(device, None)
        for pair in [pair for pair in self._pairs if pair[0] == device]:
            del self._pairs[pair]
        for sample in [sample for sample in self._samples if sample[0] == device]:
            del self._samples[sample]


def _device_prior(macs: int, *, capabilities: Capabilities, profile: Profile | None) -> DevicePair:
    compute = compute_prior(macs, clock_mhz=capabilities.clock_mhz, profile=profile)
    return DevicePair(compute, energy_prior(macs, profile=profile))
