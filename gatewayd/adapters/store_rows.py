"""The store's SQL: each function reads, or writes within the caller's transaction. Runs on the store's thread only."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from gatewayd.adapters import store_codec as codec
from gatewayd.adapters.store_standing import drop_order
from gatewayd.core.device import Departure, KnownDevice
from gatewayd.core.errors import Conflict, NodeError, UnknownModel
from gatewayd.core.model import Variant, Version
from gatewayd.core.module import Held
from gatewayd.core.names import Alias, DeviceId, Digest, ModelName, PushId
from gatewayd.core.registry import AliasMove
from gatewayd.core.retry import Desire, Terms
from gatewayd.core.update import Push, PushState

KEPT_ENDED_PUSHES = 5_000
"""Protects the disk: older pushes that ended are forgotten. One takes about 400 bytes: its manifest is not kept."""

_VERSION_COLUMNS = "model, number, created_at, note, signature, about, samples"
_VARIANT_COLUMNS = (
    "model, number, position, name, digest, size_bytes, structure, verdicts, arena_bytes, self_test, vectors"
)
_LAST_PUSH_ID = 2**31 - 1
_PUSH_COLUMNS = (
    'id, device, model, version, variant, digest, size_bytes, state, "offset", reason, resumed, stream, signed, who, '
    "started_at, ended_at, replaces, instead_of"
)


def add_version(connection: sqlite3.Connection, version: Version, moves: Iterable[AliasMove]) -> None:
    """Raises: Conflict when the number exists or two variants share a name; UnknownModel as `move_alias`."""
    columns = (
        version.model,
        version.number,
        version.created_at,
        version.note,
        codec.encode_signature(version.signature),
        codec.encode_about(version.about),
        version.samples,
    )
    try:
        connection.execute(f"INSERT INTO versions ({_VERSION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", columns)  # noqa: S608 - constant
        connection.executemany(
            f"INSERT INTO variants ({_VARIANT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constant
            [_variant_columns(version, position) for position in range(len(version.variants))],
        )
    except sqlite3.IntegrityError as error:
        raise Conflict(
            f"{version} cannot be added ({error}): take the next number and name each variant once"
        ) from error
    for move in moves:
        move_alias(connection, move)


def load_versions(connection: sqlite3.Connection) -> tuple[Version, ...]:
    """Return all versions, oldest first (by time, then name and number)."""
    rows = connection.execute(f"SELECT {_VARIANT_COLUMNS} FROM variants ORDER BY model, number, position").fetchall()  # noqa: S608 - constant
    variants = {key: tuple(map(_variant, group)) for key, group in groupby(rows, key=lambda row: (row[0], row[1]))}
    found = connection.execute(f"SELECT {_VERSION_COLUMNS} FROM versions ORDER BY created_at, model, number")  # noqa: S608 - constant
    return tuple(
        Version(
            ModelName(model), number, codec.decode_signature(signature), variants.get((model, number), ()), at, note,
            codec.decode_about(about), None if samples is None else Digest(samples),
        )
        for model, number, at, note, signature, about, samples in found
    )  # fmt: skip


def move_alias(connection: sqlite3.Connection, move: AliasMove) -> None:
    """Point (or, with version None, remove) the alias and record it. Raises: UnknownModel when the version is not stored."""
    if move.version is None:
        connection.execute("DELETE FROM aliases WHERE model = ? AND alias = ?", (move.model, move.alias))
    else:
        key = (move.model, move.version)
        if connection.execute("SELECT 1 FROM versions WHERE model = ? AND number = ?", key).fetchone() is None:
            raise UnknownModel(
                f"alias {move.alias!r} cannot point at {move.model}@{move.version}: there is no such version"
            )
        connection.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)", (move.model, move.alias, move.version))
    connection.execute(
        "INSERT INTO alias_moves (model, alias, version, moved_at, who, why) VALUES (?, ?, ?, ?, ?, ?)",
        (move.model, move.alias, move.version, move.moved_at, move.who, move.why),
    )


def load_aliases(connection: sqlite3.Connection) -> Mapping[tuple[ModelName, Alias], int]:
    """Return where every alias points."""
    rows = connection.execute("SELECT model, alias, version FROM aliases")
    return {(ModelName(model), Alias(alias)): version for model, alias, version in rows}


def alias_history(connection: sqlite3.Connection, model: ModelName) -> tuple[AliasMove, ...]:
    """Return the model's moves in the order they were made."""
    query = "SELECT model, alias, version, moved_at, who, why FROM alias_moves WHERE model = ? ORDER BY id"
    return tuple(AliasMove(*row) for row in connection.execute(query, (model,)))


