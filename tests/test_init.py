"""`gatewayd init` and `gatewayd mqtt-user`: what they write, keep and refuse."""

import argparse
import io
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from gatewayd import init_command, mqtt_user_command
from gatewayd.adapters.certificates import names_in
from gatewayd.api.table import VERBS
from gatewayd.api.verb import Role
from gatewayd.config import load_config
from gatewayd.config.files import check_files
from gatewayd.wire.access_tokens import matching_token, parse_tokens
from gatewayd.wire.broker_clients import parse_clients
from gatewayd.wire.mosquitto import is_password

UNITS = Path(__file__).parents[1] / "systemd"


def initialised(folder: Path, *more: str, code: int = 0) -> str:
    parser = argparse.ArgumentParser()
    init_command.add_arguments(parser)
    out = io.StringIO()
    named = [] if (folder / "gatewayd.yaml").exists() else ["--node", "gw"]
    assert init_command.run(parser.parse_args(["--dir", str(folder), *named, *more]), out=out) == code
    return out.getvalue()


def mqtt_user(folder: Path, *more: str, code: int = 0) -> str:
    parser = argparse.ArgumentParser()
    mqtt_user_command.add_arguments(parser)
    out = io.StringIO()
    assert mqtt_user_command.run(parser.parse_args(["--dir", str(folder), *more]), out=out) == code
    return out.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_config_is_valid_and_closed_to_strangers(tmp_path: Path) -> None:
    initialised(tmp_path / "gw", "--yes", "--lan")
    config = load_config(tmp_path / "gw" / "gatewayd.yaml")
    check_files(config, source="x")
    assert (config.http.host, config.coap.host, config.devices.join) == ("0.0.0.0", "127.0.0.1", "approve")  # noqa: S104 - compared
    tokens = parse_tokens((tmp_path / "gw" / "http-tokens").read_text())
    found = matching_token(tokens, (tmp_path / "gw" / "admin-token").read_text().strip())
    assert found is not None
    assert (found.name, found.role) == ("admin", "admin")
    clients = {each.name: each for each in parse_clients((tmp_path / "gw" / "mqtt-clients").read_text())}
    assert is_password(clients["gatewayd-gw"].password, (tmp_path / "gw" / "mqtt-password").read_text().strip())
    assert is_password(clients["operator"].password, (tmp_path / "gw" / "operator-password").read_text().strip())


