import shutil
import subprocess
from pathlib import Path

import pytest

from gatewayd.core.credentials import BrokerUser
from gatewayd.core.errors import BadRequest
from gatewayd.core.names import DeviceId
from gatewayd.wire.mosquitto import client_access, device_access, hash_password, is_hash, is_password, password_line
from gatewayd.wire.topics import Topics

TOPICS = Topics("gatewayd", "gw")
GRANTED = {"viewer": ["status"], "operator": ["push", "status"]}
SALT = bytes(range(12))


def test_a_password_is_hashed_and_known_again() -> None:
    hashed = hash_password("secret", SALT)
    assert is_hash(hashed)
    assert (is_password(hashed, "secret"), is_password(hashed, "secret "), is_password("plain", "plain")) == (
        True,
        False,
        False,
    )


def test_the_hash_is_mosquittos_own(tmp_path: Path) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed (Debian: apt install mosquitto)")
    file = tmp_path / "passwd"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(file), "door-1", "secret"], check=True, timeout=10)
    name, _, hashed = file.read_text().strip().partition(":")
    assert (name, is_password(hashed, "secret"), is_password(hashed, "other")) == ("door-1", True, False)


@pytest.mark.parametrize("name", ["", "a:b", "a\nuser b", "a b", "#", "é", "a" * 200])
def test_a_name_cannot_forge_a_line(name: str) -> None:
    with pytest.raises(BadRequest):
        password_line(name, hash_password("x", SALT))


def test_a_device_speaks_as_itself_only() -> None:
    hub = BrokerUser(DeviceId("hub"), (DeviceId("hub"), DeviceId("cam-7")), "")
    assert device_access(TOPICS, [BrokerUser(DeviceId("door-1"), (DeviceId("door-1"),), ""), hub]) == (
        "user door-1\n"
        "topic read gatewayd/gw/status\n"
        "topic read gatewayd/gw/device/door-1/down/#\n"
        "topic write gatewayd/gw/device/door-1/up/#\n"
        "\n"
        "user hub\n"
        "topic read gatewayd/gw/status\n"
        "topic read gatewayd/gw/device/hub/down/#\n"
        "topic write gatewayd/gw/device/hub/up/#\n"
        "topic read gatewayd/gw/device/cam-7/down/#\n"
        "topic write gatewayd/gw/device/cam-7/up/#\n"
        "\n"
    )


def test_a_client_asks_and_hears_its_own_answers() -> None:
    text = client_access(TOPICS, ["reply/"], [("app", "client")], granted=GRANTED)
    assert text == (
        "user app\ntopic read gatewayd/gw/status\ntopic read reply/app/#\ntopic write gatewayd/gw/infer/#\n\n"
    )


def test_a_viewer_asks_what_changes_nothing_and_hears_the_answers_to_that() -> None:
    text = client_access(TOPICS, ["reply/"], [("eve", "viewer")], granted=GRANTED)
    assert text == (
        "user eve\ntopic read gatewayd/gw/status\ntopic read reply/eve/#\n"
        "topic read gatewayd/gw/event/#\ntopic read gatewayd/gw/stream/#\n"
        "topic write gatewayd/gw/cmd/status\ntopic read gatewayd/gw/reply/status\n\n"
    )


def test_an_operator_gives_the_commands_of_that_role_and_cannot_speak_as_a_device() -> None:
    lines = client_access(TOPICS, ["reply/"], [("ann", "operator")], granted=GRANTED).splitlines()
    assert [line for line in lines if "write" in line] == [
        "topic write gatewayd/gw/cmd/push", "topic write gatewayd/gw/cmd/status", "topic write gatewayd/gw/infer/#",
    ]  # fmt: skip
    assert "topic read reply/ann/#" in lines
    assert not [line for line in lines if line.endswith(("reply/#", "cmd/#"))]


def test_an_admin_gives_every_command() -> None:
    text = client_access(TOPICS, ["reply/"], [("root", "admin")], granted=GRANTED)
    assert "topic write gatewayd/gw/cmd/#" in text
    assert not [line for line in text.splitlines() if "device" in line and "write" in line]


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(BadRequest, match="gateway, admin, operator, client, viewer"):
        client_access(TOPICS, [], [("ann", "boss")], granted=GRANTED)
