"""A scenario: who is there, what is asked, what changes meanwhile. Values, and their reading from YAML, strict and bounded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import TypeVar, get_type_hints

import yaml

from gatewayd.core.budget import Allowance
from gatewayd.core.cost import Weights
from gatewayd.core.errors import BadRequest
from gatewayd.core.presets import PRESETS
from gatewayd.simulate.boards import Link, Model
from gatewayd.simulate.carriage import PROTOCOLS, Overheads
from gatewayd.simulate.own import Known, OwnBoard, known_of

# Protect memory and patience: a scenario is a study, not a load test.
MAX_DEVICES = 10_000
MAX_ASKS = 5_000_000
MAX_FILE_BYTES = 1_000_000

ARRIVALS = ("poisson", "periodic", "bursts", "diurnal", "adversarial")
CHANGES = ("link", "loss", "compute", "node", "rate", "outage")

CLASSES: Mapping[str, Weights] = {name: preset.weights for name, preset in PRESETS.items()}
"""The classes that the daemon has built in."""


@dataclass(frozen=True, slots=True)
class Group:
    """`count` devices alike. `slots` models fit at once; `battery_j` None: on mains; `name` is what asks and changes name.

    `protocol`: mqtt or lwm2m, with its heads, round trips and queues on the link; "": the link alone.
    """

    name: str
    board: str
    link: str
    count: int = 1
    slots: int = 1
    battery_j: float | None = 5000.0
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the sensors of a group's devices, each by itself.

    `per_s` is the mean rate of one device; its own is that times e^(spread·normal). `burst` requests come at a time in `bursts`
    and `adversarial` (bursts that stop for ten times as long). `periodic` is a standing order: its rate is known beforehand.
    """

    devices: str
    model: str
    per_s: float
    arrival: str = "poisson"
    burst: int = 20
    spread: float = 0.0
    deadline_s: float = 60.0
    from_s: float = 0.0
    until_s: float | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """From `at_s` on (for `for_s` seconds; None: for good) `what` is multiplied by `factor` on a group's devices.

    `link`: bytes per second; `loss`: share lost; `compute`: seconds and µJ on the device; `node`: seconds on the node (of all
    groups); `rate`: requests per second; `outage`: nothing gets through.
    """

    what: str
    at_s: float
    devices: str = ""
    factor: float = 1.0
    for_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One study. `horizon_s` is what the policies take for the time that a pushed model is of use.

    Per device, pushes may take `air_s_per_hour` and `push_j_per_day` (None: not limited); a share `push_failure` of them fails.
    `noise`: how much luck there is, as a multiple of what is assumed (0: none). `watched_s`: how long the gateway has run when
    the scenario begins; in its first hour it takes no silence for a sign. `ping_every_s`, `overheads` and `trials` (runs that
    prove a push) count where a protocol is named.
    """

    name: str
    duration_s: float
    devices: tuple[Group, ...]
    load: tuple[Load, ...]
    changes: tuple[Change, ...] = ()
    seed: int = 1
    request_class: str = "default"
    horizon_s: float = 86_400.0
    node_servers: int = 2
    push_failure: float = 0.0
    air_s_per_hour: float | None = None
    push_j_per_day: float | None = None
    about: str = ""
    weights: Weights = field(default=CLASSES["default"])
    noise: float = 1.0
    watched_s: float = 3600.0
    ping_every_s: float = 30.0
    overheads: Overheads = Overheads()  # noqa: RUF009 - a frozen value
    trials: int = 1
    boards: tuple[OwnBoard, ...] = ()
    models: tuple[Model, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def known(self) -> Known:
        """What it can name: the built-in boards, models and links, and its own."""
        return known_of(self.boards, self.models, self.links, source=self.name)

    @property
    def air(self) -> Allowance:
        """What pushes may take of a device's air."""
        per_hour = self.air_s_per_hour
        return Allowance() if per_hour is None else Allowance(per_hour / 3600.0, per_hour)

    @property
    def energy(self) -> Allowance:
        """What pushes may take of a device's battery, in µJ."""
        per_day = self.push_j_per_day
        return Allowance() if per_day is None else Allowance(1e6 * per_day / 86_400.0, 1e6 * per_day)


_Part = TypeVar("_Part", Group, Load, Change, OwnBoard, Model, Link, Overheads)
_LISTS = ("devices", "load", "changes", "boards", "models", "links")


