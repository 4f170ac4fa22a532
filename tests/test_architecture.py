"""The rules of the house, read from the source with `ast`: who may import whom, and what is not done here.

Each rule is a function from a file to its findings. `test_the_house_keeps_its_rules` runs them all over the project, and
`test_a_rule_can_fail` runs each on a line that breaks it.
"""

import ast
import gc
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("gatewayd", "tests", "models", "scripts", "prove")

# Who may import what of gatewayd, by the longest path that fits; every room may import itself.
DIRECTION: dict[str, tuple[str, ...]] = {
    "gatewayd.core": (),
    "gatewayd.wire": ("gatewayd.core",),
    "gatewayd.services": ("gatewayd.core",),
    "gatewayd.api": ("gatewayd.services", "gatewayd.core", "gatewayd.wire"),
    "gatewayd.edges": ("gatewayd.api", "gatewayd.core", "gatewayd.wire"),
    "gatewayd.cli": ("gatewayd.api", "gatewayd.core", "gatewayd.wire"),
    "gatewayd.links": ("gatewayd.core", "gatewayd.wire"),
    "gatewayd.adapters": (
        "gatewayd.core",
        "gatewayd.wire",
        "gatewayd.worker.awake",
        "gatewayd.worker.framing",
        "gatewayd.worker.ring",
    ),
    "gatewayd.worker": (),
    "gatewayd.plugins": (),
    "gatewayd.daemon_registry": ("gatewayd",),
    "gatewayd.daemon_keyring": ("gatewayd",),
    "gatewayd.daemon_mqtt": ("gatewayd",),
    "gatewayd.daemon_lwm2m": ("gatewayd",),
    "gatewayd.sim": (
        "gatewayd.core",
        "gatewayd.wire",
        "gatewayd.places",
        "gatewayd.adapters.worker_process",
        "gatewayd.adapters.mqtt_prompt",
    ),
    "gatewayd.simulate": ("gatewayd.core",),
    "gatewayd.demo": ("gatewayd.adapters.mqtt_prompt", "gatewayd.places"),
    "gatewayd.places": (),
    "gatewayd.config": ("gatewayd.core", "gatewayd.wire"),
    "gatewayd.startup": ("gatewayd.core",),
    "gatewayd.frugal": (),
    "gatewayd.listeners": ("gatewayd.config",),
    "gatewayd.__main__": ("gatewayd",),
    "gatewayd.daemon": ("gatewayd",),
    "gatewayd.parts": ("gatewayd",),
    "gatewayd.reloading": ("gatewayd",),
    "gatewayd.mqtt_user_command": (
        "gatewayd.adapters",
        "gatewayd.config",
        "gatewayd.core",
        "gatewayd.init_command",
        "gatewayd.init_plan",
        "gatewayd.wire",
    ),
    "gatewayd.init_command": (
        "gatewayd.adapters",
        "gatewayd.api",
        "gatewayd.config",
        "gatewayd.core",
        "gatewayd.init_plan",
        "gatewayd.wire",
    ),
    "gatewayd.init_plan": ("gatewayd.config", "gatewayd.core", "gatewayd.wire"),
    "gatewayd.assembly": ("gatewayd",),
    "gatewayd": (),
}

# The packages that each of these rooms may use beside the standard library; other rooms are free.
PACKAGES: dict[str, frozenset[str]] = {
    "gatewayd.core": frozenset(),
    "gatewayd.services": frozenset(),
    "gatewayd.api": frozenset({"pydantic", "pydantic_core"}),  # the schemas of the verbs
    "gatewayd.worker": frozenset(
        {"numpy", "ai_edge_litert", "tflite_runtime", "tflite_micro", "onnxruntime", "openvino"}
    ),
}
NUMPY_ROOMS = ("gatewayd.worker", "gatewayd.sim")

