"""The composition root: the only file that sees everything. It builds the parts, runs their loops in one TaskGroup, ends them.

A loop that raises is a broken infrastructure part: the process logs it, closes the rest and exits with 1, and systemd
starts it anew. SIGTERM and SIGINT drain: no new work is taken, what runs is answered, and the exit code is 0.
"""

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import assert_never

from gatewayd import __version__
from gatewayd.adapters import systemd
from gatewayd.adapters.artifacts import Artifacts, open_artifacts
from gatewayd.adapters.embedded_broker import EmbeddedBroker, embedded_broker
from gatewayd.adapters.folder_lock import only_user_of
from gatewayd.adapters.keys import Keys, open_keys
from gatewayd.adapters.logs import configure_logging, log_event
from gatewayd.adapters.metrics import Metrics
from gatewayd.adapters.model_trial import ModelTrials
from gatewayd.adapters.mqtt_connection import MqttConnection
from gatewayd.adapters.reference_runs import EngineRuns
from gatewayd.adapters.store import Store, open_store
from gatewayd.adapters.workers import Workers
from gatewayd.api.services import Node, Requests, Services
from gatewayd.api.table import Api
from gatewayd.api.verb import Caller, Role
from gatewayd.config import Config
from gatewayd.core.device import Born, DeviceEvent, Lost, PushReport
from gatewayd.core.errors import GatewayError
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.core.names import DeviceId
from gatewayd.daemon_registry import RegistryParts, registry_parts
from gatewayd.edges import mqtt as mqtt_edge
from gatewayd.edges.coap import serve_coap
from gatewayd.edges.http import serve_http
from gatewayd.edges.mqtt import MqttEdge
from gatewayd.links.mqtt import MqttDeviceLink
from gatewayd.parts import engine_specs, load_profiles, mqtt_options, tracking_options, trial_limits, worker_limits
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.services.decisions import Decisions
from gatewayd.services.estimates import Estimates
from gatewayd.services.inference import Inference
from gatewayd.services.options import OptionFinder
from gatewayd.services.ports import DeviceLink
from gatewayd.services.pushes import Pushes, PushPorts
from gatewayd.services.renting import Renting
from gatewayd.services.running import Runner
from gatewayd.services.tracking import Tracking
from gatewayd.wire.tflite import read_model
from gatewayd.wire.topics import Topics

logger = logging.getLogger(__name__)

# systemd's default TimeoutStopSec is 90 s; what does not end in this time is cancelled.
DRAIN_S = 10.0


def run(config: Config) -> int:
    """Run the daemon until it is told to stop. Returns the exit code: 0 stopped, 1 a part failed."""
    configure_logging(config.log.level)
    try:
        asyncio.run(_serve(config))
    except (GatewayError, OSError) as error:
        logger.critical("cannot start: %s", error)
        return 1
    except Exception:  # the last edge: what ends the process is told with its traceback
        logger.critical("stopping because a part failed", exc_info=True)
        return 1
    return 0


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        daemon = await _build(config, stack)
        await daemon.live(stop)


@dataclass(slots=True)
class _Events:
    """Hands each event to the metrics and to the MQTT edge, which is made after those that announce."""

    metrics: Metrics
    edge: MqttEdge | None = None
    is_draining: bool = False

    def is_serving(self) -> bool:
        """Tell whether requests are taken: from the end of start-up to the begin of the end."""
        return self.edge is not None and not self.is_draining

    def __call__(self, event: GatewayEvent) -> None:
        log_event(event)
        self.metrics.observe(event)
        if self.edge is not None:
            self.edge.publish_event(event)

    def refused(self, where: str, code: str, message: str) -> None:
        """Count something malformed from outside."""
        self(InputRefused(where, code, message))


@dataclass(frozen=True, slots=True)
class _Core:
    """The services, wired."""

    catalog: Catalog
    tracking: Tracking
    pushes: Pushes
    renting: Renting
    services: Services
    registry: RegistryParts

    def device_event(self, event: DeviceEvent) -> None:
        """Take what a link saw: tracking first, so that pushes see the device's new report."""
        match event:
            case Born() | Lost():
                self.tracking.handle(event)
                self.pushes.handle(event)
                if isinstance(event, Born):
                    self.registry.collecting.saw(event)
            case PushReport():
                self.pushes.handle(event)
            case _:
                assert_never(event)


@dataclass(frozen=True, slots=True)
class _Daemon:
    """The running parts."""

    config: Config
    core: _Core
    connection: MqttConnection
    edge: MqttEdge
    link: MqttDeviceLink
    events: _Events
    http_port: int
    broker: EmbeddedBroker | None

    async def live(self, stop: asyncio.Event) -> None:
        """Run every loop until `stop`, then drain. Raises: what a loop raised."""
        async with asyncio.TaskGroup() as tasks:
            edge = tasks.create_task(self.edge.run(), name="mqtt edge")
            loops: dict[str, Coroutine[object, object, None]] = {
                "mqtt connection": self.connection.run(),
                "tracking": self.core.tracking.run(self.link),
                "pushes": self.core.pushes.run(),
                "watchdog": _watchdog(),
                **self.core.registry.loops(),
            }
            if self.config.pushes.automatic:
                loops["renting"] = self.core.renting.run()
            if self.broker is not None:
                loops["embedded broker"] = self.broker.keep()
            running = [tasks.create_task(loop, name=name) for name, loop in loops.items()]
            _settle()
            systemd.notify("READY=1", f"STATUS=serving on http port {self.http_port}")
            logger.info("ready node=%s version=%s http_port=%d", self.config.node.name, __version__, self.http_port)
            await stop.wait()
            systemd.notify("STOPPING=1")
            logger.info("stopping")
            await self._drain(edge)
            for task in running:
                task.cancel()

    async def _drain(self, edge: asyncio.Task[None]) -> None:
        self.events.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self.edge.drain()
        edge.cancel()


