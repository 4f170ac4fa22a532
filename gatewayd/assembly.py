"""The services and how they hang together: the composition root's larger half. Nothing runs or listens here."""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from gatewayd import __version__
from gatewayd.adapters.accelerator_watch import AcceleratorWatch
from gatewayd.adapters.artifacts import Artifacts
from gatewayd.adapters.broker_reload import MosquittoReload
from gatewayd.adapters.checkpoint_file import CheckpointFile
from gatewayd.adapters.credentials import CredentialFiles, open_credentials
from gatewayd.adapters.decision_file import DecisionFile
from gatewayd.adapters.eager_loop import EagerLoop
from gatewayd.adapters.keys import Keys
from gatewayd.adapters.model_trial import ModelTrials
from gatewayd.adapters.opinion_file import OpinionFile
from gatewayd.adapters.reference_runs import EngineRuns
from gatewayd.adapters.store import Store
from gatewayd.adapters.workers import Workers
from gatewayd.api.services import Node, Requests, Services, Streams
from gatewayd.config import Config
from gatewayd.core.airtime import AirRules
from gatewayd.core.device import Born, DeviceEvent, Inferred, Lost, PushReport
from gatewayd.core.fit import Fitter
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.presets import RequestClass
from gatewayd.daemon_registry import RegistryParts, registry_parts
from gatewayd.parts import broker_address, doors, engine_specs, load_profiles, tracking_options, trial_limits
from gatewayd.services.candidates import Candidates
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.services.checkpoints import Book, Checkpoints
from gatewayd.services.decisions import Decisions
from gatewayd.services.desires import DesirePorts, Desires
from gatewayd.services.drop_ports import DropPorts
from gatewayd.services.dropping import Drops
from gatewayd.services.estimates import Estimates
from gatewayd.services.inference import Inference
from gatewayd.services.joining import Joining, JoiningPorts
from gatewayd.services.loading import Loading
from gatewayd.services.opinions import Opinions
from gatewayd.services.options import OptionFinder
from gatewayd.services.ports import DeviceLink, Notify
from gatewayd.services.preflight import Preflight
from gatewayd.services.push_ports import PushOptions, PushPorts
from gatewayd.services.pushes import Pushes
from gatewayd.services.renting import Renting
from gatewayd.services.running import Runner
from gatewayd.services.settling import Settling
from gatewayd.services.standing import OrderPorts, StandingOrders
from gatewayd.services.tracking import Tracking
from gatewayd.wire.mosquitto import SALT_BYTES, hash_for
from gatewayd.wire.tflite import read_model
from gatewayd.wire.topics import Topics


@dataclass(frozen=True, slots=True)
class Core:
    """The services, wired."""

    catalog: Catalog
    tracking: Tracking
    desires: Desires
    pushes: Pushes
    renting: Renting
    preflight: Preflight
    services: Services
    registry: RegistryParts
    orders: StandingOrders
    checkpoints: Checkpoints
    credentials: CredentialFiles
    classes: dict[str, RequestClass]
    opinions: Opinions
    drops: Drops

    async def load(self) -> None:
        """Read what was there before; once, before anything arrives."""
        await self.catalog.load()
        await self.tracking.load()
        await self.desires.load()
        await self.pushes.load()
        await self.drops.load()
        await self.orders.load()
        await self.registry.collecting.load()
        await self.checkpoints.load()
        await self.opinions.load()

    def device_event(self, event: DeviceEvent) -> None:
        """Take what a link saw: tracking first, so that pushes see the device's new report."""
        self.preflight.handle(event, self.pushes.live())
        match event:
            case Born() | Lost():
                self.tracking.handle(event)
                self.pushes.handle(event)
                if isinstance(event, Born):
                    self.registry.collecting.saw(event)
                    self.drops.handle(event)
            case PushReport():
                self.pushes.handle(event)
            case Inferred():
                self.orders.heard(event)
            case _:
                assert_never(event)


