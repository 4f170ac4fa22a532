"""Compiler plugins as child processes: one interface (`gatewayd.plugins`), each under the interpreter that has its tool.

A plugin sees its input and a folder of its own; what it may take is limited, and it is killed with all its children when it
takes too long. Nothing it says is believed but the bytes it made, and those are read before they are used.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gatewayd.core.building import ETHOS_U, INT8, Compiled, Recipe
from gatewayd.core.errors import DeadlineExceeded, EngineMissing, ModelRefused, NodeError
from gatewayd.core.names import Digest
from gatewayd.core.record import record
from gatewayd.worker.framing import TAIL_BYTES, printable

PROGRAMS: Mapping[str, Path] = {
    INT8: Path(__file__).parents[1] / "plugins" / "int8.py",
    ETHOS_U: Path(__file__).parents[1] / "plugins" / "ethos_u.py",
}

MEMORY_LIMIT_BYTES = 4 * 1024 * 1024 * 1024
"""Address space of a plugin. The tools map about 1 GB before any model; beyond this a model is too large for a device anyway."""

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""Protects memory: what a plugin made is read whole."""

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_EXIT_MISSING = 4
_DESCRIBE_TIMEOUT_S = 20.0
_ANSWER_BYTES = 65536


@record
class CompilerLimits:
    """What one build may take."""

    memory_bytes: int | None = MEMORY_LIMIT_BYTES
    timeout_s: float = 300.0


class CompilerPrograms:
    """The plugins. `pythons` names the interpreter of each (missing or None: the daemon's own)."""

    def __init__(
        self,
        artifact_path: Callable[[Digest], Path],
        pythons: Mapping[str, str | None],
        *,
        limits: CompilerLimits | None = None,
        programs: Mapping[str, Path] = PROGRAMS,
    ) -> None:
        self._artifact_path = artifact_path
        self._programs = programs
        self._pythons = pythons
        self._limits = limits or CompilerLimits()

    async def version(self, plugin: str) -> str:
        """Return the version of the plugin and its tool. Raises: EngineMissing saying what to install."""
        with tempfile.TemporaryDirectory(prefix="gatewayd-plugin-") as folder:
            said = await self._run(plugin, ["--describe"], Path(folder), timeout_s=_DESCRIBE_TIMEOUT_S)
        return _text(said, "version", plugin)

    async def compile(self, recipe: Recipe, samples: Digest | None) -> Compiled:
        """Run the plugin on stored artifacts.

        Raises: EngineMissing; ModelRefused with the tool's words when it fails; DeadlineExceeded; NodeError.
        """
        with tempfile.TemporaryDirectory(prefix="gatewayd-plugin-") as name:
            folder = Path(name)
            request = {
                "input": str(self._artifact_path(recipe.source.digest)),
                "output": str(folder / "output.tflite"),
                "samples": None if samples is None else str(self._artifact_path(samples)),
                "input_bytes": recipe.source.structure.inputs[0].byte_count,
                "options": dict(recipe.options),
                "memory_bytes": self._limits.memory_bytes,
            }
            (folder / "request.json").write_text(json.dumps(request))
            arguments = [str(folder / "request.json")]
            said = await self._run(recipe.plugin, arguments, folder, timeout_s=self._limits.timeout_s)
            content = await asyncio.to_thread(_output, folder / "output.tflite", recipe.plugin)
        return Compiled(content, _text(said, "report", recipe.plugin))

    async def _run(self, plugin: str, arguments: Sequence[str], folder: Path, *, timeout_s: float) -> bytes:
        """Return what the program printed, of which the last line is its answer."""
        python = self._pythons.get(plugin) or sys.executable
        out, err = folder / "stdout", folder / "stderr"
        try:
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = await asyncio.create_subprocess_exec(
                    python, str(self._programs[plugin]), *arguments,
                    stdin=DEVNULL, stdout=stdout, stderr=stderr, cwd=folder, env=_environment(folder), start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise EngineMissing(f"plugin {plugin}: cannot start {python}: {error.strerror}") from error
        code = await _ended(process, timeout_s=timeout_s, plugin=plugin)
        if code:
            words = printable(_tail(err))
            if code == _EXIT_MISSING:
                raise EngineMissing(words or f"plugin {plugin}: its tool is not installed")
            raise ModelRefused(f"plugin {plugin} ended with code {code}: {words}")
        return _tail(out, _ANSWER_BYTES)


async def _ended(process: Process, *, timeout_s: float, plugin: str) -> int:
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait()
    except TimeoutError as error:
        raise DeadlineExceeded(f"plugin {plugin} took more than {timeout_s:g} s and was killed") from error
    finally:
        # Also what it started and left behind: the group is its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _environment(folder: Path) -> dict[str, str]:
    """Return what a plugin gets to see: no secrets of the daemon, and no place to keep anything but its folder."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**kept, "HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


def _tail(path: Path, most: int = TAIL_BYTES) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        return file.read(most)


def _text(said: bytes, key: str, plugin: str) -> str:
    lines = said.strip().splitlines()
    try:
        return str(json.loads(lines[-1])[key])[:500]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise NodeError(f"plugin {plugin} gave no answer that can be read") from error


def _output(path: Path, plugin: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_OUTPUT_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelRefused(f"plugin {plugin} wrote no model") from error
    if len(content) > MAX_OUTPUT_BYTES:
        raise ModelRefused(f"plugin {plugin} wrote more than {MAX_OUTPUT_BYTES} bytes")
    return content
