import base64
import json

import pytest

from gatewayd.api.table import VERBS
from gatewayd.api.verb import Caller, Role
from gatewayd.core.errors import BadRequest, Forbidden, NotFound, UnknownDevice, UnknownModel
from gatewayd.core.names import DeviceId, ModelName, ModelRef, RequestId
from gatewayd.core.request import NODE, Privacy, SensorRef, Target
from gatewayd.core.retry import Terms
from gatewayd.core.update import PushState
from gatewayd.wire.tensors import InferenceBody
from tests.api_values import CAM, KWS
from tests.fakes_api import FakeNodeRuntime, World

ANN = Caller("ann", Role.ADMIN)


async def call(world: World, verb: str, **arguments: object) -> dict[str, object]:
    result = await world.api().call(verb, json.dumps(arguments).encode(), ANN)
    document: dict[str, object] = json.loads(result.model_dump_json())
    return document


def test_the_table() -> None:
    assert sorted(VERBS) == [
        "devices.approve", "devices.credentials.list", "devices.credentials.new", "devices.drop", "devices.drops",
        "devices.forget", "devices.joining",
        "devices.list", "devices.one-slot", "devices.permit-join", "devices.release", "devices.revoke", "infer",
        "keys.export", "keys.list",
        "keys.new", "keys.revoke", "keys.rotate", "models.add", "models.alias", "models.back", "models.build",
        "models.collect", "models.fetch", "models.fit", "models.history", "models.list", "models.load", "models.release",
        "models.restore", "models.retire", "models.show", "models.unalias", "models.unload", "models.when", "opinions.list",
        "opinions.set", "opinions.unset", "push",
        "pushes.cancel", "pushes.history", "pushes.list", "pushes.watch", "status", "stream.list", "stream.start", "stream.stop",
        "upload.begin", "upload.cancel", "upload.end", "upload.part", "why",
    ]  # fmt: skip
    assert all(VERBS[name].name == name and VERBS[name].summary for name in VERBS)
    assert {name for name, verb in VERBS.items() if verb.is_read} == {
        "devices.credentials.list", "devices.drops", "devices.joining", "devices.list", "keys.export", "keys.list",
        "models.fit", "models.history", "models.list", "models.show",
        "models.when", "opinions.list", "pushes.history", "pushes.list", "pushes.watch", "status", "stream.list", "why",
    }  # fmt: skip


async def test_unknown_verb_names_the_nearest() -> None:
    with pytest.raises(NotFound, match=r"no verb 'model\.list'; there are: models\.list"):
        await World().api().call("model.list", b"", ANN)
    with pytest.raises(NotFound, match=r"there are: devices\.approve, devices\.credentials\.list, "):
        await World().api().call("zzzz", b"", ANN)


async def test_role_is_checked_before_arguments() -> None:
    with pytest.raises(Forbidden):
        await World().api().call("models.add", b"garbage", Caller("bob", Role.OPERATOR))


async def test_models_add() -> None:
    world = World()
    file = base64.b64encode(b"TFL3" * 100_000).decode()
    row = await call(world, "models.add", model="kws", files=[file], labels=["a", "b"], note="better")
    assert (row["version"], row["labels"], row["note"]) == (2, ["a", "b"], "better (ann)")
    assert world.catalog.files == [b"TFL3" * 100_000]


async def test_models_add_checks_the_name() -> None:
    with pytest.raises(BadRequest, match=r"'\.\./x' is no model name"):
        await call(World(), "models.add", model="../x", files=["VEZMMw=="])


async def test_models_list() -> None:
    models = (await call(World(), "models.list"))["models"]
    assert models == [
        {
            "model": "kws",
            "aliases": {"stable": 1},
            "versions": [
                {
                    "model": "kws",
                    "version": 1,
                    "created_at": "2023-11-14T22:13:20+00:00",
                    "note": "first",
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}],
                    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 2]}],
                    "labels": ["no", "yes"],
                    "preprocessing": "mfcc@1",
                    "variants": [
                        {
                            "name": "tflite-int8",
                            "digest": "a" * 64,
                            "size_bytes": 18432,
                            "arena_bytes": 12000,
                            "macs": 1200,
                            "operators": ["CONV_2D", "SOFTMAX"],
                            "verdicts": [
                                {
                                    "place": "node",
                                    "engine": "litert",
                                    "runs": True,
                                    "reason": "loads and runs",
                                    "latency_ms": 0.2,
                                }
                            ],
                            "runs_on": "node-only",
                            "predicted_arena_bytes": None,
                            "accelerator": "",
                            "vectors": 0,
                        }
                    ],
                    "licence": "",
                    "tags": {},
                    "source": "",
                    "samples": None,
                    "retired": None,
                }
            ],
            "moves": [],
        }
    ]


