"""`make prove-files`: the gateway's files after a power cut at every write, sync and rename, with what was not synced lost.

SIGKILL keeps the page cache and proves nothing about fsync. So a child does the real work with the real store under a recorder
(LD_PRELOAD), and here every prefix of what it did becomes directories as a power cut may leave them; on each the store is
opened. What was acknowledged has to be there, what was not may be there whole or not at all.
"""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.common import Report
from gatewayd.adapters import store_rows
from gatewayd.adapters.store_schema import connect
from gatewayd.core.errors import NodeError
from prove.disk import Disk, Loss, Operation, read_log
from prove.files_child import ARTIFACTS, ROWS

SEED = 11
_HERE = Path(__file__).parent
_CHILD_S = 120.0


def recorded(folder: Path) -> list[Operation]:
    """Run the child under the recorder; return what it did.

    Raises: FileNotFoundError without gcc.
    """
    library, log, root = folder / "recorder.so", folder / "log", folder / "root"
    gcc = shutil.which("gcc")
    if gcc is None:
        raise FileNotFoundError("gcc")
    build = [gcc, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(_HERE / "recorder.c"), "-ldl", "-pthread"]
    subprocess.run(build, check=True, timeout=_CHILD_S)  # noqa: S603 - our own source
    root.mkdir()
    environ = os.environ | {"LD_PRELOAD": str(library), "RECORD_ROOT": str(root), "RECORD_LOG": str(log)}
    command = [sys.executable, "-m", "prove.files_child", str(root)]
    subprocess.run(command, check=True, env=environ, timeout=_CHILD_S, cwd=_HERE.parent)  # noqa: S603 - our own program
    return list(read_log(log, root))


def images(operations: list[Operation], *, every: int = 1) -> Iterator[tuple[str, int, int, dict[str, bytes | None]]]:
    """Yield (which, artifacts acknowledged, rows acknowledged, what is there) for each prefix and each loss."""
    disk, artifacts, rows = Disk(), 0, 0
    for number, operation in enumerate(operations):
        disk.do(operation)
        if operation.path == "acks" and operation.kind == "W":
            artifacts, rows = artifacts + (operation.data == b"artifact\n"), rows + (operation.data == b"row\n")
        if number % every:
            continue
        for loss in Loss:
            generator = random.Random(f"{SEED}/{number}")  # noqa: S311 - to be run again
            which = f"after {number}: {operation.kind} {operation.path}, {loss.value}"
            yield which, artifacts, rows, disk.after_a_cut(loss, generator)


def fault_of(image: dict[str, bytes | None], folder: Path, *, artifacts: int, rows: int) -> str:
    """Put what is there into a directory and open it; return what is wrong, "" when nothing is."""
    for path, content in sorted(image.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
    return _artifact_fault(image, artifacts) or _journal_fault(folder, rows)


def _artifact_fault(image: dict[str, bytes | None], acknowledged: int) -> str:
    named = {Path(path).name: content for path, content in image.items() if path.count("/") == 2}  # noqa: PLR2004 - root/ab/name
    for name, content in named.items():
        if not name.endswith(".part") and content is not None and hashlib.sha256(content).hexdigest() != name:
            return f"artifact {name[:8]} is not whole"
    for content in ARTIFACTS[:acknowledged]:
        if hashlib.sha256(content).hexdigest() not in named:
            return "an acknowledged artifact is gone"
    return ""


def _journal_fault(folder: Path, acknowledged: int) -> str:
    try:
        connection = connect(folder / "db.sqlite", 1.0)
        try:
            found = {push.id: push.state for push in store_rows.recent_pushes(connection, 100)}
        finally:
            connection.close()
    except (NodeError, sqlite3.Error) as error:
        return f"the store does not open: {error}"
    allowed = [dict(ROWS[:count]) for count in (acknowledged, acknowledged + 1)]
    return "" if found in allowed else f"the journal says {found}, {acknowledged} rows were acknowledged"


def faults(*, every: int = 1) -> Iterator[str]:
    """Yield "" for each image that is well, and what is wrong with the others. Raises: FileNotFoundError without gcc."""
    with tempfile.TemporaryDirectory() as folder:
        operations = recorded(Path(folder))
        for which, artifacts, rows, image in images(operations, every=every):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                fault = fault_of(image, Path(place), artifacts=artifacts, rows=rows)
            yield f"{which}: {fault}" if fault else ""


def main() -> int:
    """Look at every image; exit 1 when one is wrong."""
    try:
        found = list(faults())
    except FileNotFoundError:
        print("skipped: gcc is not installed (Debian: apt install gcc libc6-dev)")
        return 0
    wrong = [fault for fault in found if fault]
    for fault in wrong[:10]:
        print(f"FAULT {fault}")
    report = Report("files")
    report.add("images", len(found))
    report.add("faults", len(wrong), ("==", 0))
    return 0 if report.finish() else 1


if __name__ == "__main__":
    sys.exit(main())
