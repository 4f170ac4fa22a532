from pathlib import Path

import pytest

from bench.fuzz_mqtt import fuzz
from tests.broker import MOSQUITTO


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: apt install mosquitto)")
def test_every_bad_payload_gets_one_error_and_memory_stays(tmp_path: Path) -> None:
    found, before, after = fuzz(tmp_path, count=500, seed=21)
    assert (found.sent, found.without_error, found.unanswered, found.answered_twice) == (500, 0, 0, 0)
    assert after - before < 16 * 2**20
