"""The board's interpreter: real TensorFlow Lite Micro in a child process, with the board's own arena.

Where tflite-micro has no wheels LiteRT stands in for it: answers are right, but no arena is enforced beyond the offer's own
figure; `version` says so. A model that kills the interpreter would reset a real board; here the child is started again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gatewayd.adapters.worker_process import LoadedModel, WorkerProcess
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import EngineMissing, ModelRefused
from gatewayd.core.selftest import self_test_input
from gatewayd.core.tensor import DType
from gatewayd.sim.log import EventLog
from gatewayd.wire.tflite import read_model

_START_S = 30.0
_CALL_S = 30.0
_TFLM, _STAND_IN = EngineSpec("tflm", None), EngineSpec("litert", None)


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A model that is loaded: what it takes and gives, and its multiply-accumulates."""

    loaded: LoadedModel
    macs: int


class BoardRuntime:
    """One interpreter with one arena: loading a model forgets the one before."""

    def __init__(self, worker: WorkerProcess, *, arena_bytes: int, log: EventLog) -> None:
        self._worker = worker
        self._arena_bytes = arena_bytes
        self._log = log
        self._held: tuple[int, BoardModel] | None = None

    @classmethod
    async def start(cls, *, arena_bytes: int, log: EventLog) -> "BoardRuntime":
        """Start the interpreter's process. Raises: EngineMissing when neither engine is installed."""
        try:
            worker = await _started(_TFLM)
        except EngineMissing as missing:
            worker = await _started(_STAND_IN)
            log("stand-in", engine=_STAND_IN.name, arena="not enforced by the interpreter", reason=missing)
        return cls(worker, arena_bytes=arena_bytes, log=log)

    @property
    def version(self) -> str:
        """What runs the models, for `runtime_version`."""
        is_real = self._worker.spec == _TFLM
        said = self._worker.engine_version if is_real else f"stand-in: litert {self._worker.engine_version}"
        return said[:64]

    def held(self, slot: int) -> BoardModel | None:
        """Return the model of that slot if it is the one that is loaded."""
        if self._held is None or self._held[0] != slot or self._worker.died:
            return None
        return self._held[1]

    async def load(self, slot: int, model: Path) -> BoardModel:
        """Load the model of a slot.

        Raises: ModelRefused, WorkerDied, DeadlineExceeded.
        """
        self._held = None
        if self._worker.died:
            self._log("interpreter-restarted")
            self._worker = await _started(self._worker.spec)
        structure = read_model(await asyncio.to_thread(model.read_bytes))
        arena_bytes = self._arena_bytes if self._worker.spec == _TFLM else None
        loaded = await self._worker.load(model, arena_bytes=arena_bytes, timeout_s=_CALL_S)
        if not loaded.inputs or not loaded.outputs:
            raise ModelRefused("the model has no input or no output")
        found = BoardModel(loaded, structure.macs)
        self._held = (slot, found)
        return found

    def forget(self, slot: int) -> None:
        """The slot's flash changes: what was loaded from it is void."""
        if self._held is not None and self._held[0] == slot:
            self._held = None

    async def run(self, inputs: Sequence[bytes]) -> bytes:
        """Run the loaded model; return its first output.

        Raises: BadRequest (wrong size), ModelRefused, WorkerDied, DeadlineExceeded.
        """
        return (await self._worker.invoke(inputs, timeout_s=_CALL_S)).outputs[0]

    async def self_test(self, model: BoardModel, seed: int) -> tuple[bytes, DType]:
        """Run the loaded model on the generated inputs; return its first output and its type. Raises: as `run`."""
        specs = model.loaded.inputs
        inputs = [self_test_input(seed + index, spec.byte_count, spec.dtype) for index, spec in enumerate(specs)]
        return await self.run(inputs), model.loaded.outputs[0].dtype

    async def close(self) -> None:
        """End the interpreter's process."""
        await self._worker.close()


async def _started(spec: EngineSpec) -> WorkerProcess:
    return await WorkerProcess.start(spec, memory_limit_bytes=None, start_timeout_s=_START_S)
