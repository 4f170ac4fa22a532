"""`gatewayd mqtt-user`: adds or removes a user of the broker that is no device, in what `gatewayd init` wrote."""

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

from gatewayd.adapters.broker_reload import MosquittoReload
from gatewayd.adapters.private_files import replace_file
from gatewayd.config import Config, load_config
from gatewayd.core.errors import BadRequest, Conflict, GatewayError, NotFound
from gatewayd.init_command import granted_verbs, new_client, new_password, write_clients
from gatewayd.init_plan import DEFAULT_FOLDER
from gatewayd.wire.broker_clients import BrokerClient, checked_client, clients_text, parse_clients
from gatewayd.wire.mosquitto import SALT_BYTES, client_access, hash_for
from gatewayd.wire.topics import Topics

GRANTED = ("viewer", "client", "operator", "admin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gatewayd mqtt-user`."""
    parser.add_argument("name", nargs="?", help="the user's name at the broker")
    parser.add_argument(
        "--role",
        choices=GRANTED,
        default="client",
        help="viewer: questions and events; client: inferences; operator: both, pushes and aliases; admin: everything "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dir", type=Path, default=DEFAULT_FOLDER, help="what `gatewayd init` wrote (default: %(default)s)"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the password to a new file instead of the screen"
    )
    parser.add_argument("--replace", action="store_true", help="give a user that is there a new password and role")
    parser.add_argument("--remove", action="store_true", help="take the user out")
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="only write the access lists anew: after an upgrade, which may bring verbs",
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="only print such a user's access list, for a broker that is set up otherwise",
    )


def run(args: argparse.Namespace, *, out: TextIO | None = None) -> int:
    """Change the users. Returns the exit code: 0 done, 1 refused or not written, 2 wrong usage."""
    out = out or sys.stdout
    try:
        config = load_config(args.dir / "gatewayd.yaml")
        name = "" if args.refresh else _name(args)
        if args.show:
            out.write(_access_of(config, name, args.role))
            return 0
        password = _changed(args, config)
    except BadRequest as error:
        sys.stderr.write(f"gatewayd mqtt-user: {error}\n")
        return 2
    except GatewayError as error:
        sys.stderr.write(f"gatewayd mqtt-user: {error}\n")
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"gatewayd mqtt-user: {where}{error.strerror or error}\n")
        return 1
    if password:
        out.write(f"{password}\n")
    todo = MosquittoReload(config.joining.mosquitto_pid_file).tell()
    sys.stderr.write(f"{_told(args)}; {todo or 'mosquitto reads its files again'}\n")
    return 0


def _told(args: argparse.Namespace) -> str:
    if args.refresh:
        return "access lists written anew"
    return f"{args.name} was taken out" if args.remove else f"{args.name} has the role {args.role}"


def _name(args: argparse.Namespace) -> str:
    if args.name is None:
        raise BadRequest("NAME is missing: who is it about?")
    return str(args.name)


def _access_of(config: Config, name: str, role: str) -> str:
    checked_client(BrokerClient(name, role, hash_for(name, "", bytes(SALT_BYTES))))
    topics = Topics(config.mqtt.prefix, config.node.name)
    return client_access(topics, config.mqtt.reply_prefixes, [(name, role)], granted=granted_verbs())


def _changed(args: argparse.Namespace, config: Config) -> str:
    """Write the users anew; return the password that is to be shown."""
    file = args.dir / "mqtt-clients"
    before = parse_clients(file.read_text())
    if args.refresh:
        _write(args.dir, before, config)
        return ""
    old = next((each for each in before if each.name == args.name), None)
    if old is not None and old.role not in GRANTED:
        raise Conflict(f"{args.name} is the daemon's own user")
    others = tuple(each for each in before if each.name != args.name)
    password = "" if args.remove else new_password()
    after = others if args.remove else (*others, _added(args, old, password))
    if args.remove and old is None:
        raise NotFound(f"no user {args.name[:80]!r}; there are: {', '.join(each.name for each in before)}")
    if args.save is not None and password:
        descriptor = os.open(args.save, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as saved:
            saved.write(f"{password}\n")
    _write(args.dir, after, config)
    return password if args.save is None else ""


def _write(folder: Path, clients: tuple[BrokerClient, ...], config: Config) -> None:
    replace_file(folder / "mqtt-clients", clients_text(clients).encode())
    topics = Topics(config.mqtt.prefix, config.node.name)
    write_clients(folder / "mosquitto", clients, topics, config.mqtt.reply_prefixes)


def _added(args: argparse.Namespace, old: BrokerClient | None, password: str) -> BrokerClient:
    if old is not None and not args.replace:
        raise Conflict(f"{args.name} is there: --replace gives it a new password")
    return new_client(args.name, args.role, password)
