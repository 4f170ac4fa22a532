from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.wire.profiles import parse_profile

PROFILES = sorted((Path(__file__).parents[2] / "config" / "profiles").glob("*.yaml"))
GOOD = """
board: nucleo-l4r5zi
cpu: cortex-m4
clock_mhz: 120
ram_bytes: 655360
flash_bytes: 2097152
runtime: tflm
macs_per_s: 61300000
energy_nj_per_mac: 0.538
invoke_s: 0
source: a measurement
"""


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_committed_profiles(path: Path) -> None:
    profile = parse_profile(path.read_text())
    assert profile.board == path.stem
    assert "MLPerf Tiny" in profile.source
    # Keyword spotting (2.66 M MACs) takes between 3 and 500 ms, and 0.03 (an NPU) to 10 mJ, on any of these boards.
    assert 0.003 < 2.66e6 / profile.macs_per_s < 0.5
    assert 30 < 2.66e6 * profile.energy_nj_per_mac / 1e3 < 10_000


def test_there_are_profiles() -> None:
    assert len(PROFILES) >= 6


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("clock_mhz: 120", "clock_mhz: 120.5", "profile.clock_mhz: must be a whole number"),
        ("ram_bytes: 655360", "ram_bytes: 0", "profile.ram_bytes"),
        ("cpu: cortex-m4", "cpu: 4", "profile.cpu: must be a text"),
        ("macs_per_s: 61300000", "macs_per_s: .nan", "profile.macs_per_s"),
        ("macs_per_s: 61300000", "macs_per_s: fast", "profile.macs_per_s"),
        ("invoke_s: 0", "invoke_s: -1", "profile.invoke_s"),
        ("invoke_s: 0", "", "profile.invoke_s: is missing"),
        ("invoke_s: 0", "invoke_s: 0\ncolour: red", "unknown key 'colour'"),
        ("cpu: cortex-m4", "cpu: cortex-m4\ncpu: cortex-m7", "cpu"),
        (GOOD, "- 1", "must be a mapping"),
        (GOOD, "{", "profile: "),
    ],
)
def test_refusals_name_the_key(old: str, new: str, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(BadRequest) as error:
        parse_profile(GOOD.replace(old, new))
    assert problem in str(error.value)


def test_reads_every_field() -> None:
    profile = parse_profile(GOOD)
    assert (profile.clock_mhz, profile.invoke_s, profile.source) == (120, 0.0, "a measurement")


@given(st.text(max_size=200))
def test_any_text_is_a_profile_or_one_error(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_profile(text)
