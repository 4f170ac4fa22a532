"""The decision log: JSON lines that hold everything `place` saw, to the last bit, so that it can decide again.

Three kinds of lines, told apart by their first key; docs/decisions.md describes each field:

    {"log": 1, "estimate": ["mean", "variance", "count"], ...}    a session begins; nothing before it is referred to any more
    {"facts": 7, "of": [...]}                                      what was known of one device, from here on number 7
    {"id": "r-1", "q": [...], "node": [...], "devices": [7], ...}  one decision, over facts by their numbers

A float is written as its shortest decimal that reads back as the same bits (`repr`); none is rounded. Reading is bounded and
never raises for what a file holds: a line that cannot be read (the torn last one after a power cut, too) is counted.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from gatewayd.core.cost import Weights
from gatewayd.core.decision import Decision
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import DeviceFacts, NodeFacts, Question
from gatewayd.core.record import record
from gatewayd.core.replay import Logged, fingerprint
from gatewayd.core.request import NODE, Measured, Privacy, Target

VERSION: Final = 1
MAX_LINE_BYTES = 2**18
"""Protects the reader's memory: the longest line we write is far below."""
MAX_FACTS = 8192
"""Bounds what writer and reader remember; when it is reached the writer begins a new session."""
MAX_DEVICES = 1024
_MAX_WORDS = 300  # of a refusal or an error: whether there is one decides, its words do not
_ESTIMATE_FIELDS = tuple(each.name for each in fields(Estimate))


@record
class Unreadable:
    """A line that says nothing. `is_torn`: the last of the file, without an end: it was being written when the power went."""

    line: int
    reason: str
    is_torn: bool = False


@dataclass(slots=True)
class LogWriter:
    """Turns decisions into lines. Facts are written once, when a decision refers to them first."""

    node: str
    _numbers: dict[int, tuple[int, DeviceFacts]] = field(default_factory=dict)

    def header(self) -> str:
        """Begin a session, as a new file does: what was written before may be gone."""
        self._numbers.clear()
        return _dumped({"log": VERSION, "node": self.node, "estimate": _ESTIMATE_FIELDS})

    def lines(self, decision: Decision) -> list[str]:
        """Return the lines of one decision, each with its end."""
        placement = decision.placement
        begun = [self.header()] if len(self._numbers) + len(placement.devices) > MAX_FACTS else []
        numbers, written = [], []
        for facts in placement.devices:
            # By identity: facts are made anew whenever anything about a device changes, and kept alive here.
            number, known = self._numbers.get(id(facts), (-1, None))
            if known is not facts:
                number = len(self._numbers)
                self._numbers[id(facts)] = number, facts
                written.append(_dumped({"facts": number, "of": _device_members(facts)}))
            numbers.append(number)
        measured = decision.measured
        document = {
            "id": decision.request,
            "at": decision.decided_at,
            "model": decision.model,
            "version": decision.version,
            "class": decision.request_class,
            "q": _question_members(placement.question),
            "node": _node_members(placement.node),
            "devices": numbers,
            "order": fingerprint(placement),
            "outcome": decision.outcome[:_MAX_WORDS],
            "served_by": None if decision.served_by is None else str(decision.served_by),
            "failed": len(decision.attempts),
            "measured": None
            if measured is None
            else [
                measured.total_s,
                measured.queue_s,
                measured.transfer_s,
                measured.compute_s,
                measured.energy_uj,
                measured.link_bytes,
            ],
        }
        return [*begun, *written, _dumped(document)]


def read_log(lines: Iterable[bytes]) -> Iterator[Logged | Unreadable]:
    """Yield each decision, and what could not be read in its place; `lines` are as they stand in the file, with their ends."""
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        try:
            logged = reader.read(line)
        except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
            yield Unreadable(number, str(error) or type(error).__name__, is_torn=not line.endswith(b"\n"))
            continue
        if logged is not None:
            yield logged