def test_without_lan_everything_is_on_loopback(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes")
    assert load_config(tmp_path / "gatewayd.yaml").http.host == "127.0.0.1"
    listeners = [
        line
        for line in (tmp_path / "mosquitto" / "conf.d" / "gatewayd.conf").read_text().splitlines()
        if line.startswith("listener")
    ]
    assert listeners == ["listener 1883 127.0.0.1", "listener 8883 127.0.0.1", "listener 8884 127.0.0.1"]


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "gw"
    initialised(folder, "--yes")
    public = {"gatewayd.yaml", "ca.pem", "http.pem", "broker.pem", "mosquitto.conf", "gatewayd.conf"}
    open_to_others = {path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077}
    assert open_to_others == public
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((folder / "mosquitto").stat().st_mode) == 0o700


def test_again_it_changes_nothing_and_says_so(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes")
    before = contents(tmp_path)
    said = initialised(tmp_path, "--yes")
    assert contents(tmp_path) == before
    assert "wrote" not in said
    assert said.count("kept") == 9


def steps(said: str) -> str:
    """Return what is told after the list of files."""
    return said.partition("\n\n")[2]


def test_the_first_time_it_tells_how_to_start_and_reach_it(tmp_path: Path) -> None:
    told = steps(initialised(tmp_path, "--yes", "--lan", "--host", "gw.lan", "--http-port", "9443"))
    assert told.startswith("Next:\n    mosquitto -c ")
    own = f"GATEWAYD_TOKEN_FILE={tmp_path}/admin-token GATEWAYD_CA={tmp_path}/ca.pem"
    assert (
        f"    export GATEWAYD_URL=https://localhost:9443 {own}\n" in told
    )  # which the certificate names, whatever --host is
    assert "localhost" in names_in(tmp_path / "http.pem")
    assert "From elsewhere: https://gw.lan:9443, with ca.pem and a token" in told
    assert "credentials new door-1" in told


def test_in_a_folder_that_is_used_it_tells_what_is_true_there(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes", "--lan", "--http-port", "9443", "--clients-port", "9884")
    told = steps(initialised(tmp_path, "--yes"))
    assert told.startswith(f"{tmp_path} holds all of it already; nothing was changed.\n")
    assert "GATEWAYD_URL=https://localhost:9443 " in told
    assert "port 1883 here, 9884 (TLS) from elsewhere" in told
    assert "mosquitto -c" not in told
    assert "door-1" not in told
    assert "differs" not in initialised(tmp_path, "--yes")


def test_what_was_edited_or_moved_since_is_told_as_it_is(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes")
    config = tmp_path / "gatewayd.yaml"
    text = config.read_text()
    tls = text[text.index("  tls:") : text.index("  tokens_file")]
    config.write_text(text.replace(tls, "").replace("port: 8443", "port: 9999"))
    (tmp_path / "admin-token").rename(tmp_path / "elsewhere")
    told = steps(initialised(tmp_path, "--yes"))
    assert "    export GATEWAYD_URL=http://localhost:9999\n    # admin-token is not here any more" in told


def test_what_was_replaced_asks_for_a_restart(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes", "--http-port", "9443")
    told = steps(initialised(tmp_path, "--yes", "--renew"))
    assert "both daemons read what changed when they start" in told
    assert "https://localhost:9443" in told
    told = steps(initialised(tmp_path / "unit", "--yes", "--systemd"))
    assert "sudo systemctl enable --now gatewayd" in told
    told = steps(initialised(tmp_path / "unit", "--yes", "--renew"))
    assert "sudo systemctl restart mosquitto gatewayd" in told


def test_in_a_terminal_nothing_is_asked_that_the_config_there_says(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes")
    parser = argparse.ArgumentParser()
    init_command.add_arguments(parser)
    out = io.StringIO()
    assert init_command.run(parser.parse_args(["--dir", str(tmp_path)]), stdin=Terminal(""), out=out) == 0
    assert "?" not in out.getvalue()
    assert "nothing was changed" in out.getvalue()


def test_what_differs_is_kept_unless_forced_and_secrets_even_then(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes")
    before = contents(tmp_path)
    said = initialised(tmp_path, "--yes", "--lan")
    assert contents(tmp_path) == before
    assert "it differs from what would be written; --force replaces it" in said
    said = initialised(tmp_path, "--yes", "--lan", "--force")
    changed = {name for name, content in contents(tmp_path).items() if before[name] != content}
    assert changed == {
        "gatewayd.yaml",
        "http.pem",
        "http-key",
        "mosquitto/broker.pem",
        "mosquitto/broker.key",
        "mosquitto/conf.d/gatewayd.conf",
    }
    assert "replaced" in said


def test_certificates_are_renewed_for_the_same_names(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes", "--host", "gw.lan", "--name", "192.0.2.7")
    before = contents(tmp_path)
    initialised(tmp_path, "--yes", "--renew")
    changed = {name for name, content in contents(tmp_path).items() if before[name] != content}
    assert changed == {"http.pem", "http-key", "mosquitto/broker.pem", "mosquitto/broker.key"}
    assert {"gw.lan", "192.0.2.7", "localhost"} <= set(names_in(tmp_path / "mosquitto" / "broker.pem"))


@pytest.mark.parametrize("missing", ["http-tokens", "mqtt-clients"])
def test_a_cut_in_the_middle_is_mended_the_next_time(tmp_path: Path, missing: str) -> None:
    initialised(tmp_path, "--yes")
    (tmp_path / missing).unlink()
    initialised(tmp_path, "--yes")
    tokens = parse_tokens((tmp_path / "http-tokens").read_text())
    assert matching_token(tokens, (tmp_path / "admin-token").read_text().strip()) is not None
    clients = {each.name: each for each in parse_clients((tmp_path / "mqtt-clients").read_text())}
    assert is_password(clients["gatewayd-gw"].password, (tmp_path / "mqtt-password").read_text().strip())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nobody to ask"),
        (["--yes", "--node", "a/b"], "--node"),
        (["--yes", "--host", "a b"], "--host"),
        (["--yes", "--mqtt-port", "8883"], "--…-port"),
        (["--yes", "--http-port", "0"], "--…-port"),
        (["--yes", "--cert", "x"], "go together"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    initialised(tmp_path / "gw", *arguments, code=2)
    assert words in capsys.readouterr().err


def test_half_an_authority_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    initialised(tmp_path, "--yes")
    (tmp_path / "ca.key").unlink()
    initialised(tmp_path, "--yes", "--force", code=2)
    assert "only one of them is there" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_terminal_it_asks(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    init_command.add_arguments(parser)
    out = io.StringIO()
    args = parser.parse_args(["--dir", str(tmp_path)])
    assert init_command.run(args, stdin=Terminal("y\nplant-7\n\n"), out=out) == 0
    config = load_config(tmp_path / "gatewayd.yaml")
    assert (config.node.name, config.http.host) == ("plant-7", "0.0.0.0")  # noqa: S104 - compared
    assert "from the network, with TLS and passwords? [y/N]" in out.getvalue()


def test_certificates_of_ones_own_are_taken(tmp_path: Path) -> None:
    initialised(tmp_path / "first", "--yes")
    own = [str(tmp_path / "first" / name) for name in ("http.pem", "http-key", "ca.pem")]
    initialised(tmp_path / "second", "--yes", "--cert", own[0], "--key", own[1], "--ca", own[2])
    assert (tmp_path / "second" / "mosquitto" / "broker.pem").read_bytes() == Path(own[0]).read_bytes()
    assert not (tmp_path / "second" / "ca.key").exists()


def test_for_systemd_secrets_come_as_credentials(tmp_path: Path) -> None:
    said = initialised(tmp_path / "gw", "--yes", "--systemd", "--data-dir", str(tmp_path / "state"))
    config = load_config(tmp_path / "gw" / "gatewayd.yaml")
    check_files(config, source="x", environ={})
    assert str(config.mqtt.password_file) == "/run/credentials/gatewayd.service/mqtt-password"
    assert config.joining.mosquitto_pid_file is None
    text = (tmp_path / "gw" / "gatewayd.service.d" / "secrets.conf").read_text()
    assert f"LoadCredential=http-key:{tmp_path}/gw/http-key" in text
    assert "gatewayd-mosquitto.path" in said
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["gatewayd-mosquitto.path", "gatewayd-mosquitto.service"])
def test_the_units_are_valid(tmp_path: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt install systemd)")
    for unit in UNITS.glob("gatewayd-mosquitto.*"):
        (tmp_path / unit.name).write_text(unit.read_text())
    command = ["systemd-analyze", "verify", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_users_of_the_broker_come_and_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    initialised(tmp_path, "--yes")
    password = mqtt_user(tmp_path, "app", "--role", "client").strip()
    clients = {each.name: each for each in parse_clients((tmp_path / "mqtt-clients").read_text())}
    assert is_password(clients["app"].password, password)
    assert "topic read reply/app/#" in (tmp_path / "mosquitto" / "clients.acl").read_text()
    told = capsys.readouterr()
    assert told.err.count("mosquitto seems not to run") == 1
    assert caplog.records == []  # which would be shown beside it
    mqtt_user(tmp_path, "app", code=1)
    assert mqtt_user(tmp_path, "app", "--replace", "--save", str(tmp_path / "app-password")) == ""
    assert (tmp_path / "app-password").read_text().strip() not in ("", password)
    mqtt_user(tmp_path, "app", "--remove")
    assert "app:" not in (tmp_path / "mosquitto" / "clients.passwd").read_text()
    mqtt_user(tmp_path, "app", "--remove", code=1)


def acl(folder: Path) -> str:
    return (folder / "mosquitto" / "clients.acl").read_text()


def test_a_users_role_says_which_commands_the_broker_lets_through(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes")
    may = {}
    for role in ("viewer", "client", "operator", "admin"):
        mqtt_user(tmp_path, f"the-{role}", "--role", role)
        shown = mqtt_user(tmp_path, f"the-{role}", "--role", role, "--show")
        assert shown in acl(tmp_path)
        may[role] = set(re.findall(r"topic write gatewayd/[^/]+/cmd/(\S+)", shown))
    assert (may["client"], may["admin"]) == (set(), {"#"})
    assert may["viewer"] == {name for name, verb in VERBS.items() if verb.role is Role.VIEWER}
    assert may["operator"] == {name for name, verb in VERBS.items() if verb.role <= Role.OPERATOR}
    # Only an admin may ask for a secret, or hear an answer that holds one.
    for role in ("viewer", "client", "operator"):
        mqtt_user(tmp_path, "eve", "--role", role, "--replace")
        own = acl(tmp_path).partition("user eve\n")[2].partition("\n\n")[0]
        assert not [line for line in own.splitlines() if "credentials.new" in line or line.endswith("/reply/#")]
        assert not [line for line in own.splitlines() if re.search(r" (gatewayd-)?reply/#", line)]


def test_whoever_was_an_operator_before_there_were_roles_keeps_what_they_could_do(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes")
    file = tmp_path / "mqtt-clients"
    header, *users = file.read_text().splitlines()
    assert header.startswith("# roles")
    file.write_text("\n".join(users) + "\n")
    mqtt_user(tmp_path, "--refresh")
    assert {each.name: each.role for each in parse_clients(file.read_text())}["operator"] == "admin"
    assert "cmd/#" in acl(tmp_path).partition("user operator\n")[2].partition("\n\n")[0]
    mqtt_user(tmp_path, "operator", "--role", "operator", "--replace")
    assert "cmd/#" not in acl(tmp_path).partition("user operator\n")[2].partition("\n\n")[0]


def test_access_lists_are_written_for_the_node_that_the_config_names(tmp_path: Path) -> None:
    initialised(tmp_path, "--yes", "--node", "barn")
    config = tmp_path / "gatewayd.yaml"
    config.write_text(config.read_text().replace("mqtt:\n", "mqtt:\n  prefix: farm\n"))
    initialised(tmp_path, "--yes", "--renew")
    assert "topic write farm/barn/infer/#" in acl(tmp_path)
    assert not initialised(tmp_path, "--yes", "--node", "shed", code=2)
    mqtt_user(tmp_path, code=2)


@pytest.mark.parametrize("name", ["a:b", "a/b", "+", "a\nb", "gatewayd-gw"])
def test_no_user_takes_another_ones_place(tmp_path: Path, name: str) -> None:
    initialised(tmp_path, "--yes")
    before = contents(tmp_path)
    mqtt_user(tmp_path, name, "--replace", code=1 if name == "gatewayd-gw" else 2)
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    initialised(file, "--yes", code=1)
    assert capsys.readouterr().err == f"gatewayd init: {file}: File exists\n"
