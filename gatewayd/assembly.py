"""The composition root's wiring of the services: what each is given, and who hears of what a device says."""

import random
import secrets
import time
from dataclasses import dataclass
from typing import assert_never

from gatewayd import __version__
from gatewayd.adapters.artifacts import Artifacts
from gatewayd.adapters.keys import Keys
from gatewayd.adapters.model_trial import ModelTrials
from gatewayd.adapters.mqtt_connection import MqttConnection
from gatewayd.adapters.reference_runs import EngineRuns
from gatewayd.adapters.store import Store
from gatewayd.adapters.workers import Workers
from gatewayd.api.services import Node, Requests, Services
from gatewayd.config import Config
from gatewayd.core.airtime import AirRules
from gatewayd.core.device import Born, DeviceEvent, Lost, PushReport
from gatewayd.core.names import DeviceId
from gatewayd.daemon_registry import RegistryParts, registry_parts
from gatewayd.parts import engine_specs, load_profiles, tracking_options, trial_limits
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.services.decisions import Decisions
from gatewayd.services.desires import DesirePorts, Desires
from gatewayd.services.estimates import Estimates
from gatewayd.services.inference import Inference
from gatewayd.services.options import OptionFinder
from gatewayd.services.ports import DeviceLink, Notify
from gatewayd.services.preflight import Preflight
from gatewayd.services.pushes import Pushes, PushOptions, PushPorts
from gatewayd.services.renting import Renting
from gatewayd.services.running import Runner
from gatewayd.services.tracking import Tracking
from gatewayd.wire.tflite import read_model


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

    def device_event(self, event: DeviceEvent) -> None:
        """Take what a link saw: tracking first, so that pushes see the device's new report."""
        self.preflight.handle(event, self.pushes.live())
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


def assemble(
    config: Config,
    store: Store,
    artifacts: Artifacts,
    workers: Workers,
    events: Notify,
    connection: MqttConnection,
    links: list[DeviceLink],
    keys: Keys,
) -> Core:
    """Wire the services; links are put into `links` when they are made, as they announce to the services."""

    def link_of(_: DeviceId) -> DeviceLink:
        return links[0]

    estimates = Estimates()
    catalog = _catalog(config, store, artifacts, events)
    tracking = _tracking(config, store, estimates, events)
    desires = Desires(
        DesirePorts(store, events, time.monotonic, time.time, random.random),
        tracking=tracking,
        retry=config.pushes.retry,
    )
    preflight = Preflight(catalog=catalog, tracking=tracking)
    pushes = Pushes(
        PushPorts(store, artifacts, keys, link_of, events, time.monotonic, time.time),
        catalog=catalog,
        tracking=tracking,
        estimates=estimates,
        desires=desires,
        options=PushOptions(
            config.pushes.limits, config.pushes.max_concurrent, AirRules(config.pushes.air_share), preflight.fit
        ),
    )
    renting = Renting(pushes=pushes, estimates=estimates, clock=time.monotonic, fitter=preflight.fit)
    decisions = Decisions(config.requests.decisions_kept)
    inference = Inference(
        catalog=catalog,
        finder=OptionFinder(
            tracking=tracking,
            estimates=estimates,
            runtime=workers,
            classes=config.requests.weights,
            fitter=preflight.fit,
        ),
        runner=Runner(runtime=workers, link_of=link_of, tracking=tracking, estimates=estimates),
        decisions=decisions,
        notify=events,
        clock=time.monotonic,
        on_served=renting.served,
    )
    node = Node(config.node.name, __version__, time.monotonic(), time.monotonic, lambda: connection.connected)
    registry = registry_parts(
        config, store, artifacts, catalog=catalog, tracking=tracking, pushes=pushes, notify=events
    )
    services = Services(
        inference, catalog, tracking, pushes, decisions, _requests(config), node, keys, preflight,
        registry.collecting, registry.uploads, registry.fetching, registry.building,
    )  # fmt: skip
    return Core(catalog, tracking, desires, pushes, renting, preflight, services, registry)


def _catalog(config: Config, store: Store, artifacts: Artifacts, events: Notify) -> Catalog:
    trials = ModelTrials(artifacts.path, engine_specs(config), limits=trial_limits(config))
    references = EngineRuns(artifacts.path, engine_specs(config))
    return Catalog(CatalogPorts(store, artifacts, read_model, trials, events, time.time, references))


def _tracking(config: Config, store: Store, estimates: Estimates, events: Notify) -> Tracking:
    return Tracking(
        store=store,
        estimates=estimates,
        profiles=load_profiles(config.devices.profiles_dir),
        options=tracking_options(config),
        notify=events,
        clock=time.monotonic,
        wall_clock=time.time,
    )


def _requests(config: Config) -> Requests:
    return Requests(
        time.monotonic,
        lambda: secrets.token_hex(8),
        config.requests.default_deadline_ms / 1000,
        config.requests.max_deadline_ms / 1000,
    )
