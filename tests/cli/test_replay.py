import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.replay import World, lived
from gatewayd.__main__ import main
from gatewayd.core.decision import Decision
from gatewayd.core.names import RequestId
from gatewayd.core.placement import NODE_INDEX
from gatewayd.core.policies import logged_policy
from gatewayd.core.request import NODE, Target
from gatewayd.wire.decisionlog import LogWriter
from tests.api_values import DECISION


@pytest.fixture
def log(tmp_path: Path) -> Path:
    writer = LogWriter("edge")
    path = tmp_path / "decisions.jsonl"
    lines = [writer.header()]
    for number, (placement, index, measured) in enumerate(lived(World(1, requests=60), logged_policy)):
        target = NODE if index == NODE_INDEX else Target(placement.devices[index].device)
        made = Decision(RequestId(f"r{number}"), "kws", 1, placement, (), "served", target, measured)
        lines += writer.lines(made)
    path.write_text("".join(lines))
    return path


def test_every_decision_comes_out_the_same(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(log)]) == 0
    assert capsys.readouterr().out == "60 decisions replayed: 60 the same to the last bit, 0 not\n"


def test_the_first_difference_is_shown(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = log.read_text().splitlines(keepends=True)
    spoilt = [line.replace('"order":"', '"order":"x') if '"id":"r7"' in line else line for line in lines]
    log.write_text("".join(spoilt))
    assert main(["replay", str(log)]) == 1
    out = capsys.readouterr().out
    assert "60 decisions replayed: 59 the same to the last bit, 1 not" in out
    assert "first difference: r7: logged as x" in out


def test_another_policy_is_estimated_with_its_interval(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(log), "--policy", "node-only"]) == 0
    out = capsys.readouterr().out
    assert "with node-only, over 60 requests that were measured" in out
    assert "95 % INTERVAL" in out
    assert main(["replay", str(log), "--policy", "energy_per_uj=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["replay"]["same"] == 60
    interval = found["estimate"]["other"]["J"]
    assert interval["low"] <= interval["mean"] <= interval["high"]


def test_the_older_file_is_read_first(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
    assert main(["replay", str(log)]) == 0
    assert capsys.readouterr().out.startswith("120 decisions replayed")


def test_a_torn_line_is_said(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(log.read_bytes()[:-10])
    assert main(["replay", str(log)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("59 decisions replayed: 59 the same")
    assert "1 lines could not be read, 1 of them torn" in said.out
    assert "torn: the power went while it was written" in said.err


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("best", "no policy 'best'; there are logged, node-only, device-only, expected, airtime, battery"),
        ("speed=1", "no weight 'speed'; there are latency_per_s"),
        ("latency_per_s=-1", "latency_per_s: a weight is a number from 0 up, not '-1'"),
        ("latency_per_s=nan", "latency_per_s: a weight is a number from 0 up, not 'nan'"),
    ],
)
def test_a_policy_that_is_none(log: Path, capsys: pytest.CaptureFixture[str], policy: str, said: str) -> None:
    assert main(["replay", str(log), "--policy", policy]) == 2
    assert said in capsys.readouterr().err


def test_nothing_to_compare_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    assert main(["replay", str(path)]) == 1
    assert "No such file" in capsys.readouterr().err
    writer = LogWriter("edge")
    path.write_text(writer.header() + "".join(writer.lines(replace(DECISION, measured=None))))
    assert main(["replay", str(path), "--policy", "fast"]) == 0
    assert "there is nothing to compare" in capsys.readouterr().out
