import pytest

from gatewayd.core.errors import BadRequest, NotFound
from gatewayd.core.names import DeviceId
from gatewayd.core.request import Privacy, Target
from gatewayd.core.standing import Progress
from tests.api.test_table import call
from tests.fakes_api import World


async def test_start_list_and_stop() -> None:
    world = World()
    row = await call(world, "stream.start", model="kws:canary", device="cam-7", input="mic", period_ms=500, id="watch")
    assert (row["id"], row["model"], row["period_ms"], row["deadline_ms"]) == ("watch", "kws:canary", 500, 500)
    assert (row["topic"], row["until"], row["who"]) == ("gatewayd/edge-1/stream/watch", None, "ann")
    order = world.orders.running["watch"]
    assert (order.source.device, order.source.sensor, order.period_s, order.privacy) == (
        "cam-7",
        "mic",
        0.5,
        Privacy.ANY,
    )
    world.orders.progress = Progress(
        answered=2, failed=1, missed=3, failing=1, failure="away", ran_on=Target(DeviceId("cam-7"))
    )
    streams = (await call(world, "stream.list"))["streams"]
    assert isinstance(streams, list)
    (listed,) = streams
    assert (listed["answered"], listed["missed"], listed["failure"], listed["ran_on"]) == (2, 3, "away", "device:cam-7")
    await call(world, "stream.stop", id="watch", why="enough")
    assert (world.orders.running, world.orders.why) == ({}, "enough (ann)")
    with pytest.raises(NotFound):
        await call(world, "stream.stop", id="watch")


async def test_an_order_without_a_name_gets_one() -> None:
    world = World()
    rows = [
        await call(world, "stream.start", model="kws", device="cam-7", input="mic", period_ms=500) for _ in range(2)
    ]
    assert len({row["id"] for row in rows}) == 2


async def test_when_it_ends() -> None:
    world = World()
    asked = {"model": "kws", "device": "cam-7", "input": "mic", "period_ms": 60_000}
    row = await call(world, "stream.start", **asked, for_s=60)
    assert (row["until"], row["deadline_ms"]) == ("2023-11-14T22:14:20+00:00", 5000)
    row = await call(world, "stream.start", **asked, until="2023-11-15T00:00:00Z")
    assert row["until"] == "2023-11-15T00:00:00+00:00"
    for wrong, message in (
        ({"until": "2020-01-01T00:00:00Z"}, "is over already"),
        ({"until": "2023-11-15T00:00:00Z", "for_s": 5}, "not both"),
        ({"topic": "a/+"}, "no topic"),
        ({"period_ms": 1}, "period_ms"),
        ({"placement": "moon"}, "placement"),
        ({"qos": 2}, "qos"),
    ):
        with pytest.raises(BadRequest, match=message):
            await call(world, "stream.start", **(asked | wrong))
