"""The composition root: the only file that sees everything. It builds the parts, runs their loops in one TaskGroup, ends them.

A loop that raises is a broken infrastructure part: the process logs it, closes the rest and exits with 1, and systemd
starts it anew. SIGTERM and SIGINT drain: no new work is taken, what runs is answered, and the exit code is 0.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gatewayd import __version__, frugal
from gatewayd.adapters import systemd
from gatewayd.adapters.accelerator_watch import AcceleratorWatch
from gatewayd.adapters.artifacts import open_artifacts
from gatewayd.adapters.decision_file import DecisionFile
from gatewayd.adapters.eager_loop import EagerLoop
from gatewayd.adapters.embedded_broker import EmbeddedBroker, embedded_broker
from gatewayd.adapters.folder_lock import only_user_of
from gatewayd.adapters.keys import open_keys
from gatewayd.adapters.logs import configure_logging, fields, log_event
from gatewayd.adapters.mdns import advertise, check_available
from gatewayd.adapters.metrics import Metrics
from gatewayd.adapters.store import Store, open_store
from gatewayd.adapters.workers import Workers
from gatewayd.api.table import Api
from gatewayd.assembly import Core, Means, assemble
from gatewayd.config import Config
from gatewayd.core.device import LinkKind
from gatewayd.core.errors import GatewayError
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.core.record import record
from gatewayd.daemon_lwm2m import Links, Lwm2m, Telling, lwm2m_parts, open_coap
from gatewayd.daemon_mqtt import MqttEdges, Wires, mqtt_edges, mqtt_wires
from gatewayd.edges.http_events import EventStreams
from gatewayd.edges.http_server import HttpTimeouts, serve_http
from gatewayd.edges.mqtt import MqttEdge
from gatewayd.edges.rates import TOLD_PER_S, Rates
from gatewayd.links.mqtt import MqttDeviceLink
from gatewayd.parts import announced, decision_file, engine_specs, http_listen, kept_commands, worker_limits
from gatewayd.reloading import Reload
from gatewayd.services.tracking import Tracking
from gatewayd.startup import listening, made_folder

logger = logging.getLogger(__name__)

# systemd's default TimeoutStopSec is 90 s; what does not end in this time is cancelled.
DRAIN_S = 10.0


def run(config: Config, path: Path | None = None) -> int:
    """Run the daemon until it is told to stop. Returns the exit code: 0 stopped, 1 a part failed.

    SIGHUP reads the config again from `path`; None: there is nothing to read.
    """
    configure_logging(config.log.level)
    try:
        with asyncio.Runner(loop_factory=EagerLoop) as runner:
            runner.run(_serve(config, path))
    except (GatewayError, OSError) as error:
        logger.critical("cannot start: %s", error)
        return 1
    except ExceptionGroup as group:
        _tell_end(group)
        return 1
    except Exception:  # the last edge: what ends the process is told with its traceback
        logger.critical("stopping because a part failed", exc_info=True)
        return 1
    return 0


def _tell_end(group: ExceptionGroup) -> None:
    """Log why loops ended: an error raised on purpose says it all itself, anything else needs its traceback."""
    expected, unexpected = group.split(GatewayError)
    if unexpected is not None:
        logger.critical("stopping because a part failed", exc_info=group)
    elif expected is not None:
        logger.critical("stopping because a part failed: %s", "; ".join(map(str, _leaves(expected))))


def _leaves(group: ExceptionGroup[GatewayError]) -> Iterator[GatewayError]:
    for each in group.exceptions:
        if isinstance(each, ExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


async def _serve(config: Config, path: Path | None) -> None:
    stop, reload = asyncio.Event(), Reload(config, path)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.ask)
    if config.mdns.enabled:
        check_available()
    async with AsyncExitStack() as stack:
        daemon = await _build(config, reload, stack)
        await daemon.live(stop)


@dataclass(slots=True)
class _Events:
    """Hands each event to the metrics and to the MQTT edge, which is made after those that announce."""

    metrics: Metrics
    streams: EventStreams = field(default_factory=EventStreams)
    edge: MqttEdge | None = None
    is_draining: bool = False
    told: Rates = field(default_factory=lambda: Rates(TOLD_PER_S, time.monotonic))

    def is_serving(self) -> bool:
        """Tell whether requests are taken: from the end of start-up to the begin of the end."""
        return self.edge is not None and not self.is_draining

    def __call__(self, event: GatewayEvent) -> None:
        """Tell everybody."""
        log_event(event)
        self.metrics.observe(event)
        self.streams.publish(event)
        if self.edge is not None:
            self.edge.publish_event(event)

    def refused(self, where: str, code: str, message: str) -> None:
        """Count something malformed from outside; tell it a few times a second for each place: a flood must not fill a disk."""
        tell = self if self.told.take(where) else self.metrics.observe
        tell(InputRefused(where, code, message))


@record
class _Daemon:
    """The running parts."""

    config: Config
    reload: Reload
    core: Core
    wires: Wires
    edges: MqttEdges
    links: Links
    lwm2m: Lwm2m | None
    events: _Events
    ports: dict[str, int]
    broker: EmbeddedBroker | None
    watch: AcceleratorWatch
    log: DecisionFile | None

    async def live(self, stop: asyncio.Event) -> None:
        """Run every loop until `stop`, then drain. Raises: what a loop raised."""
        async with asyncio.TaskGroup() as tasks:
            edges = [tasks.create_task(loop, name=name) for name, loop in self.edges.loops().items()]
            loops: dict[str, Coroutine[object, object, None]] = {
                **self.wires.loops(),
                "tracking": self.core.tracking.run(self.links),
                "pushes": self.core.pushes.run(),
                "drops": self.core.drops.run(),
                "standing orders": self.core.orders.run(),
                "watchdog": _watchdog(),
                "reloading": self.reload.run(self.core),
                "checkpoints": self.core.checkpoints.run(),
                "preloading": self.core.catalog.preload_stable(self.config.node_runtime.max_loaded),
                **self.core.registry.loops(),
            }
            if self.config.accelerators.enabled:
                loops["accelerators"] = self.watch.run()
            if self.config.mdns.enabled:
                host, addresses = socket.gethostname(), self.config.mdns.addresses
                loops["mdns"] = advertise(announced(self.config, self.ports), host=host, addresses=addresses)
            if self.config.pushes.automatic:
                loops["renting"] = self.core.renting.run()
            if (log := self.log) is not None:
                self.events.metrics.track("gatewayd_decisions_left_out", "Not logged.", lambda: log.left_out)
                loops["decision log"] = log.run()
            if self.lwm2m is not None:
                loops["lwm2m"] = self.lwm2m.link.run()
            if self.broker is not None:
                loops["embedded broker"] = self.broker.keep()
            running = [tasks.create_task(loop, name=name) for name, loop in loops.items()]
            frugal.settle()
            systemd.notify("READY=1", f"STATUS=serving on http port {self.ports['http_port']}")
            logger.info("ready", extra=fields(node=self.config.node.name, version=__version__, **self._listeners()))
            await stop.wait()
            systemd.notify("STOPPING=1")
            logger.info("stopping")
            await self._drain(edges)
            self.core.services.inference.settle()
            await self.core.checkpoints.save()
            if self.log is not None:
                await self.log.flush()
            for task in running:
                task.cancel()

    def _listeners(self) -> dict[str, int]:
        mqtt = {} if self.broker is None else {"mqtt_port": self.broker.port, "mqtt_v5_port": self.broker.port_v5}
        return {**self.ports, **mqtt}

    async def _drain(self, edges: list[asyncio.Task[None]]) -> None:
        self.events.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self.edges.drain()
        for edge in edges:
            edge.cancel()


async def _build(config: Config, reload: Reload, stack: AsyncExitStack) -> _Daemon:
    data_dir = made_folder(config.node.data_dir, option="node.data_dir")
    stack.enter_context(only_user_of(data_dir))
    store = await stack.enter_async_context(open_store(data_dir / "gatewayd.sqlite", keep=kept_commands(config)))
    artifacts = await stack.enter_async_context(
        open_artifacts(data_dir / "artifacts", max_bytes=config.limits.max_model_bytes)
    )
    config, broker = await _with_broker(config, stack)
    trackers: list[Tracking] = []
    events = _Events(Metrics(version=__version__, devices_online=lambda: sum(each.online_count() for each in trackers)))
    wires = mqtt_wires(config, on_refused=events.refused)
    links = Links()
    specs, limits = engine_specs(config), worker_limits(config)
    workers = await stack.enter_async_context(
        Workers(artifacts.path, specs, clock=time.monotonic, limits=limits, announce=events)
    )
    keys = open_keys(data_dir / "keys")
    watch = AcceleratorWatch(
        specs,
        root=config.accelerators.root or Path("/"),
        scan_every_s=config.accelerators.scan_every_s,
        set_gone=workers.set_gone,
        announce=events,
    )
    log = decision_file(config)
    means = Means(store, artifacts, workers, keys, watch, events, wires.are_up, links.of, log)
    core = assemble(config, means)
    trackers.append(core.tracking)
    links.kind_of = core.tracking.link_kind
    link = MqttDeviceLink(
        wires.plain, wires.topics, on_event=core.device_event, on_refused=events.refused, clock=time.monotonic
    )
    links.of_kind[LinkKind.MQTT] = link
    telling = Telling(events, events.metrics.observe)
    lwm2m = _lwm2m(config, store, core, links, telling)
    if lwm2m is not None:
        for name, (text, read) in lwm2m.gauges().items():
            events.metrics.track(name, text, read)
    await core.load()
    api = Api(core.services)
    edges = mqtt_edges(
        config,
        api,
        store,
        wires,
        on_refused=events.refused,
        on_answered=events.metrics.count_command,
        rouse=workers.rouse,
    )
    events.edge = edges.plain
    ports = await open_coap(config, api, lwm2m, telling=telling, stack=stack)
    ports |= await _open_http(config, api, events, reload, stack, rouse=workers.rouse)
    return _Daemon(config, reload, core, wires, edges, links, lwm2m, events, ports, broker, watch, log)


def _lwm2m(config: Config, store: Store, core: Core, links: Links, telling: Telling) -> Lwm2m | None:
    if not config.lwm2m.enabled:
        return None
    made = lwm2m_parts(config, store, core, telling=telling, guard=_guarded)
    links.of_kind[LinkKind.LWM2M] = made.link
    return made


async def _guarded(work: Coroutine[object, object, None], failed: Callable[[Exception], None]) -> None:
    """Run a task of one device: a mistake in it is handed on, and ends nobody else's."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - handed on, and logged there with its traceback
        failed(error)


