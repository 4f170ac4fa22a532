"""The registry through the whole daemon: a model that comes in parts over MQTT, a watched folder, and a build with real tools."""

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from tests.broker import Broker
from tests.gateway import SPEAKER, Events, Gateway, client, gatewayd
from tests.plugin_environments import require_plugin

FLOATS = SPEAKER / "v1" / "speaker-float32.tflite"
INPUTS = 29 * 12


@contextmanager
def gateway(folder: Path, broker: Broker, extra: str = "") -> Iterator[Gateway]:
    running = Gateway(folder, broker_port=broker.port, extra=f"devices: {{join: open}}\n{extra}")
    try:
        yield running
    finally:
        assert running.end() == 0


def samples(count: int = 20) -> bytes:
    stored = struct.unpack(f"<{count * INPUTS}h", (SPEAKER / "samples.bin").read_bytes()[: count * INPUTS * 2])
    return struct.pack(f"<{count * INPUTS}f", *(value / 4096 for value in stored))


def versions(running: Gateway) -> list[dict[str, object]]:
    listed = json.loads(running.get("/api/models/list")[1])["models"]
    return [version for model in listed for version in model["versions"]]


def added(events: Events) -> None:
    events.until("event/model", lambda event: event["what"] == "added")


def test_a_model_comes_in_parts_over_mqtt(tmp_path: Path, broker: Broker) -> None:
    content = FLOATS.read_bytes()
    with gateway(tmp_path, broker) as running, client(broker.port) as (mqtt, events):
        digest = sha256(content).hexdigest()
        upload = mqtt.command("upload.begin", {"size_bytes": len(content), "digest": digest})["upload"]
        for offset in range(0, len(content), 4096):
            part = base64.b64encode(content[offset : offset + 4096]).decode()
            mqtt.command("upload.part", {"upload": upload, "offset": offset, "content": part})
        assert mqtt.command("upload.end", {"upload": upload})["whole"]
        mqtt.command("models.add", {"model": "speaker", "uploads": [upload]})
        added(events)
        assert [version["source"] for version in versions(running)] == ["upload in parts"]


def test_a_folder_is_watched(tmp_path: Path, broker: Broker) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    with (
        gateway(tmp_path, broker, f"sources: {{folder: {folder}, look_every_s: 0.1}}\n"),
        client(broker.port) as (_, events),
    ):
        (folder / "speaker.tflite").write_bytes(FLOATS.read_bytes())
        digest = sha256(FLOATS.read_bytes()).hexdigest()
        text = f"model: speaker\nfiles: [{{name: speaker.tflite, sha256: '{digest}'}}]\nalias: canary\n...\n"
        (folder / ".speaker.yaml").write_text(text)
        (folder / ".speaker.yaml").rename(folder / "speaker.yaml")
        events.until("event/model", lambda event: event["what"] == "alias moved" and event["alias"] == "canary")


def test_a_build_for_an_npu_goes_by_int8_without_hands(tmp_path: Path, broker: Broker) -> None:
    python, target = require_plugin("ethos-u"), "ethos-u55-128"
    require_plugin("int8")
    files = {"files": [base64.b64encode(FLOATS.read_bytes()).decode()], "samples": base64.b64encode(samples()).decode()}
    extra = f"plugins: {{int8: {{python: {python}}}, ethos_u: {{python: {python}}}}}\n"
    with gateway(tmp_path, broker, extra) as running:
        status, first = running.post("/api/models/add", json.dumps({"model": "speaker", **files}).encode())
        assert status == 200, first
        assert first["variants"][0]["vectors"] == 4
        built = gatewayd("models", "build", "speaker", "--for", target, "--url", running.http, "--json")
        assert built.returncode == 0, built.stderr
        row = json.loads(built.stdout)
        names = [variant["name"] for variant in row["version"]["variants"]]
        assert names == ["tflite-float32", "tflite-int8", target]
        assert (row["variant"], row["is_new"]) == (target, True)
        assert row["version"]["variants"][1]["vectors"] == 4
        shown = gatewayd("models", "list", "speaker", "--url", running.http)
        assert target in shown.stdout