# Who may catch everything: the process's last edge, the protocol edges, and the one place between us and paho's callbacks.
BROAD = ("gatewayd/daemon.py", "gatewayd/edges/", "gatewayd/adapters/mqtt_session.py")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: its path from the root, and its text."""

    path: str
    text: str

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)

    def within(self, *folders: str) -> bool:
        return self.path.startswith(folders)


Finding = tuple[int, str]
Rule = Callable[[Source], Iterator[Finding]]


@cache
def _parsed(text: str) -> ast.Module:
    # A collection in mid-parse may run finalizers, which CPython 3.11 takes for a mistake of its own (gh-106905).
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        gc.enable()


def imports(source: Source) -> Iterator[Finding]:
    """Yield (line, dotted name) for each import; a name imported from a module is part of it."""
    package = source.module.split(".")
    if not source.path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def belongs(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def room_of(module: str) -> str | None:
    fitting = [room for room in DIRECTION if belongs(module, room)]
    return max(fitting, key=len, default=None)


def direction(source: Source) -> Iterator[Finding]:
    room = room_of(source.module)
    if room is None:
        return
    itself = () if room == "gatewayd" else (room,)  # the package's own file, and any room this table does not know
    for line, name in imports(source):
        ours = belongs(name, "gatewayd") and name not in {"gatewayd", "gatewayd.__version__"}
        if ours and not any(belongs(name, place) for place in (*itself, *DIRECTION[room])):
            yield line, f"{room} may not import {name}; it may import {', '.join(DIRECTION[room]) or 'only itself'}"


def packages(source: Source) -> Iterator[Finding]:
    allowed = PACKAGES.get(room_of(source.module) or "")
    for line, name in imports(source):
        top = name.split(".")[0]
        if top == "numpy" and source.within("gatewayd/") and room_of(source.module) not in NUMPY_ROOMS:
            yield line, f"numpy belongs in {' and '.join(NUMPY_ROOMS)} only: the daemon runs without it"
        elif allowed is not None and top not in {*sys.stdlib_module_names, *allowed, "gatewayd"}:
            yield line, f"{top} is neither of the standard library nor allowed in {room_of(source.module)}"


def tasks(source: Source) -> Iterator[Finding]:
    for call in _calls(source):
        called = ast.unparse(call.func)
        if called.endswith("ensure_future"):
            yield call.lineno, f"{called}: use a TaskGroup"
        elif re.search(r"(asyncio|loop|loop\(\))\.create_task$", called):
            yield call.lineno, f"{called}: a task lives in a TaskGroup"
        elif (
            called.endswith(".create_task")
            and source.within("gatewayd/")
            and not any(keyword.arg == "name" for keyword in call.keywords)
        ):
            yield call.lineno, f"{called}: a task has a name"


def broad_excepts(source: Source) -> Iterator[Finding]:
    if source.within(*BROAD):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and not _only_cleans_up(node):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {ast.unparse(each) if each else "everything" for each in caught}
            if names & {"everything", "Exception", "BaseException"}:
                yield node.lineno, f"catches {', '.join(sorted(names))}: only daemon.py and edges/ may"


def _only_cleans_up(handler: ast.ExceptHandler) -> bool:
    """Whether the handler passes on what it caught: nothing is swallowed."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def sleeps(source: Source) -> Iterator[Finding]:
    for line, name in imports(source):
        if name == "time.sleep":
            yield line, "time.sleep: wait for the thing itself, with a deadline"
    for call in _calls(source):
        called = ast.unparse(call.func)
        zero = len(call.args) == 1 and ast.unparse(call.args[0]) == "0"
        if called == "time.sleep":
            yield call.lineno, "time.sleep: wait for the thing itself, with a deadline"
        elif called == "asyncio.sleep" and source.within("tests/") and not zero:
            yield call.lineno, "asyncio.sleep in a test: wait for the thing itself, with a deadline"


def mocks(source: Source) -> Iterator[Finding]:
    for line, name in imports(source):
        if belongs(name, "unittest.mock") or belongs(name, "pytest_mock") or belongs(name, "mock"):
            yield line, f"{name}: write a fake that keeps the port's contract"


def sizes(source: Source) -> Iterator[Finding]:
    lines = source.text.count("\n")
    if lines > MAX_FILE_LINES:
        yield 1, f"{lines} lines: look for the second idea hiding in it (at most {MAX_FILE_LINES})"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {length} lines (at most {MAX_FUNCTION_LINES})"


