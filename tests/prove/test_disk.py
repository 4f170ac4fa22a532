"""The disk of `make prove-files`, and a short version of it."""

import random
import shutil

import pytest

from prove.disk import Disk, Loss, Operation
from prove.files import faults

CHANCE = random.Random(1)  # noqa: S311 - nothing secret


def disk_after(*operations: Operation) -> Disk:
    disk = Disk()
    for operation in operations:
        disk.do(operation)
    return disk


def op(kind: str, path: str = "f", *, inode: int = 1, number: int = 0, data: bytes = b"") -> Operation:
    return Operation(kind, inode, number, path, data)


@pytest.mark.parametrize(
    ("loss", "left"),
    [
        (Loss.NOTHING, {"f": b"abcdef"}),
        (Loss.EVERYTHING, {}),
        (Loss.DATA, {"f": b"abc"}),
        (Loss.NAMES, {}),
        (Loss.TORN, {"f": b"abcd"}),
    ],
)
def test_what_is_left_of_a_file_whose_name_was_not_synced(loss: Loss, left: dict[str, bytes]) -> None:
    disk = disk_after(op("C"), op("W", data=b"abc"), op("S"), op("W", number=3, data=b"def"))
    assert disk.after_a_cut(loss, CHANCE) == left


def test_a_synced_directory_keeps_the_new_name_and_forgets_the_old() -> None:
    disk = disk_after(
        op("C", "a"), op("W", "a", data=b"x"), op("S", "a"), op("S", ".", inode=9), op("R", "a", data=b"b")
    )
    assert disk.after_a_cut(Loss.EVERYTHING, CHANCE) == {"a": b"x"}
    disk.do(op("S", ".", inode=9))
    assert disk.after_a_cut(Loss.EVERYTHING, CHANCE) == {"b": b"x"}


def test_a_file_in_a_directory_that_is_not_durable_is_gone() -> None:
    disk = disk_after(op("M", "d"), op("C", "d/f"), op("W", "d/f", data=b"x"), op("S", "d/f"), op("S", "d", inode=9))
    assert disk.after_a_cut(Loss.EVERYTHING, CHANCE) == {}
    assert disk.after_a_cut(Loss.NOTHING, CHANCE) == {"d": None, "d/f": b"x"}


def test_a_truncated_file_is_shorter_or_padded() -> None:
    disk = disk_after(op("C"), op("W", data=b"abc"), op("T", number=1), op("T", number=2))
    assert disk.after_a_cut(Loss.NOTHING, CHANCE) == {"f": b"a\0"}


def test_the_gateways_files_survive_a_power_cut() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed (Debian: apt install gcc libc6-dev)")
    found = list(faults(every=9))
    assert len(found) > 100
    assert [fault for fault in found if fault] == []
