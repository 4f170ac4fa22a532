from gatewayd.cli.verbs import FAILED, OK
from tests.cli.test_verbs import Daemon, daemon

__all__ = ["daemon"]


def test_a_dropped_model_is_shown_and_listed(daemon: Daemon) -> None:
    assert "no device was told" in daemon.command("devices", "drops").out
    refused = daemon.command("devices", "drop", "cam-7", "kws")
    assert (refused.code, "--last" in refused.err) == (FAILED, True)
    ran = daemon.command("devices", "drop", "cam-7", "kws", "--last", "--why", "not needed")
    assert ran.code == OK
    assert "kws@1" in ran.out
    assert "dropped" in ran.out
    listed = daemon.command("devices", "drops", "--device", "cam-7").out
    assert "not needed" in listed
    assert "no device was told" in daemon.command("devices", "drops", "--device", "other").out


def test_a_push_names_what_gives_way(daemon: Daemon) -> None:
    push = daemon.command("push", "--device", "cam-7", "--model", "kws@3", "--instead-of", "speaker", "--no-wait")
    assert push.code == OK
    assert daemon.world.pushes.ended or daemon.world.pushes.current
    (started,) = daemon.world.pushes.current or daemon.world.pushes.ended
    assert str(started.instead_of) == "speaker@1"
