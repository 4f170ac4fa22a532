"""What takes several questions and must not mix with its like on one device: an inference, a sample, a birth.

One consumer and one bounded queue per device, as for single questions; the blocks of a push go between an errand's questions.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gatewayd.core.errors import DeviceTimeout, GatewayError, Overloaded
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.line import Spawn
from gatewayd.links.lwm2m.turns import Turns, Urgency

T = TypeVar("T")

MAX_WAITING = 32
"""Protects memory; one more is refused. The services have at most 16 requests on a device."""

_GRACE_S = 0.1  # what the errand itself says of its time being over is worth more than that it is

Errand = Callable[[], Awaitable[T]]
_Waiting = tuple[Errand[Any], "asyncio.Future[Any]"]


@dataclass(slots=True)
class Errands:
    """Runs the errands of one device in turn, inferences first; see `turns` for what keeps the others from waiting for ever."""

    device: DeviceId
    spawn: Spawn
    _turns: Turns[_Waiting] = field(default_factory=lambda: Turns(MAX_WAITING, lambda waiting: not waiting[1].done()))
    _is_consumed: bool = False

    async def do(self, errand: Errand[T], *, timeout_s: float, urgency: Urgency = Urgency.INFERENCE) -> T:
        """Wait for its turn, run it, return what it returns.

        Raises: Overloaded, DeviceTimeout, and what the errand raises.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._turns.put((errand, done), urgency):
            raise Overloaded(f"device {self.device}: {MAX_WAITING} errands wait for it already")
        if not self._is_consumed:
            self.spawn(self._consume(), f"lwm2m errands {self.device}")
            self._is_consumed = True
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await done
        except TimeoutError:
            raise DeviceTimeout(f"device {self.device}: not done within {timeout_s:g} s") from None
        finally:
            done.cancel()

    async def _consume(self) -> None:
        try:
            while (waiting := self._turns.take()) is not None:
                await _run(*waiting)
        finally:
            self._is_consumed = False


async def _run(errand: Errand[T], done: "asyncio.Future[T]") -> None:
    """Run one. An errand whose caller gave up goes on to its own deadline: its questions have theirs."""
    try:
        result = await errand()
    except GatewayError as error:
        if not done.done():
            done.set_exception(error)
    else:
        if not done.done():
            done.set_result(result)
