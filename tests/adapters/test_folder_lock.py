import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.adapters.folder_lock import only_user_of
from gatewayd.core.errors import NodeError

HOLD = """
import sys, pathlib, signal
from gatewayd.adapters.folder_lock import only_user_of
with only_user_of(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def test_a_second_user_is_told_who_has_it_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(NodeError, match=rf"process {holder.pid}"), only_user_of(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    with only_user_of(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_it_is_free_again_after_the_context(tmp_path: Path) -> None:
    for _ in range(2):
        with only_user_of(tmp_path):
            pass
