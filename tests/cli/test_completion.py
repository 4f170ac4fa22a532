import argparse
import shutil
import subprocess

import pytest

from gatewayd.cli.command import add_commands, add_completion
from gatewayd.cli.completion import SHELLS, script_of


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gatewayd")
    commands = made.add_subparsers()
    commands.add_parser("run").add_argument("--config")
    add_commands(commands)
    add_completion(commands, made)
    return made


def in_bash(*typed: str) -> list[str]:
    """Complete the last word as bash would."""
    words = " ".join(f"'{word}'" for word in ("gatewayd", *typed))
    program = f"""{script_of(parser(), "bash")}
COMP_WORDS=({words}); COMP_CWORD={len(typed)}
_gatewayd; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    ran = subprocess.run([bash, "-eu", "-c", program], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_bash_completes_commands_and_options() -> None:
    assert in_bash("mod") == ["models"]
    assert {"run", "models", "devices", "infer", "completion"} <= set(in_bash(""))
    assert {"add", "list", "alias", "load"} <= set(in_bash("models", ""))
    assert in_bash("models", "add", "kws", "--fi") == ["--file", "--files"]
    assert in_bash("completion", "") == ["bash", "fish", "zsh", "--help"]
    assert in_bash("infer", "--url", "x", "--deadl") == ["--deadline-ms"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_reads_its_script(shell: str) -> None:
    script = script_of(parser(), shell)
    assert "devices" in script
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    option = "--no-execute" if shell == "fish" else "-n"
    ran = subprocess.run([program, option], input=script, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    args = parser().parse_args(["completion", "zsh"])
    assert args.run(args) == 0
    assert capsys.readouterr().out.startswith("#compdef gatewayd")
