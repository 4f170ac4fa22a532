"""The shell blocks of a page of the documentation, and how they are run."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.gateway import REPOSITORY

PATIENCE_S = 90


def blocks(page: str) -> list[str]:
    """Return every ```sh block of a page (its path from the root), in order."""
    return re.findall(r"```sh\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)


def environment(**more: str) -> dict[str, str]:
    """Return what the blocks need: the programs of this environment, and what the page's first block exports."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


def bash(script: str, environ: Mapping[str, str], *, folder: Path = REPOSITORY) -> str:
    """Run a block; return what it wrote. Each command has to succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def bash_all(scripts: Sequence[str], environ: Mapping[str, str], *, folder: Path = REPOSITORY) -> str:
    """Run them one after the other, each in a shell of its own."""
    return "".join(bash(each, environ, folder=folder) for each in scripts)
