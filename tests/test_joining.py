"""Joining on real parts: what `gatewayd init` wrote, a real mosquitto with TLS and access lists, the real daemon."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.cli.client import Refused
from gatewayd.core.device import Report
from gatewayd.core.names import DeviceId
from gatewayd.wire import mqttdevice
from gatewayd.wire.device_credentials import DeviceCredentials
from gatewayd.wire.topics import Topics
from tests.documentation import bash, blocks, environment
from tests.gateway import REPOSITORY, SPEAKER, Process
from tests.joining_stage import Peer, Stage, free_ports, has_mosquitto, program, stage
from tests.services.world import CAPABILITIES, EMPTY

NEEDED = pytest.mark.skipif(
    not has_mosquitto(),
    reason="mosquitto or its clients are not installed (Debian: apt install mosquitto mosquitto-clients)",
)
CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (Debian: apt install curl)")
PAGE = (REPOSITORY / "docs" / "joining.md").read_text()
PONG = b"0000"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("joining")) as running:
        yield running


@NEEDED
def test_ten_devices_join_from_nothing_by_the_documented_steps(tmp_path: Path) -> None:
    ports = free_ports()
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 6
    script = "\n".join(blocks).replace("https://localhost:8443", f"https://localhost:{ports['http']}")
    (tmp_path / "models").symlink_to(REPOSITORY / "models")
    environment = {
        **os.environ,
        "PATH": f"{program(tmp_path, ports)}:{os.environ['PATH']}:/usr/sbin",
        "PYTHONPATH": str(REPOSITORY),
    }
    with (tmp_path / "said").open("wb") as said:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f"{script}\necho the end\n"],
            env=environment, cwd=tmp_path, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(300)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    text = (tmp_path / "said").read_text()
    assert (code, text.splitlines()[-1]) == (0, "the end"), text[-3000:]
    assert len(set(re.findall(r"^(board-\d+) +online ", text, re.MULTILINE))) == 10
    assert re.search(r"^speaker-\d \(0\.\d+\)$", text, re.MULTILINE)
    secret = json.loads((tmp_path / "gw" / "board-1.json").read_text())
    logs = "".join(path.read_text(errors="replace") for path in (tmp_path / "gw").glob("*.log"))
    assert [each for each in (secret["password"], secret["psk_key"]) if each in logs + text] == []


def _topic(of: DeviceCredentials, kind: str, *, device: str = "") -> str:
    return f"{of.topics.base}/device/{device or of.device}/up/{kind}"


@NEEDED
def test_a_device_cannot_speak_as_another_nor_hear_it(gateway: Stage) -> None:
    first, second = gateway.credentials("a-1"), gateway.credentials("a-2")
    with Peer(first) as peer, Peer(second) as other:
        assert peer.connected.get(timeout=30) == other.connected.get(timeout=30) == "Success"
        assert peer.say(_topic(first, "pong"), PONG) == "Success"
        refused = [
            _topic(second, "pong"),
            f"{first.topics.base}/device/a-1/down/offer",
            f"{first.topics.base}/cmd/devices.approve",
            f"{first.topics.base}/infer/speaker",
            f"{first.topics.base}/status",
            "gatewayd/other-node/device/a-1/up/pong",
            "reply/x",
        ]
        assert {topic: peer.say(topic, PONG) for topic in refused} == dict.fromkeys(refused, "Not authorized")
        peer.listen("#")
        other.say(_topic(second, "pong"), PONG)
        peer.say(_topic(first, "pong"), PONG)
        heard = {peer.heard.get(timeout=30)[0]}
        while not peer.heard.empty():
            heard.add(peer.heard.get()[0])
        assert heard <= {f"{first.topics.base}/status"}


@NEEDED
def test_no_device_takes_another_ones_session(gateway: Stage) -> None:
    victim, thief = gateway.credentials("b-1"), gateway.credentials("b-2")
    with Peer(victim) as peer:
        peer.connected.get(timeout=30)
        with Peer(thief, client_id="b-1") as other:
            other.connected.get(timeout=30)
            assert peer.say(_topic(victim, "pong"), PONG) == "Success"
            assert peer.lost.empty()


@NEEDED
def test_a_wrong_password_and_a_stranger_stay_out(gateway: Stage) -> None:
    given = gateway.credentials("c-1")
    with Peer(given, password="wrong") as peer:  # noqa: S106 - what it says
        assert peer.connected.get(timeout=30) == "Not authorized"


@NEEDED
def test_a_concentrator_speaks_for_its_devices_and_no_others(gateway: Stage) -> None:
    hub = gateway.credentials("hub", kind="mqtt", speaks_for=["d-1", "d-2"])
    with Peer(hub) as peer:
        peer.connected.get(timeout=30)
        said = {device: peer.say(_topic(hub, "pong", device=device), PONG) for device in ("hub", "d-1", "d-2", "d-3")}
        assert said == {"hub": "Success", "d-1": "Success", "d-2": "Success", "d-3": "Not authorized"}
        birth = mqttdevice.encode_status(Report(CAPABILITIES, EMPTY))
        gateway.call("devices.permit-join", seconds=60)
        for device in ("d-1", "d-2"):
            peer.say(_topic(hub, "status", device=device), birth)
            gateway.daemon.until(f"id={device} what=online")
        assert gateway.call("devices.permit-join", seconds=0)["admitted"] == ["d-1", "d-2"]
        gateway.call("devices.revoke", device="d-1")
        until_refused(peer, _topic(hub, "pong", device="d-1"))
        assert peer.say(_topic(hub, "pong", device="d-2"), PONG) == "Success"
        assert peer.lost.empty()
    rows = {row["device"]: row for row in gateway.call("devices.list")["devices"]}
    assert [(rows[each]["approved"], rows[each]["revoked"]) for each in ("d-1", "d-2")] == [
        (False, True),
        (True, False),
    ]
    gateway.call("devices.forget", device="d-1")
    gateway.call("devices.forget", device="d-2", force=True)


def until_refused(peer: Peer, topic: str) -> None:
    """Mosquitto reads its files again between two turns of its loop."""
    for _ in range(1000):
        if peer.say(topic, PONG) == "Not authorized":
            return
    raise AssertionError(f"{topic} is taken still")


@NEEDED
def test_a_device_waits_is_approved_and_is_thrown_out(gateway: Stage, tmp_path: Path) -> None:
    given = gateway.credentials("door-1")
    arguments = ["sim-device", "--credentials", str(gateway.folder / "door-1.json"), "--board", "nucleo-l4r5zi"]
    board = Process([*arguments, "--state", str(tmp_path / "flash"), "--samples", str(SPEAKER), "--sensor", "mic"])
    try:
        gateway.daemon.until('id=door-1 what="online, waits for approval"')
        assert gateway.call("devices.joining")["waiting"] == ["door-1"]
        gateway.call("devices.approve", device="door-1")
        gateway.daemon.until("id=door-1 what=approved")
        with pytest.raises(Refused, match="online and approved"):
            gateway.call("devices.forget", device="door-1")
        assert gateway.call("devices.revoke", device="door-1")["broker"] == ""
        board.until("event=disconnected")
        board.until("Not authorized")
        gateway.daemon.until('id=door-1 what="offline')
        assert re.search(r"^door-1 +offline, revoked ", gateway.run("devices", "list"), re.MULTILINE)
        gateway.call("devices.forget", device="door-1")
        assert gateway.call("devices.list")["devices"] == []
        # New credentials for the same name: a newcomer again.
        given = gateway.credentials("door-1")
    finally:
        assert board.end() == 0
    with Peer(given) as peer:
        assert peer.connected.get(timeout=30) == "Success"
        assert peer.say(_topic(given, "status"), mqttdevice.encode_offline()) == "Success"


@NEEDED
def test_replaced_credentials_end_the_old_connection(gateway: Stage) -> None:
    old = gateway.credentials("e-1")
    with Peer(old) as peer:
        peer.connected.get(timeout=30)
        with pytest.raises(Refused, match="e-1 has a user"):
            gateway.credentials("e-1")
        new = gateway.credentials("e-1", replace=True)
        peer.lost.get(timeout=30)
    assert (new.password != old.password, new.psk_key != old.psk_key) == (True, True)
    with Peer(new) as peer:
        assert peer.connected.get(timeout=30) == "Success"


@NEEDED
def test_the_test_line_to_paste_connects(gateway: Stage) -> None:
    (snippet,) = gateway.call("devices.credentials.new", device="f-1", snippets=["mosquitto"])["snippets"]
    script = snippet["text"]
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("connected\n", "")


def mosquitto_user(gateway: Stage, name: str) -> DeviceCredentials:
    """Make a user of the broker whose name begins with its role; return what it needs to come by the clients' listener."""
    saved = gateway.folder / f"{name}-password"
    role = name.partition("-")[0]
    gateway.run("mqtt-user", name, "--role", role, "--dir", str(gateway.folder), "--save", str(saved))
    ca, topics = (gateway.folder / "ca.pem").read_text(), Topics("gatewayd", "gw")
    port, password = gateway.ports["clients"], saved.read_text().strip()
    return DeviceCredentials(DeviceId(name), (), topics, "localhost", port, ca, username=name, password=password)


