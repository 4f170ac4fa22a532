import json

import pytest

from gatewayd.api.table import VERBS
from gatewayd.api.verb import Caller, Role
from gatewayd.core.errors import BadRequest, Conflict, Forbidden
from gatewayd.core.names import DeviceId
from gatewayd.services.join_window import WindowState
from gatewayd.wire.device_credentials import decode_device_credentials
from tests.fakes_api import World
from tests.fakes_joining import KEY, PASSWORD

ANN = Caller("ann", Role.ADMIN)


async def call(world: World, verb: str, **arguments: object) -> bytes:
    return (await world.api().call(verb, json.dumps(arguments).encode(), ANN)).model_dump_json().encode()


async def test_the_door_opens_for_two_minutes_and_closes_by_hand() -> None:
    world = World()
    assert json.loads(await call(world, "devices.permit-join"))["left_s"] == 120
    opened = json.loads(await call(world, "devices.permit-join", seconds=30))
    assert (opened["open"], opened["left_s"], opened["admitted"]) == (True, 30, [])
    assert not json.loads(await call(world, "devices.permit-join", seconds=0))["open"]


@pytest.mark.parametrize("seconds", [-1, 3601, "x"])
async def test_it_does_not_open_for_ever(seconds: object) -> None:
    with pytest.raises(BadRequest, match="seconds"):
        await call(World(), "devices.permit-join", seconds=seconds)


async def test_who_came_in_is_told() -> None:
    world = World()
    world.joining.state = WindowState(5.04, (DeviceId("door-1"),))
    assert json.loads(await call(world, "devices.joining"))["admitted"] == ["door-1"]


async def test_new_credentials_are_all_that_a_device_needs() -> None:
    answer = await call(World(), "devices.credentials.new", device="door-1")
    of = decode_device_credentials(answer)
    assert (of.username, of.password, of.psk_identity, of.psk_key) == ("door-1", PASSWORD, "door-1", KEY)
    assert (of.base, of.host, of.port, len(of.trusted_keys)) == ("gatewayd/edge-1/device/door-1", "localhost", 1883, 1)
    assert [each["name"] for each in json.loads(answer)["snippets"]] == ["esp-idf", "zephyr", "arduino", "mosquitto"]


async def test_one_kind_is_made_when_one_is_asked_for() -> None:
    answer = json.loads(
        await call(World(), "devices.credentials.new", device="door-1", kind="psk", snippets=["zephyr"])
    )
    assert (answer["username"], answer["password"], answer["psk_key"]) == (None, None, KEY.hex())
    assert [each["name"] for each in answer["snippets"]] == ["zephyr"]
    with pytest.raises(BadRequest, match="speaks_for"):
        await call(World(), "devices.credentials.new", device="hub", kind="psk", speaks_for=["door-1"])


async def test_the_list_holds_no_secret() -> None:
    world = World()
    await call(world, "devices.credentials.new", device="hub", kind="mqtt", speaks_for=["door-1"])
    await call(world, "devices.credentials.new", device="door-2")
    text = (await call(world, "devices.credentials.list")).decode()
    rows = [(row["kind"], row["name"], row["devices"]) for row in json.loads(text)["credentials"]]
    assert rows == [("mqtt", "door-2", ["door-2"]), ("mqtt", "hub", ["hub", "door-1"]), ("psk", "door-2", ["door-2"])]
    assert PASSWORD not in text
    assert KEY.hex() not in text


async def test_revoke_and_forget_tell_what_is_left_to_do() -> None:
    world = World()
    world.joining.broker = "reload it"
    await call(world, "devices.credentials.new", device="door-1")
    assert json.loads(await call(world, "devices.revoke", device="door-1")) == {
        "device": "door-1", "credentials": True, "pushes_ended": 1, "broker": "reload it", "orders_ended": 0, "what": "revoked",
    }  # fmt: skip
    world.joining.online.add(DeviceId("door-1"))
    with pytest.raises(Conflict):
        await call(world, "devices.forget", device="door-1")
    forgotten = json.loads(await call(world, "devices.forget", device="door-1", force=True))
    assert (forgotten["credentials"], forgotten["orders_ended"], forgotten["what"]) == (False, 2, "forgotten")


async def test_each_kind_of_credentials_says_what_keeps_it_from_being_of_use() -> None:
    world = World()
    world.doors.psk, world.doors.oscore = "no DTLS", "no port"
    made = {
        kind: json.loads(await call(world, "devices.credentials.new", device="door-1", kind=kind, replace=True))["coap"]
        for kind in ("mqtt", "psk", "all")
    }
    assert made == {"mqtt": [], "psk": ["the key: no DTLS"], "all": ["the key: no DTLS"]}
    world.doors.psk = ""
    assert json.loads(await call(world, "devices.credentials.new", device="door-2", kind="psk"))["coap"] == []


@pytest.mark.parametrize("verb", ["devices.permit-join", "devices.credentials.new", "devices.revoke", "devices.forget"])
async def test_an_operator_may_not(verb: str) -> None:
    with pytest.raises(Forbidden):
        await World().api().call(verb, b'{"device": "door-1"}', Caller("bob", Role.OPERATOR))


def test_only_the_verb_that_shows_secrets_says_that_it_does() -> None:
    assert [name for name, verb in VERBS.items() if verb.has_secret] == ["devices.credentials.new"]
