from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.calibration import Calibration


def test_errors_and_bias() -> None:
    seen = Calibration().after(1.0, 1.5, is_within=True).after(1.0, 0.5, is_within=False)
    assert seen == Calibration(0.5, 0.0, 0.5, 2.0)


def test_old_answers_are_forgotten() -> None:
    figures = Calibration()
    for _ in range(500):
        figures = figures.after(1.0, 2.0, is_within=False)
    for _ in range(500):
        figures = figures.after(1.0, 1.0, is_within=True)
    assert figures.error == pytest.approx(0.0, abs=0.01)
    assert figures.covered == pytest.approx(1.0, abs=0.01)
    assert figures.count == 100.0


@pytest.mark.parametrize(("predicted", "seen"), [(nan, 1.0), (1.0, inf), (-1.0, 1.0), (1.0, -1.0)])
def test_nonsense_is_ignored(predicted: float, seen: float) -> None:
    assert Calibration().after(predicted, seen, is_within=True) == Calibration()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e300), st.floats(0, 1e300), st.booleans()), max_size=30))
def test_it_stays_bounded(answers: list[tuple[float, float, bool]]) -> None:
    figures = Calibration()
    for predicted, seen, is_within in answers:
        figures = figures.after(predicted, seen, is_within=is_within)
    assert 0.0 <= figures.error <= 10.0
    assert -1.0 - 1e-9 <= figures.bias <= 10.0
    assert -1e-9 <= figures.covered <= 1.0 + 1e-9
