import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.mqtt_outbox import Outbox
from gatewayd.adapters.mqtt_session import HandlerFailed
from gatewayd.core.errors import Overloaded, TooLarge
from gatewayd.wire.mqtt import Message
from tests.broker import Broker, free_port
from tests.mqtt_client import PATIENCE_S, QUICK, Client, options, running

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


def client(broker: Broker, name: str = "node", version: str = "5") -> Client:
    return Client(options(broker.port, name=name, version=version))


@VERSIONS
async def test_a_request_is_answered_with_all_its_properties(broker: Broker, version: str) -> None:
    asker, answerer = client(broker, "a", version), client(broker, "b", version)
    asked, answered = answerer.inbox("ask/+"), asker.inbox("answer")
    async with running(asker, answerer):
        assert asker.protocol == version
        asker.publish(
            Message(
                "ask/x",
                b"\x00\xff",
                qos=1,
                content_type="a/b",
                response_topic="answer",
                correlation=b"\x01",
                expiry_s=60,
            )
        )
        request = await asked.next()
        answerer.publish(Message("answer", b"yes"))
        assert (await answered.next()).payload == b"yes"
    assert (request.topic, request.payload, request.qos, request.retain) == ("ask/x", b"\x00\xff", 1, False)
    properties = (request.content_type, request.response_topic, request.correlation, request.expiry_s)
    assert properties == (("a/b", "answer", b"\x01", 60) if version == "5" else (None, None, None, None))


async def test_small_qos_1_messages_do_not_wait_for_nagle(broker: Broker) -> None:
    one = client(broker)
    box = one.inbox("echo")
    async with running(one):
        began_s = asyncio.get_running_loop().time()
        for _ in range(40):
            one.publish(Message("echo", b"x", qos=1))
            await box.next()
        assert asyncio.get_running_loop().time() - began_s < 1.0  # 40 * 44 ms without TCP_NODELAY


async def test_a_thousand_messages_keep_their_order(broker: Broker) -> None:
    one = client(broker)
    box = one.inbox("flood")
    async with running(one):
        for number in range(1000):
            one.publish(Message("flood", b"%d" % number, qos=1))
        assert await box.payloads(1000) == [b"%d" % number for number in range(1000)]


async def test_a_broker_that_is_away_at_the_start_is_waited_for(broker: Broker) -> None:
    broker.stop()
    one = client(broker)
    box = one.inbox("t")
    assert (one.connected, one.protocol) == (False, None)
    one.publish(Message("t", b"early", qos=1))
    one.publish(Message("t", b"lost", qos=0))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.run())
        broker.start()
        await one.stands()
        assert one.connected
        one.publish(Message("t", b"late", qos=1))
        assert await box.payloads(2) == [b"early", b"late"]
        task.cancel()


@VERSIONS
async def test_after_a_broker_restart_subscriptions_and_queued_messages_are_back(broker: Broker, version: str) -> None:
    one = client(broker, version=version)
    box = one.inbox("t")
    async with running(one):
        broker.stop(signal.SIGKILL)
        for number in range(50):
            one.publish(Message("t", b"%d" % number, qos=1))
        broker.start()
        await one.stands()
        assert await box.payloads(50) == [b"%d" % number for number in range(50)]
        status = one.inbox("node/status")
        assert (await status.next()).payload == b"online"


async def test_the_queue_for_an_absent_broker_is_bounded(broker: Broker) -> None:
    broker.stop()
    one = Client(options(broker.port), outbox=Outbox(max_messages=3))
    for _ in range(3):
        one.publish(Message("t", b"x", qos=1))
    with pytest.raises(Overloaded, match="3 messages"):
        one.publish(Message("t", b"x", qos=1))


async def test_leaving_says_offline_and_delivers_what_was_queued(broker: Broker) -> None:
    watcher, one = client(broker, "watcher"), client(broker, "node")
    status, other = watcher.inbox("node/status"), watcher.inbox("t")
    async with running(watcher):
        async with running(one):
            assert (await status.next()).payload == b"online"
            one.publish(Message("t", b"last words", qos=1))
        assert (await other.next()).payload == b"last words"
        assert (await status.next()).payload == b"offline"
        assert not one.connected
        # Had the will been published as well, it would come before this.
        watcher.publish(Message("node/status", b"mark", qos=1))
        assert (await status.next()).payload == b"mark"


async def test_the_will_is_published_when_the_process_is_killed(broker: Broker) -> None:
    watcher = client(broker, "watcher")
    status = watcher.inbox("child/status")
    program = (
        "import asyncio\n"
        "from tests.mqtt_client import Client, options\n"
        f"async def main():\n    await Client(options({broker.port}, name='child')).run()\n"
        "asyncio.run(main())\n"
    )
    async with running(watcher):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=Path(__file__).parents[2])
        try:
            assert (await status.next()).payload == b"online"
        finally:
            child.send_signal(signal.SIGKILL)
            await child.wait()
        assert (await status.next()).payload == b"offline"


@VERSIONS
async def test_what_lies_at_the_broker_is_only_taken_where_it_is_wanted(broker: Broker, version: str) -> None:
    one = client(broker, version=version)
    async with running(one):
        one.publish(Message("t", b"old", qos=1, retain=True))
        wanted = one.inbox("t")
        assert (await wanted.next()).retain
        unwanted = one.inbox("+", retained=False)
        one.publish(Message("u", b"live", qos=1))
        first = await unwanted.next()
    # MQTT 3.1.1 cannot refuse it, but marks it.
    assert (first.payload, first.retain) == ((b"live", False) if version == "5" else (b"old", True))


