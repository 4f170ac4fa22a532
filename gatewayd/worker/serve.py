"""One inference or operation after another until the other side closes.

What an engine refuses is an answer; anything else ends the process.
"""

from __future__ import annotations

import platform
from time import monotonic, perf_counter
from typing import cast

from .arena import measure_arena
from .capture import StderrCapture
from .channel import Channel
from .engines import Engine, EngineError, Model, ModelInPieces, ModelRefused, Spec
from .framing import Frame, FramingError
from .limits import trim
from .ring import (
    ANSWER,
    ANSWER_OFFSET,
    DONE,
    EXPIRED,
    MAX_SLOTS,
    MAX_STREAMS,
    REFUSED,
    REQUEST,
    RESET,
    Piece,
    layout,
    pieces,
)


def hello(engine: Engine) -> Frame:
    """Return the worker's first frame."""
    header: dict[str, object] = {"id": 0, "engine": engine.name, "engine_version": engine.version}
    return Frame({**header, "python": platform.python_version(), "devices": engine.devices})


def refusal(request_id: object, error: EngineError, *, stderr: str = "") -> Frame:
    """Return the frame that answers a request with an error; what the engine said on stderr is part of the message."""
    return Frame({"id": request_id, "error": error.kind, "message": f"{error}\n{stderr}".strip()[:8000]})


def serve(channel: Channel, engine: Engine, stderr: StderrCapture) -> None:
    """Answer in order until the other side closes.

    Raises: FramingError on what is no request; OSError when the channel breaks.
    """
    operations = Operations(channel, engine, stderr)
    try:
        while True:
            wake, frames = channel.wait()
            if wake.pieces and not wake.inferences:
                operations.take_in(wake.pieces)
            for _ in range(wake.inferences):
                operations.infer_next()
            for frame in frames:
                channel.send(operations.answer(frame))
    except EOFError:
        return


class _Slot:
    """Views of one slot's header and tensors."""

    def __init__(self, memory: memoryview, inputs: list[tuple[int, int]], outputs: list[tuple[int, int]]) -> None:
        self.header = memory
        # Writable on purpose: LiteRT copies an input once more when it is given one that is read-only.
        self.inputs = [memory[start:end] for start, end in inputs]
        self.outputs = [memory[start:end] for start, end in outputs]


