"""Compiler plugins: the real tools on the project's own model where they are installed, and programs that misbehave."""

import os
import select
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.adapters.artifacts import Artifacts, open_artifacts
from gatewayd.adapters.compilers import PROGRAMS, CompilerLimits, CompilerPrograms
from gatewayd.core.building import ETHOS_U, INT8, Recipe
from gatewayd.core.errors import DeadlineExceeded, EngineMissing, GatewayError, ModelRefused, NodeError
from gatewayd.core.model import Variant
from gatewayd.core.names import Digest
from gatewayd.core.tensor import DType
from gatewayd.wire.built_models import check_built
from gatewayd.wire.tflite import read_model
from tests.plugin_environments import require_plugin

SPEAKER = Path(__file__).parents[2] / "models" / "speaker"
INPUTS = 29 * 12
PATIENCE_S = 30


@dataclass
class Bench:
    artifacts: Artifacts

    async def recipe(self, plugin: str, kind: str, **options: str) -> Recipe:
        content = (SPEAKER / "v1" / f"speaker-{kind}.tflite").read_bytes()
        digest = await self.artifacts.put(content)
        source = Variant(f"tflite-{kind}", digest, len(content), read_model(content), ())
        return Recipe("x", plugin, source, tuple((name.replace("_", "-"), value) for name, value in options.items()))

    async def samples(self, count: int = 20) -> Digest:
        stored = struct.unpack(f"<{count * INPUTS}h", (SPEAKER / "samples.bin").read_bytes()[: count * INPUTS * 2])
        return await self.artifacts.put(struct.pack(f"<{count * INPUTS}f", *(value / 4096 for value in stored)))

    def programs(
        self, python: str | None, *, program: Path | None = None, timeout_s: float = 120.0
    ) -> CompilerPrograms:
        pythons, limits = {INT8: python, ETHOS_U: python}, CompilerLimits(timeout_s=timeout_s)
        programs = PROGRAMS if program is None else {INT8: program}
        return CompilerPrograms(self.artifacts.path, pythons, limits=limits, programs=programs)


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    async with open_artifacts(folder / "artifacts") as artifacts:
        yield Bench(artifacts)


async def test_int8_quantises_every_operator_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    python = require_plugin(INT8)
    async with bench(tmp_path) as b:
        programs, recipe, samples = b.programs(python), await b.recipe(INT8, "float32"), await b.samples()
        first = await programs.compile(recipe, samples)
        second = await programs.compile(recipe, samples)
        assert first.content == second.content
        assert first.report == "calibrated on 20 samples"
        assert check_built(INT8, first.content).startswith("all 6 operators compute with whole numbers")
        structure = read_model(first.content)
        assert {spec.dtype for spec in (*structure.inputs, *structure.outputs)} == {DType.INT8}
        assert "quantizer" in await programs.version(INT8)


async def test_int8_without_samples_says_so(tmp_path: Path) -> None:
    python = require_plugin(INT8)
    async with bench(tmp_path) as b:
        with pytest.raises(ModelRefused, match="needs samples to calibrate on"):
            await b.programs(python).compile(await b.recipe(INT8, "float32"), None)


async def test_vela_puts_the_model_on_the_npu_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    python = require_plugin(ETHOS_U)
    async with bench(tmp_path) as b:
        programs, recipe = b.programs(python), await b.recipe(ETHOS_U, "int8", accelerator_config="ethos-u55-128")
        first = await programs.compile(recipe, None)
        assert first.content == (await programs.compile(recipe, None)).content
        assert check_built(ETHOS_U, first.content) == "1 NPU operators, 0 on the CPU"
        assert "NPU operators = " in first.report


async def test_velas_exit_code_is_not_believed(tmp_path: Path) -> None:
    python = require_plugin(ETHOS_U)
    async with bench(tmp_path) as b:
        recipe = await b.recipe(ETHOS_U, "float32", accelerator_config="ethos-u55-128")
        made = await b.programs(python).compile(recipe, None)
        with pytest.raises(ModelRefused, match="none of 6 operators was put on the NPU"):
            check_built(ETHOS_U, made.content)


