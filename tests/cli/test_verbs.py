import argparse
import asyncio
import io
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.api.table import VERBS
from gatewayd.cli.client import Client
from gatewayd.cli.command import add_commands
from gatewayd.cli.verbs import FAILED, NOUNS, OK, UNREACHABLE, USAGE, run
from gatewayd.core.errors import ModelRefused
from gatewayd.core.names import DeviceId, ModelName, ModelRef
from gatewayd.core.request import NODE, Privacy, SensorRef
from gatewayd.core.update import PushState
from gatewayd.edges.http_server import HttpListen, serve_http
from tests.fakes_api import World


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Daemon:
    """A real HTTP edge on a loop of its own, as another process would be."""

    world: World
    url: str

    def command(self, *argv: str, out: io.StringIO | None = None) -> Ran:
        return command(*argv, "--url", self.url, out=out)


def command(*argv: str, out: io.StringIO | None = None) -> Ran:
    parser = argparse.ArgumentParser(prog="gatewayd")
    add_commands(parser.add_subparsers(required=True))
    out, err, naps = out or io.StringIO(), io.StringIO(), list[float]()
    args = parser.parse_args(argv)
    assert args.run is run
    code = run(args, out=out, err=err, sleep=naps.append)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    world = World()
    started: list[int] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        serving = serve_http(world.api(), HttpListen(), max_body_bytes=2**20, metrics_text=bytes, ready=lambda: True)
        async with serving as port:
            started.append(port)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], name="daemon")
    thread.start()
    assert up.wait(10)
    yield Daemon(world, f"http://127.0.0.1:{started[0]}")
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_every_noun_is_explained() -> None:
    assert {name.rpartition(".")[0] for name in VERBS} - {""} == set(NOUNS)