class Operations:
    """The operations on one engine and the one model it holds, once for each stream."""

    def __init__(self, channel: Channel, engine: Engine, stderr: StderrCapture) -> None:
        self._channel = channel
        self._engine = engine
        self._stderr = stderr
        self._models: dict[int, Model] = {}
        self._loaded: tuple[str, int | None] = ("", None)
        self._slots: list[_Slot] = []
        self._order = memoryview(b"")
        self._last = 0
        self._pieces: list[Piece] = []
        self._arrived = 0
        self._filled: ModelInPieces | None = None
        self._by_name = {"load": self._load, "measure_arena": self._measure_arena}

    def answer(self, request: Frame) -> Frame:
        """Carry out one request. Raises: FramingError when it is none."""
        name = _text(request, "op")
        if name not in self._by_name:
            raise FramingError(f"no such operation: {name!r}")
        self._stderr.clear()
        request_id = request.header.get("id")
        try:
            header = self._by_name[name](request)
        except EngineError as error:
            return refusal(request_id, error, stderr=self._stderr.tail() if isinstance(error, ModelRefused) else "")
        return Frame({"id": request_id, **header})

    def take_in(self, count: int) -> None:
        """Give the model so many more pieces of the next inference's inputs; what it does not take now it gets as a whole.

        Raises: FramingError, as `infer_next`.
        """
        slot = self._slot(self._last + 1)
        _, stream, flags, _ = REQUEST.unpack_from(slot.header)
        model = self._models.get(stream)
        if model is None or flags & RESET or not self._pieces:
            return
        self._filled = cast("ModelInPieces", model)  # there are no pieces for others
        try:
            self._fill(self._filled, slot, self._arrived + count)
        except EngineError:  # it will say so again when it gets them all
            self._filled, self._arrived = None, 0

    def _fill(self, model: ModelInPieces, slot: _Slot, arrived: int) -> None:
        for tensor, start, end in self._pieces[self._arrived : arrived]:
            model.fill(tensor, start, slot.inputs[tensor][start:end])
        self._arrived = arrived

    def infer_next(self) -> None:
        """Run the inference in the next slot and tell that it is answered.

        Raises: FramingError when nothing is loaded or the slot holds another number.
        """
        self._last += 1
        slot = self._slot(self._last)
        number, stream, flags, deadline_s = REQUEST.unpack_from(slot.header)
        if deadline_s and monotonic() > deadline_s:
            ANSWER.pack_into(slot.header, ANSWER_OFFSET, number, EXPIRED, 0, 0.0)
        else:
            self._infer(slot, number, stream, is_reset=bool(flags & RESET))
        self._filled, self._arrived = None, 0
        self._channel.answered()

    def _slot(self, due: int) -> _Slot:
        if not self._slots:
            raise FramingError("an inference where no model is loaded")
        slot = self._slots[self._order[due % MAX_SLOTS]]
        number, stream, _, _ = REQUEST.unpack_from(slot.header)
        if number != due or stream > MAX_STREAMS:
            raise FramingError(f"inference {number} of stream {stream} where {due} was due")
        return slot

    def _infer(self, slot: _Slot, number: int, stream: int, *, is_reset: bool) -> None:
        started = perf_counter()
        try:
            if self._filled is not None:
                self._fill(self._filled, slot, len(self._pieces))
                self._filled.compute(slot.outputs)
            else:
                self._model_of(stream, is_reset=is_reset).invoke(slot.inputs, slot.outputs)
        except EngineError as error:
            self._channel.send(refusal(f"i{number}", error, stderr=self._stderr.tail()))
            self._stderr.clear()
            ANSWER.pack_into(slot.header, ANSWER_OFFSET, number, REFUSED, 0, 0.0)
        else:
            ANSWER.pack_into(slot.header, ANSWER_OFFSET, number, DONE, 0, perf_counter() - started)

    def _model_of(self, stream: int, *, is_reset: bool) -> Model:
        """Return the interpreter of a stream; a reset makes a new one, which forgets whatever the engine keeps."""
        model = None if is_reset else self._models.get(stream)
        if model is None:
            self._models.pop(stream, None)
            model = self._models[stream] = self._engine.load(*self._loaded)
        return model

    def _load(self, request: Frame) -> dict[str, object]:
        self._models, self._slots, self._last, self._filled = (
            {},
            [],
            0,
            None,
        )  # the old one's memory goes before the new one's comes
        arena_bytes = request.header.get("arena_bytes")
        self._loaded = _text(request, "path"), arena_bytes if isinstance(arena_bytes, int) else None
        model = self._engine.load(*self._loaded)
        try:
            plan = layout([spec.byte_count for spec in model.inputs], [spec.byte_count for spec in model.outputs])
            memory = self._channel.map(plan)
        except (ValueError, OSError) as error:
            raise ModelRefused(str(error)) from error
        self._models[0] = model
        takes_pieces = isinstance(model, ModelInPieces)
        self._pieces, self._arrived = pieces([spec.byte_count for spec in model.inputs]) if takes_pieces else [], 0
        self._order = memory[:MAX_SLOTS].toreadonly()
        starts = [plan.start(slot) for slot in range(plan.slots)]
        self._slots = [_Slot(memory[at : at + plan.slot_bytes], plan.inputs, plan.outputs) for at in starts]
        trim()
        return {"inputs": _rendered(model.inputs), "outputs": _rendered(model.outputs)}

    def _measure_arena(self, request: Frame) -> dict[str, object]:
        arena_bytes = measure_arena(
            self._engine,
            _text(request, "path"),
            max_bytes=_number(request, "max_bytes"),
            probe_timeout_s=_number(request, "probe_timeout_s"),
            stderr=self._stderr,
        )
        return {"arena_bytes": arena_bytes}


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