# The comment that silences a checker, the rules it names, and at least one word of reason after them.
_SILENCER = re.compile(
    r"#\s*(noqa|type:\s*ignore)(?P<codes>:\s*[A-Z]+\d+(\s*,\s*[A-Z]+\d+)*|\[[\w\s,-]+\])?(?P<rest>.*)"
)


def silencers(source: Source) -> Iterator[Finding]:
    for token in tokenize.generate_tokens(StringIO(source.text).readline):
        found = token.type == tokenize.COMMENT and _SILENCER.match(token.string)
        if not found:
            continue
        if not found["codes"]:
            yield token.start[0], f"{token.string!r} silences everything: name the rule"
        elif not re.search(r"[A-Za-z]{3}", found["rest"]):
            yield token.start[0], f"{token.string!r} gives no reason"


def nested_pairs(source: Source) -> Iterator[Finding]:
    """Find key=value pairs in the words of a log line: they would be quoted as one, and nobody could look for them."""
    for call in _calls(source):
        told = ast.unparse(call.func)
        words = "".join(
            each.value for each in ast.walk(call) if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )
        if re.match(r"(logger|_LOG|_EVENTS)\.\w+$", told) and re.search(r"\w=(%|$)", words):
            yield call.lineno, f"{told}: give the pairs as extra={{'fields': …}}"


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


RULES: tuple[Rule, ...] = (direction, packages, tasks, broad_excepts, sleeps, mocks, sizes, silencers, nested_pairs)


def sources() -> list[Source]:
    files = [file for folder in CODE for file in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(file.relative_to(ROOT).as_posix(), file.read_text()) for file in files]


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_the_house_keeps_its_rules(rule: Rule) -> None:
    findings = [f"{source.path}:{line}: {what}" for source in sources() for line, what in rule(source)]
    assert not findings, "\n" + "\n".join(findings)


BROKEN: list[tuple[Rule, str, str]] = [
    (direction, "gatewayd/core/x.py", "import gatewayd.wire.mqtt"),
    (direction, "gatewayd/core/x.py", "from gatewayd import wire"),
    (direction, "gatewayd/core/x.py", "from ..wire import mqtt"),
    (direction, "gatewayd/wire/__init__.py", "from ..services import ports"),
    (direction, "gatewayd/wire/x.py", "def late():\n    from gatewayd.adapters.store import Store"),
    (direction, "gatewayd/services/x.py", "from gatewayd.wire.mqtt import Message"),
    (direction, "gatewayd/services/x.py", "from gatewayd.api.table import Api"),
    (direction, "gatewayd/api/x.py", "from gatewayd.edges import http"),
    (direction, "gatewayd/edges/x.py", "from gatewayd.services.catalog import Catalog"),
    (direction, "gatewayd/edges/x.py", "from gatewayd.links import mqtt"),
    (direction, "gatewayd/cli/x.py", "from gatewayd.services.catalog import Catalog"),
    (direction, "gatewayd/links/x.py", "from gatewayd.services.ports import DeviceLink"),
    (direction, "gatewayd/links/x.py", "from gatewayd.adapters.store import Store"),
    (direction, "gatewayd/adapters/x.py", "from gatewayd.services.ports import DeviceStore"),
    (direction, "gatewayd/adapters/x.py", "from gatewayd.worker.engines import Engine"),
    (direction, "gatewayd/worker/x.py", "from gatewayd.core.errors import GatewayError"),
    (direction, "gatewayd/sim/x.py", "from gatewayd.adapters.store import Store"),
    (direction, "gatewayd/sim/x.py", "from gatewayd.services.ports import Clock"),
    (direction, "gatewayd/simulate/x.py", "from gatewayd.services.renting import Renting"),
    (direction, "gatewayd/demo/x.py", "from gatewayd.services.ports import Clock"),
    (direction, "gatewayd/config/root.py", "from gatewayd.daemon import run"),
    (direction, "gatewayd/newroom/x.py", "from gatewayd.core.errors import GatewayError"),
    (packages, "gatewayd/core/x.py", "import aiohttp"),
    (packages, "gatewayd/services/x.py", "from paho.mqtt import client"),
    (packages, "gatewayd/worker/x.py", "import pydantic"),
    (packages, "gatewayd/adapters/x.py", "import numpy as np"),
    (packages, "gatewayd/daemon.py", "from numpy.typing import NDArray"),
    (tasks, "gatewayd/links/x.py", "asyncio.create_task(run(), name='run')"),
    (tasks, "gatewayd/links/x.py", "asyncio.get_running_loop().create_task(run(), name='run')"),
    (tasks, "tests/x.py", "loop.create_task(run(), name='run')"),
    (tasks, "tests/x.py", "asyncio.ensure_future(run())"),
    (tasks, "gatewayd/links/x.py", "group.create_task(run())"),
    (broad_excepts, "gatewayd/links/x.py", "try:\n    run()\nexcept Exception:\n    pass"),
    (broad_excepts, "gatewayd/links/x.py", "try:\n    run()\nexcept (OSError, BaseException):\n    pass"),
    (broad_excepts, "gatewayd/cli/x.py", "try:\n    run()\nexcept:\n    pass"),
    (sleeps, "gatewayd/sim/x.py", "time.sleep(1)"),
    (sleeps, "tests/x.py", "from time import sleep"),
    (sleeps, "tests/x.py", "asyncio.sleep(0.1)"),
    (mocks, "tests/x.py", "from unittest.mock import Mock"),
    (mocks, "tests/x.py", "from unittest import mock"),
    (mocks, "tests/x.py", "import unittest.mock"),
    (sizes, "gatewayd/core/x.py", "x = 1\n" * (MAX_FILE_LINES + 1)),
    (sizes, "gatewayd/core/x.py", "async def long():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    (silencers, "gatewayd/core/x.py", "x = 1  # noqa"),
    (silencers, "gatewayd/core/x.py", "x = 1  # noqa: S603"),
    (silencers, "gatewayd/core/x.py", "x = 1  # noqa: S603, E501"),
    (silencers, "gatewayd/core/x.py", "x = 1  # type: ignore"),
    (silencers, "gatewayd/core/x.py", "x = 1  # type: ignore[misc, arg-type]"),
    (nested_pairs, "gatewayd/adapters/x.py", "logger.info('started port=%d', port)"),
    (nested_pairs, "gatewayd/adapters/x.py", "_LOG.log(level, 'not written reason=%r', why)"),
    (nested_pairs, "gatewayd/adapters/x.py", "logger.info(f'started port={port}')"),
]


@pytest.mark.parametrize(
    ("rule", "path", "text"), BROKEN, ids=[f"{rule.__name__}: {text[:60]}" for rule, _, text in BROKEN]
)
def test_a_rule_can_fail(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(Source(path, text)))) == 1


