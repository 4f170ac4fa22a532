"""Prometheus metrics: events are counted as they happen, gauges are read when somebody scrapes.

One registry of its own, so that two daemons in one process (the tests) do not meet. Rendering takes about 5 ms per
1,000 series on the event loop, therefore every label has a cap.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import assert_never

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from gatewayd.adapters.request_metrics import RequestMetrics
from gatewayd.core.events import (
    AcceleratorChanged,
    AliasMoved,
    ArtifactsCollected,
    DeviceChanged,
    GatewayEvent,
    InputRefused,
    JoiningChanged,
    ModelAdded,
    ModelDropped,
    NodeEvent,
    OrderAnswered,
    OrderEnded,
    OrderFailed,
    PushMoved,
    RequestFailed,
    RequestServed,
    VariantQuarantined,
    VersionRetired,
    WorkerEnded,
)
from gatewayd.core.names import PushId
from gatewayd.core.update import Push

MAX_PUSHES = 1024  # protects memory: pushes whose progress is remembered
OTHER = "other"


class LabelCap:
    """Lets the first `limit` names through as label values and calls all later ones `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def admit(self, name: str) -> str:
        """Return the label value for `name`, giving it a place while there is room."""
        if len(self._known) < self._limit:
            self._known.add(name)
        return self.known(name)

    def known(self, name: str) -> str:
        """Return the label value for `name` without giving it a place: for names that a caller made up."""
        return name if name in self._known else OTHER


class Metrics:
    """Counts what the services announce. `max_models` caps the values of the model label."""

    def __init__(self, *, version: str, devices_online: Callable[[], int], max_models: int = 50) -> None:
        # "Created" series double the output and no query of ours needs them.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left this one untyped
        self._registry = CollectorRegistry()
        self._models = LabelCap(max_models)
        self._edges = LabelCap(20)
        self._requests = RequestMetrics(self._registry)
        self._pushes = _PushMetrics(self._registry)
        self._drops = Counter(
            "gatewayd_drops_total",
            "Models that devices were told to let go, by how it ended.",
            ["state"],
            registry=self._registry,
        )
        self._refused = Counter(
            "gatewayd_inputs_refused_total",
            "Malformed or oversized inputs, by where they came in and the error's code.",
            ["where", "code"],
            registry=self._registry,
        )
        self._models_added = Counter("gatewayd_models_added_total", "Versions admitted.", registry=self._registry)
        self._aliases_moved = Counter("gatewayd_alias_moves_total", "Moves of aliases.", registry=self._registry)
        self._retirements = Counter(
            "gatewayd_retirements_total", "Versions retired or brought back.", registry=self._registry
        )
        self._collected = Counter(
            "gatewayd_artifacts_collected_bytes_total", "Bytes of artifacts removed.", registry=self._registry
        )
        self._device_changes = Counter(
            "gatewayd_device_changes_total",
            "Devices that came, went or changed what they hold.",
            registry=self._registry,
        )
        self._commands = Counter(
            "gatewayd_mqtt_commands_total",
            "Commands over MQTT, by verb and outcome (done, refused, repeated or the error's code).",
            ["verb", "outcome"],
            registry=self._registry,
        )
        self._verbs = LabelCap(100)
        self._join_window = Gauge(
            "gatewayd_join_window_seconds",
            "For how long newcomers were last allowed to come in by themselves; 0 when they are not.",
            registry=self._registry,
        )
        self._node = _NodeMetrics(self._registry)
        self.track("gatewayd_devices_online", "Devices connected now.", devices_online)
        build = Gauge("gatewayd_build_info", "Version of gatewayd.", ["version"], registry=self._registry)
        build.labels(version).set(1)
        ProcessCollector(registry=self._registry)

    def track(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read at each scrape. `name` is `gatewayd_<noun>_<unit>`; `read` must return at once."""
        Gauge(name, documentation, registry=self._registry).set_function(read)

    def count_command(self, verb: str, outcome: str) -> None:
        """Count a command over MQTT; a verb that does not exist counts as `other`."""
        name = OTHER if outcome in {"not_found", "bad_request", "too_large"} else self._verbs.admit(verb)
        self._commands.labels(name, outcome).inc()

    def observe(self, event: GatewayEvent) -> None:  # noqa: C901, PLR0912 - one case for each kind of event
        """Count one event."""
        match event:
            case RequestServed():
                self._requests.served(event, self._models.admit(event.result.model))
            case RequestFailed():
                self._requests.failed(event, self._models.known(event.request.model.name))
            case PushMoved():
                self._pushes.moved(event.push)
            case ModelDropped():
                self._drops.labels(event.drop.state.value).inc()
            case InputRefused():
                self._refused.labels(self._edges.admit(event.where), event.code).inc()
            case ModelAdded():
                self._models.admit(event.model)
                self._models_added.inc()
            case AliasMoved():
                self._aliases_moved.inc()
            case VersionRetired():
                self._retirements.inc()
            case ArtifactsCollected():
                self._collected.inc(event.size_bytes)
            case DeviceChanged():
                self._device_changes.inc()
            case JoiningChanged():
                self._join_window.set(event.seconds)
            case WorkerEnded() | VariantQuarantined() | AcceleratorChanged():
                self._node.observe(event)
            case OrderAnswered() | OrderFailed() | OrderEnded():
                pass  # each of its requests is counted as a request
            case _:
                assert_never(event)

    def text(self) -> bytes:
        """Render everything in the Prometheus text format 0.0.4."""
        return generate_latest(self._registry)


class _PushMetrics:
    """How pushes end and what they send. Repeated announcements of one state count once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter("gatewayd_pushes_total", "Pushes that ended, by state.", ["state"], registry=registry)
        self._bytes = Counter("gatewayd_push_bytes_total", "Bytes of models sent to devices.", registry=registry)
        self._seen: OrderedDict[PushId, Push] = OrderedDict()

    def moved(self, push: Push) -> None:
        """Count what is new since the push was last seen; a push first seen after a restart counts from there."""
        before = self._seen.get(push.id, push)
        self._bytes.inc(max(0, push.offset - before.offset))
        if push.state.is_end and (before is push or not before.state.is_end):
            self._ended.labels(push.state.value).inc()
        self._seen[push.id] = push
        if len(self._seen) > MAX_PUSHES:
            self._seen.popitem(last=False)


class _NodeMetrics:
    """What happens to the node's own inference. Labels are engines of the config and kinds of accelerators: few."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._worker_deaths = Counter(
            "gatewayd_worker_deaths_total",
            "Worker processes that a model took down.",
            ["engine"],
            registry=registry,
        )
        self._quarantines = Counter(
            "gatewayd_variants_quarantined_total",
            "Variants put in quarantine for killing their worker twice in a row.",
            registry=registry,
        )
        self._accelerator_changes = Counter(
            "gatewayd_accelerator_changes_total",
            "Accelerators that came or went.",
            ["kind", "change"],
            registry=registry,
        )

    def observe(self, event: NodeEvent) -> None:
        """Count one event."""
        match event:
            case WorkerEnded():
                self._worker_deaths.labels(event.engine).inc()
            case VariantQuarantined():
                self._quarantines.inc()
            case AcceleratorChanged():
                self._accelerator_changes.labels(event.kind, "came" if event.present else "went").inc()
            case _:
                assert_never(event)
