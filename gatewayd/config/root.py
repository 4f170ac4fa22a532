"""YAML → frozen values. Whatever is wrong with a file is said at once: each problem with its YAML path and a remedy.

The classes below are the config file: a field is an option, its default what holds when the file leaves it out. Every
option is explained in `config/gatewayd.yaml`. Nothing here opens a socket or reads another file than the one named.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from gatewayd.config.decisions import ClassSettings, DecisionLog, Flapping, Placement
from gatewayd.config.engines import Accelerators, Engine, differ
from gatewayd.config.errors import ConfigError, problem_lines
from gatewayd.config.http import AnyPort, Host, Http
from gatewayd.config.joining import Joining, Mdns
from gatewayd.config.lwm2m import Lwm2m
from gatewayd.config.mqtt import Mqtt
from gatewayd.config.sources import Plugins, Registry, Sources
from gatewayd.config.types import FilePath, Seconds, Section, one_level, within
from gatewayd.config.values import NodeName, host_name
from gatewayd.core.airtime import AirRules
from gatewayd.core.presets import PRESETS, RequestClass
from gatewayd.core.retry import Retry
from gatewayd.core.update import Limits
from gatewayd.wire.strict_yaml import MAX_YAML_BYTES, YamlRefused, load_yaml

_MIB = 2**20
_GIB = 2**30


class Node(Section):
    """This gateway. `name` null: the machine's host name."""

    name: NodeName = Field(default_factory=host_name)
    data_dir: FilePath = Path("/var/lib/gatewayd")


class Coap(Section):
    """The CoAP edge. Port 0: any free one, which the log names."""

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: AnyPort = 5683
    max_payload_bytes: Annotated[int, within(1024, 8 * _MIB)] = 256 * 1024


class NodeRuntime(Section):
    """Inference on the node. `memory_limit_bytes` 0: none; `queue_limit` requests wait per model at most."""

    max_loaded: Annotated[int, within(1, 256)] = 8
    queue_limit: Annotated[int, within(1, 10_000)] = 64
    eager: bool = True
    nursery: bool = True
    memory_limit_bytes: Annotated[int, within(0, 1024 * _GIB)] = 0
    trial_timeout_s: Seconds = 30.0


class Devices(Section):
    """Attached devices. `join` approve: unknown ones wait for the operator. `profiles_dir` null: the packaged profiles."""

    join: Literal["approve", "open"] = "approve"
    profiles_dir: FilePath | None = None
    ping_every_s: Seconds = 30.0
    absent_after_s: Seconds = 90.0
    max_devices: Annotated[int, within(1, 10_000)] = 1000
    flapping: Flapping = Flapping()

    @field_validator("absent_after_s")
    @classmethod
    def _outlasts_a_ping(cls, absent_after_s: float, info: ValidationInfo) -> float:
        ping_every_s = info.data.get("ping_every_s", 0.0)
        if absent_after_s <= ping_every_s:
            raise ValueError(
                f"{absent_after_s} must be above devices.ping_every_s ({ping_every_s}): healthy devices would count as absent"
            )
        return absent_after_s


BUILT_IN_CLASSES: Mapping[str, ClassSettings] = {name: ClassSettings.of(each) for name, each in PRESETS.items()}


class Requests(Section):
    """Inference requests. Classes of the file are added to the built-in ones, or replace those of the same name."""

    default_deadline_ms: Annotated[int, within(1, 3_600_000)] = 5000
    max_deadline_ms: Annotated[int, within(1, 3_600_000)] = 60_000
    decisions_kept: Annotated[int, within(1, 1_000_000)] = 1000
    classes: dict[Annotated[str, AfterValidator(one_level)], ClassSettings] = Field(
        dict(BUILT_IN_CLASSES), max_length=64
    )

    @field_validator("max_deadline_ms")
    @classmethod
    def _holds_the_default(cls, max_deadline_ms: int, info: ValidationInfo) -> int:
        default_ms = info.data.get("default_deadline_ms", 0)
        if max_deadline_ms < default_ms:
            raise ValueError(
                f"{max_deadline_ms} is below requests.default_deadline_ms ({default_ms}): raise it, or lower that"
            )
        return max_deadline_ms

    @field_validator("classes", mode="after")
    @classmethod
    def _join_the_built_in(cls, classes: dict[str, ClassSettings]) -> dict[str, ClassSettings]:
        private = classes.get("private")
        if private is not None and "privacy" not in private.model_fields_set:
            # Whoever only weighs this class anew did not mean to let its data out.
            classes = {**classes, "private": private.model_copy(update={"privacy": "stay_on_device"})}
        return {**BUILT_IN_CLASSES, **classes}

    @property
    def settings(self) -> dict[str, RequestClass]:
        """What holds for each class of requests; `default` is always there."""
        return {name: each.value for name, each in self.classes.items()}


