from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.decision_file import MAX_WAITING, DecisionFile, DecisionFileOptions, older
from gatewayd.core.names import RequestId
from gatewayd.core.replay import Logged
from gatewayd.wire.decisionlog import Unreadable, read_log
from tests.api_values import DECISION
from tests.services.world import ManualClock


def kept(path: Path) -> list[str]:
    found = read_log(path.read_bytes().splitlines(keepends=True))
    return [each.request if isinstance(each, Logged) else "?" for each in found]


def log_of(path: Path, clock: ManualClock | None = None, **options: float) -> DecisionFile:
    return DecisionFile(DecisionFileOptions(path, **options), node="edge", clock=clock or ManualClock())  # type: ignore[arg-type]  # by name


async def test_decisions_are_written_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = log_of(path)
    for number in range(3):
        log.keep(replace(DECISION, request=RequestId(f"r{number}")))
    assert not path.exists()
    await log.flush()
    log.keep(replace(DECISION, request=RequestId("r3")))
    await log.flush()
    await log.flush()
    assert kept(path) == ["r0", "r1", "r2", "r3"]


async def test_a_line_that_a_power_cut_tore_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    first = log_of(path)
    first.keep(DECISION)
    await first.flush()
    path.write_bytes(path.read_bytes()[:-30])
    second = log_of(path)
    second.keep(DECISION)
    await second.flush()
    assert kept(path) == ["?", "r-1"]


async def test_both_files_stay_under_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = log_of(path, max_bytes=20_000, max_bytes_per_day=10**7)
    for number in range(300):
        log.keep(replace(DECISION, request=RequestId(f"r{number}")))
        if number % 7 == 0:
            await log.flush()
    await log.flush()
    both = path.stat().st_size + older(path).stat().st_size
    assert 10_000 < both <= 20_000
    found = kept(older(path)) + kept(path)
    assert "?" not in found
    assert found == [f"r{number}" for number in range(300 - len(found), 300)]


async def test_what_a_day_may_take_is_kept_to(tmp_path: Path) -> None:
    path, clock = tmp_path / "decisions.jsonl", ManualClock()
    log = log_of(path, clock, max_bytes_per_day=4000)
    for _ in range(100):
        log.keep(DECISION)
    await log.flush()
    assert path.stat().st_size <= 4000
    written = len(kept(path))
    assert log.left_out == 100 - written > 0
    clock.now_s += 86_401
    log.keep(replace(DECISION, request=RequestId("tomorrow")))
    await log.flush()
    assert kept(path) == ["r-1"] * written + ["tomorrow"]


async def test_a_sample_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = log_of(path, sample=0.25)
    for number in range(8):
        log.keep(replace(DECISION, request=RequestId(f"r{number}")))
    await log.flush()
    assert kept(path) == ["r3", "r7"]


async def test_a_disk_that_refuses_is_said_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_of(tmp_path / "gone" / "decisions.jsonl")
    for _ in range(3):
        log.keep(DECISION)
        await log.flush()
    assert log.left_out == 3
    assert [record.getMessage().split(" path=")[0] for record in caplog.records] == ["decisions not logged"]
    (tmp_path / "gone").mkdir()
    log.keep(DECISION)
    await log.flush()
    assert kept(tmp_path / "gone" / "decisions.jsonl") == ["r-1"]


async def test_a_slow_disk_costs_no_memory_without_end(tmp_path: Path) -> None:
    log = log_of(tmp_path / "decisions.jsonl")
    for _ in range(MAX_WAITING + 5):
        log.keep(DECISION)
    assert log.left_out == 5


def test_what_is_unreadable_says_where() -> None:
    (found,) = read_log([b"x\n"])
    assert isinstance(found, Unreadable)
    assert (found.line, found.is_torn) == (1, False)
