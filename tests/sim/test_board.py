import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.core.device import Profile
from gatewayd.core.errors import BadRequest
from gatewayd.sim.board import SPREAD, true_board
from gatewayd.sim.conditions import Conditions
from gatewayd.sim.radio import LINKS, MAX_WAITING, Lane, LinkFigures, Radio
from gatewayd.sim.sensor import open_sensor

PROFILE = Profile("b", "m4", 100, 1, 1, "tflm", macs_per_s=1e8, energy_nj_per_mac=0.5, invoke_s=1e-4, source="")


def test_truth_is_seeded_and_within_its_spread() -> None:
    truths = [true_board(PROFILE, LINKS["ble"], seed=seed, device="cam-7") for seed in range(200)]
    assert truths[3] == true_board(PROFILE, LINKS["ble"], seed=3, device="cam-7")
    assert truths[3] != true_board(PROFILE, LINKS["ble"], seed=3, device="cam-8")
    factors = [truth.macs_per_s / PROFILE.macs_per_s for truth in truths]
    assert 1 - SPREAD <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1 + SPREAD
    assert len({round(truth.energy_nj_per_mac / 0.5 - truth.macs_per_s / 1e8, 6) for truth in truths}) > 100


def test_cost_of_an_inference() -> None:
    truth = true_board(PROFILE, LINKS["wifi"], seed=1, device="d")
    assert truth.compute_s(1_000_000) == pytest.approx(1e-4 + 1e6 / truth.macs_per_s)
    assert truth.energy_nj(1_000_000, radio_bytes=4) == round(1e6 * truth.energy_nj_per_mac) + 4000


def test_lane_serialises_bytes_but_not_the_way() -> None:
    lane = Lane(LinkFigures(rtt_s=0.2, goodput_bytes_per_s=1000))
    assert lane.arrival_s(10.0, 500) == pytest.approx(10.6)
    assert lane.arrival_s(10.1, 500) == pytest.approx(11.1)
    assert lane.arrival_s(20.0, 0) == pytest.approx(20.1)


def test_a_board_without_spread_is_as_its_profile_says() -> None:
    truth = true_board(PROFILE, LINKS["ble"], seed=3, device="cam-7", spread=0.0)
    assert (truth.macs_per_s, truth.link) == (PROFILE.macs_per_s, LINKS["ble"])


def test_a_lane_follows_its_conditions() -> None:
    conditions = Conditions()
    lane = Lane(LinkFigures(rtt_s=0.2, goodput_bytes_per_s=1000), conditions)
    conditions.change("link 0.5")
    assert lane.arrival_s(10.0, 500) == pytest.approx(11.1)
    conditions.change("link 1\n")
    assert lane.arrival_s(20.0, 500) == pytest.approx(20.6)


async def test_what_is_sent_in_an_outage_is_lost() -> None:
    conditions = Conditions()
    radio: Radio[int] = Radio(LINKS["wifi"], lambda _: None, conditions)
    conditions.change("outage on")
    assert not radio.send(1, 10)
    conditions.change("outage off")
    assert radio.send(2, 10)


@pytest.mark.parametrize(
    "line", ["", "link", "link 0", "compute -1", "link nan", "link 1e9", "outage", "outage maybe", "x" * 999]
)
def test_a_line_that_makes_no_sense_changes_nothing(line: str) -> None:
    conditions = Conditions()
    with pytest.raises(BadRequest, match=r"write link FACTOR, compute FACTOR, or outage on\|off"):
        conditions.change(line)
    assert conditions == Conditions()


async def test_radio_keeps_the_order_and_loses_what_is_too_much() -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    radio: Radio[int] = Radio(LinkFigures(rtt_s=0.001, goodput_bytes_per_s=1e9), heard.put_nowait)
    sent = [radio.send(number, 10) for number in range(MAX_WAITING + 3)]
    assert sent == [True] * MAX_WAITING + [False] * 3
    async with asyncio.TaskGroup() as group:
        lane = group.create_task(radio.run(), name="lane")
        assert [await heard.get() for _ in range(MAX_WAITING)] == list(range(MAX_WAITING))
        lane.cancel()


def test_sensor_replays_and_wraps(tmp_path: Path, samples: Callable[[Path], list[bytes]]) -> None:
    rows = samples(tmp_path)
    sensor = open_sensor("mic", tmp_path)
    assert [sensor.read() for _ in range(4)] == [(0, rows[0]), (1, rows[1]), (2, rows[2]), (0, rows[0])]
    assert (sensor.description.name, sensor.description.preprocessing) == ("mic", "x@1")
    assert open_sensor("mic", tmp_path / "samples.json").read() == (0, rows[0])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"count": 4}, "says 4 samples of 128 bytes"),
        ({"dtype": "INT4"}, "samples.json.dtype"),
        ({"shape": "big"}, "samples.json.shape"),
        ({"scale": -1}, "samples.json.scale"),
    ],
)
def test_wrong_samples_are_named(
    tmp_path: Path, samples: Callable[[Path], list[bytes]], change: dict[str, object], problem: str
) -> None:
    samples(tmp_path)
    about = tmp_path / "samples.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    with pytest.raises(BadRequest, match=problem):
        open_sensor("mic", tmp_path)


def test_missing_samples_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"samples\.json: No such file"):
        open_sensor("mic", tmp_path)
