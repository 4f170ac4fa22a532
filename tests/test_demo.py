"""The demonstration is what a newcomer sees first: it must end with 0 and show what it promises."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway import REPOSITORY

LONGEST_S = 120


@pytest.mark.skipif(
    importlib.util.find_spec("iotcore") is None, reason="iotcore, the embedded broker, is not installed"
)
def test_the_demonstration_shows_the_main_job() -> None:
    command = [sys.executable, "-m", "gatewayd", "demo"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, cwd=REPOSITORY, check=False)
    assert shown.returncode == 0, shown.stdout[-3000:] + shown.stderr
    text = shown.stdout
    for board in ("hall-1", "door-2"):
        assert re.search(rf"{board} +\S+ +device:{board} .*ms \(predicted .*µJ \(predicted", text)
        assert f"speaker@2 -> {board}: accepted" in text
    assert re.search(r"speaker@1 does not fit on attic-3: .*arena", text)
    assert len(re.findall(r"(\d+\.\d+%) right, the card says \1", text)) == 2
    assert "the node serves instead of device:hall-1: offline" in text
    assert re.search(r"metrics +http://127\.0\.0\.1:\d+/metrics", text)


def test_without_the_model_it_says_where_to_look(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gatewayd", "demo", "--models", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, cwd=REPOSITORY, check=False)
    assert shown.returncode == 1
    assert "--models" in shown.stdout
