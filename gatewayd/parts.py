"""Config to what each part takes: the composition root's translations. Values only, but for password and profile files."""

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gatewayd import __version__
from gatewayd.adapters.model_trial import TrialLimits
from gatewayd.adapters.mqtt_connection import MqttOptions
from gatewayd.adapters.worker_process import EngineSpec
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.config import Config
from gatewayd.core.device import Profile
from gatewayd.edges.mqtt_announcements import offline_message, online_message
from gatewayd.places import profiles_folder
from gatewayd.services.tracking import TrackingOptions
from gatewayd.wire.profiles import parse_profile
from gatewayd.wire.topics import Topics


def load_profiles(folder: Path | None) -> Mapping[str, Profile]:
    """Read every board profile of `folder` (None: those that come with gatewayd).

    Raises: BadRequest naming the file's mistake.
    """
    profiles = [parse_profile(path.read_text()) for path in sorted((folder or profiles_folder()).glob("*.yaml"))]
    return {profile.board: profile for profile in profiles}


def engine_specs(config: Config) -> list[EngineSpec]:
    """Return the engines named, or the first that the daemon's own interpreter has."""
    if config.engines:
        return [EngineSpec(each.name, str(each.python) if each.python else None) for each in config.engines]
    known = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
    return [EngineSpec(name, None) for name, module in known.items() if importlib.util.find_spec(module)][:1]


def worker_limits(config: Config) -> WorkerLimits:
    """Return what bounds inference on the node."""
    runtime = config.node_runtime
    return WorkerLimits(runtime.max_loaded, runtime.queue_limit, runtime.memory_limit_bytes or None)


def trial_limits(config: Config) -> TrialLimits:
    """Return what one admission may take."""
    runtime = config.node_runtime
    limits = replace(TrialLimits(), engine_s=runtime.trial_timeout_s)
    return replace(limits, memory_limit_bytes=runtime.memory_limit_bytes) if runtime.memory_limit_bytes else limits


def mqtt_options(config: Config, topics: Topics) -> MqttOptions:
    """Return where the broker is and what is said there at connect and when we vanish. Raises: OSError (password file)."""
    mqtt = config.mqtt
    password = mqtt.password_file.read_text().strip() if mqtt.password_file else None
    options = MqttOptions(
        host=mqtt.host,
        port=mqtt.port,
        version=mqtt.version,
        client_id=f"gatewayd-{config.node.name}",
        username=mqtt.username,
        password=password,
        keepalive_s=mqtt.keepalive_s,
        will=offline_message(topics),
        online=online_message(topics, version=__version__, since=time.time()),
    )
    if mqtt.tls is None:
        return options
    ca, certificate, key = (
        str(path) if path else None for path in (mqtt.tls.ca_file, mqtt.tls.cert_file, mqtt.tls.key_file)
    )
    return replace(options, tls=True, ca_file=ca, cert_file=certificate, key_file=key)


def tracking_options(config: Config) -> TrackingOptions:
    """Return who may join, how many, and how they are watched."""
    devices = config.devices
    return TrackingOptions(
        open_join=devices.join == "open",
        max_devices=devices.max_devices,
        ping_every_s=devices.ping_every_s,
        absent_after_s=devices.absent_after_s,
    )
