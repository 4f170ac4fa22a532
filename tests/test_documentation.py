"""The shell blocks of docs/mqtt.md, docs/http.md and docs/coap.md, run as they stand against a real daemon and a real board."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.broker import MOSQUITTO, Broker
from tests.documentation import bash, bash_all, blocks, environment
from tests.gateway import BASE, Gateway, add_speaker, client, start_board

RAN_ON = re.compile(r'"ran_on": ?"([^"]+)"')


def needs(*programs: str, package: str) -> pytest.MarkDecorator:
    missing = [each for each in programs if shutil.which(each) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed (Debian: apt install {package})")


@dataclass
class Site:
    """A gateway with the model `speaker` and the board `door-1`."""

    gateway: Gateway
    broker: Broker
    folder: Path

    def environment(self) -> dict[str, str]:
        coap = re.findall(r"coap_port=([0-9]+)", "\n".join(self.gateway.lines))[0]
        return environment(
            MQTT_PORT=str(self.broker.port),
            BASE=BASE,
            GATEWAYD_URL=self.gateway.http,
            COAP=f"coap://127.0.0.1:{coap}",
            TMPDIR=str(self.folder),
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (Debian: apt install mosquitto)")
    folder = tmp_path_factory.mktemp("documentation")
    broker = Broker(folder)
    broker.start()
    try:
        log = f"decisions: {{file: {folder / 'decisions.jsonl'}, write_every_s: 1}}"
        gateway = Gateway(folder, broker_port=broker.port, extra=f"{log}\ndevices: {{join: open}}")
        try:
            add_speaker(gateway)
            with client(broker.port) as (_, events):
                board = start_board(folder, broker_port=broker.port)
                events.until("event/device", lambda event: bool(event["online"]))
            yield Site(gateway, broker, folder)
            board.end()
        finally:
            gateway.end()
    finally:
        broker.stop()


@needs("mosquitto_pub", "mosquitto_sub", "mosquitto_rr", package="mosquitto-clients")
def test_what_the_page_on_mqtt_says_works(site: Site) -> None:
    exports, *examples = blocks("docs/mqtt.md")
    assert exports.startswith("export ")
    said = bash_all(examples, site.environment())
    assert '"error"' not in said
    lines = said.splitlines()
    assert json.loads(lines[0])["state"] == "online"
    assert lines.count(next(line for line in lines if "move-7" in line)) == 1
    unaliased = [line for line in lines if '"version":null' in line.replace(" ", "") and "move-9" not in line]
    assert len(unaliased) == 2, said
    assert len(set(unaliased)) == 1  # the stored answer, sent again
    assert len(RAN_ON.findall(said)) >= 6
    assert any(re.fullmatch("b[0-9a-f]+|a[0-9a-f]+", line) for line in lines), "no answer in CBOR"
    assert any("event/model" in line for line in lines)
    assert sum('"order":"watch"' in line.replace(" ", "") for line in lines) >= 2


@needs("curl", package="curl")
def test_what_the_page_on_http_says_works(site: Site) -> None:
    exports, examples, _access = blocks("docs/http.md")
    assert exports.startswith("export ")
    said = bash(examples, site.environment())
    assert len(RAN_ON.findall(said)) >= 2
    assert '"code":"unknown_model"' in said.replace(" ", "")


def test_what_the_page_on_decisions_says_works(site: Site) -> None:
    asking, replaying = blocks("docs/decisions.md")
    assert "because: " in bash(asking, site.environment())
    said = bash(replaying, site.environment() | {"LOG": str(site.folder / "decisions.jsonl")})
    replayed, same = re.findall(
        r"^([0-9]+) decisions replayed: ([0-9]+) the same to the last bit, 0 not", said, re.MULTILINE
    )[-1]
    assert replayed == same
    assert "with node-only, over " in said
    assert '"estimate": {' in said


@needs("coap-client-notls", package="libcoap3-bin")
def test_what_the_page_on_coap_says_works(site: Site) -> None:
    exports, examples = blocks("docs/coap.md")
    assert exports.startswith("export ")
    said = bash(examples, site.environment())
    assert "</infer/speaker>" in said
    assert len(RAN_ON.findall(said)) == 2
