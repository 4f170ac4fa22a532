"""Commands are obeyed once: what was carried out is remembered with its answer, across restarts, and not carried out again.

How a command's record comes into the transaction of its effect is told in `core/command.py`; this is who asks for the record,
compares it, and decides what a repetition is answered. One call per command at a time: who calls keeps repetitions apart.
"""

import logging
from collections import OrderedDict

from gatewayd.core.command import CommandId, Effect, Obeyed, Receipt, Record, Work, answered
from gatewayd.core.errors import (
    BadRequest,
    CallerError,
    Conflict,
    Forbidden,
    GatewayError,
    GivenUp,
    OutcomeUnknown,
    RateLimited,
    TooLarge,
    Unauthorized,
)
from gatewayd.services.ports import Clock, CommandStore

logger = logging.getLogger(__name__)

MAX_TRIES = 5
"""A command that was begun so often and never ended has ended the daemon each time: it is refused for good."""
MAX_REMEMBERED = 1024
MAX_REMEMBERED_BYTES = 4 * 2**20
"""Protect memory: records of what a restart forgets anyhow, and of the newest of the others."""

# Refused the same way each time (malformed), or for a reason that passes: nothing to remember.
_FORGOTTEN = (BadRequest, TooLarge, Forbidden, Unauthorized, RateLimited)


class Once:
    """What was carried out, in the store and, for what a restart forgets, in memory. `wall_clock` dates the records."""

    def __init__(self, store: CommandStore, *, wall_clock: Clock) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._memory: OrderedDict[bytes, Record] = OrderedDict()
        self._bytes = 0

    async def obey(self, command: CommandId, effect: Effect, work: Work, *, is_redelivered: bool = False) -> Obeyed:
        """Carry a command out unless it was; return its answer, a refusal that is remembered likewise among them.

        `is_redelivered`: the broker has sent it before, so the daemon may have ended over it.

        Raises: Conflict (the same name, another command); OutcomeUnknown, GivenUp; what `work` raises that is not remembered:
        a malformed command, and what may pass (the node is busy, the disk is full).
        """
        known = self._memory.get(command.key) or await self._store.find_command(command.key)
        if known is not None and known.body != command.body:
            raise Conflict(f"this id was given to another command before ({known.verb}): each command needs its own")
        if known is not None and known.answer is not None:
            self._remember(known)
            return Obeyed(known.answer, is_repeated=True)
        if effect is Effect.OUTSIDE:
            await self._begin_outside(command, known)
        elif is_redelivered and effect is Effect.ROWS:
            await self._begin_again(command)
        return await self._carry_out(command, effect, work)

    async def _begin_outside(self, command: CommandId, known: Record | None) -> None:
        if known is not None:
            raise OutcomeUnknown(
                f"{command.verb} was begun before a restart, and nobody saw its end: look what became of it, "
                "then send it under a new id if it is still wanted"
            )
        await self._store.begin_command(command, at=self._wall_clock())

    async def _begin_again(self, command: CommandId) -> None:
        begun = await self._store.begin_command(command, at=self._wall_clock())
        if begun.tries > MAX_TRIES:
            raise GivenUp(f"{command.verb} was begun {MAX_TRIES} times, and the gateway ended each time before it did")

    async def _carry_out(self, command: CommandId, effect: Effect, work: Work) -> Obeyed:
        receipt = Receipt(command, at=self._wall_clock(), encode=work.encode)
        try:
            answer = await work.run(receipt)
        except GatewayError as error:
            if not isinstance(error, CallerError) or isinstance(error, _FORGOTTEN):
                await self._undo(command, effect)
                raise
            refused = await self._settle(answered(command, work.refusal(error), at=self._wall_clock()), effect)
            return Obeyed(refused.answer or b"", is_refused=True)
        if receipt.record is not None:  # it went with the effect
            self._remember(receipt.record)
            return Obeyed(answer)
        await self._settle(answered(command, answer, at=self._wall_clock()), effect)
        return Obeyed(answer)

    async def _settle(self, record: Record, effect: Effect) -> Record:
        """Remember an answer by itself. What stands already (a refusal after the effect was stored) is returned instead."""
        if effect is not Effect.MEMORY:
            record = await self._store.save_command(record)
        self._remember(record)
        return record

    async def _undo(self, command: CommandId, effect: Effect) -> None:
        """Nothing was done, and the sender may try again under the same name."""
        if effect is Effect.OUTSIDE:
            await self._store.forget_command(command.key)

    def _remember(self, record: Record) -> None:
        self._bytes -= _size(self._memory.pop(record.key, None))
        self._memory[record.key] = record
        self._bytes += _size(record)
        while len(self._memory) > MAX_REMEMBERED or self._bytes > MAX_REMEMBERED_BYTES:
            _, oldest = self._memory.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(record: Record | None) -> int:
    return 0 if record is None else len(record.answer or b"")
