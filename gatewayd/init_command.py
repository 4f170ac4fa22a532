"""`gatewayd init`: writes a config, a broker's configuration and their secrets, so that devices can join over the network.

It never overwrites: what is there is kept and said. `--force` writes configuration and the servers' certificates anew; secrets
that others hold (the authority, passwords, tokens) are kept even then: remove the folder to begin anew.
"""

import argparse
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gatewayd.adapters.certificate_ends import utc_now
from gatewayd.adapters.certificates import Pair, names_in, new_authority, new_server
from gatewayd.adapters.credentials import open_credentials
from gatewayd.adapters.private_files import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    PUBLIC_FILE,
    made_private_folder,
    replace_file,
    replace_if_changed,
)
from gatewayd.api.table import verbs_of
from gatewayd.api.verb import Role
from gatewayd.config import load_config
from gatewayd.config.http import is_loopback
from gatewayd.core.errors import BadRequest, GatewayError
from gatewayd.init_plan import DEFAULT_FOLDER, PORTS, kept_config, planned
from gatewayd.wire.access_tokens import PREFIX, token_of
from gatewayd.wire.broker_clients import (
    BrokerClient,
    checked_client,
    clients_access,
    clients_passwords,
    clients_text,
    parse_clients,
)
from gatewayd.wire.init_files import Plan, broker_text, config_text, drop_in_text, listeners_text
from gatewayd.wire.init_steps import Outcome, next_steps
from gatewayd.wire.mosquitto import SALT_BYTES, Granted, hash_for
from gatewayd.wire.topics import Topics

OPERATOR, ADMIN = "operator", "admin"
TOKEN_BYTES = 32
_SHARED_FOLDER = 0o755
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - compared, not opened