async def test_on_5_the_sender_s_retain_flag_stays_on_a_live_message(broker: Broker) -> None:
    one = client(broker)
    box = one.inbox("t", retained=False)
    async with running(one):
        one.publish(Message("t", b"live", qos=1, retain=True))
        assert (await box.next()).retain


@VERSIONS
async def test_a_message_over_the_limit_is_refused_and_the_next_one_taken(broker: Broker, version: str) -> None:
    one = Client(options(broker.port, version=version, max_payload_bytes=1000))
    sender = client(broker, "sender", version)
    box = one.inbox("t")
    async with running(one, sender):
        sender.publish(Message("t", bytes(1001), qos=1))
        sender.publish(Message("t", bytes(1000), qos=1))
        assert len((await box.next()).payload) == 1000
        with pytest.raises(TooLarge, match="1001 bytes"):
            one.publish(Message("t", bytes(1001)))
    assert [(where, code) for where, code, _ in one.refusals] == [("mqtt", "too_large")]


async def test_on_3_1_1_a_huge_packet_ends_the_connection_before_it_is_read(broker: Broker) -> None:
    one = Client(options(broker.port, version="3.1.1", max_payload_bytes=1000))
    sender = Client(options(broker.port, name="sender", max_payload_bytes=2**24))
    box = one.inbox("t")
    async with running(one, sender):
        sender.publish(Message("t", bytes(10_000_000), qos=1))
        await one.stands()
        sender.publish(Message("t", b"next", qos=1))
        assert (await box.next()).payload == b"next"
    assert [code for _, code, _ in one.refusals] == ["too_large"]


async def test_ten_megabytes_pass_where_they_are_allowed(broker: Broker) -> None:
    one = Client(options(broker.port, max_payload_bytes=2**24))
    box = one.inbox("t")
    async with running(one):
        one.publish(Message("t", bytes(10_000_000), qos=1))
        assert len((await box.next()).payload) == 10_000_000


async def test_a_handler_that_raises_ends_the_run_with_its_cause(broker: Broker) -> None:
    one = client(broker)

    def fail(_message: Message) -> None:
        raise LookupError("a defect")

    one.subscribe("t", fail)
    one.on_connected(lambda: one.publish(Message("t", b"x")))
    with pytest.raises(HandlerFailed) as caught:
        await asyncio.wait_for(one.run(), PATIENCE_S)
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.usefixtures("mosquitto_clients")
async def test_mosquitto_rr_gets_its_answer(broker: Broker) -> None:
    one = client(broker)

    def answer(request: Message) -> None:
        assert request.response_topic is not None
        one.publish(Message(request.response_topic, request.payload.upper(), correlation=request.correlation))

    one.subscribe("ask", answer)
    async with running(one):
        command = ["mosquitto_rr", "-V", "5", "-p", str(broker.port), "-t", "ask", "-e", "answer/1", "-m", "hello"]
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(child.communicate(), PATIENCE_S)
    assert output == b"HELLO\n"


@asynccontextmanager
async def fake_broker(*, answer_to_5: bytes | None, answer_to_4: bytes | None) -> AsyncIterator[int]:
    """Answer a CONNECT of each protocol level with these bytes; None: say nothing at all. Empty: close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packet = await reader.read(4096)
        level = packet[packet.index(b"MQTT") + 4]
        answer = {5: answer_to_5, 4: answer_to_4}[level]
        if answer is not None:
            writer.write(answer)
            await writer.drain()
        if answer is None or (level == 4 and answer):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("refusal", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00", b""], ids=["1", "0x84", "closed"])
async def test_auto_falls_back_to_3_1_1(refusal: bytes) -> None:
    async with fake_broker(answer_to_5=refusal, answer_to_4=b"\x20\x02\x00\x00") as port:
        one = Client(options(port, version="auto"), timing=replace(QUICK, close_s=0.05))
        async with running(one):
            assert one.protocol == "3.1.1"


async def test_auto_takes_5_where_it_is_spoken(broker: Broker) -> None:
    one = client(broker, version="auto")
    async with running(one):
        assert one.protocol == "5"


async def test_a_broker_that_says_nothing_is_given_up_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gatewayd")
    async with fake_broker(answer_to_5=None, answer_to_4=None) as port:
        one = Client(options(port), timing=replace(QUICK, connect_s=0.05))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.run(), 0.5)
    tries = [record for record in caplog.records if "not connected" in record.message]
    assert len(tries) > 1
    assert [record.levelno for record in tries].count(logging.WARNING) == 1


async def test_a_refused_user_is_told_why_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(tmp_path, lines=["allow_anonymous false"])
    broker.start()
    one = Client(options(broker.port, version="auto"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.run(), 0.5)
    broker.stop()
    assert any("Not authorized" in str(vars(record).get("fields")) for record in caplog.records)
    assert caplog.text.count("not connected") == 1


async def test_cancelling_while_nobody_listens_is_quick() -> None:
    one = Client(options(free_port()))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.run(), 0.1)
    assert not one.connected
