"""Config to what each part takes: the composition root's translations. Values only, but for password and profile files."""

import importlib.util
import resource
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gatewayd import __version__
from gatewayd.adapters.decision_file import DecisionFile, DecisionFileOptions
from gatewayd.adapters.eager_loop import has_another_processor
from gatewayd.adapters.mdns import Service
from gatewayd.adapters.model_trial import TrialLimits
from gatewayd.adapters.mqtt_connection import MqttOptions, Timing
from gatewayd.adapters.store_commands import Keep
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.api.doors import Doors
from gatewayd.api.services import Broker
from gatewayd.config import Config, Engine
from gatewayd.config.http import is_loopback
from gatewayd.core.device import Profile
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import BadRequest
from gatewayd.edges.http_guard import Guard
from gatewayd.edges.http_server import HttpListen, tls_context
from gatewayd.edges.mqtt_announcements import offline_message, online_message
from gatewayd.listeners import udp_address
from gatewayd.places import profiles_folder
from gatewayd.services.tracking import TrackingOptions
from gatewayd.startup import certificates_in, first_line, whole_text
from gatewayd.wire.access_tokens import AccessToken, parse_tokens
from gatewayd.wire.profiles import parse_profile
from gatewayd.wire.topics import Topics

MQTTS_PORT = 8883  # Source: IANA, secure-mqtt
_OTHER_FILES = 256  # workers, stores, links, logs


def load_profiles(folder: Path | None) -> Mapping[str, Profile]:
    """Read every board profile of `folder` (None: those that come with gatewayd).

    Raises: BadRequest naming the file's mistake.
    """
    profiles = [parse_profile(path.read_text()) for path in sorted((folder or profiles_folder()).glob("*.yaml"))]
    return {profile.board: profile for profile in profiles}


def engine_specs(config: Config) -> list[EngineSpec]:
    """Return the engines named, or the first that the daemon's own interpreter has."""
    if config.engines:
        return [_engine_spec(each) for each in config.engines]
    known = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
    return [EngineSpec(name, None) for name, module in known.items() if importlib.util.find_spec(module)][:1]


def _engine_spec(engine: Engine) -> EngineSpec:
    return EngineSpec(
        engine.name,
        str(engine.python) if engine.python else None,
        label=engine.label or "",
        delegate=engine.delegate.library if engine.delegate else "",
        delegate_options=engine.delegate.options if engine.delegate else {},
        providers=engine.providers,
        device=engine.device or "",
        accelerator=engine.accelerator or "",
    )


def worker_limits(config: Config) -> WorkerLimits:
    """Return what bounds inference on the node."""
    runtime = config.node_runtime
    limits = WorkerLimits(runtime.max_loaded, runtime.queue_limit, runtime.memory_limit_bytes or None)
    return replace(limits, is_eager=runtime.eager and has_another_processor())


def trial_limits(config: Config) -> TrialLimits:
    """Return what one admission may take."""
    runtime = config.node_runtime
    limits = replace(TrialLimits(), engine_s=runtime.trial_timeout_s)
    return replace(limits, memory_limit_bytes=runtime.memory_limit_bytes) if runtime.memory_limit_bytes else limits


def mqtt_options(config: Config, topics: Topics) -> MqttOptions:
    """Return where the broker is and what is said there at connect and when we vanish. Raises: StartRefused (password file)."""
    mqtt = config.mqtt
    password = first_line(mqtt.password_file, option="mqtt.password_file") if mqtt.password_file else None
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
        websocket_path=mqtt.websocket_path,
    )
    if mqtt.tls is None:
        return options
    ca, certificate, key = (
        str(path) if path else None for path in (mqtt.tls.ca_file, mqtt.tls.cert_file, mqtt.tls.key_file)
    )
    return replace(options, tls=True, ca_file=ca, cert_file=certificate, key_file=key)


def command_options(config: Config, options: MqttOptions) -> MqttOptions:
    """Return the options of the second connection, by which commands come: its session outlasts it, and it has nothing to say."""
    return replace(
        options,
        client_id=f"{options.client_id}-commands",
        will=None,
        online=None,
        is_late=True,
        session_expiry_s=config.mqtt.session_expiry_s,
    )


def mqtt_timing(config: Config) -> Timing:
    """Return how patient the connections are."""
    longest_s = config.mqtt.reconnect_max_s
    return Timing(first_s=min(Timing().first_s, longest_s), longest_s=longest_s)


def kept_commands(config: Config) -> Keep:
    """Return how long commands are remembered."""
    return Keep(config.mqtt.commands_kept, config.mqtt.commands_kept_days * 86_400)


