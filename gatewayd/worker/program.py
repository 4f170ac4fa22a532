"""The worker from argv to exit code: deny itself what it should not have, open the engine, say hello, serve."""

from __future__ import annotations

import json
import signal
import sys
from typing import NamedTuple

from .capture import StderrCapture
from .channel import Channel
from .engines import EngineMissing, open_engine
from .limits import die_with_parent, limit_process
from .nursery import forked
from .serve import hello, refusal, serve

EXIT_ENGINE_MISSING = 4
_NURSERY = "--nursery"
_NAMES = ("--channel", "--memory", "--doorbell", "--answered", "--engine", "--options", "--memory-bytes")
_USAGE = """gatewayd.worker runs models for gatewayd, which starts it: {}.
  --channel N        inherited connected Unix stream socket
  --memory N         inherited memfd of the shared memory
  --doorbell N       inherited eventfd that counts requests
  --answered N       inherited eventfd that counts answers
  --engine NAME      litert, tflite-runtime, tflm, onnxruntime or openvino
  --options JSON     object of what the engine is told; default {{}}
  --memory-bytes N   limit of the address space; default none"""


class Options(NamedTuple):
    """What the program is told: descriptors, the engine with its options (JSON), and the limit of its memory."""

    channel: int
    memory: int
    doorbell: int
    answered: int
    engine: str
    options: str
    memory_bytes: int | None


def main(argv: list[str] | None = None) -> int:
    """Serve until the other side closes. Returns 0 then, 4 when there is no engine.

    `--nursery DESCRIPTOR ENGINE` makes it a nursery; what is below it does in each worker forked from it.
    """
    argv = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which closes the channel in its own time
    if argv[:1] == [_NURSERY]:
        argv = forked(int(argv[1]), argv[2])
    options = _parse(argv)
    die_with_parent()
    channel = Channel(options.channel, options.memory, options.doorbell, options.answered)
    stderr = StderrCapture()
    try:
        engine = open_engine(options.engine, json.loads(options.options))
    except EngineMissing as error:
        channel.send(refusal(0, error, stderr=stderr.tail()))
        return EXIT_ENGINE_MISSING
    limit_process(options.memory_bytes)
    channel.send(hello(engine))
    try:
        serve(channel, engine, stderr)
    except ConnectionError:  # whoever asked is gone; there is nobody left to tell
        return 0
    return 0


def _parse(argv: list[str]) -> Options:
    """Read `--name value` pairs; ends the process on anything else. (argparse costs each forked worker 1.3 MB of its own.)."""
    named = dict(zip(argv[::2], argv[1::2]))  # noqa: B905 # strict= came with Python 3.10; an odd one is told below
    unknown = [name for name in argv[::2] if name not in _NAMES]
    try:
        numbers = [int(named["--" + each]) for each in ("channel", "memory", "doorbell", "answered")]
        memory_bytes = named.get("--memory-bytes")
        limit = None if memory_bytes is None else int(memory_bytes)
        engine = named["--engine"]
    except (KeyError, ValueError) as error:
        sys.exit(_USAGE.format(f"{error} is missing or no number"))
    if unknown or len(argv) % 2:
        sys.exit(_USAGE.format(f"cannot read {unknown or argv[-1:]}"))
    return Options(numbers[0], numbers[1], numbers[2], numbers[3], engine, named.get("--options", "{}"), limit)
