from pathlib import Path

from gatewayd.adapters.doctor import EngineHealth, examine, render
from gatewayd.core.engine import EngineSpec
from tests.engine_environments import LITERT, require_engine
from tests.gateway import gatewayd

_TREES = Path(__file__).parents[1] / "trees"


async def test_what_works_what_does_not_and_what_is_missing() -> None:
    require_engine("litert")
    broken = EngineSpec("openvino", "/nowhere/python")
    engines, found = await examine([LITERT, broken], _TREES / "fresh-coral")
    lines = render(engines, found)
    assert lines[0] == "Engines:"
    assert lines[1].startswith("  litert: version ")
    assert lines[2].startswith("  openvino under /nowhere/python: does not work: engine openvino: cannot start")
    assert lines[3:5] == ["Accelerators:", "  edgetpu: USB 1a6e:089a at 1-1.2, firmware not loaded yet"]
    assert lines[5].startswith("    missing: libedgetpu.so.1")
    assert "no engine uses it; in the config: engines: [{name: litert" in lines[-1]


def test_nothing_at_all_is_told_too() -> None:
    lines = render([], [])
    assert lines[1] == "  none: pip install ai-edge-litert (or name engines in the config)"
    assert lines[3].startswith("  none (looked for Edge TPU")


def test_an_accelerator_in_use_needs_no_advice() -> None:
    spec = EngineSpec("litert", label="tpu", accelerator="movidius")
    lines = render([EngineHealth(spec, "", "1")], [])
    assert not [line for line in lines if "no engine uses it" in line]


def test_the_command(tmp_path: Path) -> None:
    require_engine("litert")
    config = tmp_path / "gatewayd.yaml"
    config.write_text(f"accelerators: {{root: {_TREES / 'movidius'}}}\n")
    done = gatewayd("doctor", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert "movidius: USB 03e7:2485 at 1-3" in done.stdout
    config.write_text("engines: [{name: openvino, python: /nowhere/python}]\n")
    assert gatewayd("doctor", "--config", str(config)).returncode == 1
