"""Acknowledging late: what was not acknowledged comes again, and who sends too much is held up."""

import asyncio
from collections.abc import Callable

import pytest

from gatewayd.adapters.mqtt_paho import LATE_WINDOW
from gatewayd.wire.mqtt import Message
from tests.broker import Broker
from tests.mqtt_client import PATIENCE_S, Client, late_options, options, running

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


@VERSIONS
async def test_what_was_not_acknowledged_comes_again_on_the_next_connection(broker: Broker, version: str) -> None:
    sender = Client(options(broker.port, name="sender"))
    got: asyncio.Queue[tuple[Message, Callable[[], None]]] = asyncio.Queue()
    first = Client(late_options(broker.port, version=version))
    first.subscribe_late("t", lambda message, done: got.put_nowait((message, done)))
    async with running(sender):
        async with running(first):
            for text in (b"one", b"two", b"three"):
                sender.publish(Message("t", text, qos=1))
            taken = [await got.get() for _ in range(3)]
            taken[0][1]()
            taken[2][1]()  # later than the second, which is not acknowledged: it has to wait for it
            sender.publish(Message("t", b"mark", qos=1))
            await got.get()
        sender.publish(Message("t", b"meanwhile", qos=1))
        second = Client(late_options(broker.port, version=version))
        second.subscribe_late("t", lambda message, done: got.put_nowait((message, done)))
        async with running(second):
            again = [await got.get() for _ in range(4)]
    assert [each.payload for each, _ in again] == [b"two", b"three", b"mark", b"meanwhile"]
    assert all(each.is_redelivered for each, _ in again[:3])


async def test_who_sends_more_than_is_carried_out_is_held_up(broker: Broker) -> None:
    sender, late = Client(options(broker.port, name="sender")), Client(late_options(broker.port))
    waiting: list[Callable[[], None]] = []
    marks = asyncio.Queue[int]()

    def take(_: Message, acknowledge: Callable[[], None]) -> None:
        waiting.append(acknowledge)
        marks.put_nowait(len(waiting))

    late.subscribe_late("t", take)
    async with running(sender, late):
        for _ in range(3 * LATE_WINDOW):
            sender.publish(Message("t", b"x", qos=1))
        while await marks.get() < LATE_WINDOW:
            pass
        assert len(waiting) == LATE_WINDOW
        for number in range(3 * LATE_WINDOW):
            while len(waiting) <= number:
                await asyncio.wait_for(marks.get(), PATIENCE_S)
            waiting[number]()
