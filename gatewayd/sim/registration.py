"""How a simulated device stays registered: register, update within the lifetime, register again when the server forgot it.

Source: OMA LwM2M Core 1.1.1, section 6.2; retries as stock clients do, with growing pauses.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiocoap import Context, Message, error  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.constants import TransportTuning  # type: ignore[import-untyped]  # as above

from gatewayd.sim.log import Log

_LINKS = 40
_UPDATE_SHARE = 0.8
"""Of the lifetime: an update may be lost, and its retransmissions take up to 93 s. With short lifetimes only the first counts."""
_RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses after failed registrations; the last one for ever. Stock clients wait 60 to 120 s, which nobody wants of a simulator."""


class _Impatient(TransportTuning):  # type: ignore[misc]  # aiocoap ships no types
    """Gives up after some 10 s, not 93: a gateway that is started after the boards is to be found soon."""

    ACK_TIMEOUT = 1.0
    MAX_RETRANSMIT = 2


async def asked(context: Context, message: Message, *, whole: bool = True) -> Message:
    """Return the answer to a request; `whole`: put together from its blocks.

    A request whose waiter is cancelled stays aiocoap's until its context ends: it does not expect the other order.
    Raises: aiocoap's errors.
    """
    response: asyncio.Future[Message] = context.request(message, handle_blockwise=whole).response
    response.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return await asyncio.shield(response)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the device registers with. `version` is "1.0", "1.1" or "1.2"; `is_sleepy`: it asks for queue mode."""

    endpoint: str
    lifetime_s: int
    version: str = "1.1"
    is_sleepy: bool = False
    binding: str | None = "U"

    def query(self) -> list[str]:
        """Return the Uri-Query options of a registration; 1.0 and 1.1 say queue mode differently."""
        queue = ["Q"] if self.is_sleepy and self.version != "1.0" else []
        binding = "UQ" if self.is_sleepy and self.version == "1.0" else self.binding
        bindings = [f"b={binding}"] if binding is not None else []
        return [f"ep={self.endpoint}", f"lt={self.lifetime_s}", f"lwm2m={self.version}", *bindings, *queue]


class Registration:
    """Keeps one device registered at `uri` (`coap://host:port`). `lifetime_s` may be changed by the server (/1/0/1)."""

    def __init__(
        self, context: Context, uri: str, terms: Terms, *, links: Callable[[], str], log: Log, every_s: float | None
    ) -> None:
        self.lifetime_s = terms.lifetime_s
        self._context = context
        self._uri = uri
        self._terms = terms
        self._links = links
        self._log = log
        self._every_s = every_s
        self._trigger = asyncio.Event()
        self._location: tuple[str, ...] | None = None

    @property
    def is_registered(self) -> bool:
        """Whether the server took the registration and has not refused an update since."""
        return self._location is not None

    def trigger(self) -> None:
        """Send an update now (/1/0/8), or at once the next try of a registration."""
        self._trigger.set()

    def change_lifetime(self, lifetime_s: int) -> None:
        """Take a new lifetime and tell it (/1/0/1)."""
        self.lifetime_s = lifetime_s
        self.trigger()

    async def run(self) -> None:
        """Stay registered for ever."""
        tries = 0
        while True:
            if not await self._register():
                await self._pause(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
                tries += 1
                continue
            tries = 0
            while self._location is not None:
                await self._pause(self._every_s or max(1.0, self.lifetime_s * _UPDATE_SHARE))
                await self._update()

    async def leave(self, timeout_s: float = 2.0) -> None:
        """Deregister; whoever does not answer in time has gone first."""
        if self._location is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._ask(Code.DELETE, path=self._location)
        except (TimeoutError, error.Error, OSError):
            self._log("left-unheard")
        self._location = None

    async def _register(self) -> bool:
        answer = await self._tried("register", Code.POST, ("rd",), self._terms.query(), self._links().encode())
        if answer is None or answer.code != Code.CREATED:
            return False
        self._location = tuple(answer.opt.location_path)
        self._log("registered", at="/".join(self._location))
        return True

    async def _update(self) -> None:
        location = self._location or ()
        query = [f"lt={self.lifetime_s}"] if self.lifetime_s != self._terms.lifetime_s else []
        answer = await self._tried("update", Code.POST, location, query, b"")
        if answer is None or not answer.code.is_successful():
            self._location = None
        else:
            self._log("updated")

    async def _tried(
        self, what: str, code: int, path: tuple[str, ...], query: list[str], content: bytes
    ) -> Message | None:
        try:
            answer = await self._ask(code, path=path, query=query, content=content)
        except (error.Error, OSError) as failure:
            self._log(f"{what}-failed", reason=type(failure).__name__)
            return None
        if not answer.code.is_successful():
            self._log(f"{what}-refused", code=answer.code, reason=answer.payload[:100].decode(errors="replace"))
        return answer

    async def _ask(
        self,
        code: int,
        *,
        path: tuple[str, ...],
        query: list[str] | None = None,
        content: bytes = b"",
    ) -> Message:
        links = _LINKS if content else None
        message = Message(
            code=code, uri=self._uri, payload=content, content_format=links, transport_tuning=_Impatient()
        )
        message.opt.uri_path, message.opt.uri_query = path, tuple(query or ())
        return await asked(self._context, message)

    async def _pause(self, pause_s: float) -> None:
        self._trigger.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._trigger.wait()
        except TimeoutError:
            return
