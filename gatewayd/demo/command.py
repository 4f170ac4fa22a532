"""`gatewayd demo`: set the stage, tell the story, end by itself."""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

from gatewayd.demo.client import GatewayClient, RefusedError
from gatewayd.demo.processes import NODE, Stage, choose_ports
from gatewayd.demo.screen import Screen
from gatewayd.demo.story import DemoError, Recordings, Story, Watch, summary
from gatewayd.places import speaker_folder

_START_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--models", type=Path, default=speaker_folder(), help="folder of the speaker model (default: %(default)s)"
    )
    parser.add_argument("--broker", metavar="HOST:PORT", help="use a running broker instead of the embedded one")
    parser.add_argument("--stay", action="store_true", help="keep everything running at the end, until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when everything promised was shown, else 1 with the reason and the daemon's last log lines."""
    screen = Screen()
    if not (arguments.models / "samples.json").is_file():
        screen.bad(f"no model in {arguments.models}: run from a checkout, or name the folder with --models")
        return 1
    started_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="gatewayd-demo-") as folder,
        Stage(Path(folder), choose_ports(arguments.broker)) as stage,
    ):
        try:
            return _told(arguments, stage, screen, started_s=started_s)
        except (DemoError, RefusedError, TimeoutError) as error:
            screen.bad(str(error))
            screen.line(stage.log_tail("gatewayd"))
            return 1
        except KeyboardInterrupt:
            return 130


def _told(arguments: argparse.Namespace, stage: Stage, screen: Screen, *, started_s: float) -> int:
    watch = Watch(screen)
    screen.line(
        "gatewayd: TinyML as a Service on an edge node. A daemon, a broker and three simulated boards start now."
    )
    stage.start_daemon()
    ports = stage.ports
    base = f"gatewayd/{NODE}"
    with GatewayClient(host=ports.host, port=ports.mqtt_v5, base=base, on_event=watch.on_event) as client:
        watch.until("the daemon's start", lambda: watch.status.get("state") == "online", timeout_s=_START_S)
        recordings = Recordings.load(arguments.models)
        story = Story(client, stage, screen, watch, arguments.models, recordings)
        story.tell()
        summary(story, started_s=started_s)
        if arguments.stay:
            _stay(stage, screen)
    return 0


def _stay(stage: Stage, screen: Screen) -> None:
    ports = stage.ports
    screen.line(f"   broker {ports.host}:{ports.mqtt_v5} (MQTT 5), {ports.host}:{ports.mqtt} (3.1.1); node {NODE}")
    screen.line(
        f"   try: GATEWAYD_URL=http://127.0.0.1:{ports.http} {sys.executable} -m gatewayd status; Ctrl-C ends it"
    )
    threading.Event().wait()
