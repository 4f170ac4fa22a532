"""One operation after another until the other side closes.

What an engine refuses is an answer; anything else ends the process.
"""

from __future__ import annotations

import platform
from typing import Protocol

from .arena import measure_arena
from .capture import StderrCapture
from .engines import Engine, EngineError, Model, ModelRefused, Spec
from .framing import Frame, FramingError


class Channel(Protocol):
    """Where frames come from and go to."""

    def receive(self) -> Frame | None:
        """Wait for the next frame; None at the end."""

    def send(self, frame: Frame) -> None:
        """Write a whole frame."""


def hello(engine: Engine) -> Frame:
    """Return the worker's first frame."""
    header: dict[str, object] = {"id": 0, "engine": engine.name, "engine_version": engine.version}
    return Frame({**header, "python": platform.python_version()})


def refusal(request_id: object, error: EngineError, *, stderr: str = "") -> Frame:
    """Return the frame that answers a request with an error; what the engine said on stderr is part of the message."""
    return Frame({"id": request_id, "error": error.kind, "message": f"{error}\n{stderr}".strip()})


def serve(channel: Channel, engine: Engine, stderr: StderrCapture) -> None:
    """Answer requests in order.

    Raises: FramingError on what is no request; OSError when the channel breaks.
    """
    operations = Operations(engine, stderr)
    while True:
        request = channel.receive()
        if request is None:
            return
        channel.send(operations.answer(request))


class Operations:
    """The operations on one engine and the one model it holds."""

    def __init__(self, engine: Engine, stderr: StderrCapture) -> None:
        self._engine = engine
        self._stderr = stderr
        self._model: Model | None = None
        self._by_name = {"load": self._load, "invoke": self._invoke, "measure_arena": self._measure_arena}

    def answer(self, request: Frame) -> Frame:
        """Carry out one request. Raises: FramingError when it is none."""
        name = _text(request, "op")
        if name not in self._by_name:
            raise FramingError(f"no such operation: {name!r}")
        self._stderr.clear()
        request_id = request.header.get("id")
        try:
            header, blobs = self._by_name[name](request)
        except EngineError as error:
            return refusal(request_id, error, stderr=self._stderr.tail() if isinstance(error, ModelRefused) else "")
        return Frame({"id": request_id, **header}, blobs)

    def _load(self, request: Frame) -> Frame:
        self._model = None  # the old one's memory goes before the new one's comes
        arena_bytes = request.header.get("arena_bytes")
        model = self._engine.load(_text(request, "path"), arena_bytes if isinstance(arena_bytes, int) else None)
        self._model = model
        return Frame({"inputs": _rendered(model.inputs), "outputs": _rendered(model.outputs)})

    def _invoke(self, request: Frame) -> Frame:
        if self._model is None:
            raise ModelRefused("no model is loaded")
        outputs, compute_s = self._model.invoke(request.blobs)
        return Frame({"compute_s": compute_s}, tuple(outputs))

    def _measure_arena(self, request: Frame) -> Frame:
        arena_bytes = measure_arena(
            self._engine,
            _text(request, "path"),
            max_bytes=_number(request, "max_bytes"),
            probe_timeout_s=_number(request, "probe_timeout_s"),
            stderr=self._stderr,
        )
        return Frame({"arena_bytes": arena_bytes})


def _rendered(specs: list[Spec]) -> list[dict[str, object]]:
    names = ("name", "dtype", "shape", "scale", "zero_point")
    return [{name: getattr(spec, name) for name in names} for spec in specs]


def _text(request: Frame, name: str) -> str:
    value = request.header.get(name)
    if not isinstance(value, str):
        raise FramingError(f"{name!r} must be text")
    return value


def _number(request: Frame, name: str) -> int:
    value = request.header.get(name)
    if not isinstance(value, int) or value <= 0:
        raise FramingError(f"{name!r} must be a whole number above 0")
    return value