def asked(gateway: Stage, user: DeviceCredentials, topic: str, payload: str = "{}") -> str:
    """Publish a request and return the answer under the user's own reply topic; "" when none came in a second."""
    command = ["mosquitto_rr", "-V", "5", "-p", str(gateway.ports["mqtt"]), "-u", user.username, "-P", user.password]
    command += ["-W", "1", "-t", f"gatewayd/gw/{topic}", "-e", f"reply/{user.username}/x", "-m", payload]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout


@NEEDED
def test_over_mqtt_everybody_may_do_what_their_role_is_for(gateway: Stage) -> None:
    viewer, operator, admin = (mosquitto_user(gateway, role) for role in ("viewer", "operator-2", "admin"))
    for user in (viewer, operator, admin):
        assert '"open":false' in asked(gateway, user, "cmd/devices.joining").replace(" ", "")
    assert '"not_found"' in asked(gateway, operator, "cmd/stream.stop", '{"id": "x"}')
    assert '"open":false' in asked(gateway, admin, "cmd/devices.permit-join", '{"seconds": 0}').replace(" ", "")
    with Peer(viewer) as listener:
        listener.connected.get(timeout=30)
        for topics in ("gatewayd/gw/event/#", "reply/#", "gatewayd/gw/reply/#"):
            listener.listen(topics)
        for topic in ("infer/kws", "cmd/stream.stop"):
            assert "Not authorized" in listener.say(f"gatewayd/gw/{topic}", b"{}")
        asked(gateway, admin, "cmd/devices.joining")
        asked(gateway, admin, "cmd/devices.permit-join", '{"seconds": 5}')
        asked(gateway, admin, "cmd/devices.permit-join", '{"seconds": 0}')
        heard = [listener.heard.get(timeout=30)[0] for _ in range(2)]
    assert heard == ["gatewayd/gw/event/joining"] * 2  # and nobody else's answers
    with Peer(operator) as asking:
        asking.connected.get(timeout=30)
        assert "Not authorized" in asking.say("gatewayd/gw/cmd/devices.permit-join", b'{"seconds": 9}')


