"""Models that a simulated LwM2M board lets go: on the server's word, and for another one that is accepted."""

from dataclasses import replace

from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # aiocoap ships no types

from gatewayd.core.module import Held
from gatewayd.core.names import ModelName
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.reports import read_report
from tests.agent_bench import V1, Bench, content_of, make_capabilities, offer_of
from tests.sim.lwm2m_bench import Player, attached, playing

SPEAKER = content_of("speaker", 1)
INSTEAD = replace(offer_of(6, SPEAKER, model="speaker"), instead_of=Held(ModelName("kws"), 1))


def board() -> Bench:
    """A board that holds kws and lets models go."""
    bench = Bench(capabilities=replace(make_capabilities(), drops_models=True)).start()
    bench.push(offer_of(1, V1), V1)
    return bench


async def order(player: Player, digest: str, more: str = "") -> tuple[int, bytes]:
    answer = await player.execute("/26242/0/21", f"0='{digest}'{more}")
    return answer.code, answer.payload


async def test_it_says_that_it_can() -> None:
    async with playing() as player, attached(player, board()):
        records = [each for path in ("/3/0", "/26241/0", "/26242") for each in await player.read(path)]
        assert read_report(records).capabilities.drops_models


async def test_a_slot_is_emptied_when_that_is_meant() -> None:
    bench = board()
    digest = bench.agent.state.slots[0].digest
    async with playing() as player, attached(player, bench):
        assert (await order(player, "0" * 64))[0] == Code.METHOD_NOT_ALLOWED
        assert await order(player, digest) == (Code.METHOD_NOT_ALLOWED, b"it is the only model that runs")
        assert (await player.execute("/26242/0/21", "0='no'")).code == Code.BAD_REQUEST
        assert (await player.execute("/9/0/6")).code == Code.METHOD_NOT_ALLOWED
        assert await player.value("/26242/0/0") == 3
        assert (await order(player, digest, ",1"))[0] == Code.CHANGED
        assert (await order(player, digest, ",1"))[0] == Code.CHANGED
        assert await player.value("/26242/0/0") == 0
    assert bench.runnable() == {}


async def test_a_board_that_lets_none_go_says_so() -> None:
    bench = Bench().start()
    bench.push(offer_of(1, V1), V1)
    async with playing() as player, attached(player, bench):
        code, why = await order(player, bench.agent.state.slots[0].digest, ",1")
    assert (code, why) == (Code.METHOD_NOT_ALLOWED, b"it drops no models")
    assert bench.runnable() == {"kws": 1}


async def test_a_full_board_swaps_one_model_for_another() -> None:
    bench = board()
    async with playing() as player, attached(player, bench):
        await player.offer(1, INSTEAD)
        assert (await player.write("/9/1/2", SPEAKER, Format.OPAQUE)).code == Code.CHANGED
        assert bench.runnable() == {"kws": 1}
        await player.finish(1)
        assert await player.value("/26242/0/0") == 0
    assert bench.runnable() == {"speaker": 1}
