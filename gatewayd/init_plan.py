"""What `gatewayd init` is asked for: its options, the config that is there and stays, the person at the terminal."""

import argparse
import getpass
import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from gatewayd.config import Config, ConfigError, load_config
from gatewayd.config.http import is_loopback
from gatewayd.core.errors import BadRequest
from gatewayd.wire.init_files import Plan

DEFAULT_FOLDER = Path("/etc/gatewayd")
SERVICE_DATA = Path("/var/lib/gatewayd")
PORTS = {"http": 8443, "mqtt": 1883, "devices": 8883, "clients": 8884, "coap": 5683}
_MAX_PORT = 65535
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}")


def planned(args: argparse.Namespace, kept: Config | None, *, stdin: TextIO, out: TextIO) -> Plan:
    """Return what the options say, and where they say nothing the config that is kept, or the person at the terminal.

    Raises: BadRequest.
    """
    if not args.yes and not stdin.isatty():
        raise BadRequest("nobody to ask: say --yes to take the defaults, with --lan to open the network")
    ask = _Asker(stdin, out, is_silent=args.yes)
    hostname, folder = socket.gethostname(), args.dir.absolute()
    stays = None if kept is None or args.force else kept
    if kept is not None and stays is not None and args.node not in {None, kept.node.name}:
        raise BadRequest(
            f"--node {args.node:.80}: {folder}/gatewayd.yaml names it {kept.node.name}; --force renames it"
        )
    is_open = args.lan or (
        not is_loopback(stays.http.host)
        if stays is not None
        else ask.whether("Let devices and people in from the network, with TLS and passwords?", otherwise=False)
    )
    node = (
        args.node
        or (kept and kept.node.name)
        or ask.text("This gateway's name in topics", otherwise=_as_node(hostname))
    )
    host = (
        args.host
        or (stays and stays.joining.host)
        or ask.text("What devices call this machine", otherwise=f"{hostname}.local" if is_open else "localhost")
    )
    if not _NODE.fullmatch(node):
        raise BadRequest(f"--node {node!r:.80}: 1 to 63 letters, digits, '_', '.' or '-'")
    if not all(_HOST.fullmatch(each) for each in (host, *args.name)):
        raise BadRequest("--host, --name: must be host names or addresses")
    is_service = args.systemd or (stays is not None and (folder / "gatewayd.service.d").exists())
    fresh = SERVICE_DATA if is_service else folder / "data"
    data_dir = (args.data_dir or (stays.node.data_dir if stays is not None else fresh)).absolute()
    if re.search(r"[\x00-\x1f]", f"{folder}{data_dir}"):
        raise BadRequest("--dir, --data-dir: hold a control character")
    plan = Plan(folder, data_dir, node, host, _user(), is_open, is_service, *_ports(args, stays, folder))
    if stays is None:
        return plan
    return replace(plan, prefix=stays.mqtt.prefix, reply_prefixes=stays.mqtt.reply_prefixes)


def _ports(args: argparse.Namespace, stays: Config | None, folder: Path) -> tuple[int, int, int, int, int]:
    """Return the ports in the order of a plan. Raises: BadRequest."""
    found = dict(PORTS)
    if stays is not None:
        devices = stays.joining.port or found["devices"]
        found |= {"http": stays.http.port, "mqtt": stays.mqtt.port, "devices": devices, "coap": stays.coap.port}
        found["clients"] = _clients_port(folder) or found["clients"]
    found |= {name: port for name in found if (port := getattr(args, f"{name}_port")) is not None}
    tcp = [port for name, port in found.items() if name != "coap"]
    given = [name for name in found if getattr(args, f"{name}_port") is not None]
    if stays is None or given:
        is_apart = len(set(tcp)) == len(tcp)
        if not is_apart or not all(1 <= port <= _MAX_PORT for port in found.values()):
            raise BadRequest(f"--…-port: different ones of 1..{_MAX_PORT}")
    return found["http"], found["mqtt"], found["devices"], found["clients"], found["coap"]


def _clients_port(folder: Path) -> int:
    """Return the port of the last listener of mosquitto's that was written, which is the clients'; 0: none is there."""
    file = folder / "mosquitto" / "conf.d" / "gatewayd.conf"
    listeners = re.findall(r"^listener (\d{1,5})", file.read_text(), re.MULTILINE) if file.exists() else []
    return int(listeners[-1]) if listeners else 0


def kept_config(folder: Path, *, is_replaced: bool) -> Config | None:
    """Return the config that is there: access lists are written for what it says, and the node keeps its name.

    Raises: BadRequest (it has mistakes, and stays).
    """
    path = folder / "gatewayd.yaml"
    try:
        return load_config(path) if path.exists() else None
    except ConfigError as error:
        if is_replaced:
            return None
        raise BadRequest(f"{error}; mend it, or --force") from error


@dataclass(frozen=True, slots=True)
class _Asker:
    """Asks the person at the terminal; silent, it takes the defaults."""

    stdin: TextIO
    out: TextIO
    is_silent: bool

    def text(self, question: str, *, otherwise: str) -> str:
        return otherwise if self.is_silent else self._answer(f"{question} [{otherwise}]: ") or otherwise

    def whether(self, question: str, *, otherwise: bool) -> bool:
        if self.is_silent:
            return otherwise
        answer = self._answer(f"{question} [{'Y/n' if otherwise else 'y/N'}]: ").lower()
        return answer.startswith("y") if answer else otherwise

    def _answer(self, question: str) -> str:
        self.out.write(question)
        self.out.flush()
        return self.stdin.readline().strip()


def _user() -> str:
    """Return who runs this, and so is to run mosquitto; a container's user may have no name, and then no say in it either."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "mosquitto"


def _as_node(hostname: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", hostname.lower()).strip("-_")[:63] or "gateway"