@NEEDED
def test_over_mqtt_credentials_are_made_once_and_never_written_down(gateway: Stage) -> None:
    user = mosquitto_user(gateway, "admin-2")
    payload = '{"id": "c-1", "device": "h-1", "kind": "mqtt", "snippets": []}'
    first, again = (json.loads(asked(gateway, user, "cmd/devices.credentials.new", payload)) for _ in range(2))
    assert (first["username"], len(first["password"])) == ("h-1", 32)
    assert again == first
    kept = b"".join(path.read_bytes() for path in (gateway.folder / "data").rglob("*") if path.is_file())
    assert first["password"].encode() not in kept


@NEEDED
def test_restored_credentials_hold_after_a_reload(gateway: Stage) -> None:
    given, file = gateway.credentials("g-1"), gateway.folder / "data" / "credentials" / "credentials.json"
    backup = file.read_bytes()
    with Peer(given) as peer:
        peer.connected.get(timeout=30)
        gateway.call("devices.revoke", device="g-1")
        peer.lost.get(timeout=30)
    file.write_bytes(backup)
    gateway.daemon.tell(signal.SIGHUP)
    gateway.daemon.until("config reloaded")
    for _ in range(200):  # mosquitto reads its files between two turns of its loop
        with Peer(given) as peer:
            if peer.connected.get(timeout=30) == "Success":
                return
    raise AssertionError("the restored credentials are refused")


@NEEDED
@CURL
def test_a_token_made_as_the_page_on_http_says_opens_the_door(gateway: Stage) -> None:
    script = blocks("docs/http.md")[-1].replace("localhost:8443", f"localhost:{gateway.ports['http']}")
    given = environment(GATEWAYD_PID=str(gateway.daemon.pid), PYTHONPATH=str(REPOSITORY))
    assert '"name":"gatewayd"' in bash(script, given, folder=gateway.folder.parent).replace(" ", "")