async def _open_http(
    config: Config,
    api: Api,
    events: _Events,
    reload: Reload,
    stack: AsyncExitStack,
    *,
    rouse: Callable[[], object],
) -> dict[str, int]:
    """Start listening; return the port by what the ready line calls it."""
    http = config.http
    events.metrics.track(
        "gatewayd_config_reload_success", "Whether the last reload of the config was taken over.", reload.is_good
    )
    server = serve_http(
        api,
        http_listen(config),
        max_body_bytes=config.http.max_body_bytes,
        metrics_text=partial(_metrics_text, api, events.metrics),
        ready=events.is_serving,
        guard=reload.guard,
        events=events.streams,
        notify=events,
        timeouts=HttpTimeouts(head_s=config.http.idle_s, body_s=config.http.body_s),
        rouse=rouse,
    )
    return {"http_port": await listening(stack, server, section="http", host=http.host, port=http.port)}


async def _with_broker(config: Config, stack: AsyncExitStack) -> tuple[Config, EmbeddedBroker | None]:
    """Bring up the embedded broker, if configured, and point the connection at it."""
    wanted = config.mqtt.embedded
    if not wanted.enabled:
        return config, None
    broker = await stack.enter_async_context(
        embedded_broker(port=wanted.port, port_v5=wanted.port_v5, state_dir=config.node.data_dir / "broker")
    )
    mqtt = config.mqtt.model_copy(update={"host": "127.0.0.1", "port": broker.port_v5})
    return config.model_copy(update={"mqtt": mqtt}), broker


def _metrics_text(api: Api, metrics: Metrics) -> bytes:
    """Return the metrics, the last answer counted."""
    api.settle()
    return metrics.text()


async def _watchdog() -> None:
    """Tell systemd that the loop turns, twice per interval; without a watchdog there is nothing to do."""
    interval_s = systemd.watchdog_interval_s(os.environ)
    while interval_s is not None:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(interval_s / 2)