def save_device(connection: sqlite3.Connection, device: KnownDevice) -> None:
    """Insert or replace."""
    columns = (device.device, device.approved, device.first_seen_at, device.revoked)
    names = "device, approved, first_seen_at, revoked"
    connection.execute(f"INSERT OR REPLACE INTO devices ({names}) VALUES (?, ?, ?, ?)", columns)  # noqa: S608 - constant


def forget_device(connection: sqlite3.Connection, device: DeviceId) -> None:
    """Remove the device with all that was wanted there and known of it; its ended pushes stay in the journal."""
    for table in ("devices", "desires", "push_terms", "holdings", "lwm2m_packages"):
        connection.execute(f"DELETE FROM {table} WHERE device = ?", (device,))  # noqa: S608 - constants


def depart(connection: sqlite3.Connection, departure: Departure) -> None:
    """Keep the device's row with nothing wanted there, or no row about it at all; the orders that end with it go."""
    for order in departure.orders:
        drop_order(connection, order)
    if departure.row is None:
        forget_device(connection, departure.device)
        return
    save_device(connection, departure.row)
    connection.execute("DELETE FROM desires WHERE device = ?", (departure.device,))


def load_devices(connection: sqlite3.Connection) -> tuple[KnownDevice, ...]:
    """Return every device, the first seen first."""
    query = "SELECT device, approved, first_seen_at, revoked FROM devices ORDER BY first_seen_at, device"
    rows = connection.execute(query)
    return tuple(KnownDevice(DeviceId(device), bool(approved), at, bool(out)) for device, approved, at, out in rows)


def next_push_id(connection: sqlite3.Connection) -> PushId:
    """Raises: NodeError when all 2**31 - 1 ids were given out."""
    (last,) = connection.execute("SELECT max(last, coalesce((SELECT max(id) FROM pushes), 0)) FROM push_ids").fetchone()
    if last >= _LAST_PUSH_ID:
        raise NodeError(
            "no push id is left (devices keep them in 31 bits): start with a new database and new device ids"
        )
    connection.execute("UPDATE push_ids SET last = ?", (last + 1,))
    return PushId(last + 1)


def save_push(connection: sqlite3.Connection, push: Push) -> None:
    """Insert or replace; with one that ended, forget the oldest that ended.

    With one that was accepted what was wanted of the model that gave way goes, too: it would be pushed again otherwise.
    """
    columns = (push.id, push.device, push.model, push.version, push.variant, push.digest, push.size_bytes)
    progress = (push.state.value, push.offset, push.reason, push.resumed)
    signed = b"" if push.state.is_end else push.signed
    record = (push.stream, signed, push.who, push.started_at, push.ended_at, push.replaces, _held(push))
    connection.execute(
        f"INSERT OR REPLACE INTO pushes ({_PUSH_COLUMNS}, ended) VALUES ({', '.join('?' * 19)})",  # noqa: S608 - constant
        (*columns, *progress, *record, push.state.is_end),
    )
    if push.state is PushState.ACCEPTED and push.instead_of is not None:
        gone = (push.device, push.instead_of.model, push.started_at)
        connection.execute("DELETE FROM desires WHERE device = ? AND model = ? AND wished_at <= ?", gone)
    if push.state.is_end:
        newest = "SELECT id FROM pushes WHERE ended ORDER BY id DESC LIMIT 1 OFFSET ?"
        connection.execute(f"DELETE FROM pushes WHERE ended AND id <= ({newest})", (KEPT_ENDED_PUSHES,))  # noqa: S608 - constant


def save_pushes(connection: sqlite3.Connection, pushes: Iterable[Push]) -> None:
    """As `save_push`, for several."""
    for push in pushes:
        save_push(connection, push)


def live_pushes(connection: sqlite3.Connection) -> tuple[Push, ...]:
    """Return what had not ended, oldest first."""
    return _pushes(connection.execute(f"SELECT {_PUSH_COLUMNS} FROM pushes WHERE NOT ended ORDER BY id"))  # noqa: S608 - constant


def last_failed_pushes(connection: sqlite3.Connection) -> tuple[Push, ...]:
    """Return the newest push of each device where that ended otherwise than accepted."""
    newest = "SELECT max(id) FROM pushes GROUP BY device"
    query = f"SELECT {_PUSH_COLUMNS} FROM pushes WHERE ended AND state <> 'accepted' AND id IN ({newest})"  # noqa: S608 - constants
    return _pushes(connection.execute(query))


