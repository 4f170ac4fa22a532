import argparse
import json
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from gatewayd.simulate.command import POLICIES, add_arguments, run

SMALL = """
name: small one
about: A little.
duration_s: 3600
devices: [{name: cam, board: nucleo-u575zi-q, link: ble}]
load: [{devices: cam, model: vww, per_s: 0.05}]
"""


def simulate(*arguments: str) -> tuple[int, str, str]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out, err = StringIO(), StringIO()
    return run(parser.parse_args(arguments), out=out, err=err), out.getvalue(), err.getvalue()


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def test_the_table_has_a_line_per_policy_and_the_clairvoyant(scenario: str) -> None:
    code, out, err = simulate(scenario)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "small one: A little."
    assert lines[3].split()[:3] == ["policy", "cost", "to"]
    assert [line.split()[0] for line in lines[4:11]] == [*POLICIES, "clairvoyant"]
    assert lines[-1].startswith("gatewayd at the end predicts latencies to ")


def test_one_policy_and_another_seed(scenario: str) -> None:
    first, again = simulate(scenario, "--policy", "gatewayd"), simulate(scenario, "--policy", "gatewayd")
    assert first == again
    assert first != simulate(scenario, "--policy", "gatewayd", "--seed", "9")
    assert len(first[1].splitlines()) == 8


def test_the_plots_are_svg(scenario: str, tmp_path: Path) -> None:
    code, out, _ = simulate(scenario, "--plots", str(tmp_path / "plots"))
    assert code == 0
    for kind in ("cost", "latency"):
        path = tmp_path / "plots" / f"small-one-{kind}.svg"
        assert str(path) in out
        drawn = ET.fromstring(path.read_text())  # noqa: S314 - written above
        curves = drawn.findall("{http://www.w3.org/2000/svg}polyline")
        assert len(curves) == len(POLICIES)
        assert all(curve.get("points") for curve in curves)


def test_json_has_every_figure_and_every_push(scenario: str) -> None:
    code, out, err = simulate(scenario, "--json", "--policy", "gatewayd", "--policy", "node-only")
    assert (code, err) == (0, "")
    told = json.loads(out)
    ours, node_only = told["policies"]
    assert (told["scenario"], told["devices"], ours["policy"]) == ("small one", 1, "gatewayd")
    assert ours["cost"] >= told["clairvoyant"] > 0
    assert [(each["device"], each["model"], each["worked"]) for each in ours["pushes"]] == [("cam-1", "vww", True)]
    assert 0 < ours["pushes"][0]["start_s"] < ours["pushes"][0]["end_s"]
    assert (node_only["on_device"], node_only["pushes"]) == (0, [])


def test_every_request_is_written_down(scenario: str, tmp_path: Path) -> None:
    code, out, _ = simulate(scenario, "--requests", str(tmp_path / "lines"), "--json", "--policy", "gatewayd")
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert code == 0
    (ours,) = json.loads(out)["policies"]
    assert len(lines) == ours["requests"]
    assert sum(line["ran_on"] == "device:cam-1" for line in lines) == ours["on_device"] > 0
    assert all(line["latency_ms"] > 0 for line in lines)


def test_what_is_wrong_is_told(tmp_path: Path, scenario: str) -> None:
    assert simulate(str(tmp_path / "none.yaml"))[0] == 1
    (tmp_path / "bad.yaml").write_text("x: 1")
    code, out, err = simulate(str(tmp_path / "bad.yaml"))
    assert (code, out) == (1, "")
    assert "no such field" in err
    assert simulate(scenario, "--robustness", "0")[0] == 2


@pytest.mark.parametrize("option", ["--plots", "--requests"])
def test_a_place_that_cannot_be_written_is_named(option: str, scenario: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file" / "below")
    code, out, err = simulate(scenario, option, where, "--policy", "node-only")
    assert (code, out) == (1, "")
    assert err == f"gatewayd: {where}: Not a directory\n"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert simulate(str(tmp_path / "binary"))[2] == f"gatewayd: {tmp_path / 'binary'}: no text in UTF-8\n"
