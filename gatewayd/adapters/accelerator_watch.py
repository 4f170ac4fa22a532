"""Watching accelerators: what comes and goes is told to the node's runtime and announced. None is ever fatal.

An engine that names an accelerator is used while hardware of that kind is there and a probe of the engine succeeds: a worker that
opens it (its delegate, provider or device) in a process of its own, since a broken driver may crash or hang who tries it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gatewayd.adapters.accelerators import find_accelerators
from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.core.accelerator import Found
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import GatewayError
from gatewayd.core.events import AcceleratorChanged

PROBE_S = 20.0  # a driver that hangs is killed then
_RETRY_SCANS = 6  # an engine that failed its probe is tried again after so many scans

SetGone = Callable[[Mapping[str, str]], None]


class AcceleratorWatch:
    """Scans `root` every `scan_every_s`. `set_gone` gets the labels of engines that cannot be used, each with the reason."""

    def __init__(
        self,
        engines: Sequence[EngineSpec],
        *,
        root: Path,
        scan_every_s: float,
        set_gone: SetGone,
        announce: Callable[[AcceleratorChanged], None],
    ) -> None:
        self._engines = [engine for engine in engines if engine.accelerator]
        self._root = root
        self._scan_every_s = scan_every_s
        self._set_gone = set_gone
        self._announce = announce
        self._found: tuple[Found, ...] | None = None
        self._failed: dict[str, tuple[str, int]] = {}
        self._good: set[str] = set()
        set_gone({engine.label: "its accelerator was not looked for yet" for engine in self._engines})

    @property
    def found(self) -> tuple[Found, ...]:
        """What the last scan found."""
        return self._found or ()

    async def run(self) -> None:
        """Scan until cancelled."""
        while True:
            await self.scan()
            await asyncio.sleep(self._scan_every_s)

    async def scan(self) -> None:
        """Look once, and tell what changed."""
        found = await asyncio.to_thread(find_accelerators, self._root)
        before, self._found = self._found, found
        self._tell(before, found)
        gone: dict[str, str] = {}
        for engine in self._engines:
            reason = await self._why_gone(engine, found)
            if reason:
                gone[engine.label] = reason
        self._set_gone(gone)

    def _tell(self, before: tuple[Found, ...] | None, found: tuple[Found, ...]) -> None:
        """Announce differences by kind; the first scan announces what is there."""
        old = {each.kind: each for each in before or ()}
        new = {each.kind: each for each in found}
        for kind, each in {**old, **new}.items():
            if (kind in old) != (kind in new):
                users = tuple(engine.label for engine in self._engines if engine.accelerator == kind.value)
                self._announce(AcceleratorChanged(kind.value, kind in new, each.detail, users))

    async def _why_gone(self, engine: EngineSpec, found: tuple[Found, ...]) -> str:
        """Return why an engine cannot be used now, or "" when it can."""
        here = [each for each in found if each.kind.value == engine.accelerator]
        if not here:
            self._good.discard(engine.label)
            self._failed.pop(engine.label, None)
            return f"no {engine.accelerator} is there"
        if engine.label in self._good:
            return ""
        reason, scans = self._failed.get(engine.label, ("", _RETRY_SCANS))
        if scans < _RETRY_SCANS:
            self._failed[engine.label] = (reason, scans + 1)
            return reason
        reason = await probe(engine)
        if reason:
            self._failed[engine.label] = (reason, 0)
        else:
            self._failed.pop(engine.label, None)
            self._good.add(engine.label)
        return reason


async def probe(engine: EngineSpec) -> str:
    """Open an engine in a process of its own; return why it cannot be used, or ""."""
    try:
        worker = await WorkerProcess.start(engine, memory_limit_bytes=None, start_timeout_s=PROBE_S)
    except GatewayError as error:
        return str(error)
    await worker.close()
    return ""
