"""Answers that count as right: a stored artifact run once per input, in a process made for it.

TensorFlow Lite Micro where it is installed, since that is what runs on devices; else the node's engines in their order.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from gatewayd.adapters.worker_answers import check_promised
from gatewayd.adapters.worker_process import MEMORY_LIMIT_BYTES, EngineSpec, WorkerProcess
from gatewayd.core.errors import EngineMissing, GatewayError, WorkerDied
from gatewayd.core.model import Structure
from gatewayd.core.names import Digest

_TIMEOUT_S = 30.0


class EngineRuns:
    """Runs artifacts on the first of `device_engine` and `engines` that takes them."""

    def __init__(
        self,
        artifact_path: Callable[[Digest], Path],
        engines: Sequence[EngineSpec],
        *,
        device_engine: EngineSpec | None = EngineSpec("tflm"),  # noqa: B008 # a frozen value
    ) -> None:
        self._artifact_path = artifact_path
        self._engines = (*([device_engine] if device_engine else []), *engines)

    async def outputs(self, digest: Digest, structure: Structure, inputs: Sequence[bytes]) -> Sequence[bytes]:
        """Return the raw first output for each raw input. Raises: GatewayError, the last engine's, when none runs it."""
        failure: GatewayError = EngineMissing("no engine is installed here: pip install ai-edge-litert")
        for spec in self._engines:
            try:
                return await self._run(spec, self._artifact_path(digest), structure, inputs)
            except GatewayError as error:
                failure = error
            except TimeoutError:
                failure = WorkerDied(f"{spec.name} took more than {_TIMEOUT_S:g} s")
        raise failure

    async def _run(
        self, spec: EngineSpec, path: Path, structure: Structure, inputs: Sequence[bytes]
    ) -> Sequence[bytes]:
        worker = await WorkerProcess.start(spec, memory_limit_bytes=MEMORY_LIMIT_BYTES, start_timeout_s=_TIMEOUT_S)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                check_promised(await worker.load(path, timeout_s=_TIMEOUT_S), structure)
                return [(await worker.invoke([each], timeout_s=_TIMEOUT_S)).outputs[0] for each in inputs]
        finally:
            await worker.close()
