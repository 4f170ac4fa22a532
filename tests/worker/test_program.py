"""The program from outside: started by path as the daemon does it, and by other interpreters where there are any."""

import ast
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gatewayd.worker
from gatewayd.worker.framing import Decoder, Frame, encode
from tests import tiny_models
from tests.engine_environments import require_engine

_WORKER = Path(gatewayd.worker.__file__).parent
_OLD_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.[89]*/bin/python")) or [Path("/usr/bin/python3")]


@contextmanager
def _running(*start: str, engine: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair()
    argv = [*start, "--descriptor", str(theirs.fileno()), "--engine", engine]
    with ours, subprocess.Popen(argv, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE) as process:
        theirs.close()
        ours.settimeout(20)
        try:
            yield ours, process
        finally:
            process.kill()


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
    with _running(str(python), "-E", str(_WORKER / "__main__.py"), engine="litert") as (sock, process):
        hello = _receive(sock)
        assert hello.header["error"] == "engine_missing", hello
        assert "pip install ai-edge-litert" in str(hello.header["message"])
        assert process.wait(timeout=20) == 4


@pytest.mark.parametrize("start", [(str(_WORKER / "__main__.py"),), ("-m", "gatewayd.worker")], ids=["path", "module"])
def test_it_serves_and_ends_when_its_channel_closes(start: tuple[str, ...]) -> None:
    require_engine("litert")
    with _running(sys.executable, *start, engine="litert") as (sock, process):
        hello = _receive(sock)
        assert hello.header["id"] == 0
        assert hello.header["engine"] == "litert"
        sock.close()
        assert process.wait(timeout=20) == 0


def test_requests_on_their_way_are_answered_in_order_under_their_ids(tmp_path: Path) -> None:
    require_engine("litert")
    model = tmp_path / "model"
    model.write_bytes(tiny_models.two_input_model())
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as (sock, _):
        requests = [encode({"id": 5, "op": "load", "path": str(model)})]
        requests += [encode({"id": each, "op": "invoke"}, [bytes(8), bytes(8)]) for each in (9, 7, 8)]
        sock.sendall(b"".join(requests))
        decoder, answers = Decoder(), list[Frame]()
        while len(answers) < 5:
            answers += decoder.feed(sock.recv(65536))
    assert [answer.header["id"] for answer in answers] == [0, 5, 9, 7, 8]
    assert [len(answer.blobs) for answer in answers] == [0, 0, 1, 1, 1]


def test_invoking_before_loading_is_refused() -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as (sock, _):
        _receive(sock)
        sock.sendall(encode({"id": 1, "op": "invoke"}))
        assert _receive(sock).header == {"id": 1, "error": "model_refused", "message": "no model is loaded"}


@pytest.mark.parametrize(
    "request_bytes", [b"rubbish in front", encode({"id": 1, "op": "dance"}), encode({"id": 1, "op": "load"})]
)
def test_what_is_no_request_ends_it_with_a_reason(request_bytes: bytes) -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as (sock, process):
        _receive(sock)
        sock.sendall(request_bytes)
        _, stderr = process.communicate(timeout=20)
        assert process.returncode == 1
        assert b"FramingError" in stderr


def test_ctrl_c_is_not_for_it() -> None:
    require_engine("litert")
    with _running(sys.executable, str(_WORKER / "__main__.py"), engine="litert") as (sock, process):
        _receive(sock)
        os.kill(process.pid, signal.SIGINT)
        sock.close()
        assert process.wait(timeout=20) == 0
