"""The smallest arena a model loads and invokes in: found by trying, since what TFLM prints is less than what it needs.

Too small an arena is mostly a refusal and sometimes a crash, so each try is a forked child. The worker runs no threads, which is
what makes forking it safe.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from .capture import StderrCapture
from .engines import Engine, EngineError, ModelRefused
from .limits import die_with_parent

ALIGNMENT_BYTES = 16  # Source: MicroArenaBufferAlignment(), tflite-micro/tensorflow/lite/micro/micro_arena_constants.h
_REFUSED = 3


def measure_arena(engine: Engine, path: str, *, max_bytes: int, probe_timeout_s: int, stderr: StderrCapture) -> int:
    """Return the smallest multiple of 16 bytes in which `path` loads and invokes; about 20 tries.

    Raises: ModelRefused with the engine's own words when not even `max_bytes` are enough.
    """
    enough, too_small = max_bytes // ALIGNMENT_BYTES, 0
    failure = _try(engine, path, arena_bytes=enough * ALIGNMENT_BYTES, timeout_s=probe_timeout_s)
    if failure:
        raise ModelRefused(f"not even with an arena of {max_bytes} bytes: {failure}\n{stderr.tail()}".strip())
    while enough - too_small > 1:
        middle = (enough + too_small) // 2
        if _try(engine, path, arena_bytes=middle * ALIGNMENT_BYTES, timeout_s=probe_timeout_s):
            too_small = middle
        else:
            enough = middle
        stderr.clear()
    return enough * ALIGNMENT_BYTES


def _try(engine: Engine, path: str, *, arena_bytes: int, timeout_s: int) -> str:
    """Return "" when a child process could load and invoke, else how it ended."""
    child = os.fork()
    if child == 0:
        _probe(engine, path, arena_bytes=arena_bytes, timeout_s=timeout_s)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return "" if os.WEXITSTATUS(status) == 0 else "refused"


def _probe(engine: Engine, path: str, *, arena_bytes: int, timeout_s: int) -> NoReturn:
    """Run in the child; leaves without running anything the parent registered. SIGALRM ends a hang in native code too."""
    die_with_parent()
    signal.alarm(timeout_s)
    outcome = _REFUSED
    try:
        model = engine.load(path, arena_bytes)
        inputs = [memoryview(bytes(spec.byte_count)) for spec in model.inputs]
        model.invoke(inputs, [memoryview(bytearray(spec.byte_count)) for spec in model.outputs])
        outcome = 0
    except EngineError as error:
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(outcome)
