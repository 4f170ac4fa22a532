"""What must survive, in one SQLite file: registry, devices, the journal of pushes, commands that were carried out.

SQLite runs on one thread of its own; each call is one transaction there, so that a cancelled caller or a killed process leaves
all of it or nothing. A call returns when its commit is on the disk.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from gatewayd.adapters import store_commands as commands
from gatewayd.adapters import store_drops as drop_rows
from gatewayd.adapters import store_lwm2m_rows as lwm2m_rows
from gatewayd.adapters import store_oscore_rows as oscore_rows
from gatewayd.adapters import store_registry_rows as registry_rows
from gatewayd.adapters import store_rows as rows
from gatewayd.adapters import store_standing as standing_rows
from gatewayd.adapters.store_commands import Keep
from gatewayd.adapters.store_schema import broken, connect
from gatewayd.core.building import Build
from gatewayd.core.command import CommandId, Record
from gatewayd.core.device import Departure, KnownDevice
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import NodeError
from gatewayd.core.model import Version
from gatewayd.core.names import Alias, DeviceId, Digest, ModelName, PushId
from gatewayd.core.oscore import StoredNumbers
from gatewayd.core.registration import StoredPackage, StoredRegistration
from gatewayd.core.registry import AliasMove, Retirement
from gatewayd.core.retry import Desire, Terms
from gatewayd.core.standing import StandingOrder
from gatewayd.core.update import Push

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0
"""How long a call waits for another program's lock: a backup with the sqlite3 shell holds it briefly."""


