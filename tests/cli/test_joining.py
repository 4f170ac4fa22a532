import json
import stat
from pathlib import Path

from gatewayd.cli.verbs import FAILED, OK, USAGE
from tests.cli.test_verbs import Daemon, daemon
from tests.fakes_joining import PASSWORD

__all__ = ["daemon"]


def test_credentials_are_shown_with_what_to_paste(daemon: Daemon) -> None:
    ran = daemon.command("devices", "credentials", "new", "door-1")
    assert ran.code == OK
    assert f"user door-1, password {PASSWORD}" in ran.out
    assert "--- arduino ---" in ran.out
    daemon.world.joining.broker = "reload it"
    again = daemon.command(
        "devices", "credentials", "new", "door-1", "--replace", "--kind", "psk", "--snippet", "zephyr"
    )
    assert (PASSWORD in again.out, "--- arduino" in again.out, "NOTE: reload it" in again.out) == (False, False, True)


def test_they_are_saved_for_their_owner_only(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "door-1.json"
    ran = daemon.command("devices", "credentials", "new", "door-1", "--save", str(file))
    assert (ran.code, PASSWORD in ran.out) == (OK, False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["password"] == PASSWORD


def test_nothing_is_asked_for_that_could_not_be_saved(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "there.json"
    file.write_text("mine")
    assert daemon.command("devices", "credentials", "new", "door-1", "--save", str(file)).code == USAGE
    assert (file.read_text(), daemon.world.joining.kept.users) == ("mine", ())


def test_a_refusal_leaves_no_file(daemon: Daemon, tmp_path: Path) -> None:
    daemon.command("devices", "credentials", "new", "door-1")
    file = tmp_path / "door-1.json"
    assert daemon.command("devices", "credentials", "new", "door-1", "--save", str(file)).code == FAILED
    assert not file.exists()


def test_the_rest_is_readable(daemon: Daemon) -> None:
    assert daemon.command("devices", "permit-join", "60").out.startswith("newcomers are let in for 60 s more")
    assert "newcomers wait for approval" in daemon.command("devices", "permit-join", "0").out
    assert "nobody has credentials" in daemon.command("devices", "credentials", "list").out
    daemon.command("devices", "credentials", "new", "door-1")
    assert "door-1" in daemon.command("devices", "credentials", "list").out
    assert daemon.command("devices", "revoke", "door-1").out == "door-1: its credentials are void, 1 pushes ended\n"
    assert daemon.command("devices", "forget", "door-1").out == "door-1: it had no credentials here\n"