async def _build(config: Config, stack: AsyncExitStack) -> _Daemon:
    data_dir = config.node.data_dir
    data_dir.mkdir(parents=True, exist_ok=True)
    stack.enter_context(only_user_of(data_dir))
    store = await stack.enter_async_context(open_store(data_dir / "gatewayd.sqlite"))
    artifacts = await stack.enter_async_context(
        open_artifacts(data_dir / "artifacts", max_bytes=config.limits.max_model_bytes)
    )
    config, broker = await _with_broker(config, stack)
    trackers: list[Tracking] = []
    events = _Events(Metrics(version=__version__, devices_online=lambda: sum(each.online_count() for each in trackers)))
    topics = Topics(config.mqtt.prefix, config.node.name)
    connection = MqttConnection(mqtt_options(config, topics), on_refused=events.refused)
    links: list[DeviceLink] = []
    workers = await stack.enter_async_context(
        Workers(artifacts.path, engine_specs(config), clock=time.monotonic, limits=worker_limits(config))
    )
    keys = open_keys(data_dir / "keys")
    core = _core(config, store, artifacts, workers, events, connection, links, keys)
    trackers.append(core.tracking)
    link = MqttDeviceLink(
        connection, topics, on_event=core.device_event, on_refused=events.refused, clock=time.monotonic
    )
    links.append(link)
    await core.catalog.load()
    await core.tracking.load()
    await core.registry.collecting.load()
    api = Api(core.services)
    edge = MqttEdge(
        api,
        connection,
        topics,
        # Who may publish commands is the broker's business (its ACL): it does not tell who did.
        caller=Caller("mqtt", Role.ADMIN),
        reply_prefixes=config.mqtt.reply_prefixes,
        on_refused=events.refused,
        limits=mqtt_edge.Limits(max_payload_bytes=config.mqtt.max_payload_bytes),
    )
    events.edge = edge
    http_port = await _open_edges(config, api, events, stack)
    return _Daemon(config, core, connection, edge, link, events, http_port, broker)


async def _open_edges(config: Config, api: Api, events: _Events, stack: AsyncExitStack) -> int:
    if config.coap.enabled:
        coap = serve_coap(
            api,
            host=config.coap.host,
            port=config.coap.port,
            max_payload_bytes=config.coap.max_payload_bytes,
            notify=events,
        )
        await stack.enter_async_context(coap)
    http = serve_http(
        api,
        host=config.http.host,
        port=config.http.port,
        max_body_bytes=config.http.max_body_bytes,
        metrics_text=events.metrics.text,
        ready=events.is_serving,
        notify=events,
    )
    port: int = await stack.enter_async_context(http)
    return port


def _core(
    config: Config,
    store: Store,
    artifacts: Artifacts,
    workers: Workers,
    events: _Events,
    connection: MqttConnection,
    links: list[DeviceLink],
    keys: Keys,
) -> _Core:
    def link_of(_: DeviceId) -> DeviceLink:
        return links[0]

    estimates = Estimates()
    trials = ModelTrials(artifacts.path, engine_specs(config), limits=trial_limits(config))
    references = EngineRuns(artifacts.path, engine_specs(config))
    catalog = Catalog(CatalogPorts(store, artifacts, read_model, trials, events, time.time, references))
    tracking = Tracking(
        store=store,
        estimates=estimates,
        profiles=load_profiles(config.devices.profiles_dir),
        options=tracking_options(config),
        notify=events,
        clock=time.monotonic,
        wall_clock=time.time,
    )
    pushes = Pushes(
        PushPorts(store, artifacts, keys, link_of, events, time.monotonic),
        catalog=catalog,
        tracking=tracking,
        estimates=estimates,
        limits=config.pushes.limits,
        max_concurrent=config.pushes.max_concurrent,
    )
    renting = Renting(pushes=pushes, estimates=estimates, clock=time.monotonic)
    decisions = Decisions(config.requests.decisions_kept)
    inference = Inference(
        catalog=catalog,
        finder=OptionFinder(tracking=tracking, estimates=estimates, runtime=workers, classes=config.requests.weights),
        runner=Runner(runtime=workers, link_of=link_of, tracking=tracking, estimates=estimates),
        decisions=decisions,
        notify=events,
        clock=time.monotonic,
        on_served=renting.served,
    )
    requests = Requests(
        time.monotonic,
        lambda: secrets.token_hex(8),
        config.requests.default_deadline_ms / 1000,
        config.requests.max_deadline_ms / 1000,
    )
    node = Node(config.node.name, __version__, time.monotonic(), time.monotonic, lambda: connection.connected)
    registry = registry_parts(
        config, store, artifacts, catalog=catalog, tracking=tracking, pushes=pushes, notify=events
    )
    services = Services(
        inference, catalog, tracking, pushes, decisions, requests, node, keys,
        registry.collecting, registry.uploads, registry.fetching, registry.building,
    )  # fmt: skip
    return _Core(catalog, tracking, pushes, renting, services, registry)


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


def _settle() -> None:
    """Take what start-up made out of the garbage collector's sight: without it a collection walks all of it, over and over."""
    gc.collect()
    gc.freeze()


async def _watchdog() -> None:
    """Tell systemd that the loop turns, twice per interval; without a watchdog there is nothing to do."""
    interval_s = systemd.watchdog_interval_s(os.environ)
    while interval_s is not None:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(interval_s / 2)