class Store:
    """The three stores of the services' ports over one file. Obtain it from `open_store`.

    Every method raises NodeError when the database is damaged or the disk refuses.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        executor: ThreadPoolExecutor,
        *,
        keep: Keep | None = None,
        noted: Record | None = None,
    ) -> None:
        self._path = path
        self._connection = connection
        self._executor = executor
        self._keep = keep or Keep()
        self._noted = noted

    def noting(self, record: Record | None) -> "Store":
        """Return this store as one command sees it: what it writes goes into one transaction with the command's `record`.

        None: no command, nothing is noted. Each call is a transaction still, so that the write which decides goes this way.
        """
        if record is None:
            return self
        return Store(self._path, self._connection, self._executor, keep=self._keep, noted=record)

    async def find_command(self, key: bytes) -> Record | None:
        """Return what is known of a command."""
        return await self._transact(lambda connection: commands.find_command(connection, key))

    async def save_command(self, record: Record) -> Record:
        """Remember a command by itself; return what is remembered now: an answer that stands is not replaced."""

        def save(connection: sqlite3.Connection) -> Record:
            commands.save_command(connection, record, self._keep)
            return commands.find_command(connection, record.key) or record

        return await self._transact(save)

    async def begin_command(self, command: CommandId, *, at: float) -> Record:
        """Note that a command is about to be carried out, and how often it was; return what is remembered now."""
        return await self._transact(lambda connection: commands.begin_command(connection, command, at, self._keep))

    async def forget_command(self, key: bytes) -> None:
        """Forget a command that was begun and came to nothing; one with an answer stays."""
        await self._transact(lambda connection: commands.forget_command(connection, key))

    async def load_versions(self) -> Sequence[Version]:
        """Return all versions, oldest first."""
        return await self._transact(rows.load_versions)

    async def load_aliases(self) -> Mapping[tuple[ModelName, Alias], int]:
        """Return where every alias points now."""
        return await self._transact(rows.load_aliases)

    async def add_version(self, version: Version, *, moves: Sequence[AliasMove]) -> None:
        """Store a version and its alias moves, all or nothing.

        Raises: Conflict on an existing number; UnknownModel when a move names a version that is not stored.
        """
        await self._transact(lambda connection: rows.add_version(connection, version, moves))

    async def move_alias(self, move: AliasMove) -> None:
        """Record a move and the alias's new place. Raises: UnknownModel when the version is not stored."""
        await self._transact(lambda connection: rows.move_alias(connection, move))

    async def alias_history(self, model: ModelName) -> Sequence[AliasMove]:
        """Return all moves of the model's aliases, oldest first."""
        return await self._transact(lambda connection: rows.alias_history(connection, model))

    async def load_retirements(self) -> Sequence[Retirement]:
        """Return which versions are retired, oldest first."""
        return await self._transact(registry_rows.load_retirements)

    async def retire(self, retirement: Retirement) -> None:
        """Record that a version is out of use."""
        await self._transact(lambda connection: registry_rows.retire(connection, retirement))

    async def bring_back(self, model: ModelName, number: int) -> None:
        """Record that a version is in use again."""
        await self._transact(lambda connection: registry_rows.bring_back(connection, model, number))

    async def load_holdings(self) -> Mapping[DeviceId, frozenset[Digest]]:
        """Return what each device held when it last said so."""
        return await self._transact(registry_rows.load_holdings)

    async def save_holdings(self, device: DeviceId, digests: frozenset[Digest]) -> None:
        """Replace what the device holds."""
        await self._transact(lambda connection: registry_rows.save_holdings(connection, device, digests))

    async def find_build(self, key: Digest) -> Build | None:
        """Return what a compiler plugin made of the same things before."""
        return await self._transact(lambda connection: registry_rows.find_build(connection, key))

    async def save_build(self, build: Build, *, built_at: float) -> None:
        """Insert or replace. The newest `KEPT_BUILDS` are kept."""
        await self._transact(lambda connection: registry_rows.save_build(connection, build, built_at))

    async def load_devices(self) -> Sequence[KnownDevice]:
        """Return every device ever seen, the first seen first."""
        return await self._transact(rows.load_devices)

    async def save_device(self, device: KnownDevice) -> None:
        """Insert or replace."""
        await self._transact(lambda connection: rows.save_device(connection, device))

    async def depart(self, departure: Departure) -> None:
        """Take a device out, with all that was wanted there; none is no error."""
        await self._transact(lambda connection: rows.depart(connection, departure))

    async def load_live(self) -> Sequence[Push]:
        """Return pushes that had not ended, oldest first; none is `present`, and their deadlines (0.0) must be set anew."""
        return await self._transact(rows.live_pushes)

    async def save_push(self, push: Push) -> None:
        """Insert or replace. Of the ended ones the newest `KEPT_ENDED_PUSHES` are kept."""
        await self._transact(lambda connection: rows.save_push(connection, push))

    async def save_pushes(
        self, pushes: Sequence[Push], *, unwanted: Desire | None = None, departure: Departure | None = None
    ) -> None:
        """Insert or replace several, drop a desire, take a device out, in one transaction: one sync of the disk for all."""

        def save(connection: sqlite3.Connection) -> None:
            rows.save_pushes(connection, pushes)
            if unwanted is not None:
                rows.drop_desire(connection, unwanted.device, unwanted.model)
            if departure is not None:
                rows.depart(connection, departure)

        await self._transact(save)

    async def next_push_id(self) -> PushId:
        """Return an id never returned before and below 2**31. Raises: NodeError when none is left."""
        return await self._transact(rows.next_push_id)

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Push]:
        """Return at most `limit` pushes (of one device), newest first; as `load_live` for presence and deadline."""
        return await self._transact(lambda connection: rows.recent_pushes(connection, limit, device))

    async def load_last_failed(self) -> Sequence[Push]:
        """Return the newest push of each device where that ended otherwise than accepted."""
        return await self._transact(rows.last_failed_pushes)

    async def load_desires(self) -> Sequence[Desire]:
        """Return what is wanted on devices, the oldest wish first."""
        return await self._transact(rows.load_desires)

    async def save_desire(self, desire: Desire) -> None:
        """Insert or replace."""
        await self._transact(lambda connection: rows.save_desire(connection, desire))

    async def drop_desire(self, device: DeviceId, model: ModelName) -> None:
        """Want nothing of that model there any more."""
        await self._transact(lambda connection: rows.drop_desire(connection, device, model))

    async def add_drop(self, drop: Drop, *, unwanted: Desire | None = None) -> Drop:
        """Store a drop before it is asked for, and want the model no more, in one transaction; return it with its number."""

        def add(connection: sqlite3.Connection) -> Drop:
            if unwanted is not None:
                rows.drop_desire(connection, unwanted.device, unwanted.model)
            return drop_rows.add_drop(connection, drop)

        return await self._transact(add)

    async def save_drop(self, drop: Drop) -> None:
        """Write how a drop ended."""
        await self._transact(lambda connection: drop_rows.save_drop(connection, drop))

    async def load_open_drops(self) -> Sequence[Drop]:
        """Return the drops of which nobody knows how they ended."""
        return await self._transact(drop_rows.open_drops)

    async def recent_drops(self, limit: int, device: DeviceId | None = None) -> Sequence[Drop]:
        """Return at most `limit` drops (of one device), newest first."""
        return await self._transact(lambda connection: drop_rows.recent_drops(connection, limit, device))

    async def load_orders(self) -> Sequence[StandingOrder]:
        """Return the standing orders, the oldest first."""
        return await self._transact(standing_rows.load_orders)

    async def save_order(self, order: StandingOrder) -> None:
        """Insert or replace."""
        await self._transact(lambda connection: standing_rows.save_order(connection, order))

    async def drop_order(self, order_id: str) -> None:
        """Remove a standing order; none is no error."""
        await self._transact(lambda connection: standing_rows.drop_order(connection, order_id))

    async def load_terms(self) -> Sequence[Terms]:
        """Return the terms of devices that are not the usual ones."""
        return await self._transact(rows.load_terms)

    async def save_terms(self, terms: Terms) -> None:
        """Insert or replace."""
        await self._transact(lambda connection: rows.save_terms(connection, terms))

    async def load_registrations(self) -> Sequence[StoredRegistration]:
        """Return the LwM2M registrations that had not ended."""
        return await self._transact(lwm2m_rows.load_registrations)

    async def save_registrations(self, saved: Sequence[StoredRegistration], ended: Sequence[DeviceId]) -> None:
        """Insert or replace some and drop those of others, in one transaction."""
        await self._transact(lambda connection: lwm2m_rows.save_registrations(connection, saved, ended))

    async def load_packages(self) -> Sequence[StoredPackage]:
        """Return what was installed on devices that do not tell."""
        return await self._transact(lwm2m_rows.load_packages)

    async def save_package(self, package: StoredPackage) -> None:
        """Insert or replace."""
        await self._transact(lambda connection: lwm2m_rows.save_package(connection, package))

    async def load_oscore_numbers(self) -> Mapping[str, StoredNumbers]:
        """Return how far each OSCORE context's numbers may have been used."""
        return await self._transact(oscore_rows.load_oscore_numbers)

    async def save_oscore_numbers(self, saved: Mapping[str, StoredNumbers]) -> None:
        """Insert or replace some, in one transaction. Raises: NotStored."""
        await self._transact(lambda connection: oscore_rows.save_oscore_numbers(connection, saved))

    async def drop_oscore_numbers(self, contexts: Sequence[str]) -> None:
        """Remove those of contexts that are gone. Raises: NotStored."""
        await self._transact(lambda connection: oscore_rows.drop_oscore_numbers(connection, list(contexts)))

    async def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, partial(_run, self._path, self._connection, self._whole(work))
        )

    def _whole(self, work: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
        """Return `work` with the command's record, if there is one."""
        record = self._noted
        if record is None:
            return work

        def both(connection: sqlite3.Connection) -> T:
            result = work(connection)
            commands.save_command(connection, record, self._keep)
            return result

        return both


@asynccontextmanager
async def open_store(
    path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S, keep: Keep | None = None
) -> AsyncIterator[Store]:
    """Open (or create) the database at `path`; its directory must exist. `keep`: how long commands are remembered.

    Raises: NodeError when it is damaged, in use or from a newer version, saying what to do.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
    loop = asyncio.get_running_loop()
    try:
        connection = await loop.run_in_executor(executor, connect, path, busy_timeout_s)
        try:
            yield Store(path, connection, executor, keep=keep)
        finally:
            await loop.run_in_executor(executor, connection.close)
    finally:
        executor.shutdown(wait=False)


def _run(path: Path, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    try:
        with _transaction(connection):
            return work(connection)
    except sqlite3.Error as error:
        raise broken(path, error) from error
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise NodeError(f"database {path} holds a row that cannot be read or written ({error!r})") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
