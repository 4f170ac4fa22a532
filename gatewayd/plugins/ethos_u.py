"""Integer model → model for an Arm Ethos-U NPU, by Vela. Options: `accelerator-config` (ethos-u55-128 …), `optimise`.

Vela ends with code 0 also when it could put nothing on the NPU; whoever started this reads the result.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

# Its own directory is where Python looks first for a program run by path; the module's type is no concern of its users.
_shared: Any = importlib.import_module("gatewayd_plugin")

REVISION = 1
_OPTIONS = {"accelerator-config": r"ethos-u(55|65|85)-[0-9]{2,4}", "optimise": "Size|Performance"}
_LAST_WORDS = 2000


def compile_model(request: dict[str, Any]) -> str:
    """Compile, and tell in a line what Vela counted."""
    arguments = [f"--{name}={_checked(name, value)}" for name, value in sorted(request["options"].items())]
    with tempfile.TemporaryDirectory() as folder:
        # Vela puts the input's name into what it writes: one name for all keeps results the same.
        source = shutil.copy(request["input"], Path(folder) / "model.tflite")
        said = _run_vela([str(source), f"--output-dir={folder}/out", *arguments])
        made = Path(folder) / "out" / "model_vela.tflite"
        if not made.is_file():
            raise _shared.PluginError(f"vela made nothing: {said.strip()[-_LAST_WORDS:]}")
        shutil.copy(made, request["output"])
    counted = re.findall(r"^([CN]PU operators = [0-9]+ \([0-9.]+%\))$", said, re.MULTILINE)
    return f"vela: {', '.join(counted) or 'no summary'}"


def _run_vela(arguments: list[str]) -> str:
    """Run Vela in this process, so that it ends with it, and return what it printed."""
    vela = importlib.import_module("ethosu.vela.vela")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            vela.main(arguments)
    except SystemExit as ended:
        if ended.code:
            message = f"vela ended with code {ended.code}: {said.getvalue().strip()[-_LAST_WORDS:]}"
            raise _shared.PluginError(message) from ended
    return said.getvalue()


def _checked(name: str, value: object) -> str:
    if name not in _OPTIONS or not isinstance(value, str) or not re.fullmatch(_OPTIONS[name], value):
        raise _shared.PluginError(
            f"option {name!r} is not known or has no value it may have; known: {', '.join(_OPTIONS)}"
        )
    return value


if __name__ == "__main__":
    sys.exit(
        _shared.main(
            "ethos-u",
            revision=REVISION,
            packages=("ethos-u-vela",),
            install="pip install ethos-u-vela there, or name another interpreter in plugins.ethos_u.python",
            run=compile_model,
        )
    )
