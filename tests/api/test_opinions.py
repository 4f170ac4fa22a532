import pytest

from gatewayd.core.errors import BadRequest, NotFound
from tests.api.test_table import call
from tests.fakes_api import World


async def test_a_second_opinion_is_set_listed_and_taken_away() -> None:
    world = World()
    row = await call(world, "opinions.set", model="kws", bigger="kws-big:stable", wrong_cost=800)
    assert row == {"model": "kws", "bigger": "kws-big:stable", "wrong_cost": 800.0}
    assert await call(world, "opinions.list") == {"opinions": [row]}
    assert await call(world, "opinions.unset", model="kws") == {"opinions": []}
    with pytest.raises(NotFound):
        await call(world, "opinions.unset", model="kws")
    with pytest.raises(BadRequest):
        await call(world, "opinions.set", model="kws", bigger="kws-big", wrong_cost=-1)
