"""What `gatewayd doctor` finds out: which engines work, which accelerators are there, what is missing and how to get it.

Everything is tried as the daemon does it: engines in a process of their own.
"""

from collections.abc import Sequence
from pathlib import Path

from gatewayd.adapters.accelerators import find_accelerators
from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.core.accelerator import ENGINE_HINTS, Found
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import GatewayError
from gatewayd.core.record import record

_START_S = 20.0


@record
class EngineHealth:
    """One engine: its version and devices, or why it does not start ("": it does)."""

    spec: EngineSpec
    problem: str
    version: str = ""
    devices: tuple[str, ...] = ()


async def examine(engines: Sequence[EngineSpec], root: Path) -> tuple[list[EngineHealth], tuple[Found, ...]]:
    """Start every engine once, and look for accelerators under `root`."""
    return [await _start(spec) for spec in engines], find_accelerators(root)


async def _start(spec: EngineSpec) -> EngineHealth:
    try:
        worker = await WorkerProcess.start(spec, memory_limit_bytes=None, start_timeout_s=_START_S)
    except GatewayError as error:
        return EngineHealth(spec, str(error))
    health = EngineHealth(spec, "", worker.engine_version, worker.devices)
    await worker.close()
    return health


def render(engines: Sequence[EngineHealth], found: Sequence[Found]) -> list[str]:
    """Return the lines to print."""
    lines = ["Engines:"]
    lines += [line for each in engines for line in _engine_lines(each)] or [
        "  none: pip install ai-edge-litert (or name engines in the config)"
    ]
    lines.append("Accelerators:")
    used = {each.spec.accelerator for each in engines}
    for each in found:
        lines.append(f"  {each.kind.value}: {each.detail}")
        lines += [f"    missing: {what}" for what in each.missing]
        if each.kind.value not in used:
            lines.append(f"    no engine uses it; in the config: {ENGINE_HINTS[each.kind]}")
    if not found:
        lines.append("  none (looked for Edge TPU, Jetson, Movidius, Intel GPU and NPU): models run on the CPU")
    return lines


def _engine_lines(health: EngineHealth) -> list[str]:
    where = f" under {health.spec.python}" if health.spec.python else ""
    if health.problem:
        first, *more = health.problem.splitlines()
        return [f"  {health.spec.label}{where}: does not work: {first}", *(f"    {line}" for line in more)]
    return [f"  {health.spec.label}{where}: version {health.version}, on {', '.join(health.devices) or 'the CPU'}"]