@dataclass(frozen=True, slots=True)
class Means:
    """What the services are wired to: the outside, already open."""

    store: Store
    artifacts: Artifacts
    workers: Workers
    keys: Keys
    watch: AcceleratorWatch
    notify: Notify
    is_connected: Callable[[], bool]
    link_of: Callable[[DeviceId], DeviceLink]
    log: DecisionFile | None = None


def assemble(config: Config, means: Means) -> Core:
    """Make the services and wire them."""
    estimates = Estimates(time.monotonic)
    catalog = _catalog(config, means)
    tracking = _tracking(config, means, estimates)
    desires = _desires(config, means, tracking)
    preflight = Preflight(catalog=catalog, tracking=tracking)
    pushes = _pushes(
        config, means, catalog=catalog, tracking=tracking, estimates=estimates, desires=desires, fitter=preflight.fit
    )
    ports = DropPorts(means.store, means.link_of, means.notify, time.time)
    drops = Drops(ports, tracking=tracking, pushes=pushes, desires=desires)
    renting = _renting(config, drops, pushes, estimates, preflight, ordered=lambda device: orders.wanted_on(device))  # noqa: PLW0108 - they are made later
    classes = config.requests.settings
    decisions = Decisions(config.requests.decisions_kept, log=None if means.log is None else means.log.keep)
    settling = Settling(_meanwhile)
    runner = Runner(
        runtime=means.workers, link_of=means.link_of, tracking=tracking, estimates=estimates, settling=settling
    )
    opinions = _opinions(config, means, catalog, runner, estimates)
    inference = Inference(
        catalog=catalog,
        finder=_finder(means, classes, tracking=tracking, estimates=estimates, preflight=preflight),
        runner=runner,
        decisions=decisions,
        notify=means.notify,
        clock=time.monotonic,
        on_served=renting.served,
        opinions=opinions,
        settling=settling,
    )
    registry = registry_parts(
        config, means.store, means.artifacts, catalog=catalog, tracking=tracking, pushes=pushes, notify=means.notify
    )
    requests = _requests(config)
    orders = StandingOrders(_order_ports(means, inference, catalog, tracking, requests))
    credentials = _credentials(config)
    issuing = _joining_ports(config, means, credentials)
    joining = Joining(
        issuing,
        tracking=tracking,
        desires=desires,
        pushes=pushes,
        collecting=registry.collecting,
        renting=renting,
        orders=orders,
    )
    requested = (inference, catalog, Loading(catalog, means.workers), tracking, pushes, decisions, requests)
    first = (*requested, _node(config, means), means.keys, preflight)
    streams, broker = _streams(config, orders), broker_address(config)
    models = (registry.collecting, registry.uploads, registry.fetching, registry.building)
    services = Services(*first, *models, streams, joining, opinions, drops, broker, doors(config))
    store = CheckpointFile(config.node.data_dir / "estimates.checkpoint")
    checkpoints = Checkpoints(estimates=estimates, store=store, book=Book(renting, tracking, time.monotonic, time.time))
    asked = (catalog, tracking, desires, pushes, renting, preflight, services, registry, orders)
    return Core(*asked, checkpoints, credentials, classes, opinions, drops)


