"""Where the compiler plugins' tools are on this machine."""

import os
import subprocess
from pathlib import Path

import pytest

from gatewayd.adapters.compilers import PROGRAMS

_PYTHON = Path(__file__).parent.parent / "build" / "plugins-venv" / "bin" / "python"


def plugin_python() -> str:
    """Return the interpreter with the tools: named by the environment, or where `make test` puts it; or skip."""
    python = os.environ.get("GATEWAYD_PLUGINS_PYTHON", str(_PYTHON))
    if not Path(python).exists():
        pytest.skip("no compiler tools: make build/plugins-venv/.stamp, or set GATEWAYD_PLUGINS_PYTHON")
    return python


def require_plugin(name: str) -> str:
    """Return the interpreter that has the plugin's tool, or skip with what is missing."""
    python = plugin_python()
    done = subprocess.run([python, str(PROGRAMS[name]), "--describe"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip())
    return python