@dataclass(slots=True)
class _Reader:
    """What a session has told so far."""

    estimate: tuple[str, ...] = ()
    facts: dict[int, DeviceFacts] = field(default_factory=dict)

    def read(self, line: bytes) -> Logged | None:
        """Return a line's decision; None when it is of another kind. Raises: ValueError, TypeError, KeyError, IndexError."""
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"the line has more than {MAX_LINE_BYTES} bytes")
        document = json.loads(line, parse_constant=_refuse)
        if "log" in document:
            self._begin(document)
        elif "facts" in document:
            if len(self.facts) >= MAX_FACTS:
                raise ValueError(f"a session has at most {MAX_FACTS} facts")
            self.facts[_whole(document["facts"])] = self._device(document["of"])
        else:
            return self._decision(document)
        return None

    def _begin(self, document: Mapping[str, object]) -> None:
        if document["log"] != VERSION:
            raise ValueError(f"the log is of version {document['log']!r}, this program reads {VERSION}")
        names = document["estimate"]
        if not isinstance(names, list) or set(names) - set(_ESTIMATE_FIELDS):
            raise ValueError("the log's estimates have fields that this program does not know")
        self.estimate, self.facts = tuple(names), {}

    def _decision(self, document: Mapping[str, object]) -> Logged:
        if not self.estimate:
            raise ValueError("no session has begun")
        numbers = _listed(document["devices"])
        if len(numbers) > MAX_DEVICES:
            raise ValueError(f"a decision is over at most {MAX_DEVICES} devices")
        devices = tuple(self.facts[_whole(each)] for each in numbers)
        node = _listed(document["node"])
        measured, served_by = document["measured"], document["served_by"]
        return Logged(
            request=_text(document["id"]),
            model=_text(document["model"]),
            version=_whole(document["version"]),
            question=_question(_listed(document["q"])),
            node=NodeFacts(_text(node[0]), _text(node[1]), self._estimate(node[2]), _number(node[3])),
            devices=devices,
            fingerprint=_text(document["order"]),
            served_by=None if served_by is None else _target(served_by),
            is_first_try=document["failed"] == 0,
            measured=None if measured is None else _measured(_listed(measured)),
        )

    def _device(self, given: object) -> DeviceFacts:
        of = _listed(given)
        rtt, goodput, failures = (self._estimate(each) for each in _listed(of[5]))
        return DeviceFacts(
            DeviceId(_text(of[0])),
            _text(of[1]),
            _text(of[2]),
            self._estimate(of[3]),
            self._estimate(of[4]),
            LinkEstimate(rtt, goodput, failures),
            _number(of[6]),
            is_source=of[7] is True,
            on_battery=of[8] is True,
            battery=None if of[9] is None else _number(of[9]),
            input_bytes=_whole(of[10]),
            output_bytes=_whole(of[11]),
            sample_bytes=_whole(of[12]),
            sample_energy_uj=self._estimate(of[13]),
        )

    def _estimate(self, given: object) -> Estimate:
        values = [None if each is None else _number(each) for each in _listed(given)]
        return Estimate(**dict(zip(self.estimate, values, strict=False)))  # type: ignore[arg-type]  # None only where the field allows it; what is wrong decides wrongly, and replay says so


def _device_members(facts: DeviceFacts) -> list[object]:
    link = facts.link
    return [
        facts.device,
        facts.refusal[:_MAX_WORDS],
        facts.variant,
        _estimate_members(facts.compute),
        _estimate_members(facts.energy),
        [_estimate_members(link.rtt), _estimate_members(link.goodput), _estimate_members(link.failures)],
        facts.queue_s,
        facts.is_source,
        facts.on_battery,
        facts.battery,
        facts.input_bytes,
        facts.output_bytes,
        facts.sample_bytes,
        _estimate_members(facts.sample_energy_uj),
    ]


def _node_members(node: NodeFacts) -> list[object]:
    return [node.refusal[:_MAX_WORDS], node.variant, _estimate_members(node.compute), node.queue_s]


def _estimate_members(estimate: Estimate) -> list[object]:
    return [getattr(estimate, name) for name in _ESTIMATE_FIELDS]


def _question_members(question: Question) -> list[object]:
    weights = question.weights
    return [
        question.by_reference,
        question.source,
        question.privacy.value,
        question.time_left_s,
        None if question.pin is None else str(question.pin),
        [weights.latency_per_s, weights.energy_per_uj, weights.bandwidth_per_byte, weights.risk_per_failure],
        question.battery_floor,
        None if question.prefer is None else str(question.prefer),
    ]


def _question(given: list[object]) -> Question:
    source, pin, prefer = given[1], given[4], given[7]
    per_s, per_uj, per_byte, per_failure = (_number(each) for each in _listed(given[5]))
    return Question(
        given[0] is True,
        None if source is None else DeviceId(_text(source)),
        Privacy(given[2]),
        _number(given[3]),
        None if pin is None else _target(pin),
        Weights(per_s, per_uj, per_byte, per_failure),
        _number(given[6]),
        None if prefer is None else _target(prefer),
    )


def _measured(given: list[object]) -> Measured:
    total_s, queue_s, transfer_s, compute_s, energy_uj, link_bytes = (_number(each) for each in given)
    return Measured(total_s, queue_s, transfer_s, compute_s, energy_uj, int(link_bytes))


def _target(given: object) -> Target:
    kind, _, device = _text(given).partition(":")
    return NODE if kind == "node" else Target(DeviceId(device))


def _listed(given: object) -> list[object]:
    if not isinstance(given, list):
        raise TypeError("a list is due")
    return given


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError("a text is due")
    return given


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError("a number is due")
    return given


def _whole(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError("a whole number is due")
    return given


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number here")


def _dumped(document: Mapping[str, object]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True) + "\n"