def parse_scenario(text: str, *, source: str) -> Scenario:
    """Read a scenario from YAML. Raises: BadRequest, naming the field and what it may be."""
    if len(text.encode()) > MAX_FILE_BYTES:
        raise BadRequest(f"{source}: larger than {MAX_FILE_BYTES:,} bytes")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadRequest(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise BadRequest(f"{source}: a scenario is a mapping")
    plain = {key: value for key, value in document.items() if key not in _LISTS}
    known = {each.name for each in fields(Scenario)} - {"weights"}
    if unknown := sorted(set(map(str, plain)) - known):
        raise BadRequest(f"{source}: {unknown[0]}: no such field; there are {', '.join(sorted(known))}")
    request_class = _one_of(plain.get("request_class", "default"), CLASSES, f"{source}: request_class")
    scenario = Scenario(
        name=str(plain.get("name", source)),
        about=str(plain.get("about", "")),
        duration_s=_number(plain, "duration_s", source, default=None),
        horizon_s=_number(plain, "horizon_s", source, default=86_400.0),
        seed=int(_number(plain, "seed", source, default=1.0)),
        node_servers=max(1, int(_number(plain, "node_servers", source, default=2.0))),
        push_failure=_number(plain, "push_failure", source, default=0.0),
        air_s_per_hour=_limit(plain, "air_s_per_hour", source),
        push_j_per_day=_limit(plain, "push_j_per_day", source),
        request_class=request_class,
        weights=CLASSES[request_class],
        devices=_parts(Group, document, "devices", source),
        load=_parts(Load, document, "load", source),
        changes=_parts(Change, document, "changes", source),
        noise=_number(plain, "noise", source, default=1.0),
        watched_s=_number(plain, "watched_s", source, default=3600.0),
        ping_every_s=_number(plain, "ping_every_s", source, default=30.0),
        trials=int(_number(plain, "trials", source, default=1.0)),
        overheads=_part(Overheads, plain.get("overheads", {}), f"{source}: overheads"),
        boards=_parts(OwnBoard, document, "boards", source),
        models=_parts(Model, document, "models", source),
        links=_parts(Link, document, "links", source),
    )
    check(scenario, source=source)
    return scenario


def check(scenario: Scenario, *, source: str) -> None:
    """Raise BadRequest for names that there are not, and for a study larger than this is meant for."""
    if not scenario.devices or not scenario.load:
        raise BadRequest(f"{source}: needs devices and load")
    names = [group.name for group in scenario.devices]
    if len(set(names)) != len(names):
        raise BadRequest(f"{source}: devices: two groups have one name")
    if sum(group.count for group in scenario.devices) > MAX_DEVICES:
        raise BadRequest(f"{source}: devices: more than {MAX_DEVICES:,}")
    known = known_of(scenario.boards, scenario.models, scenario.links, source=source)
    for group in scenario.devices:
        _one_of(group.board, known.boards, f"{source}: devices: {group.name}: board")
        _one_of(group.link, known.links, f"{source}: devices: {group.name}: link")
        _one_of(group.protocol, ("", *PROTOCOLS), f"{source}: devices: {group.name}: protocol")
    for load in scenario.load:
        _one_of(load.devices, names, f"{source}: load: devices")
        _one_of(load.model, known.models, f"{source}: load: model")
        _one_of(load.arrival, ARRIVALS, f"{source}: load: arrival")
    for change in scenario.changes:
        _one_of(change.what, CHANGES, f"{source}: changes: what")
        if change.what != "node":
            _one_of(change.devices, names, f"{source}: changes: devices")
    counts = {group.name: group.count for group in scenario.devices}
    expected = sum(load.per_s * scenario.duration_s * counts[load.devices] for load in scenario.load)
    if expected > MAX_ASKS:
        raise BadRequest(f"{source}: about {expected:,.0f} requests; at most {MAX_ASKS:,}")


def _one_of(value: object, known: Mapping[str, object] | Sequence[str], where: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise BadRequest(f"{where}: {value!r} is none of {', '.join(known)}")
    return value


def _number(document: Mapping[str, object], name: str, source: str, *, default: float | None) -> float:
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1e12:  # noqa: PLR2004 - keeps it finite
        raise BadRequest(f"{source}: {name}: {value!r} is no number from 0 up")
    return float(value)


def _limit(document: Mapping[str, object], name: str, source: str) -> float | None:
    return None if document.get(name) is None else _number(document, name, source, default=None)


def _parts(kind: type[_Part], document: Mapping[str, object], name: str, source: str) -> tuple[_Part, ...]:
    listed = document.get(name, [])
    if not isinstance(listed, list):
        raise BadRequest(f"{source}: {name}: is a list")
    return tuple(_part(kind, each, f"{source}: {name}[{index}]") for index, each in enumerate(listed))


def _part(kind: type[_Part], given: object, where: str) -> _Part:
    if not isinstance(given, dict):
        raise BadRequest(f"{where}: is a mapping")
    hints, known = get_type_hints(kind), {each.name: each for each in fields(kind)}
    if unknown := sorted(set(map(str, given)) - set(known)):
        raise BadRequest(f"{where}: {unknown[0]}: no such field; there are {', '.join(known)}")
    for name, each in known.items():
        if name not in given and each.default is MISSING:
            raise BadRequest(f"{where}: {name} is missing")
    values = {name: _value(value, hints[name], f"{where}: {name}", given) for name, value in given.items()}
    make: Callable[..., _Part] = kind
    return make(**values)


def _value(value: object, hint: object, where: str, given: Mapping[str, object]) -> object:
    if value is None and hint not in {str, int, float}:
        return None
    if hint is str:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise BadRequest(f"{where}: {value!r} is no text")
        return str(value)  # 802.15.4 needs no quotes
    number = _number(given, where.rpartition(" ")[2], where.rpartition(":")[0], default=None)
    return int(number) if hint in {int, int | None} else number
