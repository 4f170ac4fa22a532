"""The file of the broker's users that are no devices: one line `NAME ROLE HASH` each. Mosquitto's own files are made from it.

Its first line names the roles there are. In a file without that line an operator may give every command: there was no role above
it when that was written, and whoever has it keeps what they could do.
"""

import re
from collections.abc import Sequence
from dataclasses import field, replace

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record
from gatewayd.wire.mosquitto import ROLES, Granted, client_access, is_hash, password_line
from gatewayd.wire.topics import Topics

MAX_CLIENTS = 1000  # protects the broker's reload
MAX_FILE_BYTES = 2**18  # protects memory
_LINE = re.compile(r"(?P<name>\S+)[ \t]+(?P<role>\S+)[ \t]+(?P<hash>\S+)")
HEADER = "# roles: viewer client operator admin"
_WILD = re.compile(r"[+#/]")  # a name stands in a topic of the access list


@record
class BrokerClient:
    """A user of the broker: who, what they may do there (one of `mosquitto.ROLES`), and their password's hash."""

    name: str
    role: str
    password: str = field(repr=False)


def parse_clients(text: str) -> tuple[BrokerClient, ...]:
    """Read the file; empty lines and what follows a # are skipped. Raises: BadRequest naming the line."""
    if len(text) > MAX_FILE_BYTES:
        raise BadRequest(f"more than {MAX_FILE_BYTES} bytes of users")
    all_lines = text.splitlines()
    lines = ((number, line.partition("#")[0].strip()) for number, line in enumerate(all_lines, start=1))
    clients = tuple(_client(line, number) for number, line in lines if line)
    if HEADER not in all_lines:
        clients = tuple(replace(each, role="admin") if each.role == "operator" else each for each in clients)
    if len({each.name for each in clients}) < len(clients) or len(clients) > MAX_CLIENTS:
        raise BadRequest(f"a name stands twice, or there are more than {MAX_CLIENTS}")
    return clients


def checked_client(client: BrokerClient) -> BrokerClient:
    """Return the client. Raises: BadRequest when it could not stand in the broker's files."""
    password_line(client.name, client.password)
    if client.role not in ROLES or not is_hash(client.password) or _WILD.search(client.name):
        raise BadRequest(f"must be NAME ROLE HASH, the role one of {', '.join(ROLES)}")
    return client


def clients_text(clients: Sequence[BrokerClient]) -> str:
    """Return the file."""
    return f"{HEADER}\n" + "".join(f"{each.name} {each.role} {each.password}\n" for each in clients)


def clients_passwords(clients: Sequence[BrokerClient]) -> str:
    """Return mosquitto's password file of the clients' listeners."""
    return "".join(f"{password_line(each.name, each.password)}\n" for each in clients)


def clients_access(
    clients: Sequence[BrokerClient], topics: Topics, reply_prefixes: Sequence[str], granted: Granted
) -> str:
    """Return mosquitto's access list of the clients' listeners; `granted` as `mosquitto.client_access`."""
    return client_access(topics, reply_prefixes, [(each.name, each.role) for each in clients], granted=granted)


def _client(line: str, number: int) -> BrokerClient:
    found = _LINE.fullmatch(line)
    try:
        if found is not None:
            return checked_client(BrokerClient(found["name"], found["role"], found["hash"]))
    except BadRequest as error:
        raise BadRequest(f"line {number}: {error}") from None
    raise BadRequest(f"line {number}: must be NAME ROLE HASH, the role one of {', '.join(ROLES)}")
