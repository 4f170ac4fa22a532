import asyncio
import json
import struct
from pathlib import Path

import pytest

from gatewayd.core.events import ModelAdded, RequestFailed
from gatewayd.core.names import RequestId, parse_model_ref
from gatewayd.core.request import InferenceRequest, InferenceResult
from gatewayd.edges.mqtt import Limits
from gatewayd.wire.mqtt import Message
from gatewayd.wire.tensors import OCTETS
from tests.api_values import KWS
from tests.broker import Broker
from tests.fakes_api import FakeInference, World
from tests.mqtt_client import PATIENCE_S, Client, options, running
from tests.mqtt_house import BASE, house

TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
BODY = {"id": "q-1", "inputs": [TENSOR]}


class Gated(FakeInference):
    """Holds every request of the model `slow` until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.begins: asyncio.Queue[str] = asyncio.Queue()

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        if request.model.name == "slow":
            self.begins.put_nowait(str(request.id))
            await self.gate.wait()
        return await super().infer(request)


async def test_an_inference_is_answered_where_it_was_asked_for(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        home.ask("infer/kws@1", BODY)
        answer = await home.answer()
    assert (answer["id"], answer["model_name"], answer["outputs"][0]["data"]) == ("q-1", "kws", [0.25, 0.75])
    assert home.refusals == []


async def test_raw_bytes_with_a_content_type_are_an_input(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        home.ask("infer/kws", struct.pack("<4f", 1, 2, 3, 4), content_type=OCTETS)
        assert (await home.answer())["model_name"] == "kws"
        assert home.world.inference.seen[0].raw == struct.pack("<4f", 1, 2, 3, 4)


async def test_a_command_is_answered(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        home.ask("cmd/devices.approve", {"device": "cam-7"})
        assert (await home.answer())["approved"] is True
        assert home.world.tracking.views[0].note == "approved by mqtt"


async def test_a_3_1_1_client_names_its_reply_topic_in_the_payload(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path, version="3.1.1") as home:
        home.ask("infer/kws", {**BODY, "reply_to": "clients/old"})
        assert (await home.answer())["id"] == "q-1"
        home.ask("cmd/devices.list", {"reply_to": "clients/old", "id": "c-9"})
        answer = await home.answer()
        assert answer["id"] == "c-9"
        assert "devices" in answer
        home.ask("cmd/nonsense", {"reply_to": "clients/old", "id": "c-10"})
        topic, answer = await home.default_answer()
    assert (topic, answer["error"]["code"]) == (f"{BASE}/reply/nonsense", "not_found")


async def test_without_a_reply_topic_the_answer_goes_to_the_default_one(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        home.ask("infer/kws:stable", BODY, reply=None)
        topic, answer = await home.default_answer()
        assert (topic, answer["id"]) == (f"{BASE}/reply/infer/kws:stable", "q-1")
        home.ask("cmd/status", b"", reply=None)
        topic, answer = await home.default_answer()
        assert (topic, answer["node"]) == (f"{BASE}/reply/status", "edge-1")


@pytest.mark.parametrize(
    ("topic", "payload", "code", "words"),
    [
        ("infer/kws", b"{", "bad_request", "not valid JSON"),
        ("infer/kws", {"inputs": [{**TENSOR, "shape": [3]}]}, "bad_request", "inputs[0].data"),
        ("infer/Not A Model", BODY, "bad_request", "model name"),
        ("infer/kws", b"{" + bytes(10_000_000), "too_large", "10000001 bytes"),
        ("cmd/devices.list", b'{"id":' + b"[" * 200_000, "bad_request", "devices.list"),
        ("cmd/devices.list", bytes(10_000_000), "too_large", "10000000 bytes"),
        ("cmd/devices.list", bytes(13_000_000), "too_large", "13000000 bytes"),
        ("cmd/devices.approve", {"device": "cam-7", "nonsense": 1}, "bad_request", "nonsense"),
        ("cmd/devices.approve", {"device": "nobody"}, "unknown_device", "nobody"),
        ("cmd/devices.aprove", {}, "not_found", "devices.approve"),
        ("cmd/status", {"id": ["x"]}, "bad_request", "id"),
    ],
)
async def test_bad_input_gets_one_clear_error_and_the_next_request_its_answer(
    broker: Broker, tmp_path: Path, topic: str, payload: object, code: str, words: str
) -> None:
    async with house(broker, tmp_path) as home:
        home.ask(topic, payload)
        error = (await home.answer())["error"]
        assert error["code"] == code
        assert words in error["message"]
        home.ask("infer/kws", BODY)
        assert (await home.answer())["id"] == "q-1"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (f"{BASE}/cmd/devices.approve", "forbidden"),
        ("gatewayd/edge-2/infer/kws", "forbidden"),
        (f"{BASE}/device/cam-7/down/run", "forbidden"),
        ("elsewhere/1", "forbidden"),
        ("$SYS/x", "bad_request"),
    ],
)
async def test_replies_go_nowhere_else_and_the_request_is_not_served(
    broker: Broker, tmp_path: Path, reply: str, code: str
) -> None:
    async with house(broker, tmp_path) as home:
        home.ask("infer/kws", BODY, reply=reply)
        topic, answer = await home.default_answer()
        assert (topic, answer["error"]["code"]) == (f"{BASE}/reply/infer/kws", code)
        home.ask("infer/kws", {**BODY, "reply_to": reply}, reply=None)
        _, answer = await home.default_answer()
        assert (answer["error"]["code"], answer["id"]) == (code, "q-1")
        assert home.world.inference.seen == []
        assert [where for where, _, _ in home.refusals] == ["mqtt", "mqtt"]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_retained_command_is_never_obeyed(broker: Broker, tmp_path: Path, version: str) -> None:
    early = Client(options(broker.port, name="early"))
    command = Message(f"{BASE}/cmd/devices.approve", b'{"device": "cam-7"}', qos=1, retain=True)
    async with running(early):
        early.publish(command)
    async with house(broker, tmp_path, version=version) as home:
        home.ask("cmd/status", {})
        await (home.replies if version == "5" else home.defaults).next()
        assert home.world.tracking.views[0].approved is False
        assert [code for _, code, _ in home.refusals] == ([] if version == "5" else ["retained"])


async def test_on_5_a_live_message_with_the_retain_flag_is_refused_too(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        home.client.publish(Message(f"{BASE}/cmd/devices.approve", b'{"device": "cam-7"}', qos=1, retain=True))
        home.ask("cmd/status", {})
        await home.answer()
        assert home.world.tracking.views[0].approved is False
        assert [code for _, code, _ in home.refusals] == ["retained"]


async def test_a_defect_is_told_and_logged_with_its_traceback(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(inference=FakeInference(error=LookupError("a defect")))
    async with house(broker, tmp_path, world=world) as home:
        home.ask("infer/kws", BODY)
        answer = await home.answer()
    assert (answer["error"]["code"], answer["id"]) == ("internal", "q-1")
    assert "LookupError: a defect" in caplog.text


async def test_slow_requests_hold_up_neither_others_nor_commands_and_too_many_are_refused(
    broker: Broker, tmp_path: Path
) -> None:
    inference = Gated()
    world, limits = World(inference=inference), Limits(in_flight=2, waiting=1)
    async with house(broker, tmp_path, world=world, limits=limits) as home:
        home.ask("infer/slow", {**BODY, "id": "s-1"})
        await asyncio.wait_for(inference.begins.get(), PATIENCE_S)
        home.ask("infer/kws", BODY)
        assert (await home.answer())["id"] == "q-1"
        home.ask("infer/slow", {**BODY, "id": "s-2"})
        await asyncio.wait_for(inference.begins.get(), PATIENCE_S)
        for number in (3, 4):
            home.ask("infer/slow", {**BODY, "id": f"s-{number}"})
        assert (await home.answer())["error"]["code"] == "overloaded"
        home.ask("cmd/status", {})
        assert (await home.answer())["node"] == "edge-1"
        inference.gate.set()
        assert {(await home.answer())["id"] for _ in range(3)} == {"s-1", "s-2", "s-3"}


async def test_draining_answers_what_was_accepted_and_refuses_the_rest(broker: Broker, tmp_path: Path) -> None:
    inference = Gated()
    async with house(broker, tmp_path, world=World(inference=inference)) as home:
        home.ask("infer/slow", BODY)
        await asyncio.wait_for(inference.begins.get(), PATIENCE_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(home.edge.drain())
            home.ask("infer/kws", BODY)
            assert "stopping" in (await home.answer())["error"]["message"]
            inference.gate.set()
        assert (await home.answer())["id"] == "q-1"


async def test_events_are_published_but_not_those_of_each_request(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        events = home.client.inbox(f"{BASE}/event/#")
        home.ask("cmd/status", {})
        await home.answer()
        request = InferenceRequest(RequestId("r-1"), parse_model_ref("kws"), deadline_s=1.0)
        home.edge.publish_event(RequestFailed(request, "overloaded", "later", 0.1))
        home.edge.publish_event(ModelAdded(KWS, 2))
        event = await events.next()
    assert (event.topic, json.loads(event.payload)["version"]) == (f"{BASE}/event/model", 2)


@pytest.mark.usefixtures("mosquitto_clients")
@pytest.mark.parametrize("version", ["5", "311"])
async def test_mosquitto_s_own_clients_get_their_answer(broker: Broker, tmp_path: Path, version: str) -> None:
    reply = {"5": {}, "311": {"reply_to": "clients/rr"}}[version]
    payload = json.dumps({**BODY, **reply})
    ask = ["-h", "127.0.0.1", "-p", str(broker.port), "-t", f"{BASE}/infer/kws", "-m", payload]
    async with house(broker, tmp_path) as home:
        if version == "5":
            command = ["mosquitto_rr", "-V", "5", "-e", "clients/rr", *ask]
            child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            output, _ = await asyncio.wait_for(child.communicate(), PATIENCE_S)
        else:
            child = await asyncio.create_subprocess_exec("mosquitto_pub", "-V", "311", *ask)
            await child.wait()
            output = (await home.replies.next()).payload
    assert json.loads(output)["id"] == "q-1"
