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
    assert (
        daemon.command("devices", "revoke", "door-1").out
        == "door-1 is revoked: its credentials are void, 1 push ended\n"
    )
    told = "door-1 is forgotten: 2 standing orders ended\n"
    assert daemon.command("devices", "forget", "door-1").out == told


def test_what_keeps_new_credentials_from_being_of_use_is_told(daemon: Daemon, tmp_path: Path) -> None:
    daemon.world.doors.psk = "DTLS does not listen: restart the gateway"
    note = "NOTE: the key: DTLS does not listen: restart the gateway\n"
    new = ("devices", "credentials", "new", "door-1", "--replace", "--kind")
    assert daemon.command(*new, "psk").out.endswith(note)
    assert daemon.command(*new, "all", "--save", str(tmp_path / "door-1.json")).out.endswith(note)
    assert "NOTE" not in daemon.command(*new, "mqtt").out
