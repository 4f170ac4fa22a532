"""YAML text → plain values, read as YAML 1.2's core schema reads it, and nothing surprising: no I/O.

PyYAML's own loaders follow YAML 1.1: `no` is False, `1e3` a string, `12:30:00` is 45000, and of two equal keys the last
wins in silence. Here a repeated key is an error, and so is everything that could make a small file large in memory.
"""

import re
from collections.abc import Hashable
from typing import Protocol

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gatewayd.core.errors import CallerError

_Scalar = str | int | float | bool | None
YamlValue = _Scalar | list["YamlValue"] | dict[str, "YamlValue"]

MAX_YAML_BYTES = 256 * 1024  # a config of a thousand lines is 50 KB
MAX_DEPTH = 16  # protects the interpreter's stack; the deepest option of gatewayd lies four levels down
MAX_NODES = 20_000  # protects memory

# Source: YAML 1.2.2, section 10.3.2 (core schema tag resolution).
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_NUMBER_CHARS = 40  # int() of a long digit string costs quadratic time


class YamlRefused(CallerError):
    """The text is not the YAML that is read here; the message names line and column, counted from 1."""

    code = "yaml_refused"


def load_yaml(text: str) -> YamlValue:
    """Read one document.

    Raises: YamlRefused on a syntax error, a repeated key, a key that is no string, an alias, a tag, a second document,
    or text over `MAX_YAML_BYTES`, `MAX_DEPTH` or `MAX_NODES`.
    """
    if len(text) > MAX_YAML_BYTES or len(text.encode(errors="surrogatepass")) > MAX_YAML_BYTES:
        message = f"the text has over {MAX_YAML_BYTES} bytes: nothing that is configured here needs so many"
        raise YamlRefused(message)
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        raise YamlRefused(_marked(error)) from None
    except yaml.YAMLError as error:
        message = f"not YAML: {' '.join(str(error).split())}"
        raise YamlRefused(message) from None
    return None if node is None else _value(node)


class _PlainLoader(yaml.SafeLoader):
    """Resolves no tag by itself: a plain scalar stays a string until `_scalar` reads it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own declaration


def _check_events(text: str) -> None:
    """Walk the flat events before any tree is built, so that depth and size cost nothing."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_PlainLoader):
        nodes += isinstance(event, yaml.NodeEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        problem = _event_problem(event, depth=depth, nodes=nodes, documents=documents)
        if problem:
            raise _refused(event.start_mark, problem)


def _event_problem(event: yaml.Event, *, depth: int, nodes: int, documents: int) -> str:
    if isinstance(event, yaml.AliasEvent):
        return f"the alias *{event.anchor} is not read here: write the value out"
    if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent) and event.tag is not None:
        return f"the tag {event.tag[:80]!r} is not read here: leave it out"
    if depth > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    if nodes > MAX_NODES:
        return f"more than {MAX_NODES} values"
    if documents > 1:
        return "a second document begins here: one file holds one"
    return ""


class _Mark(Protocol):
    """A place, as PyYAML's Python and C readers both give it: counted from 0."""

    line: int
    column: int


def _value(node: Node) -> YamlValue:
    if isinstance(node, MappingNode):
        return _mapping(node)
    if isinstance(node, SequenceNode):
        return [_value(child) for child in node.value]
    if isinstance(node, ScalarNode):
        return _scalar(node)
    raise _refused(node.start_mark, "neither a mapping, a list nor a value")


def _mapping(node: MappingNode) -> dict[str, YamlValue]:
    lines: dict[Hashable, int] = {}
    values: dict[str, YamlValue] = {}
    for key_node, value_node in node.value:
        key = _value(key_node)
        mark = key_node.start_mark
        if not isinstance(key, str):
            raise _refused(mark, f"the key {key!r:.80} is no text: put it in quotes")
        if key in lines:
            raise _refused(mark, f"the key {key!r:.80} stands twice, first in line {lines[key]}: remove one")
        lines[key] = mark.line + 1
        values[key] = _value(value_node)
    return values


def _scalar(node: ScalarNode) -> _Scalar:
    text: str = node.value
    if node.style is not None:  # quoted, or a block
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    return _number(text, node)


def _number(text: str, node: ScalarNode) -> _Scalar:
    whole = bool(_INT.fullmatch(text))
    if not whole and not _FLOAT.fullmatch(text):
        return text
    if len(text) > _MAX_NUMBER_CHARS:
        raise _refused(node.start_mark, f"a number of {len(text)} characters: put it in quotes if it is text")
    if not whole:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)


def _marked(error: yaml.MarkedYAMLError) -> str:
    return _placed(error.problem_mark or error.context_mark, error.problem or "not YAML")


def _placed(mark: _Mark | None, problem: str) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _refused(mark: _Mark | None, problem: str) -> YamlRefused:
    return YamlRefused(_placed(mark, problem))