def test_models_add(daemon: Daemon, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(f"TFL3 {name}".encode())
    ran = daemon.command(
        "models", "add", "speaker", "--file", str(tmp_path / "a"), "--file", str(tmp_path / "b"),
        "--labels", "one", "two", "--preprocessing", "lpc12@1", "--note", "better",
    )  # fmt: skip
    assert (ran.code, ran.err) == (OK, "")
    assert daemon.world.catalog.files == [b"TFL3 a", b"TFL3 b"]
    version = daemon.world.catalog.kept[-1]
    assert (version.model, version.signature.labels, version.signature.preprocessing) == (
        "speaker",
        ("one", "two"),
        "lpc12@1",
    )
    assert ran.out.splitlines()[0].split() == ["MODEL", "VERSION", "CREATED", "INPUT", "VARIANTS", "NOTE"]


def test_models_list(daemon: Daemon) -> None:
    lines = daemon.command("models", "list", "kws").out.splitlines()
    assert lines[1].split() == [
        "kws", "1", "stable", "2023-11-14T22:13:20+00:00", "FP32", "[1,", "4]", "tflite-int8", "18.0", "KiB", "(node-only)",
        "first",
    ]  # fmt: skip
    assert lines[4].split() == ["2023-11-14T22:13:20+00:00", "kws:stable", "1", "ann", "first", "version"]


def test_models_alias(daemon: Daemon) -> None:
    assert daemon.command("models", "alias", "kws", "canary", "1", "--why", "try").code == OK
    assert daemon.world.catalog.moves[-1].alias == "canary"


def test_devices(daemon: Daemon) -> None:
    listed = daemon.command("devices", "list").out
    assert "online, waits for approval" in listed
    assert "0: active kws@1, 1: empty" in listed
    assert "93%" in listed
    assert "waits" not in daemon.command("devices", "approve", "cam-7").out


def test_json_is_what_the_daemon_said(daemon: Daemon) -> None:
    assert json.loads(daemon.command("status", "--json").out)["node"] == "edge-1"


def test_status(daemon: Daemon) -> None:
    assert daemon.command("status").out.splitlines()[:2] == [
        "edge-1: gatewayd 0.1.0, up 60 s, MQTT connected",
        "1 model in 1 version",
    ]


def test_a_push_is_waited_for(daemon: Daemon) -> None:
    daemon.world.pushes.states = [PushState.TRANSFERRING, PushState.TRANSFERRING, PushState.WRITTEN, PushState.ACCEPTED]
    ran = daemon.command("push", "--device", "cam-7", "--model", "speaker@2")
    assert (ran.code, ran.err) == (OK, "")
    assert daemon.world.pushes.started[0][:2] == (DeviceId("cam-7"), ModelRef(ModelName("speaker"), version=2))
    assert [line.rsplit("  ", 1)[1] for line in ran.out.splitlines()] == [
        "offered",
        "transferring",
        "written",
        "accepted",
    ]
    assert "[###############...............]  50%  9.0 KiB of 18.0 KiB" in ran.out


def test_a_push_on_a_terminal_keeps_to_one_line(daemon: Daemon) -> None:
    daemon.world.pushes.states = [PushState.TRANSFERRING, PushState.ACCEPTED]
    out = daemon.command("push", "--device", "cam-7", "--model", "kws", out=Terminal()).out
    assert (out.count("\n"), out.count("\r"), out.endswith("accepted\x1b[K\n")) == (1, 3, True)


def test_a_push_that_somebody_else_began_is_followed(daemon: Daemon) -> None:
    daemon.command("push", "--device", "cam-7", "--model", "kws", "--no-wait")
    daemon.world.pushes.states = [PushState.TRANSFERRING, PushState.WRITTEN, PushState.ACCEPTED]
    ran = daemon.command("pushes", "watch", "7")
    assert (ran.code, ran.err) == (OK, "")
    assert [line.rsplit("  ", 1)[1] for line in ran.out.splitlines()] == ["transferring", "written", "accepted"]
    assert daemon.command("pushes", "watch", "7").out.endswith("accepted\n")
    assert daemon.command("pushes", "watch", "8").code == FAILED


def test_what_is_there_already_is_no_failure(daemon: Daemon) -> None:
    push = ("push", "--device", "cam-7", "--model", "kws")
    daemon.world.pushes.states = [PushState.ACCEPTED]
    daemon.command(*push)
    ran = daemon.command(*push)
    assert (ran.code, ran.out, ran.err) == (OK, "cam-7 runs kws@1 already (push 7 brought it)\n", "")
    ran = daemon.command(*push, "--json")
    assert (ran.code, ran.err) == (OK, "cam-7 runs kws@1 already (push 7 brought it)\n")
    row = json.loads(ran.out)
    assert (row["push"], row["state"], row["ended"], row["already"]) == (7, "accepted", True, True)


def test_a_push_that_is_on_its_way_is_joined_and_followed(daemon: Daemon) -> None:
    push = ("push", "--device", "cam-7", "--model", "kws")
    daemon.world.pushes.states = [PushState.TRANSFERRING]
    daemon.command(
        "pushes", "watch", str(json.loads(daemon.command(*push, "--no-wait", "--json").out)["push"]), "--no-wait"
    )
    daemon.world.pushes.states = [PushState.WRITTEN, PushState.ACCEPTED]
    ran = daemon.command(*push)
    assert (ran.code, ran.err) == (OK, "")
    assert ran.out.startswith("kws@1 is on its way to cam-7 already (push 7, begun by http:127.0.0.1)\n")
    assert ran.out.endswith("accepted\n")


def test_a_push_that_is_followed_no_more_goes_on(daemon: Daemon) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    parser = argparse.ArgumentParser(prog="gatewayd")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["push", "--device", "cam-7", "--model", "kws", "--url", daemon.url])
    err = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run(args, out=io.StringIO(), err=err, sleep=interrupt)
    assert err.getvalue() == "\ngatewayd: push 7 goes on: gatewayd pushes watch 7, or pushes cancel 7\n"


def test_an_answer_of_another_shape_is_one_clear_line(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "call", lambda *_: b'{"pushed": true}')
    ran = daemon.command("push", "--device", "cam-7", "--model", "kws")
    assert (ran.code, ran.err) == (
        FAILED, "gatewayd: the answer to push cannot be read: is the daemon of another version?\n",
    )  # fmt: skip


def test_a_push_that_fails(daemon: Daemon) -> None:
    daemon.world.pushes.states = [PushState.ROLLED_BACK]
    ran = daemon.command("push", "--device", "cam-7", "--model", "kws", "--json")
    assert (ran.code, json.loads(ran.out)["state"]) == (FAILED, "rolled-back")


def test_a_push_that_is_not_waited_for(daemon: Daemon) -> None:
    ran = daemon.command("push", "--device", "cam-7", "--model", "kws", "--no-wait")
    assert (ran.code, "offered" in ran.out) == (OK, True)


