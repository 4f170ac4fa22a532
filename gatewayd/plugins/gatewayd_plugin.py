"""What all plugins share: the interface's command line, and the limits they put on themselves. Standard library only."""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

EXIT_MISSING = 4
EXIT_FAILED = 5

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""Protects the disk: the largest file a plugin may write."""

_PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h

Request = dict[str, object]


class PluginError(Exception):
    """The model cannot be compiled; the message says why."""


def main(plugin: str, *, revision: int, packages: tuple[str, ...], install: str, run: Callable[[Request], str]) -> int:
    """Serve one command line. `packages` are alternatives, of which one must be there; `revision` is the plugin's own version."""
    version = next((f"{name} {found}" for name in packages if (found := _installed(name))), None)
    if version is None:
        sys.stderr.write(f"plugin {plugin} needs {packages[0]}, which {sys.executable} has not: {install}\n")
        return EXIT_MISSING
    if sys.argv[1:] == ["--describe"]:
        sys.stdout.write(json.dumps({"plugin": plugin, "version": f"{version}, plugin {revision}"}) + "\n")
        return 0
    request: Request = json.loads(Path(sys.argv[1]).read_text())
    _limit(request.get("memory_bytes"))
    # Tools print what they like; the answer goes to the real standard output.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        report = run(request)
    except PluginError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    answer.write(json.dumps({"report": report}) + "\n")
    return 0


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _limit(memory_bytes: object) -> None:
    with suppress(OSError, AttributeError):  # a libc without prctl: the daemon's own kill is what is left then
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES))
    if isinstance(memory_bytes, int):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