async def test_models_list_of_one_tells_the_history() -> None:
    world = World()
    await call(world, "models.alias", model="kws", alias="canary", version=1, why="try it")
    (model,) = (await world.api().call("models.list", {"model": "kws"}, ANN)).model_dump()["models"]
    assert [(move["alias"], move["who"], move["why"]) for move in model["moves"]] == [
        ("stable", "ann", "first version"),
        ("canary", "ann", "try it"),
    ]
    with pytest.raises(UnknownModel, match="no model 'vww'; there are: kws"):
        await call(world, "models.list", model="vww")


async def test_models_alias_of_a_version_that_is_not_there() -> None:
    with pytest.raises(UnknownModel):
        await call(World(), "models.alias", model="kws", alias="canary", version=9)


async def test_devices() -> None:
    world = World()
    approved = await call(world, "devices.approve", device="cam-7")
    listed = (await call(world, "devices.list"))["devices"]
    assert listed == [approved]
    assert approved["approved"] is True
    assert approved["slots"] == [
        {"slot": 0, "state": "active", "model": "kws", "version": 1},
        {"slot": 1, "state": "empty", "model": None, "version": None},
    ]
    measured = {"kind": "mqtt", "rtt_ms": 12.0, "goodput_bytes_per_s": 8000.0, "loss": 0.01}
    assert approved["link"] == measured | {"bearer": None, "signal_dbm": None, "link_quality": None, "addresses": []}
    assert approved["desired"] == ["kws@1"]
    with pytest.raises(UnknownDevice):
        await call(world, "devices.approve", device="cam-8")


async def test_push_and_its_progress() -> None:
    world = World()
    row = await call(world, "push", device="cam-7", model="kws@1")
    assert (row["push"], row["state"], row["ended"]) == (7, "offered", False)
    assert world.pushes.started == [(CAM, ModelRef(KWS, version=1), "ann")]
    world.pushes.states = [PushState.TRANSFERRING, PushState.ACCEPTED]
    seen = [(await call(world, "status"))["pushes"] for _ in range(2)]
    assert [[(p["state"], p["offset"], p["ended"]) for p in pushes] for pushes in seen] == [  # type: ignore[attr-defined]  # JSON
        [("transferring", 9216, False)],
        [("accepted", 9216, True)],
    ]


async def test_keys() -> None:
    world = World()
    first = "0" * 16
    staged = await call(world, "keys.new")
    assert (staged["state"], staged["public_key"]) == ("trusted", "01" * 32)
    assert (await call(world, "keys.rotate", key=staged["key"]))["state"] == "signing"
    assert (await call(world, "keys.rotate"))["key"] == f"{2:016x}"
    assert (await call(world, "keys.revoke", key=first))["state"] == "revoked"
    listed = (await call(world, "keys.list"))["keys"]
    assert [row["state"] for row in listed] == ["revoked", "trusted", "signing"]  # type: ignore[attr-defined]  # JSON
    exported = await call(world, "keys.export")
    assert exported == {"format": "hex", "text": f"{'01' * 32}\n{'02' * 32}\n", "keys": [f"{1:016x}", f"{2:016x}"]}
    assert "static const uint8_t gatewayd_keys[][32]" in str((await call(world, "keys.export", format="c"))["text"])


async def test_a_push_is_cancelled_and_stays_in_the_history() -> None:
    world = World()
    started = await call(world, "push", device="cam-7", model="kws@1", allow_downgrade=True)
    assert (started["who"], started["replaces"], started["awaits"]) == (
        "ann",
        9,
        "waiting for the device's answer to the offer",
    )
    cancelled = await call(world, "pushes.cancel", push=7, why="wrong board")
    assert (cancelled["state"], cancelled["reason"], cancelled["awaits"]) == ("cancelled", "wrong board (ann)", "")
    assert cancelled["ended_at"] == "2023-11-14T22:14:20+00:00"
    assert (await call(world, "pushes.history", device="cam-7"))["pushes"] == [cancelled]
    assert (await call(world, "pushes.history", device="cam-8"))["pushes"] == []
    assert (await call(world, "pushes.list"))["pushes"] == [cancelled]
    with pytest.raises(NotFound):
        await call(world, "pushes.cancel", push=7)


