import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest

from gatewayd.core.errors import Overloaded
from gatewayd.core.names import ModelName, ModelRef, PushId
from gatewayd.core.update import Push
from gatewayd.wire.mqtt import Message
from tests.broker import Broker
from tests.fakes_api import FakePushes, World
from tests.mqtt_house import BASE, NOW, House, house

ALIAS = {"model": "kws", "alias": "canary", "version": 1}


def moves(home: House) -> list[str]:
    return [move.why for move in home.world.catalog.moves if move.alias == "canary"]


async def call(home: House, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
    home.ask(f"cmd/{verb}", arguments, reply=None)
    _, answer = await home.default_answer()
    return answer


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_repeated_command_is_obeyed_once_and_answered_each_time(
    broker: Broker, tmp_path: Path, version: str
) -> None:
    command = {**ALIAS, "why": "one", "id": "c-1", "reply_to": "clients/1"}
    async with house(broker, tmp_path, version=version) as home:
        for _ in range(3):
            home.client.publish(Message(f"{BASE}/cmd/models.alias", json.dumps(command).encode(), qos=1))
        answers = [(await home.replies.next()).payload for _ in range(3)]
        assert len(set(answers)) == 1
        assert json.loads(answers[0])["id"] == "c-1"
        assert moves(home) == ["one"]


async def test_correlation_data_names_a_command_too(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        for _ in range(2):
            home.ask("cmd/models.alias", {**ALIAS, "why": "one"})
            assert (await home.answer())["why"] == "one"
        home.ask("cmd/models.alias", {**ALIAS, "why": "one"}, reply="clients/2")
        await home.answer()
        assert moves(home) == ["one", "one"]  # another sender's answer goes elsewhere: another command


async def test_the_same_id_for_another_command_is_a_conflict(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        await call(home, "models.alias", {**ALIAS, "why": "one", "id": "c"})
        error = (await call(home, "models.alias", {**ALIAS, "why": "two", "id": "c"}))["error"]
        assert (error["code"], "another command" in error["message"]) == ("conflict", True)
        assert moves(home) == ["one"]


async def test_a_command_without_a_name_is_obeyed_each_time(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        for _ in range(2):
            payload = json.dumps({**ALIAS, "why": "one"}).encode()
            home.client.publish(Message(f"{BASE}/cmd/models.alias", payload, qos=1))
            await home.default_answer()
        assert moves(home) == ["one", "one"]


async def test_a_question_is_answered_anew(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        assert "canary" not in (await call(home, "models.list", {"id": "q"}))["models"][0]["aliases"]
        await call(home, "models.alias", {**ALIAS, "id": "c"})
        assert (await call(home, "models.list", {"id": "q"}))["models"][0]["aliases"]["canary"] == 1


async def test_on_3_1_1_a_retained_command_runs_once_by_its_id(broker: Broker, tmp_path: Path) -> None:
    command = Message(
        f"{BASE}/cmd/models.alias", json.dumps({**ALIAS, "why": "kept", "id": "r"}).encode(), qos=1, retain=True
    )
    async with house(broker, tmp_path, version="3.1.1") as home:
        home.client.publish(command)  # live: 3.1.1 does not tell
        await home.default_answer()
        assert moves(home) == ["kept"]
    async with house(broker, tmp_path, version="3.1.1") as home:
        await call(home, "status", {})
        assert moves(home) == []
        assert [code for _, code, _ in home.refusals] == ["retained"]


@pytest.mark.parametrize(
    ("now", "expires_at", "code"),
    [
        (NOW, NOW + 5, None),
        (NOW, NOW - 5, "deadline_exceeded"),
        (86_400.0, NOW + 5, "node_error"),
        (NOW, "x", "bad_request"),
    ],
)
async def test_a_command_may_expire_by_the_wall_clock_if_that_was_set(
    broker: Broker, tmp_path: Path, now: float, expires_at: object, code: str | None
) -> None:
    async with house(broker, tmp_path, now=now) as home:
        answer = await call(home, "models.alias", {**ALIAS, "why": "one", "id": "c", "expires_at": expires_at})
        assert answer.get("error", {}).get("code") == code
        assert moves(home) == ([] if code else ["one"])


async def test_a_command_comes_in_cbor_too_with_its_files_as_bytes(broker: Broker, tmp_path: Path) -> None:
    command = {"model": "kws", "files": [b"one file"], "id": "c-1"}
    async with house(broker, tmp_path) as home:
        home.ask("cmd/models.add", cbor2.dumps(command), content_type="application/cbor")
        answer = await home.answer()
        assert (answer["id"], home.world.catalog.files) == ("c-1", [b"one file"])
        home.ask("cmd/models.add", b"\xa1\x01", content_type="application/cbor")
        assert (await home.answer())["error"]["code"] == "bad_request"


class Slow(FakePushes):
    """Holds each cancel until told."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.begins: asyncio.Queue[str] = asyncio.Queue()

    async def cancel(self, push: PushId, *, why: str, note_of: object = None) -> Push:
        assert push
        assert note_of
        self.begins.put_nowait(why)
        await self.gate.wait()
        raise Overloaded("later")


async def test_commands_about_one_thing_run_in_order_and_others_beside_them(broker: Broker, tmp_path: Path) -> None:
    pushes = Slow()
    async with house(broker, tmp_path, world=World(pushes=pushes)) as home:
        for number, why in ((7, "a1"), (7, "a2"), (8, "b1")):
            home.ask("cmd/pushes.cancel", {"push": number, "why": why, "id": why}, reply=None)
        assert [await pushes.begins.get(), await pushes.begins.get()] == ["a1 (mqtt)", "b1 (mqtt)"]
        await call(home, "models.alias", {**ALIAS, "id": "c"})
        pushes.gate.set()
        assert await pushes.begins.get() == "a2 (mqtt)"
        assert {(await home.default_answer())[1]["id"] for _ in range(3)} == {"a1", "a2", "b1"}


async def test_an_alias_that_went_back_and_forth_is_where_the_last_command_put_it(
    broker: Broker, tmp_path: Path
) -> None:
    async with house(broker, tmp_path) as home:
        await call(home, "models.add", {"model": "kws", "files": ["AAAA"], "id": "add"})
        for number in range(40):
            home.ask("cmd/models.alias", {**ALIAS, "version": 1 + number % 2, "id": f"{number}"}, reply=None)
        answers = [(await home.default_answer())[1]["id"] for _ in range(40)]
        assert answers == [f"{number}" for number in range(40)]
        assert home.world.catalog.resolve(ModelRef(ModelName("kws"), version=2)).number == 2
        assert [move.version for move in home.world.catalog.moves][-40:] == [1, 2] * 20


async def test_while_draining_a_command_is_left_to_the_next_start(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        await home.commands.drain()
        home.ask("cmd/models.alias", {**ALIAS, "why": "later", "id": "c"}, reply=None)
        home.client.publish(Message(f"{BASE}/cmd/status", b"{}"))
        assert "stopping" in (await home.default_answer())[1]["error"]["message"]
        assert moves(home) == []
    async with house(broker, tmp_path) as home:
        assert (await home.default_answer())[1]["id"] == "c"
        assert moves(home) == ["later"]


async def test_a_message_that_expired_in_the_queue_is_refused(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path, monotonic_step_s=10.0) as home:
        payload = json.dumps({**ALIAS, "id": "c"}).encode()
        home.client.publish(replace(Message(f"{BASE}/cmd/models.alias", payload, qos=1), expiry_s=5))
        assert (await home.default_answer())[1]["error"]["code"] == "deadline_exceeded"
        assert moves(home) == []


async def test_an_order_s_own_id_does_not_name_the_command(broker: Broker, tmp_path: Path) -> None:
    order = {
        "id": "watch",
        "model": "kws",
        "device": "cam-7",
        "input": "mic",
        "period_ms": 500,
        "reply_to": "clients/1",
    }
    stop = {"id": "watch", "reply_to": "clients/1"}
    async with house(broker, tmp_path) as home:
        for verb, arguments in 2 * (("stream.start", order), ("stream.stop", stop)):
            payload = json.dumps(arguments).encode()
            home.client.publish(Message(f"{BASE}/cmd/{verb}", payload, qos=1))
            assert json.loads((await home.replies.next()).payload)["id"] == "watch"


async def test_what_the_broker_delivers_anew_joins_the_one_at_work(broker: Broker, tmp_path: Path) -> None:
    pushes = Slow()
    async with house(broker, tmp_path, world=World(pushes=pushes)) as home:
        home.ask("cmd/pushes.cancel", {"push": 7, "why": "a", "id": "a"}, reply=None)
        assert await pushes.begins.get() == "a (mqtt)"
        broker.restart()
        for again in (True, False):
            home.deliver("cmd/pushes.cancel", {"push": 7, "why": "a", "id": "a"}, is_redelivered=again)
        pushes.gate.set()
        # The one that was delivered anew has joined; the one that was sent anew is carried out, for nothing was remembered.
        assert await pushes.begins.get() == "a (mqtt)"
        assert [(await home.default_answer())[1]["id"] for _ in range(2)] == ["a", "a"]
        assert home.acknowledged == 2
