from pathlib import Path

import pytest

from gatewayd.core.errors import BadRequest
from gatewayd.simulate.boards import BOARDS, LINKS, MODELS
from gatewayd.simulate.scenario import parse_scenario

SCENARIOS = sorted((Path(__file__).parents[2] / "config" / "scenarios").glob("*.yaml"))

SMALL = """
duration_s: 3600
devices: [{name: cam, board: nucleo-u575zi-q, link: 802.15.4, count: 2}]
load: [{devices: cam, model: vww, per_s: 0.01}]
"""


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenarios_that_come_along_can_be_read_and_are_explained(path: Path) -> None:
    scenario = parse_scenario(path.read_text(), source=path.name)
    assert scenario.name == path.stem
    assert len(scenario.about) > 80


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 5


def test_what_is_left_out_has_a_default() -> None:
    scenario = parse_scenario(SMALL, source="s")
    (group,), (load,) = scenario.devices, scenario.load
    assert (group.slots, group.battery_j, load.arrival, scenario.seed) == (1, 5000.0, "poisson", 1)
    assert scenario.air.most == scenario.energy.most == float("inf")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("- 1", "s: a scenario is a mapping"),
        ("{", "s: not YAML"),
        ("x: 1" + SMALL, "s: x: no such field; there are about, air_s_per_hour"),
        (SMALL.replace("3600", "-1"), "s: duration_s: -1 is no number from 0 up"),
        (SMALL.replace("3600", ".inf"), "s: duration_s: inf is no number"),
        (SMALL.replace("3600", "true"), "s: duration_s: True is no number"),
        (SMALL.replace("vww", "gpt"), "s: load: model: 'gpt' is none of kws, vww"),
        (SMALL.replace("nucleo-u575zi-q", "uno"), "s: devices: cam: board: 'uno' is none of"),
        (SMALL.replace("802.15.4", "[1]"), r"s: devices\[0\]: link: \[1\] is no text"),
        (SMALL.replace("devices: cam", "devices: dog"), "s: load: devices: 'dog' is none of cam"),
        (
            SMALL.replace(", count: 2", ", colour: red"),
            r"s: devices\[0\]: colour: no such field; there are name, board",
        ),
        (SMALL.replace("model: vww, ", ""), r"s: load\[0\]: model is missing"),
        (SMALL.replace("count: 2", "count: 20000"), "s: devices: more than 10,000"),
        (SMALL.replace("0.01", "1.0e+9"), "s: about 7,200,000,000,000 requests; at most 5,000,000"),
        (SMALL + "request_class: urgent", "s: request_class: 'urgent' is none of default, fast"),
        (SMALL + "changes: [{what: magic, at_s: 1, devices: cam}]", "s: changes: what: 'magic' is none of link"),
        ("duration_s: 1", "s: needs devices and load"),
        (SMALL.replace("count: 2", "protocol: udp"), "s: devices: cam: protocol: 'udp' is none of"),
        (SMALL + "overheads: {request_s: 1}", "s: overheads: request_s: no such field; there are request_ms"),
        (SMALL + "noise: -1", "s: noise: -1 is no number"),
        (SMALL + "boards: [{name: ek-ra8d1, macs_per_s: 1}]", "s: boards: 'ek-ra8d1' is there already"),
        (SMALL + "boards: [{name: mine, macs_per_s: 0}]", "s: boards: mine: macs_per_s is above 0"),
        (SMALL + "boards: [{name: mine}]", r"s: boards\[0\]: macs_per_s is missing"),
        (SMALL + "models: [{name: kws}]", r"s: models\[0\]: size_bytes is missing"),
        (
            SMALL + "links: [{name: air, rtt_s: 1, bytes_per_s: 0, loss: 0, chunk_bytes: 1}]",
            "s: links: air: bytes_per_s",
        ),
        (
            SMALL + "links: [{name: air, rtt_s: 1, bytes_per_s: 1, loss: 0, chunk_bytes: 1, bearer: smoke}]",
            "s: links: air: bearer: 'smoke' is none of cellular, lte",
        ),
        ("# " + "x" * 1_000_001, "s: larger than 1,000,000 bytes"),
    ],
)
def test_what_is_wrong_is_named(wrong: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_scenario(wrong, source="s")


def test_two_groups_with_one_name_are_refused() -> None:
    twice = SMALL.replace("devices: [", "devices: [{name: cam, board: ek-ra8d1, link: ble}, ")
    with pytest.raises(BadRequest, match="two groups have one name"):
        parse_scenario(twice, source="s")


OWN = """
duration_s: 3600
boards: [{name: mine, macs_per_s: 1.0e+8, energy_nj_per_mac: 0.5, invoke_s: 0.001, believed_macs_per_s: 2.0e+8}]
models: [{name: own, size_bytes: 9000, input_bytes: 2000, output_bytes: 2, macs: 1000000, node_s: 0.001, stream_bytes: 8000}]
links: [{name: air, rtt_s: 0.1, bytes_per_s: 1000, loss: 0, chunk_bytes: 256, bearer: lte}]
devices: [{name: cam, board: mine, link: air, protocol: lwm2m}]
load: [{devices: cam, model: own, per_s: 0.01}]
"""


def test_boards_models_and_links_of_ones_own() -> None:
    known = parse_scenario(OWN, source="s").known
    board, model = known.boards["mine"], known.models["own"]
    assert board.seconds["own"] == pytest.approx(0.011)
    assert board.energy_uj["own"] == pytest.approx(500.0)
    assert (board.profile.macs_per_s, board.profile.energy_nj_per_mac) == (2e8, 0.5)
    assert (model.travels_bytes, MODELS["kws"].travels_bytes) == (8000, MODELS["kws"].size_bytes)
    per_mac_s = BOARDS["ek-ra8d1"].seconds["kws"] / MODELS["kws"].macs
    assert known.boards["ek-ra8d1"].seconds["own"] == pytest.approx(1e6 * per_mac_s)


def test_there_are_twelve_boards_five_models_and_five_links() -> None:
    assert (len(BOARDS), len(MODELS), len(LINKS)) == (12, 5, 5)
    for board in BOARDS.values():
        assert set(board.seconds) == set(board.energy_uj) <= set(MODELS)
        assert board.profile.macs_per_s * board.seconds["kws"] == pytest.approx(MODELS["kws"].macs)