@pytest.mark.parametrize("options", [{"accelerator_config": "ethos-u55-128 --debug"}, {"config": "/etc/passwd"}])
async def test_options_that_are_not_known_never_reach_vela(tmp_path: Path, options: dict[str, str]) -> None:
    python = require_plugin(ETHOS_U)
    async with bench(tmp_path) as b:
        with pytest.raises(ModelRefused, match="is not known or has no value it may have"):
            await b.programs(python).compile(await b.recipe(ETHOS_U, "int8", **options), None)


async def test_a_missing_tool_says_what_to_install(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        programs = b.programs(sys.executable)
        for plugin, package in ((INT8, "litert-quantizer"), (ETHOS_U, "ethos-u-vela")):
            with pytest.raises(EngineMissing, match=rf"needs {package}, which .* has not: pip install {package}"):
                await programs.version(plugin)


async def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        with pytest.raises(EngineMissing, match="cannot start /nowhere/python: No such file"):
            await b.programs("/nowhere/python").version(INT8)


MISBEHAVING: list[tuple[str, type[GatewayError], str]] = [
    ("import sys; sys.stderr.write('no such layer'); sys.exit(5)", ModelRefused, "ended with code 5: no such layer"),
    ("import os; os.abort()", ModelRefused, "ended with code -6"),
    ("print('done')", ModelRefused, "wrote no model"),
    ("open(request['output'], 'wb').write(b'x')", NodeError, "no answer that can be read"),
    ("open(request['output'], 'wb').write(b'x'); print('[]')", NodeError, "no answer that can be read"),
]


@pytest.mark.parametrize(("program", "error", "message"), MISBEHAVING, ids=[case[0][:40] for case in MISBEHAVING])
async def test_a_plugin_that_misbehaves_is_one_clear_error(
    tmp_path: Path, program: str, error: type[GatewayError], message: str
) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(f"import json, sys\nrequest = json.load(open(sys.argv[1]))\n{program}\n")
    async with bench(tmp_path) as b:
        recipe = await b.recipe(INT8, "float32")
        with pytest.raises(error, match=message):
            await b.programs(sys.executable, program=path).compile(recipe, None)


async def test_a_plugin_that_does_not_end_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text("import signal\nsignal.pause()\n")
    async with bench(tmp_path) as b:
        recipe = await b.recipe(INT8, "float32")
        with pytest.raises(DeadlineExceeded, match=r"took more than 0.5 s and was killed"):
            await b.programs(sys.executable, program=path, timeout_s=0.5).compile(recipe, None)


async def test_what_a_plugin_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    path, number = tmp_path / "plugin.py", tmp_path / "child"
    path.write_text(
        "import subprocess, sys\n"
        f"open({str(number)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "sys.exit(1)\n"
    )
    async with bench(tmp_path) as b:
        recipe = await b.recipe(INT8, "float32")
        with pytest.raises(ModelRefused, match="ended with code 1"):
            await b.programs(sys.executable, program=path).compile(recipe, None)
    assert has_ended(int(number.read_text()))


def has_ended(process: int) -> bool:
    """Tell whether a process is gone, or goes within the time that the kernel needs to end what was killed."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_S)[0])
    finally:
        os.close(descriptor)


async def test_a_plugin_sees_nothing_of_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    path = tmp_path / "plugin.py"
    path.write_text(
        "import json, os, sys\nrequest = json.load(open(sys.argv[1]))\n"
        "open(request['output'], 'wb').write(b'x')\n"
        "fds = sorted(int(each) for each in os.listdir('/proc/self/fd'))\n"
        "print(json.dumps({'report': ' '.join(sorted(os.environ)) + f' fds {len(fds)}'}))\n"
    )
    async with bench(tmp_path) as b:
        made = await b.programs(sys.executable, program=path).compile(await b.recipe(INT8, "float32"), None)
    assert "MQTT_PASSWORD" not in made.report
    assert "PYTHONPATH" not in made.report
    assert "fds 4" in made.report  # 0, 1, 2, and the listing itself