class Pushes(Section):
    """Pushing models to devices: how long each state may last, and how many pushes run at once."""

    automatic: bool = True
    offer_s: Seconds = Limits().offer_s
    stall_s: Seconds = Limits().stall_s
    verify_s: Seconds = Limits().verify_s
    self_test_s: Seconds = Limits().self_test_s
    trial_s: Seconds = Limits().trial_s
    absence_s: Seconds = Limits().absence_s
    transfer_s: Seconds = Limits().transfer_s
    max_concurrent: Annotated[int, within(1, 1000)] = 8
    tries: Annotated[int, within(1, 100)] = Retry().tries
    retry_s: Seconds = Retry().first_s
    retry_max_s: Seconds = Retry().most_s
    quarantine_after: Annotated[int, within(1, 1000)] = Retry().quarantine_after
    air_share: Annotated[float, within(0.05, 1)] = AirRules().share

    @field_validator("retry_max_s")
    @classmethod
    def _is_no_shorter_than_the_first(cls, retry_max_s: float, info: ValidationInfo) -> float:
        retry_s = info.data.get("retry_s", 0.0)
        if retry_max_s < retry_s:
            raise ValueError(f"{retry_max_s} is below pushes.retry_s ({retry_s}): raise it, or lower that")
        return retry_max_s

    @property
    def retry(self) -> Retry:
        """What follows a failed push."""
        return Retry(self.tries, self.retry_s, self.retry_max_s, self.quarantine_after)

    @property
    def limits(self) -> Limits:
        """The deadlines of the push state machine."""
        waits_s = self.offer_s, self.stall_s, self.verify_s, self.self_test_s, self.trial_s, self.absence_s
        return Limits(*waits_s, transfer_s=self.transfer_s)


class Bounds(Section):
    """What is refused for its size, wherever it comes from."""

    max_model_bytes: Annotated[int, within(1024, _GIB)] = 8 * _MIB


class Log(Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """A whole config. `engines` empty: the first of litert and tflite-runtime that the daemon's interpreter has."""

    node: Node = Field(default_factory=Node)
    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    coap: Coap = Coap()
    lwm2m: Lwm2m = Lwm2m()
    engines: Annotated[tuple[Engine, ...], AfterValidator(differ)] = Field((), max_length=8, strict=False)
    accelerators: Accelerators = Accelerators()
    node_runtime: NodeRuntime = NodeRuntime()
    devices: Devices = Devices()
    joining: Joining = Joining()
    mdns: Mdns = Mdns()
    requests: Requests = Field(default_factory=Requests)
    decisions: DecisionLog = DecisionLog()
    placement: Placement = Placement()
    pushes: Pushes = Pushes()
    registry: Registry = Registry()
    sources: Sources = Sources()
    plugins: Plugins = Plugins()
    limits: Bounds = Bounds()
    log: Log = Log()


def load_config(path: Path) -> Config:
    """Read a config file; a relative path in it starts at the file's folder.

    Raises: ConfigError naming every problem of the file.
    """
    return parse_config(_read(path), source=str(path), folder=path.absolute().parent)


def parse_config(text: str, *, source: str, folder: Path) -> Config:
    """Read a config from its text; `source` is what errors call it. Raises: ConfigError."""
    try:
        raw = load_yaml(text)
    except YamlRefused as refused:
        raise ConfigError(source, (str(refused),)) from None
    try:
        return Config.model_validate(raw, context={"folder": folder})
    except ValidationError as invalid:
        raise ConfigError(source, problem_lines(invalid, Config)) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_YAML_BYTES + 1)
        return content.decode()
    except FileNotFoundError:
        problem = "there is no such file: copy config/gatewayd.yaml there, or name another (--config, or --dir, what init wrote)"
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8: save the file as UTF-8"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    raise ConfigError(str(path), (problem,))
