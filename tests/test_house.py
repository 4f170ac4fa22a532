"""What stands around the code: requirement files, unit, image, samples and scripts keep their promises."""

import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
PINNED = sorted(REQUIREMENTS.glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def wanted(name: str) -> set[str]:
    """Return the lines of an .in file that name packages, in one notation."""
    lines = (REQUIREMENTS / f"{name}.in").read_text().splitlines()
    return {line.replace(" ", "") for line in lines if line and not line.startswith(("#", "-r"))}


def pins(file: Path) -> dict[str, set[str]]:
    """Return every package of a pinned file with its versions (one for each platform)."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", file.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_there_is_a_pinned_file_for_each_wanted_one() -> None:
    assert {file.stem for file in PINNED} == {file.stem for file in REQUIREMENTS.glob("*.in")}


def test_no_other_lock_file_stands_beside_them() -> None:
    # They record the addresses that packages came from.
    assert not [*ROOT.glob("uv.lock"), *ROOT.glob("pylock*.toml")]


@pytest.mark.parametrize("file", PINNED, ids=lambda file: file.name)
def test_every_pin_has_hashes(file: Path) -> None:
    entries = re.split(
        r"\n(?=[a-z])", "\n".join(line for line in file.read_text().splitlines() if line[:1] not in {"#", ""})
    )
    assert entries
    assert [entry.split("\n")[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert [entry.split("\n")[0] for entry in entries if not re.match(r"[a-z0-9-]+==", entry)] == []


FOREIGN = re.compile(r"://|--(extra-)?index|--find-links|--trusted|pypi|pythonhosted|@ |/opt/|/home/")


def test_no_requirement_names_where_it_comes_from() -> None:
    lines = [f"{file.name}: {line}" for file in REQUIREMENTS.iterdir() for line in file.read_text().splitlines()]
    assert [line for line in lines if FOREIGN.search(line)] == []


@pytest.mark.parametrize("mark", ["--index", "--trusted", "@ ", ":" + "/" * 2])
def test_an_address_would_be_found(mark: str) -> None:
    assert FOREIGN.search(f"a {mark} b")


def test_files_agree_on_versions() -> None:
    everything = pins(REQUIREMENTS / "dev.txt")
    for name in ("base", "engine", "sim", "build", "demo"):
        part = pins(REQUIREMENTS / f"{name}.txt")
        assert part
        assert {package: versions for package, versions in part.items() if not versions <= everything[package]} == {}


def test_requirements_are_the_projects_own() -> None:
    def plain(lines: list[str]) -> set[str]:
        return {line.replace(" ", "") for line in lines}

    assert wanted("base") == plain(PROJECT["dependencies"])
    assert wanted("engine") >= plain(PROJECT["optional-dependencies"]["engine"])
    assert {re.split("[=<>;]", line)[0] for line in wanted("sim")} == {
        re.split("[=<>;]", line)[0] for line in PROJECT["optional-dependencies"]["sim"]
    }


def test_the_daemons_requirements_hold_no_numpy() -> None:
    assert "numpy" not in pins(REQUIREMENTS / "base.txt")


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_types_travel_with_the_package() -> None:
    assert (ROOT / "gatewayd" / "py.typed").exists()


def test_the_unit_is_valid(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt install systemd)")
    unit = tmp_path / "gatewayd.service"
    text = (ROOT / "systemd" / "gatewayd.service").read_text()
    unit.write_text(text.replace("/opt/gatewayd/bin/gatewayd", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "setting", ["Type=notify", "WatchdogSec=30", "Restart=on-failure", "DynamicUser=yes", "StateDirectory=gatewayd"]
)
def test_the_unit_says(setting: str) -> None:
    assert setting in (ROOT / "systemd" / "gatewayd.service").read_text().splitlines()


def test_the_prometheus_sample_is_valid() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    command = ["promtool", "check", "config", str(ROOT / "config" / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_watch_metrics_that_exist() -> None:
    files = (ROOT / "gatewayd" / "adapters").glob("*metrics.py")
    metrics = {name for each in files for name in re.findall(r'"(gatewayd_\w+)"', each.read_text())}
    watched = set(re.findall(r"gatewayd_\w+", (ROOT / "config" / "prometheus-alerts.yml").read_text()))
    assert watched
    # The client library gives counters their _total.
    assert {name for name in watched if not {name, name.removesuffix("_total")} & metrics} == set()


def test_the_image_copies_what_exists_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = [path for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for path in line.split()[:-1]]
    assert "gatewayd" in copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["gatewayd"]
    installs = [line for line in re.findall(r"pip install (.+)", text) if "--no-deps" not in line]
    assert installs
    assert [line for line in installs if "--require-hashes" not in line] == []


SCRIPTS = [ROOT / ".ci" / "run", *sorted((ROOT / "scripts").iterdir())]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_can_run(script: Path) -> None:
    assert script.stat().st_mode & stat.S_IXUSR
    shell = script.read_text().splitlines()[0].split("/")[-1].removeprefix("env ")
    subprocess.run([shell, "-n", str(script)], check=True, timeout=10)


def test_every_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: ([\w-]+)$", text, re.MULTILINE))
    assert targets >= {"help", "demo", "run", "test", "check", "models", "lock", "clean"}
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert set(re.findall(r"^  make ([\w-]+) ", shown.stdout, re.MULTILINE)) == targets


def find_python(*arguments: str) -> str:
    command = [str(ROOT / "scripts" / "find-python"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def test_the_first_python_that_fits_is_found() -> None:
    assert find_python("3.11", "3.99", "no-such-python", "false", "python3") == "python3"
    assert find_python("3.98", "3.99", "python3") == ""
    assert find_python("3.0", "3.1", "python3") == ""


class Machine:
    """A directory of commands that stands for a machine without the test tools."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.policy = folder / "policy-rc.d"
        self.bin.mkdir()
        for tool in ("sh", "cat", "chmod", "mkdir", "rm", "tail"):
            (self.bin / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")

    def command(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def install(self) -> str:
        """Run the script with /usr/sbin out of sight; return what it said."""
        script = (ROOT / "scripts" / "install-test-tools").read_text().replace("PATH=$PATH:/usr/sbin:/sbin\n", "")
        environ = {"PATH": str(self.bin), "POLICY_RC_D": str(self.policy)}
        command = [str(self.bin / "sh"), "-c", script]
        done = subprocess.run(
            command, env=environ, cwd=self.bin, capture_output=True, text=True, check=True, timeout=30
        )
        assert done.stderr == ""
        return done.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_tools_are_installed_without_starting_them(machine: Machine) -> None:
    machine.command("id", "echo 0")
    machine.command(
        "apt-get",
        f'echo "$@" >>{machine.bin}/asked; test -x {machine.policy} && {machine.policy}; echo "policy $?" >>{machine.bin}/asked',
    )
    assert machine.install() == "installing mosquitto mosquitto-clients prometheus\n"
    asked = (machine.bin / "asked").read_text()
    assert " update\n" in asked
    assert " install -y --no-install-recommends mosquitto mosquitto-clients prometheus\n" in asked
    assert asked.count("policy 101") == 2
    assert not machine.policy.exists()


def test_a_policy_of_the_machines_own_stays(machine: Machine) -> None:
    machine.policy.write_text("theirs")
    machine.command("id", "echo 0")
    machine.command("apt-get", "true")
    machine.install()
    assert machine.policy.read_text() == "theirs"


def test_a_failed_installation_is_said_and_is_no_error(machine: Machine) -> None:
    machine.command("id", "echo 0")
    machine.command("apt-get", "echo no network; exit 100")
    said = machine.install()
    assert "no network\n" in said
    assert "Some tests will be skipped." in said
    assert not machine.policy.exists()


def test_without_root_nothing_is_tried(machine: Machine) -> None:
    machine.command("id", "echo 1000")
    machine.command("apt-get", f"touch {machine.bin}/asked")
    assert "sudo apt-get install mosquitto mosquitto-clients prometheus" in machine.install()
    assert not (machine.bin / "asked").exists()


def test_with_all_tools_there_nothing_is_said(machine: Machine) -> None:
    for tool in ("mosquitto", "mosquitto_rr", "promtool"):
        machine.command(tool, "true")
    assert machine.install() == ""


def test_nothing_that_is_made_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    if listed.returncode:
        pytest.skip("not a git checkout")
    made = re.compile(r"(^|/)(build|\.venv|__pycache__|[^/]*\.egg-info|\.mypy_cache)/|\.pyc$")
    assert [path for path in listed.stdout.splitlines() if made.search(path)] == []