async def test_a_device_is_released_and_allowed_its_one_slot() -> None:
    world = World()
    world.pushes.kept_terms[CAM] = Terms(CAM, failures=5, quarantine="5 pushes in a row failed")
    (row,) = (await world.api().call("devices.list", b"", ANN)).model_dump()["devices"]
    assert (row["quarantine"], row["one_slot"]) == ("5 pushes in a row failed", False)
    assert row["wishes"] == [{"model": "kws", "version": 1, "who": "ann", "failures": 0, "settled": ""}]
    assert (await call(world, "devices.release", device="cam-7"))["quarantine"] == ""
    assert (await call(world, "devices.one-slot", device="cam-7", allow=True))["one_slot"] is True
    assert (await call(world, "devices.one-slot", device="cam-7"))["one_slot"] is False


async def test_status() -> None:
    world = World(connected=False)
    assert await call(world, "status") == {
        "node": "edge-1",
        "version": "0.1.0",
        "uptime_s": 60.0,
        "mqtt_connected": False,
        "models": 1,
        "versions": 1,
        "devices": 1,
        "devices_online": 1,
        "devices_waiting": 1,
        "live_pushes": 0,
        "workers": [],
        "quarantined": [],
        "accelerators": [],
        "pushes": [],
    }


async def test_infer_by_reference() -> None:
    world = World()
    answer = await call(
        world, "infer", model="kws:stable", device="cam-7", input="mic", placement="device:cam-7",
        privacy="stay_on_device", deadline_ms=250, **{"class": "fast"},
    )  # fmt: skip
    (request,) = world.inference.seen
    assert (request.source, request.pin) == (SensorRef(CAM, "mic"), Target(CAM))
    assert (request.privacy, request.request_class) == (Privacy.STAY_ON_DEVICE, "fast")
    assert (request.id, request.deadline_s) == (RequestId("r-1"), 100.25)
    assert answer["id"] == "r-1"
    assert answer["parameters"]["ran_on"] == "device:cam-7"  # type: ignore[index]  # JSON


async def test_infer_inline_and_raw() -> None:
    world = World()
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    await call(world, "infer", model="kws", inputs=[tensor], placement="node")
    await call(world, "infer", model="kws", raw=base64.b64encode(b"1234").decode(), id="mine")
    inline, raw = world.inference.seen
    assert (inline.inputs[0].shape, inline.pin) == ((1, 4), NODE)
    assert (raw.raw, raw.id) == (b"1234", "mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, 'body: give "inputs", or "device" and "input"'),
        ({"raw": "AAAA", "device": "a"}, "raw: give either raw or device, not both"),
        ({"inputs": [{"name": "x"}]}, r"inputs\[0\]\.shape: is missing"),
        (
            {"device": "a", "input": "b", "placement": "x"},
            "parameters.placement: 'x' is not auto, node, device:<id> or prefer:device:<id>",
        ),
    ],
)
async def test_infer_mistakes(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        await call(World(), "infer", model="kws", **arguments)


async def test_infer_of_decoded_bodies_bounds_the_deadline() -> None:
    world = World()
    for deadline_ms in (None, 1000.0, 3_600_000.0):
        await world.api().infer("kws@1", InferenceBody(raw=b"1", deadline_ms=deadline_ms))
    assert [request.deadline_s for request in world.inference.seen] == [105.0, 101.0, 160.0]
    assert world.inference.seen[0].model == ModelRef(ModelName("kws"), version=1)
    with pytest.raises(BadRequest):
        await world.api().infer("KWS", InferenceBody(raw=b"1"))


async def test_why() -> None:
    explanation = await call(World(), "why", request="r-1")
    assert str(explanation["reason"]).startswith("device:cam-7 is the only place: the node: privacy")
    assert explanation["served_by"] == "device:cam-7"
    assert [(o["target"], o["refusal"], o["total"]) for o in explanation["options"]] == [  # type: ignore[attr-defined]  # JSON
        ("device:cam-7", "", pytest.approx(10.025)),
        ("node", "privacy: the sample must stay on device:cam-7", None),
    ]
    with pytest.raises(NotFound):
        await call(World(), "why", request="r-2")


def test_metadata() -> None:
    assert World().api().metadata("kws").model_dump() == {
        "name": "kws",
        "versions": ["1"],
        "platform": "tflite",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 2]}],
    }
    with pytest.raises(UnknownModel):
        World().api().metadata(str(DeviceId("vww")))


async def test_a_quarantined_variant_is_shown_and_released() -> None:
    runtime = FakeNodeRuntime()
    world = World(runtime=runtime)
    assert (await call(world, "status"))["quarantined"] == [{"digest": "a" * 64, "reason": "SIGSEGV"}]
    assert (await call(world, "models.release", digest="a" * 12))["reason"] == "SIGSEGV"
    assert runtime.held == {}
    with pytest.raises(NotFound, match="no quarantined variant begins with aaaaaaaa"):
        await call(world, "models.release", digest="a" * 8)
