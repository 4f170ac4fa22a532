"""The store's SQL about commands that were carried out. Runs on the store's thread only."""

import sqlite3

from gatewayd.core.command import CommandId, Record
from gatewayd.core.record import record

_PRUNED_AT_ONCE = 16
_ALWAYS_KEPT = 1_000
_COLUMNS = "key, body, verb, answer, at, tries"


@record
class Keep:
    """How many commands are remembered, and for how long: protects the disk. A broker repeats within its session's expiry.

    Whatever a clock that jumped says of their age, the newest 1,000 stay.
    """

    count: int = 10_000
    age_s: float = 7 * 86_400.0


def find_command(connection: sqlite3.Connection, key: bytes) -> Record | None:
    """Return what is known of the command."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM commands WHERE key = ?", (key,)).fetchone()  # noqa: S608 - constant
    return None if found is None else Record(*found)


def save_command(connection: sqlite3.Connection, record: Record, keep: Keep) -> None:
    """Insert, or complete what was only begun; an answer that stands stays."""
    connection.execute(
        "INSERT INTO commands (key, body, verb, answer, at, tries) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, at = excluded.at WHERE commands.answer IS NULL",
        (record.key, record.body, record.verb, record.answer, record.at, record.tries),
    )
    _prune(connection, record.at, keep)


def begin_command(connection: sqlite3.Connection, command: CommandId, at: float, keep: Keep) -> Record:
    """Note that the command is about to be carried out, once more; return what stands then."""
    connection.execute(
        "INSERT INTO commands (key, body, verb, answer, at, tries) VALUES (?, ?, ?, NULL, ?, 1) "
        "ON CONFLICT (key) DO UPDATE SET tries = tries + 1 WHERE commands.answer IS NULL",
        (command.key, command.body, command.verb, at),
    )
    _prune(connection, at, keep)
    found = find_command(connection, command.key)
    if found is None:
        raise KeyError(command.verb)
    return found


def forget_command(connection: sqlite3.Connection, key: bytes) -> None:
    """Remove what was only begun."""
    connection.execute("DELETE FROM commands WHERE key = ? AND answer IS NULL", (key,))


def _prune(connection: sqlite3.Connection, now: float, keep: Keep) -> None:
    """Forget the oldest: those over the count, and of those past their age a few at a time."""
    newest = connection.execute("SELECT max(seq) FROM commands").fetchone()[0] or 0
    connection.execute("DELETE FROM commands WHERE seq <= ?", (newest - keep.count,))
    oldest = "SELECT seq FROM commands WHERE seq <= ? ORDER BY seq LIMIT ?"
    connection.execute(
        f"DELETE FROM commands WHERE at < ? AND seq IN ({oldest})",  # noqa: S608 - constant
        (now - keep.age_s, newest - _ALWAYS_KEPT, _PRUNED_AT_ONCE),
    )