def http_listen(config: Config) -> HttpListen:
    """Return where the HTTP API listens. Raises: OSError (certificate or key)."""
    http = config.http
    tls = tls_context(http.tls.cert_file, http.tls.key_file, http.tls.client_ca_file) if http.tls else None
    return HttpListen(http.host, http.port, tls, http.unix_socket, _affordable(http.max_connections))


def _affordable(connections: int) -> int:
    """Raise this process's limit of open files for so many connections; return how many it can hold beside the rest.

    A process that is out of descriptors accepts nothing, starts no worker and opens no store.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(8, min(connections, soft - _OTHER_FILES))


def http_guard(config: Config) -> Guard:
    """Return who may come in over HTTP. Raises: OSError, BadRequest (the file of tokens)."""
    http = config.http
    return Guard(time.monotonic, tokens_of(config), frozenset(map(str.lower, http.hosts)), http.max_requests_per_s)


def broker_address(config: Config) -> Broker:
    """Return what devices are told of the broker. Raises: StartRefused (the authority's certificate)."""
    mqtt, joining = config.mqtt, config.joining
    if mqtt.embedded.enabled:
        return Broker(mqtt.prefix, "127.0.0.1", mqtt.embedded.port)
    ca = certificates_in(whole_text(joining.ca_file, option="joining.ca_file")) if joining.ca_file else ""
    own = f"{socket.gethostname()}.local" if is_loopback(mqtt.host) else mqtt.host
    return Broker(mqtt.prefix, joining.host or own, joining.port or (MQTTS_PORT if ca else mqtt.port), ca)


def doors(config: Config) -> Doors:
    """Return how devices come in over CoAP before anything listens; `Lwm2m` says more once it does."""
    section = config.lwm2m
    if not section.enabled:
        off = "no device comes in over CoAP: set lwm2m.enabled to true and restart the gateway"
        return Doors(off, off)
    plain = "" if udp_address(config) else "no port is open without DTLS: set lwm2m.port and restart the gateway"
    if section.dtls == "never":
        return Doors("lwm2m.dtls is never: set it to auto or always and restart the gateway", plain)
    if importlib.util.find_spec("mbedtls") is None:
        return Doors("DTLS needs a package: pip install 'gatewayd[dtls]', then restart the gateway", plain)
    again = "restart the gateway; with lwm2m.dtls: always it listens from the start, and takes the first key at once"
    return Doors(f"DTLS does not listen, as there was no key when the gateway started: {again}", plain)


def announced(config: Config, ports: Mapping[str, int]) -> list[Service]:
    """Return what multicast DNS tells: the devices' listener of the broker, and of our own what others can reach."""
    name, told = config.node.name, {"node": config.node.name, "prefix": config.mqtt.prefix, "version": __version__}
    services = [
        Service("_mqtt._tcp", name, broker_address(config).port, {**told, "tls": _flag(config.joining.ca_file)})
    ]
    if not is_loopback(config.http.host):
        services.append(Service("_gatewayd._tcp", name, ports["http_port"], {**told, "tls": _flag(config.http.tls)}))
    if "coap_port" in ports and not is_loopback(config.coap.host):
        services.append(Service("_coap._udp", name, ports["coap_port"], told))
    return services


def _flag(value: object) -> str:
    return "0" if value is None else "1"


def tokens_of(config: Config) -> tuple[AccessToken, ...]:
    """Return the tokens of the config's file. Raises: StartRefused, BadRequest."""
    path = config.http.tokens_path(config.http.tokens_file)
    tokens = parse_tokens(whole_text(path, option="http.tokens_file")) if path is not None else ()
    if path is not None and not tokens:
        raise BadRequest(f"{path}: holds no token, so nobody could come in: gatewayd token NAME --role admin makes one")
    return tokens


def tracking_options(config: Config) -> TrackingOptions:
    """Return who may join, how many, and how they are watched."""
    devices = config.devices
    return TrackingOptions(
        open_join=devices.join == "open",
        max_devices=devices.max_devices,
        ping_every_s=devices.ping_every_s,
        absent_after_s=devices.absent_after_s,
        damping=devices.flapping.rules,
    )


def decision_file(config: Config) -> DecisionFile | None:
    """Return the decision log on disk, where one is wanted."""
    wanted = config.decisions
    if wanted.file is None:
        return None
    options = DecisionFileOptions(
        wanted.file, wanted.max_bytes, wanted.max_bytes_per_day, wanted.sample, wanted.write_every_s
    )
    return DecisionFile(options, node=config.node.name, clock=time.monotonic)
