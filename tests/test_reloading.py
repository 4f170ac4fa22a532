"""SIGHUP on a real daemon, and what of a config's changes waits for a restart."""

import signal
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gatewayd.adapters.certificates import new_authority, new_server
from gatewayd.config import Config, parse_config
from gatewayd.reloading import differing, tell_ends
from gatewayd.wire.access_tokens import token_of
from tests.broker import free_port
from tests.gateway import Gateway

ANN, ANN_KEPT = token_of("ann", "admin", bytes(32))
BOB, BOB_KEPT = token_of("bob", "viewer", bytes(range(32)))


def status(gateway: Gateway, token: str) -> int:
    request = urllib.request.Request(f"{gateway.http}/api/status", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own loopback address
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_running_daemon_takes_over_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    tokens, config = tmp_path / "tokens", tmp_path / "gatewayd.yaml"
    tokens.write_text(f"{ANN_KEPT.line()}\n")
    extra = "http: {port: 0, tokens_file: tokens}\ncoap: {enabled: false}\nlwm2m: {enabled: false}\n"
    gateway = Gateway(tmp_path, broker_port=free_port(), text=f"node: {{data_dir: data}}\n{extra}")
    try:
        assert (status(gateway, ANN), status(gateway, BOB)) == (200, 401)
        tokens.write_text(f"{BOB_KEPT.line()}\n")
        config.write_text(
            config.read_text().replace("port: 0", "port: 0, max_connections: 99") + "log: {level: debug}\n"
        )
        gateway.tell(signal.SIGHUP)
        assert "tokens=1" in gateway.until("config reloaded")
        assert "http.max_connections" in gateway.until("options that need a restart")
        assert (status(gateway, ANN), status(gateway, BOB)) == (401, 200)
        config.write_text("nonsense: 1\n")
        gateway.tell(signal.SIGHUP)
        assert "nonsense" in gateway.until("config not reloaded")
        config.write_text(f"node: {{data_dir: data}}\n{extra}")
        tokens.write_text("# nobody\n")
        gateway.tell(signal.SIGHUP)
        assert "holds no token" in gateway.until("config not reloaded")
        assert status(gateway, BOB) == 200
        (tmp_path / "data" / "credentials" / "credentials.json").write_text("{")
        tokens.write_text(f"{ANN_KEPT.line()}\n")
        gateway.tell(signal.SIGHUP)
        assert "credentials.json" in gateway.until("config not reloaded")
        assert status(gateway, BOB) == 200
    finally:
        assert gateway.end() == 0
    assert not [line for line in gateway.lines if ANN in line or BOB in line]


def parse(text: str) -> Config:
    return parse_config(text, source="x", folder=Path("/etc"))


def test_options_that_differ_are_named_by_their_path() -> None:
    old = parse("node: {name: a}")
    new = parse("node: {name: b}\nrequests: {classes: {slow: {latency_per_s: 1}}}\nmqtt: {tls: {}}")
    assert differing(old, new) == ["mqtt.tls", "node.name", "requests.classes.slow"]
    assert differing(old, old) == []


@pytest.mark.parametrize(("days_ago", "is_told"), [(0, False), (800, True), (900, True)])
def test_a_certificate_that_ends_soon_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days_ago: int, *, is_told: bool
) -> None:
    made = datetime.now(UTC) - timedelta(days=days_ago)
    authority = new_authority("x", now=made)
    (tmp_path / "cert.pem").write_bytes(new_server(["localhost"], authority, now=made)[0])
    text = "http: {tls: {cert_file: %s, key_file: /x}}" % (tmp_path / "cert.pem")
    tell_ends(parse(text))
    assert ("certificate ends soon" in caplog.text) is is_told
