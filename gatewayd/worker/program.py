"""The worker from argv to exit code: deny itself what it should not have, open the engine, say hello, serve."""

from __future__ import annotations

import argparse
import json
import signal

from .capture import StderrCapture
from .channel import Channel
from .engines import EngineMissing, open_engine
from .limits import die_with_parent, limit_process
from .serve import hello, refusal, serve

EXIT_ENGINE_MISSING = 4


def main(argv: list[str] | None = None) -> int:
    """Serve until the other side closes. Returns 0 then, 4 when there is no engine."""
    options = _parse(argv)
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which closes the channel in its own time
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


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gatewayd.worker", description="Runs models for gatewayd, which starts it.")
    parser.add_argument("--channel", type=int, required=True, help="inherited connected Unix stream socket")
    parser.add_argument("--memory", type=int, required=True, help="inherited memfd of the shared memory")
    parser.add_argument("--doorbell", type=int, required=True, help="inherited eventfd that counts requests")
    parser.add_argument("--answered", type=int, required=True, help="inherited eventfd that counts answers")
    parser.add_argument("--engine", required=True, help="litert, tflite-runtime, tflm, onnxruntime or openvino")
    parser.add_argument("--options", default="{}", help="JSON object of what the engine is told")
    parser.add_argument("--memory-bytes", type=int, default=None, help="limit of the address space; default none")
    return parser.parse_args(argv)
