"""The proof that cuts the power, with fewer cuts than `make prove-registry`; and the model of the disk it rests on."""

import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from bench.disk import Disk, Operation
from bench.registry_cuts import prove


def can_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-qq", "true"], capture_output=True, check=False).returncode == 0
    )


def test_the_registry_is_whole_after_every_cut(tmp_path: Path) -> None:
    if not can_trace():
        pytest.skip("strace is not installed or may not trace here (Debian: apt install strace)")
    recorded, opened, broken = prove(7, tmp_path)
    assert not broken
    assert recorded > 200
    assert opened["dropped"] > 5


def after(*done: Operation, kind: str = "dropped", seed: int = 1) -> dict[str, bytes | None]:
    disk = Disk()
    for operation in (Operation("mkdir", "/d"), Operation("sync", ""), *done):
        disk.do(operation)
    random = Random(seed)  # noqa: S311 - the same every time
    return {path: content for path, content in disk.after_cut(kind, random).items() if path != "/d"}


CREATE = Operation("create", "/d/a")
WRITE = Operation("write", "/d/a", content=b"12345")
SYNC = Operation("sync", "/d/a")
SYNC_NAMES = Operation("sync", "/d")
RENAME = Operation("rename", "/d/a", target="/d/b")


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ((CREATE, WRITE), {}),
        ((CREATE, WRITE, SYNC), {}),
        ((CREATE, WRITE, SYNC_NAMES), {"/d/a": b""}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES), {"/d/a": b"12345"}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES, RENAME), {"/d/a": b"12345"}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES, RENAME, SYNC_NAMES), {"/d/b": b"12345"}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES, Operation("unlink", "/d/a")), {"/d/a": b"12345"}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES, Operation("truncate", "/d/a", offset=2)), {"/d/a": b"12345"}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES, Operation("write", "/d/a", content=b"x", offset=7)), {"/d/a": b"12345"}),
    ],
)
def test_what_was_not_synced_is_gone(done: tuple[Operation, ...], left: dict[str, bytes | None]) -> None:
    assert after(*done) == left


def test_what_was_not_synced_may_also_be_there() -> None:
    assert after(CREATE, WRITE, RENAME, kind="kept") == {"/d/b": b"12345"}
    assert after(CREATE, WRITE, RENAME, kind="names") == {"/d/b": b""}
    torn = {repr(after(CREATE, SYNC_NAMES, WRITE, kind="torn", seed=seed)) for seed in range(60)}
    assert torn == {repr({"/d/a": b"12345"[:size]}) for size in range(6)}
