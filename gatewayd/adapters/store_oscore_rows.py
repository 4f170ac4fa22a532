"""The SQL of OSCORE's sequence numbers: each function reads, or writes in the caller's transaction. On the store's thread."""

import sqlite3
from collections.abc import Mapping

from gatewayd.core.oscore import StoredNumbers


def load_oscore_numbers(connection: sqlite3.Connection) -> Mapping[str, StoredNumbers]:
    """Return how far each context's numbers may have been used."""
    rows = connection.execute("SELECT context, sender, recipient, newest, taken FROM oscore_numbers")
    return {context: StoredNumbers(*rest) for context, *rest in rows}


def save_oscore_numbers(connection: sqlite3.Connection, saved: Mapping[str, StoredNumbers]) -> None:
    """Insert or replace."""
    connection.executemany(
        "INSERT INTO oscore_numbers (context, sender, recipient, newest, taken) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (context) DO UPDATE SET sender = excluded.sender, recipient = excluded.recipient, "
        "newest = excluded.newest, taken = excluded.taken",
        [(context, each.sender, each.recipient, each.newest, each.window) for context, each in saved.items()],
    )


def drop_oscore_numbers(connection: sqlite3.Connection, contexts: list[str]) -> None:
    """Remove the numbers of contexts whose credentials are gone."""
    connection.executemany("DELETE FROM oscore_numbers WHERE context = ?", [(each,) for each in contexts])