def recent_pushes(connection: sqlite3.Connection, limit: int, device: DeviceId | None = None) -> tuple[Push, ...]:
    """Return at most `limit`, newest first; of one device when it is named."""
    where, named = ("WHERE device = ?", (device,)) if device is not None else ("", ())
    query = f"SELECT {_PUSH_COLUMNS} FROM pushes {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - constants
    return _pushes(connection.execute(query, (*named, max(limit, 0))))


def save_desire(connection: sqlite3.Connection, desire: Desire) -> None:
    """Insert or replace what is wanted of that model on that device."""
    columns = (desire.device, desire.model, desire.version, desire.who, desire.wished_at)
    progress = (desire.downgrade, desire.failures, desire.settled, desire.instead_of or "")
    connection.execute("INSERT OR REPLACE INTO desires VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*columns, *progress))


def drop_desire(connection: sqlite3.Connection, device: DeviceId, model: ModelName) -> None:
    """Want nothing of that model there any more."""
    connection.execute("DELETE FROM desires WHERE device = ? AND model = ?", (device, model))


def load_desires(connection: sqlite3.Connection) -> tuple[Desire, ...]:
    """Return all, the oldest wish first."""
    rows = connection.execute("SELECT * FROM desires ORDER BY wished_at, device, model")
    return tuple(
        Desire(
            DeviceId(device), ModelName(model), version, who, wished_at, bool(downgrade), failures, settled,
            ModelName(instead) if instead else None,
        )
        for device, model, version, who, wished_at, downgrade, failures, settled, instead in rows
    )  # fmt: skip


def save_terms(connection: sqlite3.Connection, terms: Terms) -> None:
    """Insert or replace; the usual terms need no row."""
    if terms == Terms(terms.device):
        connection.execute("DELETE FROM push_terms WHERE device = ?", (terms.device,))
        return
    columns = (terms.device, terms.one_slot, terms.failures, terms.quarantine)
    connection.execute("INSERT OR REPLACE INTO push_terms VALUES (?, ?, ?, ?)", columns)


def load_terms(connection: sqlite3.Connection) -> tuple[Terms, ...]:
    """Return the terms that are not the usual ones."""
    rows = connection.execute("SELECT device, one_slot, failures, quarantine FROM push_terms ORDER BY device")
    return tuple(Terms(DeviceId(device), bool(one), failures, quarantine) for device, one, failures, quarantine in rows)


_PushRow = tuple[
    int, str, str, int, str, str, int, str, int, str, int, str, bytes, str, float, float | None, int, str
]  # fmt: skip


def _pushes(rows: Iterable[_PushRow]) -> tuple[Push, ...]:
    return tuple(
        Push(
            PushId(number), DeviceId(device), ModelName(model), version, variant, Digest(digest), size,
            PushState(state), deadline_s=0.0, offset=offset, reason=reason, present=False, resumed=resumed,
            stream=Digest(stream), signed=signed, who=who, started_at=started, ended_at=ended, replaces=replaces,
            instead_of=_held_of(instead),
        )
        for number, device, model, version, variant, digest, size, state, offset, reason, resumed,
            stream, signed, who, started, ended, replaces, instead in rows
    )  # fmt: skip


def _held(push: Push) -> str:
    return str(push.instead_of) if push.instead_of is not None else ""


def _held_of(text: str) -> Held | None:
    model, _, version = text.rpartition("@")
    return Held(ModelName(model), int(version)) if text else None


def _variant_columns(version: Version, position: int) -> Sequence[str | int | None]:
    variant = version.variants[position]
    return (
        version.model, version.number, position, variant.name, variant.digest, variant.size_bytes,
        codec.encode_structure(variant.structure), codec.encode_verdicts(variant.verdicts),
        variant.arena_bytes, codec.encode_self_test(variant.self_test), codec.encode_vectors(variant.vectors),
    )  # fmt: skip


def _variant(row: tuple[str, int, int, str, str, int, str, str, int | None, str | None, str | None]) -> Variant:
    _, _, _, name, digest, size, structure, verdicts, arena, self_test, vectors = row
    return Variant(
        name=name,
        digest=Digest(digest),
        size_bytes=size,
        structure=codec.decode_structure(structure),
        verdicts=codec.decode_verdicts(verdicts),
        arena_bytes=arena,
        self_test=codec.decode_self_test(self_test),
        vectors=codec.decode_vectors(vectors),
    )
