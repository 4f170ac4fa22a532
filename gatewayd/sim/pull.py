"""How a simulated device pulls a package: Block2, block by block, from the byte that its journal names.

An own loop, because a managed transfer of aiocoap begins at block 0 only. Source: RFC 7959, sections 2.4 and 2.9.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from aiocoap import Context, Message, error  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # as above

from gatewayd.sim.log import Log
from gatewayd.sim.objects import Refusal
from gatewayd.sim.registration import asked

_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""After each lost block, on top of the 93 s that CoAP itself tries: then the server is gone, and writes the URI again."""


def path_of_uri(uri: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the Uri-Path and Uri-Query options of a CoAP URI, None when it is none."""
    parts = urlsplit(uri)
    if parts.scheme not in {"coap", "coaps"} or not parts.netloc:
        return None
    query = tuple(parts.query.split("&")) if parts.query else ()
    return tuple(parts.path.removeprefix("/").split("/")), query


class Pulling(Protocol):
    """What takes a package that is pulled."""

    def is_wanting(self, instance: int) -> bool:
        """Return whether bytes of it are wanted."""

    def held_bytes(self, instance: int) -> int:
        """Return how much of it is here."""

    async def feed(self, instance: int, start: int, content: bytes) -> None:
        """Take a block of it. Raises: Refusal."""


async def pull(
    context: Context, gateway: str, uri: str, *, slots: Pulling, instance: int, exponent: int, log: Log
) -> bool:
    """Pull until nothing more is wanted, or all is here; return whether all is.

    The board reaches its gateway only, so only the URI's path and query count.

    `gateway` is `coap://host:port`; blocks are asked for with 2**(exponent + 4) bytes.
    """
    found = path_of_uri(uri)
    if found is None:
        log("pull-failed", reason="no CoAP URI")
        return False
    etag: bytes | None = None
    failures = 0
    while slots.is_wanting(instance) and failures < len(_PAUSES_S):
        number = slots.held_bytes(instance) >> (exponent + 4)
        try:
            answer = await _block(context, gateway, found, number=number, exponent=exponent)
        except (error.Error, OSError) as failure:
            log("pull-paused", reason=type(failure).__name__)
            await asyncio.sleep(_PAUSES_S[failures])
            failures += 1
            continue
        failures = 0
        if answer.code != Code.CONTENT or (etag is not None and answer.opt.etag != etag):
            log("pull-failed", code=answer.code, reason="another package" if answer.code == Code.CONTENT else "refused")
            return False
        etag = answer.opt.etag
        block = answer.opt.block2
        exponent = min(exponent, block.size_exponent) if block is not None else exponent
        if not await _fed(slots, instance, block.start if block is not None else 0, answer.payload, log):
            return False
        if block is None or not block.more:
            return True
    return False


async def _fed(slots: Pulling, instance: int, start: int, content: bytes, log: Log) -> bool:
    try:
        await slots.feed(instance, start, content)
    except Refusal as refusal:
        log("pull-failed", reason=str(refusal))
        return False
    return bool(content)


async def _block(
    context: Context, gateway: str, found: Sequence[tuple[str, ...]], *, number: int, exponent: int
) -> Message:
    message = Message(code=Code.GET, uri=gateway)
    message.opt.uri_path, message.opt.uri_query = found
    message.opt.block2 = (number, False, exponent)
    return await asked(context, message, whole=False)