def _meanwhile(settle: Callable[[], None]) -> None:
    """What an answer teaches is entered when it has left; a loop that waits awake does it meanwhile."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, EagerLoop):
        loop.call_meanwhile(settle)
    else:
        loop.call_soon(settle)


def _pushes(
    config: Config,
    means: Means,
    *,
    catalog: Catalog,
    tracking: Tracking,
    estimates: Estimates,
    desires: Desires,
    fitter: Fitter,
) -> Pushes:
    return Pushes(
        PushPorts(means.store, means.artifacts, means.keys, means.link_of, means.notify, time.monotonic, time.time),
        catalog=catalog,
        tracking=tracking,
        estimates=estimates,
        desires=desires,
        options=PushOptions(
            config.pushes.limits, config.pushes.max_concurrent, AirRules(config.pushes.air_share), fitter
        ),
    )


def _finder(
    means: Means, classes: dict[str, RequestClass], *, tracking: Tracking, estimates: Estimates, preflight: Preflight
) -> OptionFinder:
    return OptionFinder(
        estimates=estimates,
        runtime=means.workers,
        classes=classes,
        candidates=Candidates(tracking=tracking, estimates=estimates, fitter=preflight.fit),
    )


def _opinions(config: Config, means: Means, catalog: Catalog, runner: Runner, estimates: Estimates) -> Opinions:
    store = OpinionFile(config.node.data_dir / "second-opinions.json")
    return Opinions(catalog=catalog, runner=runner, runtime=means.workers, estimates=estimates, store=store)


def _renting(
    config: Config,
    drops: Drops,
    pushes: Pushes,
    estimates: Estimates,
    preflight: Preflight,
    *,
    ordered: Callable[[DeviceId], frozenset[ModelName]],
) -> Renting:
    return Renting(
        pushes=pushes,
        estimates=estimates,
        clock=time.monotonic,
        wall_clock=time.time,
        fitter=preflight.fit,
        rules=config.placement.rules,
        ordered=ordered,
        is_unwanted=drops.is_unwanted,
    )


def _catalog(config: Config, means: Means) -> Catalog:
    trials = ModelTrials(means.artifacts.path, engine_specs(config), limits=trial_limits(config))
    references = EngineRuns(means.artifacts.path, engine_specs(config))
    return Catalog(
        CatalogPorts(
            means.store, means.artifacts, read_model, trials, means.notify, time.time, means.workers, references
        )
    )


def _credentials(config: Config) -> CredentialFiles:
    folder = config.joining.folder or config.node.data_dir / "credentials"
    return open_credentials(folder, Topics(config.mqtt.prefix, config.node.name))


def _joining_ports(config: Config, means: Means, credentials: CredentialFiles) -> JoiningPorts:
    return JoiningPorts(
        credentials,
        secrets.token_bytes,
        lambda user, password: hash_for(user, password, secrets.token_bytes(SALT_BYTES)),
        MosquittoReload(config.joining.mosquitto_pid_file),
        means.link_of,
        means.notify,
        time.time,
    )


def _desires(config: Config, means: Means, tracking: Tracking) -> Desires:
    ports = DesirePorts(means.store, means.notify, time.monotonic, time.time, random.random)
    return Desires(ports, tracking=tracking, retry=config.pushes.retry)


def _tracking(config: Config, means: Means, estimates: Estimates) -> Tracking:
    return Tracking(
        store=means.store,
        estimates=estimates,
        profiles=load_profiles(config.devices.profiles_dir),
        options=tracking_options(config),
        notify=means.notify,
        clock=time.monotonic,
        wall_clock=time.time,
    )


def _requests(config: Config) -> Requests:
    return Requests(
        time.monotonic,
        _request_ids(),
        config.requests.default_deadline_ms / 1000,
        config.requests.max_deadline_ms / 1000,
    )


def _order_ports(
    means: Means, inference: Inference, catalog: Catalog, tracking: Tracking, requests: Requests
) -> OrderPorts:
    clocks = (time.monotonic, time.time)
    return OrderPorts(means.store, inference, catalog, tracking, means.notify, *clocks, requests.new_id)


def _streams(config: Config, orders: StandingOrders) -> Streams:
    topics = Topics(config.mqtt.prefix, config.node.name)
    return Streams(orders, time.time, partial(topics.check_reply, allowed=config.mqtt.reply_prefixes), topics.stream)


def _request_ids() -> Callable[[], str]:
    """Return a source of names: 8 random hex digits of this run, then a count. A random name each would cost a system call."""
    run, count = secrets.token_hex(4), itertools.count(1)
    return lambda: f"{run}{next(count):08x}"


def _node(config: Config, means: Means) -> Node:
    return Node(
        config.node.name,
        __version__,
        time.monotonic(),
        time.monotonic,
        means.is_connected,
        means.workers,
        lambda: means.watch.found,
    )