def test_a_push_that_the_daemon_forgot(daemon: Daemon) -> None:
    daemon.world.pushes.forgets = True
    ran = daemon.command("push", "--device", "cam-7", "--model", "kws")
    assert (ran.code, ran.err) == (FAILED, "gatewayd: not_found: push 7 is not among the latest 200 any more\n")


def test_something_else_answers(daemon: Daemon) -> None:
    ran = command("status", "--url", f"{daemon.url}/v2")
    assert (ran.code, ran.err.startswith("gatewayd: not_found: nothing answers POST /v2/api/status")) == (FAILED, True)


def test_infer_by_reference(daemon: Daemon) -> None:
    ran = daemon.command(
        "infer", "kws", "--device", "cam-7", "--input", "mic", "--placement", "node", "--class", "fast",
        "--privacy", "any", "--deadline-ms", "250",
    )  # fmt: skip
    (request,) = daemon.world.inference.seen
    assert (request.source, request.pin) == (SensorRef(DeviceId("cam-7"), "mic"), NODE)
    assert (request.privacy, request.request_class, request.deadline_s) == (Privacy.ANY, "fast", 100.25)
    assert ran.out.splitlines() == [
        "yes (0.750)",
        "scores [1, 2]: 0.25, 0.75",
        "ran on node (kws@1, tflite-int8): cheapest",
        "predicted 4 ms, 12.5 µJ, 40 B, P(failure) 0.01",
        "measured  5 ms, 0 µJ, 0 B (queue 0 ms, transfer 0 ms, compute 3 ms)",
        "request   r-1",
    ]


def test_infer_inline_and_raw(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    tensor = '{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}'
    assert daemon.command("infer", "kws", "--inputs", tensor).code == OK
    assert daemon.command("infer", "kws", "--raw", str(tmp_path / "x")).code == OK
    inline, raw = daemon.world.inference.seen
    assert (inline.inputs[0].name, raw.raw) == ("x", b"1234")


def test_why(daemon: Daemon) -> None:
    lines = daemon.command("why", "r-1").out.splitlines()
    assert lines[:2] == [
        "r-1: kws (version 1) on device:cam-7: served",
        "because: device:cam-7 is the only place: the node: privacy: the sample must stay on device:cam-7",
    ]
    assert lines[-1].split(maxsplit=3) == [
        "node",
        "tflite-float32",
        "-",
        "privacy: the sample must stay on device:cam-7",
    ]


def test_a_refusal(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no model")
    daemon.world.catalog.error = ModelRefused("files[0]: no TFLite flatbuffer")
    ran = daemon.command("models", "add", "kws", "--file", str(tmp_path / "x"))
    assert ran == Ran(FAILED, "", "gatewayd: model_refused: files[0]: no TFLite flatbuffer\n")


def test_a_file_that_is_not_there(daemon: Daemon, tmp_path: Path) -> None:
    ran = daemon.command("models", "add", "kws", "--file", str(tmp_path / "x"))
    assert ran == Ran(USAGE, "", f"gatewayd: files: {tmp_path / 'x'}: No such file or directory\n")


def test_a_file_without_an_end_is_not_read_for_ever(daemon: Daemon) -> None:
    ran = daemon.command("infer", "kws", "--raw", "/dev/zero")
    assert ran.code == USAGE
    assert "raw: /dev/zero: is over the limit of 8388608 bytes" in ran.err


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://x:99999", "http://[::1"])
def test_an_address_that_makes_no_sense(url: str) -> None:
    ran = command("status", "--url", url)
    assert (ran.code, ran.err.startswith(f"gatewayd: --url {url}: ")) == (USAGE, True)


def test_no_daemon() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        ran = command("status", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (ran.code, ran.out) == (UNREACHABLE, "")
    assert ran.err.startswith("gatewayd: no gatewayd answers at http://127.0.0.1:")


def test_the_address_comes_from_the_environment(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAYD_URL", daemon.url)
    assert command("status").code == OK


@pytest.mark.parametrize(
    "argv",
    [
        ["push", "--device", "a"],
        ["models"],
        ["models", "alias", "kws", "canary", "x"],
        ["infer", "kws", "--inputs", "{"],
    ],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*argv)
    assert caught.value.code == USAGE
    assert capsys.readouterr().err.startswith("usage: gatewayd")
