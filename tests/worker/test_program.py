"""The program from outside: started by path as the daemon does it, and by other interpreters where there are any."""

import ast
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import gatewayd.worker
from gatewayd.adapters.worker_ring import Shared, open_shared
from gatewayd.worker.framing import Decoder, Frame, encode
from gatewayd.worker.ring import (
    ANSWER,
    ANSWER_OFFSET,
    COUNT,
    DONE,
    EXPIRED,
    PIECE,
    REQUEST,
    Layout,
    Piece,
    layout,
    pieces,
)
from tests import tiny_models
from tests.engine_environments import require_engine

_WIDE = 64 * 1024  # numbers of an input: two pieces
_WORKER = Path(gatewayd.worker.__file__).parent
_OLD_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.[89]*/bin/python")) or [Path("/usr/bin/python3")]


@dataclass
class Started:
    """A running worker and our ends of what it inherited."""

    sock: socket.socket
    process: subprocess.Popen[bytes]
    shared: Shared

    def send(self, content: bytes) -> None:
        self.sock.sendall(content)

    def submit(self, memory: mmap.mmap, plan: Layout, number: int, *, deadline_s: float = 0.0) -> None:
        memory[number] = number - 1
        REQUEST.pack_into(memory, plan.start(number - 1), number, 0, 0, deadline_s)

    def answers(self, count: int) -> None:
        """Wait until so many are answered."""
        while count:
            select.select([self.shared.answered], [], [], 20)
            count -= COUNT.unpack(os.read(self.shared.answered, 8))[0]


@contextmanager
def _running(*start: str, engine: str) -> Iterator[Started]:
    ours, theirs = socket.socketpair()
    shared = open_shared()
    inherited = {
        "channel": theirs.fileno(), "memory": shared.memory, "doorbell": shared.doorbell, "answered": shared.answered,
    }  # fmt: skip
    argv = [*start, "--engine", engine, *(str(each) for k, v in inherited.items() for each in (f"--{k}", v))]
    with ours, subprocess.Popen(argv, pass_fds=inherited.values(), stderr=subprocess.PIPE) as process:
        theirs.close()
        ours.settimeout(20)
        try:
            yield Started(ours, process, shared)
        finally:
            process.kill()
            shared.close()


def _receive(sock: socket.socket) -> Frame:
    decoder, frames = Decoder(), list[Frame]()
    while not frames:
        chunk = sock.recv(65536)
        assert chunk, "the worker closed its channel"
        frames = decoder.feed(chunk)
    return frames[0]


@pytest.mark.parametrize("path", sorted(_WORKER.glob("*.py")), ids=lambda path: path.name)
def test_every_file_is_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("python", _OLD_PYTHONS, ids=lambda path: path.parts[-3])
def test_it_answers_under_an_old_interpreter_without_our_packages(python: Path) -> None:
    if not python.exists():
        pytest.skip("no other interpreter is installed")
    with _running(str(python), "-E", str(_WORKER / "__main__.py"), engine="litert") as started:
        hello = _receive(started.sock)
        assert hello.header["error"] == "engine_missing", hello
        assert "pip install ai-edge-litert" in str(hello.header["message"])
        assert started.process.wait(timeout=20) == 4


@pytest.mark.parametrize("start", [(str(_WORKER / "__main__.py"),), ("-m", "gatewayd.worker")], ids=["path", "module"])
def test_it_serves_and_ends_when_its_channel_closes(start: tuple[str, ...]) -> None:
    require_engine("litert")
    with _running(sys.executable, *start, engine="litert") as started:
        hello = _receive(started.sock)
        assert hello.header["id"] == 0
        assert hello.header["engine"] == "litert"
        started.sock.close()
        assert started.process.wait(timeout=20) == 0


def _loaded(started: Started, folder: Path) -> tuple[mmap.mmap, Layout]:
    model = folder / "model"
    model.write_bytes(tiny_models.two_input_model())
    assert _receive(started.sock).header["id"] == 0
    started.send(encode({"id": 5, "op": "load", "path": str(model)}))
    answer = _receive(started.sock)
    assert answer.header["id"] == 5
    plan = layout([8, 8], [8])
    return mmap.mmap(started.shared.memory, plan.total_bytes), plan


def test_several_inferences_in_one_wake_up_are_answered_in_order(tmp_path: Path) -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as started:
        memory, plan = _loaded(started, tmp_path)
        for number in (1, 2, 3):
            started.submit(memory, plan, number, deadline_s=1.0 if number == 2 else 0.0)
        os.write(started.shared.doorbell, COUNT.pack(3))
        started.answers(3)
        found = [ANSWER.unpack_from(memory, plan.start(n) + ANSWER_OFFSET)[:2] for n in range(3)]
    assert found == [(1, DONE), (2, EXPIRED), (3, DONE)]  # the machine has been up for more than a second


