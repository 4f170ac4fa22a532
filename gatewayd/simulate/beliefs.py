"""What a policy has learned: the estimators of `core`, fed as the daemon feeds them."""

from dataclasses import dataclass, field

from gatewayd.core.device import Bearer, LinkKind
from gatewayd.core.estimate import Estimate, LinkEstimate, default_link
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import RADIO_UJ_PER_BYTE, DeviceFacts, NodeFacts
from gatewayd.core.priors import compute_prior, energy_prior
from gatewayd.simulate.boards import Model
from gatewayd.simulate.policy import Situation
from gatewayd.simulate.world import Ask, Run, Station

# Devices are pinged this often (the keep-alive of their session).
_PING_S = 300.0
# As `services.estimates`: an exchange this small tells of the round trip, not of the goodput.
_SMALL_BYTES = 64


@dataclass(slots=True)
class Beliefs:
    """Estimates by link, by (device, model) and by model on the node."""

    _links: dict[DeviceId, LinkEstimate] = field(default_factory=dict)
    _pinged_s: dict[DeviceId, float] = field(default_factory=dict)
    _compute: dict[tuple[DeviceId, str], Estimate] = field(default_factory=dict)
    _energy: dict[tuple[DeviceId, str], Estimate] = field(default_factory=dict)
    _node: dict[str, Estimate] = field(default_factory=dict)

    def link(self, station: Station, now_s: float) -> LinkEstimate:
        """Return what is believed of the link."""
        known = self._links.get(station.id)
        return known.aged(now_s) if known is not None else _guessed(station)

    def compute(self, station: Station, model: Model) -> Estimate:
        """Return the seconds of one inference on the device."""
        known = self._compute.get((station.id, model.name))
        return known or compute_prior(model.macs, clock_mhz=station.board.clock_mhz, profile=station.board.profile)

    def energy(self, station: Station, model: Model) -> Estimate:
        """Return the µJ of one inference on the device."""
        known = self._energy.get((station.id, model.name))
        return known or energy_prior(model.macs, profile=station.board.profile)

    def on_node(self, model: Model) -> Estimate:
        """Return the seconds of one inference on the node; prior: what admission measured."""
        return self._node.get(model.name) or Estimate.prior(model.node_s)

    def device_facts(self, ask: Ask, situation: Situation) -> DeviceFacts:
        """Return what `place` is told of the device."""
        station, model, now_s = ask.station, ask.model, situation.now_s
        sample_uj = model.input_bytes * RADIO_UJ_PER_BYTE
        return DeviceFacts(
            device=station.id,
            refusal="" if situation.holds(model) else f"{model.name} is not installed",
            variant="int8",
            compute=self.compute(station, model).aged(now_s),
            energy=self.energy(station, model).aged(now_s),
            link=self.link(station, now_s),
            queue_s=situation.device_queue_s,
            is_source=True,
            on_battery=station.group.battery_j is not None,
            battery=situation.battery,
            input_bytes=model.input_bytes,
            output_bytes=model.output_bytes,
            sample_bytes=model.input_bytes,
            sample_energy_uj=Estimate(sample_uj, 0.0, 1.0),
        )

    def node_facts(self, ask: Ask, situation: Situation) -> NodeFacts:
        """Return what `place` is told of the node."""
        return NodeFacts("", "int8", self.on_node(ask.model).aged(situation.now_s), situation.node_queue_s)

    def saw(self, ask: Ask, run: Run, *, on_device: bool, now_s: float) -> None:
        """Learn from a run."""
        station, model = ask.station, ask.model
        link = self.link(station, now_s)
        # With a protocol pings are the gateway's own, see `saw_ping`.
        if not station.group.protocol and now_s - self._pinged_s.get(station.id, -_PING_S) >= _PING_S:
            self._pinged_s[station.id] = now_s
            link = link.after_ping(station.link.rtt_s * ask.rtt_luck, at_s=now_s)
        if run.link_bytes <= _SMALL_BYTES:
            link = link.after_ping(run.link_s, at_s=now_s)
        else:
            link = link.after_transfer(run.link_bytes, run.link_s, at_s=now_s)
        self._links[station.id] = link.after_outcome(not run.is_lost)
        if on_device:
            key = (station.id, model.name)
            self._compute[key] = self.compute(station, model).observed(run.compute_s, at_s=now_s)
            self._energy[key] = self.energy(station, model).observed(run.energy_uj, at_s=now_s)
        else:
            self._node[model.name] = self.on_node(model).observed(run.compute_s, at_s=now_s)

    def saw_ping(self, station: Station, rtt_s: float, *, now_s: float) -> None:
        """Learn a round trip."""
        self._links[station.id] = self.link(station, now_s).after_ping(rtt_s, at_s=now_s)

    def saw_chunk(self, station: Station, byte_count: int, elapsed_s: float, *, now_s: float) -> None:
        """Learn what a chunk of a push took, its answer included."""
        link = self.link(station, now_s)
        is_small = byte_count <= _SMALL_BYTES
        self._links[station.id] = (
            link.after_ping(elapsed_s, at_s=now_s)
            if is_small
            else link.after_transfer(byte_count, elapsed_s, at_s=now_s)
        )

    def saw_push(self, station: Station, model: Model, *, elapsed_s: float, now_s: float) -> None:
        """Learn the goodput that a push had: its chunks took a round trip each. With a protocol they were seen one by one."""
        if station.group.protocol:
            return
        link = self.link(station, now_s)
        chunks = max(1, -(-model.size_bytes // station.link.chunk_bytes))
        in_one_s = elapsed_s - (chunks - 1) * link.rtt.mean
        self._links[station.id] = link.after_transfer(model.size_bytes, in_one_s, at_s=now_s)


def _guessed(station: Station) -> LinkEstimate:
    """Return what is believed of a link before anything was measured: a device over LwM2M says what carries it."""
    if station.group.protocol != "lwm2m":
        return default_link(LinkKind.MQTT)
    return default_link(LinkKind.LWM2M, Bearer(station.link.bearer) if station.link.bearer else None)
