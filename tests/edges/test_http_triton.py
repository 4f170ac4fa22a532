"""An unmodified tritonclient, with its defaults (binary tensors both ways), against a running daemon."""

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.broker import Broker
from tests.gateway import PATIENCE_S, REPOSITORY, Gateway, add_speaker

PYTHON = REPOSITORY / "build" / "tritonclient-venv" / "bin" / "python"
CONVERSATION = REPOSITORY / "bench" / "peers" / "triton_conversation.py"


@pytest.fixture
def seen(tmp_path: Path, broker: Broker) -> dict[str, Any]:
    """What the client saw."""
    if not PYTHON.exists():
        pytest.skip("tritonclient's environment is not there (make test-triton sets it up)")
    gateway = Gateway(tmp_path, broker_port=broker.port)
    try:
        add_speaker(gateway)
        metadata = json.loads(gateway.get("/v2/models/speaker")[1])
        names = [metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]]
        command = [str(PYTHON), str(CONVERSATION), urlsplit(gateway.http).netloc, "speaker", *names]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert ran.returncode == 0, ran.stderr
        return dict(json.loads(ran.stdout))
    finally:
        gateway.end()


def test_an_unmodified_tritonclient_is_served(seen: dict[str, Any]) -> None:
    assert (seen["live"], seen["ready"], seen["model_ready"], seen["nothing_ready"]) == (True, True, True, False)
    assert seen["server"]["name"] == "gatewayd"
    assert {"binary_tensor_data", "model_repository"} <= set(seen["server"]["extensions"])
    assert seen["model"]["platform"] == "tflite"
    assert [(row["name"], row["version"], row["state"]) for row in seen["index"]] == [("speaker", "1", "READY")]
    assert seen["loaded"] == "loaded"
    first, *others = seen["answers"].values()
    assert len(first) == 9
    assert seen["async"] == pytest.approx(first)
    assert all(answer == pytest.approx(first) for answer in others)
    assert (seen["dtype"], seen["id"]) == ("float32", "r-7")
    status, message = seen["error"]
    assert status == "400"
    assert message.startswith("input ")
    assert "takes shape [1, 29, 12]" in message or "takes shape" in message