KEPT: list[tuple[str, str]] = [
    ("gatewayd/core/x.py", "import math\nfrom gatewayd.core.names import DeviceId\nfrom .names import Alias"),
    ("gatewayd/adapters/x.py", "from gatewayd.worker.framing import Frame\nfrom gatewayd.worker import framing"),
    ("gatewayd/sim/x.py", "from gatewayd.adapters.worker_process import spawn\nimport numpy"),
    ("gatewayd/daemon.py", "from gatewayd import __version__, cli\ntry:\n    run()\nexcept Exception:\n    raise"),
    ("gatewayd/api/x.py", "from gatewayd import __version__\nfrom pydantic import BaseModel"),
    ("gatewayd/adapters/x.py", "try:\n    run()\nexcept BaseException:\n    undo()\n    raise"),
    ("gatewayd/links/x.py", "group.create_task(run(), name='run')\nasyncio.sleep(5)"),
    ("tests/x.py", "try:\n    run()\nexcept pytest.skip.Exception:\n    pass"),
    ("tests/x.py", "import numpy\nfrom gatewayd.services.ports import Clock\nasyncio.sleep(0)"),
    ("gatewayd/adapters/x.py", "logger.info('started', extra={'fields': {'port': port}})"),
    ("tests/x.py", "x = 1  # noqa: S603  # started by this test\ny = 1  # type: ignore[misc]  # the point of it"),
    ("gatewayd/core/x.py", "def short():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)),
]


@pytest.mark.parametrize(("path", "text"), KEPT, ids=[path for path, _ in KEPT])
def test_what_is_allowed_is_not_found(path: str, text: str) -> None:
    assert [finding for rule in RULES for finding in rule(Source(path, text))] == []