@dataclass(slots=True)
class Writer:
    """Writes what is not there, or (`force`) configuration that is; remembers what it did for the person who asked."""

    force: bool
    renew: bool = False
    told: list[str] = field(default_factory=list)

    def config(self, path: Path, content: bytes, *, mode: int = PUBLIC_FILE) -> None:
        """Write configuration: something that can be made again."""
        if path.exists() and path.read_bytes() == content:
            self.told.append(f"kept     {path}")
        elif path.exists() and not self.force:
            self.told.append(f"kept     {path} (it differs from what would be written; --force replaces it)")
        else:
            self.told.append(f"{'replaced' if path.exists() else 'wrote   '} {path}")
            replace_file(path, content, mode=mode)

    def secret(self, path: Path, make: Callable[[], bytes], *, mode: int = PRIVATE_FILE) -> bytes:
        """Return what the file holds, made when it is missing; never replaced."""
        if path.exists():
            self.told.append(f"kept     {path}")
            return path.read_bytes()
        content = make()
        replace_file(path, content, mode=mode)
        self.told.append(f"wrote    {path}")
        return content

    def server(self, certificate: Path, key: Path, make: Callable[[], Pair]) -> None:
        """Write a server's certificate with its key: made anew only with `force` or `renew`."""
        if certificate.exists() and key.exists() and not (self.force or self.renew):
            self.told.append(f"kept     {certificate}")
            return
        self.told.append(f"{'replaced' if certificate.exists() else 'wrote   '} {certificate}, {key.name}")
        pem, key_pem = make()
        replace_file(key, key_pem)
        replace_file(certificate, pem, mode=PUBLIC_FILE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gatewayd init`."""
    parser.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help="where to write (default: %(default)s)")
    parser.add_argument(
        "--data-dir", type=Path, help="the daemon's state (default: DIR/data, with --systemd /var/lib/gatewayd)"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing: what no option says has its default")
    parser.add_argument(
        "--lan", action="store_true", help="listen on the network, with TLS and passwords; else on loopback"
    )
    parser.add_argument("--node", help="this gateway's name in topics (default: the host name)")
    parser.add_argument("--host", help="what devices and clients call this machine (default: HOSTNAME.local)")
    parser.add_argument(
        "--name", action="append", default=[], help="a further name or address for the certificates; repeatable"
    )
    parser.add_argument(
        "--cert", type=Path, help="a server certificate of your own (PEM, with its chain), with --key and --ca"
    )
    parser.add_argument("--key", type=Path, help="its private key")
    parser.add_argument("--ca", type=Path, help="the authority that signed it, which devices are to trust")
    parser.add_argument("--systemd", action="store_true", help="for the units in systemd/ and Debian's mosquitto")
    for option, default in PORTS.items():
        parser.add_argument(f"--{option}-port", type=int, help=f"default: {default}, or what is there")
    parser.add_argument(
        "--renew", action="store_true", help="make the servers' certificates anew, for the same names and more"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace configuration and server certificates that are there"
    )


def run(args: argparse.Namespace, *, stdin: TextIO | None = None, out: TextIO | None = None) -> int:
    """Write everything. Returns the exit code: 0 done, 1 it could not be written, 2 wrong usage."""
    stdin, out = stdin or sys.stdin, out or sys.stdout
    try:
        kept = kept_config(args.dir.absolute(), is_replaced=args.force)
        plan = planned(args, kept, stdin=stdin, out=out)
        writer = Writer(args.force, args.renew)
        _write(plan, args, writer)
        steps = next_steps(plan, _outcome(plan, writer, is_first=kept is None))
    except BadRequest as error:
        sys.stderr.write(f"gatewayd init: {error}\n")
        return 2
    except GatewayError as error:
        sys.stderr.write(f"gatewayd init: {error}\n")
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"gatewayd init: {where}{error.strerror or error}\n")
        return 1
    out.write("\n".join([*writer.told, "", *steps]) + "\n")
    return 0


def _outcome(plan: Plan, writer: Writer, *, is_first: bool) -> Outcome:
    """Return what is in the folder now, read from the config that the daemon will read. Raises: ConfigError."""
    http, folder = load_config(plan.folder / "gatewayd.yaml").http, plan.folder
    certified = None if http.tls is None else names_in(http.tls.cert_file)
    own = "localhost" if is_loopback(http.host) or http.host in _ANY_HOST else http.host
    host = own if certified is None or own in certified else plan.host
    scheme = "http" if http.tls is None else "https"
    return Outcome(
        is_first,
        any(not line.startswith("kept") for line in writer.told),
        f"{scheme}://{host}:{http.port}",
        "" if is_loopback(http.host) else f"{scheme}://{plan.host}:{http.port}",
        has_token=(folder / "admin-token").exists(),
        asks_token=http.tokens_file is not None,
        has_ca=(folder / "ca.pem").exists(),
        has_operator=(folder / "operator-password").exists(),
        has_ca_key=(folder / "ca.key").exists(),
    )


def _write(plan: Plan, args: argparse.Namespace, writer: Writer) -> None:
    if plan.is_service:  # the daemon is another user: it reads the config there, and nothing secret
        (plan.folder / "gatewayd.service.d").mkdir(parents=True, exist_ok=True)
        plan.folder.chmod(_SHARED_FOLDER)
    made_private_folder(plan.folder)
    made_private_folder(plan.broker / "conf.d")
    plan.broker.chmod(PRIVATE_FOLDER)
    _certificates(plan, args, writer)
    _tokens(plan, writer)
    _clients(plan, writer)
    if plan.is_service:
        for name in ("devices.passwd", "devices.acl"):
            writer.secret(plan.broker / name, bytes)
        writer.config(plan.folder / "gatewayd.service.d" / "secrets.conf", drop_in_text(plan).encode())
    else:
        made_private_folder(plan.data_dir)
        open_credentials(plan.devices, plan.topics)
        writer.config(plan.broker / "mosquitto.conf", broker_text(plan).encode())
    writer.config(plan.broker / "conf.d" / "gatewayd.conf", listeners_text(plan).encode())
    writer.config(plan.folder / "gatewayd.yaml", config_text(plan).encode())


def _certificates(plan: Plan, args: argparse.Namespace, writer: Writer) -> None:
    given = (args.cert, args.key, args.ca)
    servers = (
        (plan.folder / "http.pem", plan.folder / "http-key"),
        (plan.broker / "broker.pem", plan.broker / "broker.key"),
    )
    if any(given):
        if not all(given):
            raise BadRequest("--cert, --key and --ca go together")
        writer.config(plan.folder / "ca.pem", args.ca.read_bytes())
        for certificate, key in servers:
            writer.server(certificate, key, lambda: (args.cert.read_bytes(), args.key.read_bytes()))
        return
    authority = _authority(plan, writer)
    known = names_in(servers[0][0])
    names = tuple(dict.fromkeys((*known, plan.host, *args.name, *_own_names())))
    for certificate, key in servers:
        writer.server(certificate, key, lambda: new_server(names, authority, now=utc_now()))


def _authority(plan: Plan, writer: Writer) -> Pair:
    """Return the authority; made when neither of its files is there: one of them alone was not made here."""
    certificate, key = plan.folder / "ca.pem", plan.folder / "ca.key"
    if certificate.exists() != key.exists():
        raise BadRequest(f"{certificate} and {key}: only one of them is there: restore the other, or remove it")
    made: Pair | None = None if key.exists() else new_authority(f"gatewayd {plan.node}", now=utc_now())
    key_pem = writer.secret(key, lambda: made[1] if made else b"")
    return writer.secret(certificate, lambda: made[0] if made else b"", mode=PUBLIC_FILE), key_pem


def _tokens(plan: Plan, writer: Writer) -> None:
    """Write the administrator's token for the command line, and its hash for the daemon."""
    hashes = plan.folder / "http-tokens"
    if hashes.exists():  # the token itself may be kept elsewhere by now
        writer.told.append(f"kept     {hashes}")
        return
    # A token that is there without its hash was left by a cut between the two.
    written = writer.secret(plan.folder / "admin-token", f"{PREFIX}{secrets.token_hex(TOKEN_BYTES)}\n".encode)
    try:
        _, kept = token_of(ADMIN, "admin", bytes.fromhex(written.decode().strip().removeprefix(PREFIX)))
    except ValueError:
        raise BadRequest(f"{plan.folder}/admin-token holds no token: remove it") from None
    writer.secret(hashes, f"{kept.line()}\n".encode)


def _clients(plan: Plan, writer: Writer) -> None:
    """Write the daemon's and an operator's user; those that were added since stay."""
    kept = plan.folder / "mqtt-clients"

    def first_two() -> bytes:
        passwords = {
            name: writer.secret(plan.folder / file, f"{new_password()}\n".encode).decode().strip()
            for name, file in ((plan.daemon_user, "mqtt-password"), (OPERATOR, "operator-password"))
        }
        roles: Mapping[str, str] = {plan.daemon_user: "gateway", OPERATOR: "operator"}
        return clients_text([new_client(name, roles[name], passwords[name]) for name in roles]).encode()

    text = writer.secret(kept, first_two)
    clients = parse_clients(text.decode())
    replace_if_changed(kept, clients_text(clients).encode())  # with the roles that there are by now
    write_clients(plan.broker, clients, plan.topics, plan.reply_prefixes)


def new_password() -> str:
    """Return a password that nobody guesses, without characters that a shell or a C string takes for its own."""
    return secrets.token_urlsafe(24)


def new_client(name: str, role: str, password: str) -> BrokerClient:
    """Return a user of the broker. Raises: BadRequest (the name)."""
    return checked_client(BrokerClient(name, role, hash_for(name, password, secrets.token_bytes(SALT_BYTES))))


def write_clients(
    folder: Path,
    clients: tuple[BrokerClient, ...],
    topics: Topics,
    reply_prefixes: tuple[str, ...],
) -> None:
    """Write what mosquitto reads of them; who owned the files (root hands them to mosquitto) owns them still. Raises: OSError."""
    texts = {
        "clients.acl": clients_access(clients, topics, reply_prefixes, granted_verbs()),
        "clients.passwd": clients_passwords(clients),
    }
    for name, text in texts.items():
        replace_if_changed(folder / name, text.encode())


def granted_verbs() -> Granted:
    """Return the verbs of the roles that the access list writes one by one."""
    return {role.name.lower(): verbs_of(role) for role in (Role.VIEWER, Role.OPERATOR)}


def _own_names() -> list[str]:
    hostname = socket.gethostname()
    return [hostname, f"{hostname}.local", "localhost", "127.0.0.1", "::1", *_addresses()]


def _addresses() -> list[str]:
    """Return the address that this machine would use towards the network; no packet is sent for it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # Source: RFC 5737, an address that nobody has
            return [str(probe.getsockname()[0])]
    except OSError:
        return []
