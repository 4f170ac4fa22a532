"""`gatewayd demo`: set the stage, tell the story, end by itself."""

import argparse
import shlex
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from gatewayd.demo.client import GatewayClient, RefusedError
from gatewayd.demo.processes import BrokerRefused, Stage, choose_ports
from gatewayd.demo.screen import Screen
from gatewayd.demo.story import DemoError, Recordings, Story, Watch, summary
from gatewayd.places import speaker_folder

_START_S = 20.0
_PROGRAM = f"{shlex.quote(sys.executable)} -m gatewayd"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--models", type=Path, default=speaker_folder(), help="folder of the speaker model (default: %(default)s)"
    )
    parser.add_argument(
        "--broker", metavar="HOST:PORT", help="use a running broker (MQTT 5) instead of the embedded one"
    )
    parser.add_argument("--stay", action="store_true", help="keep everything running at the end, until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when everything promised was shown, 2 when the arguments are wrong, else 1 with the daemon's last log lines."""
    screen = Screen()
    if not (arguments.models / "samples.json").is_file():
        screen.bad(f"no model in {arguments.models}: run from a checkout, or name the folder with --models")
        return 1
    try:
        ports = choose_ports(arguments.broker)
    except BrokerRefused as error:
        sys.stderr.write(f"gatewayd demo: {error}\n")
        return 2
    # As Ctrl-C does: the daemon and the boards must not outlive this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="gatewayd-demo-") as folder, Stage(Path(folder), ports) as stage:
        return _shown(arguments, stage, screen)


def _shown(arguments: argparse.Namespace, stage: Stage, screen: Screen) -> int:
    try:
        _told(arguments, stage, screen)
    except (DemoError, RefusedError, TimeoutError) as error:
        screen.bad(str(error))
        screen.line(stage.log_tail("gatewayd"))
        return 1
    except KeyboardInterrupt:
        screen.line("")
        screen.line("Stopped before the end; the daemon, the broker and the boards are ended too.")
        return 130
    return 0


def _told(arguments: argparse.Namespace, stage: Stage, screen: Screen) -> None:
    started_s = time.monotonic()
    watch = Watch(screen)
    ports = stage.ports
    broker = "a broker and three simulated boards start now"
    if not ports.embedded:
        broker = f"three simulated boards start now; the broker is yours at {ports.host}:{ports.mqtt}"
    screen.line(f"gatewayd: TinyML as a Service on an edge node. A daemon, {broker}.")
    screen.line(f"   node {stage.node}; metrics while this runs: http://127.0.0.1:{ports.http}/metrics")
    stage.start_daemon()
    base = f"gatewayd/{stage.node}"
    with GatewayClient(host=ports.host, port=ports.mqtt_v5, base=base, on_event=watch.on_event) as client:
        watch.until("the daemon's start", lambda: watch.status.get("state") == "online", timeout_s=_START_S)
        recordings = Recordings.load(arguments.models)
        story = Story(client, stage, screen, watch, arguments.models, recordings)
        story.tell()
        summary(story, started_s=started_s, stays=arguments.stay)
        if arguments.stay:
            _stay(stage, screen)


def _stay(stage: Stage, screen: Screen) -> None:
    """Wait for Ctrl-C: here it is the end that was announced, not a failure."""
    ports = stage.ports
    screen.line("")
    screen.line("Everything keeps running; Ctrl-C ends it. Meanwhile, in another terminal:")
    url = f"GATEWAYD_URL=http://127.0.0.1:{ports.http}"
    screen.whole(f"   {url} {_PROGRAM} status")
    watching = f"mosquitto_sub -V 5 -h {ports.host} -p {ports.mqtt_v5} -t 'gatewayd/{stage.node}/#' -v"
    screen.whole(f"   {watching}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.line("")
        screen.line("Goodbye: the daemon, the broker and the boards end now.")
