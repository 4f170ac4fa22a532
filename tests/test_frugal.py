"""What the daemon does without: looked at from outside, in a running one, where it counts."""

import gc
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd import frugal
from tests.broker import Broker
from tests.gateway import Gateway, add_speaker, infer_raw

# Libraries with megabytes of their own that a node needs for pushes, DTLS or in its workers only.
ABSENT = ("cryptography", "numpy", "ai_edge_litert", "tflite", "onnxruntime", "openvino", "mbedtls", "zeroconf")
IMPORTED = """
import sys
from gatewayd import frugal
with frugal.without_authorities():
    import gatewayd.daemon, gatewayd.config.files
print(*sys.modules)
"""


def mapped(pid: int) -> set[str]:
    """Return the files that a process has mapped."""
    return {line.split(maxsplit=5)[5] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/" in line}


def test_a_node_that_serves_has_loaded_nothing_it_does_not_use(tmp_path: Path, broker: Broker) -> None:
    gateway = Gateway(tmp_path, broker_port=broker.port)
    add_speaker(gateway)
    assert infer_raw(gateway)[0] == 200
    files = mapped(gateway.pid)
    assert gateway.end() == 0
    assert any("/pydantic_core/" in file for file in files)
    assert [file for file in files if any(f"/{name}" in file for name in ABSENT)] == []


def test_the_daemons_imports_leave_out_what_other_commands_are_for() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    others = ("gatewayd.sim", "gatewayd.simulate", "gatewayd.demo", "gatewayd.cli.verbs", "gatewayd.init_command")
    unwanted = (*ABSENT, *others, "gatewayd.adapters.certificates", "gatewayd.adapters.doctor")
    assert [name for name in found if name in unwanted or name.startswith(tuple(f"{each}." for each in unwanted))] == []


@pytest.mark.parametrize("before", ["/etc/ssl/some.pem", None])
def test_authorities_are_out_of_sight_for_the_imports_only(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    if before is None:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    else:
        monkeypatch.setenv("SSL_CERT_FILE", before)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with frugal.without_authorities():
        assert ssl.create_default_context().cert_store_stats()["x509"] == 0
    assert os.environ.get("SSL_CERT_FILE") == before


def test_collections_are_back_when_the_start_is_over() -> None:
    frozen, thresholds = gc.get_freeze_count(), gc.get_threshold()
    try:
        frugal.begin()
        assert not gc.isenabled()
        frugal.settle()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        gc.enable()
