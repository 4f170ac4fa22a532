"""Which result belongs to which run: late ones, twice told ones, and those that nobody asked for."""

import pytest

from gatewayd.core.errors import DeviceRefused
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.slot_runs import Outcome, SlotRuns, outcome_of, result_of
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.values import Record, Value

SLOT = Path(26242, 1)


def shows(sequence: Value, *, tag: Value | None = None, sample: Value = 0, **more: Value) -> Outcome:
    values: dict[int, Value] = {
        6: b"out",
        11: sequence,
        12: sample,
        **{int(key[1:]): each for key, each in more.items()},
    }
    if tag is not None:
        values[19] = tag
    found = outcome_of([Record(SLOT / key, each) for key, each in values.items()])
    assert found is not None
    return found


def known(*, tags: bool = False, sequence: int = 5) -> SlotRuns:
    runs = SlotRuns()
    assert not runs.saw(shows(sequence, tag=0 if tags else None), is_news=False)
    return runs


def test_the_next_run_counted_is_the_one_asked_for() -> None:
    runs = known()
    waiting = runs.begins(9, by_sensor=False)
    assert waiting.tag == 0
    runs.saw(shows(5), is_news=True)
    assert not waiting.is_over()
    runs.saw(shows(6), is_news=True)
    assert waiting.is_over()


def test_a_tag_tells_it_whatever_the_counter_says() -> None:
    runs = known(tags=True)
    waiting = runs.begins(9, by_sensor=False)
    for other in (shows(6, tag=8), shows(7, tag=0), shows(1, tag=8)):
        runs.saw(other, is_news=True)
        assert not waiting.is_over()
    runs.saw(shows(2, tag=9), is_news=True)
    assert waiting.is_over()


def test_without_tags_a_result_on_a_sensor_is_none_of_a_run_on_an_input() -> None:
    runs = known()
    waiting = runs.begins(1, by_sensor=False)
    runs.saw(shows(6, sample=77), is_news=True)
    assert not waiting.is_over()
    runs.saw(shows(7), is_news=True)
    assert waiting.is_over()


def test_without_tags_the_late_end_of_an_earlier_run_is_not_the_next_ones() -> None:
    runs = known()
    late = runs.begins(1, by_sensor=False)
    late.has_begun = True
    runs.ends(late)
    waiting = runs.begins(2, by_sensor=False)
    waiting.has_begun = True
    runs.saw(shows(6), is_news=True)
    assert not waiting.is_over()
    runs.ends(waiting)
    again = runs.begins(3, by_sensor=False)  # one end that never came is waited for once only
    runs.saw(shows(7), is_news=True)
    assert again.is_over()


def test_a_run_that_was_refused_has_no_end_to_come() -> None:
    runs = known()
    runs.ends(runs.begins(1, by_sensor=False))
    waiting = runs.begins(2, by_sensor=False)
    runs.saw(shows(6), is_news=True)
    assert waiting.is_over()


@pytest.mark.parametrize("tags", [False, True])
def test_what_nobody_asked_for_is_told_once(tags: bool) -> None:  # noqa: FBT001 - a parameter of the test
    runs, tag = known(tags=tags), 0 if tags else None
    news = [shows(each, tag=tag) for each in (6, 6, 5, 8, 7)]
    assert [runs.saw(each, is_news=True) for each in news] == [True, False, False, True, False]


def test_what_was_read_is_not_of_the_devices_own_accord() -> None:
    runs = known(tags=True)
    assert not runs.saw(shows(9, tag=0), is_news=False)
    assert not SlotRuns().saw(shows(9, tag=0), is_news=True)  # nobody knows how old it is
    assert not runs.saw(shows(10, tag=4), is_news=True)


def test_a_device_that_restarted_counts_anew() -> None:
    runs = known(sequence=500)
    waiting = runs.begins(1, by_sensor=True)
    runs.saw(shows(0), is_news=False)
    assert not waiting.is_over()
    runs.saw(shows(1), is_news=False)
    assert waiting.is_over()


@pytest.mark.parametrize("nonsense", [-1, 2**32, "5", 1.0, True, b"5"])
def test_a_counter_that_is_none(nonsense: Value) -> None:
    assert outcome_of([Record(SLOT / 11, nonsense)]) is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"_9": 1, "_10": "too long"}, "refused: too long"),
        ({"_9": 2}, "failed: no reason given"),
        ({"_9": 7}, "/26242/1/9"),
        ({"_2": 4}, "holds version 4, not 3"),
        ({"_6": "text"}, "/26242/1/6"),
        ({"_7": -1}, "/26242/1/7"),
        ({"_8": float("nan")}, "/26242/1/8"),
    ],
)
def test_results_that_are_none(more: dict[str, Value], reason: str) -> None:
    with pytest.raises(DeviceRefused, match=reason):
        result_of(DeviceId("dev-1"), shows(6, **more), version=3, held=3, elapsed_s=0.0)
