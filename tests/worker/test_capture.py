import os
from pathlib import Path

from gatewayd.worker.capture import StderrCapture
from gatewayd.worker.framing import TAIL_BYTES


def test_a_file_is_cleared_and_its_last_words_are_read(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    capture = StderrCapture(descriptor)
    os.write(descriptor, b"before")
    capture.clear()
    os.write(descriptor, b"why\x1b[31m\n\n  not \xff\n")
    assert capture.tail() == "why[31m\nnot �"
    os.close(descriptor)


def test_only_the_end_is_kept(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"a" * 10_000 + b"end")
    tail = StderrCapture(descriptor).tail()
    assert len(tail) == TAIL_BYTES
    assert tail.endswith("aend")
    os.close(descriptor)


def test_a_pipe_is_left_alone() -> None:
    reader, writer = os.pipe()
    capture = StderrCapture(writer)
    os.write(writer, b"seen by whoever reads")
    capture.clear()
    assert capture.tail() == ""
    assert os.read(reader, 100) == b"seen by whoever reads"
    os.close(reader)
    os.close(writer)