def _wide(started: Started, folder: Path) -> tuple[mmap.mmap, Layout]:
    """Load a model with two inputs of 256 KB and their sum."""
    model = folder / "model"
    model.write_bytes(tiny_models.two_input_model(_WIDE))
    assert _receive(started.sock).header["id"] == 0
    started.send(encode({"id": 5, "op": "load", "path": str(model)}))
    assert _receive(started.sock).header["id"] == 5
    plan = layout([_WIDE * 4] * 2, [_WIDE * 4])
    return mmap.mmap(started.shared.memory, plan.total_bytes), plan


@pytest.mark.parametrize("told", [[], [1], [1, 1], [2], [1, 1, 1]], ids=str)
@pytest.mark.parametrize("stream", [0, 3])
def test_large_inputs_may_come_in_pieces(tmp_path: Path, told: list[int], stream: int) -> None:
    require_engine("litert")
    assert len(pieces([_WIDE * 4] * 2)) == 4
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as started:
        memory, plan = _wide(started, tmp_path)
        for number in (1, 2):
            memory[number] = 0
            REQUEST.pack_into(memory, plan.start(0), number, stream, 0, 0.0)
            values = [[float(number * factor + each % 7) for each in range(_WIDE)] for factor in (1, 10)]
            whole = [struct.pack(f"<{_WIDE}f", *each) for each in values]
            cut, written = pieces([len(each) for each in whole]), 0
            for count in told:
                _write(memory, plan, whole, cut[written : written + count])
                written += count
                os.write(started.shared.doorbell, COUNT.pack(PIECE * count))
                _until_read(started.shared.doorbell)
            _write(memory, plan, whole, cut[written:])
            os.write(started.shared.doorbell, COUNT.pack(1))
            started.answers(1)
            low, high = plan.outputs[0]
            found = struct.unpack(f"<{_WIDE}f", memory[plan.start(0) + low : plan.start(0) + high])
            assert found == tuple(map(sum, zip(*values, strict=True)))


def test_pieces_of_an_inference_that_expires_are_not_taken_for_the_next(tmp_path: Path) -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as started:
        memory, plan = _wide(started, tmp_path)
        for number, value, deadline_s in ((1, 5.0, 1.0), (2, 7.0, 0.0)):
            started.submit(memory, plan, number, deadline_s=deadline_s)
            start = plan.start(number - 1)
            whole = [struct.pack("<f", value) * _WIDE] * 2
            _write(memory, plan, whole, pieces([len(each) for each in whole]), start=start)
            if number == 1:
                os.write(started.shared.doorbell, COUNT.pack(PIECE))
                _until_read(started.shared.doorbell)
            os.write(started.shared.doorbell, COUNT.pack(1))
            started.answers(1)
        status = ANSWER.unpack_from(memory, plan.start(0) + ANSWER_OFFSET)[1]
        low, _ = plan.outputs[0]
        found = struct.unpack_from("<2f", memory, plan.start(1) + low)
    assert status == EXPIRED
    assert found == (14.0, 14.0)


def _write(memory: mmap.mmap, plan: Layout, whole: list[bytes], cut: list[Piece], *, start: int | None = None) -> None:
    start = plan.start(0) if start is None else start
    for tensor, low, high in cut:
        at = start + plan.inputs[tensor][0]
        memory[at + low : at + high] = whole[tensor][low:high]


def _until_read(doorbell: int) -> None:
    """Wait until the worker has taken what was added."""
    poll = select.poll()
    poll.register(doorbell, select.POLLIN)
    while poll.poll(0):
        pass


@pytest.mark.parametrize("number", [0, 2, 2**64 - 1])
def test_a_slot_with_another_number_ends_it(tmp_path: Path, number: int) -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as started:
        memory, plan = _loaded(started, tmp_path)
        REQUEST.pack_into(memory, plan.start(0), number, 0, 0, 0.0)
        os.write(started.shared.doorbell, COUNT.pack(1))
        assert started.process.wait(timeout=20) == 1


def test_an_inference_before_loading_ends_it() -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as started:
        _receive(started.sock)
        os.write(started.shared.doorbell, COUNT.pack(1))
        assert started.process.wait(timeout=20) == 1


@pytest.mark.parametrize(
    "request_bytes", [b"rubbish in front", encode({"id": 1, "op": "dance"}), encode({"id": 1, "op": "load"})]
)
def test_what_is_no_request_ends_it_with_a_reason(request_bytes: bytes) -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as started:
        _receive(started.sock)
        started.send(request_bytes)
        _, stderr = started.process.communicate(timeout=20)
        assert started.process.returncode == 1
        assert b"FramingError" in stderr


def test_ctrl_c_is_not_for_it() -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as started:
        _receive(started.sock)
        os.kill(started.process.pid, signal.SIGINT)
        started.sock.close()
        assert started.process.wait(timeout=20) == 0
