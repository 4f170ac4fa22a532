import pytest

from bench.chaos_mqtt import Plan, chaos
from bench.chaos_proxy import Faults
from tests.broker import MOSQUITTO

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: apt install mosquitto)")

QUICK = Faults(reset_every_s=2.0, half_open_every_s=5.0, half_open_s=0.5)


def test_five_hundred_commands_through_chaos_are_obeyed_once() -> None:
    found = chaos([Plan(500, kill_every_s=2.0, restart_every_s=3.0, calm_s=3.0, seed=11, faults=QUICK)])
    assert found.commands == 500
    assert found.kills + found.broker_restarts + found.counts["reset"] > 0
    assert found.is_good, found


def test_without_the_memory_of_commands_the_proof_fails() -> None:
    found = chaos([Plan(150, kill_every_s=60.0, restart_every_s=60.0, calm_s=1.0, seed=12, forget=True, faults=QUICK)])
    assert found.twice
    assert not found.is_good
