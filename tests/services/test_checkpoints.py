from pathlib import Path

import pytest

from gatewayd.adapters.checkpoint_file import CheckpointFile
from gatewayd.core.device import LinkKind
from gatewayd.core.estimate import Estimate, LinkEstimate, default_link
from gatewayd.core.learned import Learned
from gatewayd.core.names import DeviceId, Digest, ModelRef
from gatewayd.core.request import NODE
from gatewayd.services.checkpoints import EVERY_S, Book, Checkpoints, pause_of
from gatewayd.services.estimates import Estimates
from gatewayd.services.renting import Renting
from gatewayd.wire.checkpoint import encode_learned
from tests.services.world import CAPABILITIES, DEVICE, World, world


async def test_what_was_learned_is_believed_after_a_restart_but_less_firmly(tmp_path: Path) -> None:
    store = CheckpointFile(tmp_path / "estimates.checkpoint")
    async with world(tmp_path) as w:
        version = await w.add()
        await w.join()
        assert await Checkpoints(estimates=w.estimates, store=store).save() == 0
        for _ in range(12):
            result = await w.inference.infer(w.request(source=True, pin=NODE))
            assert result.ran_on == NODE
        learned = w.estimates.link(DEVICE)
        kept = Checkpoints(estimates=w.estimates, store=store)
        assert await kept.save() > 0
        assert await kept.save() == 0  # nothing is new
    fresh = Estimates()
    await Checkpoints(estimates=fresh, store=store).load()
    recalled = fresh.link(DEVICE)
    assert recalled.goodput.mean == pytest.approx(learned.goodput.mean, rel=1e-5)
    assert recalled.rtt.count <= 5 < learned.failures.count
    variant = version.variants[0]
    assert fresh.on_node(variant).mean == pytest.approx(w.estimates.on_node(variant).mean, rel=1e-5)
    assert fresh.sample_energy(DEVICE, sensor=0, sample_bytes=8).mean == pytest.approx(700.0, rel=0.05)
    pair = fresh.on_device(DEVICE, variant, capabilities=CAPABILITIES, profile=None)
    assert pair.compute.count == 0  # it never ran there


async def _missed(w: World, renting: Renting) -> str:
    """Have the node serve one request by reference; return where its pair then stands."""
    w.served.clear()
    await w.inference.infer(w.request(source=True))
    rent = renting.served(w.served[0])
    assert rent is not None
    return rent.state


async def _ask_for_a_push(w: World, renting: Renting) -> None:
    for _ in range(500):
        if await _missed(w, renting) == "a push pays: it is asked for":
            return
    raise AssertionError


def _book(w: World, renting: Renting) -> Book:
    return Book(renting, w.tracking, w.clock, w.clock)


async def test_no_balance_is_lost_in_a_restart(tmp_path: Path) -> None:
    store = CheckpointFile(tmp_path / "estimates.checkpoint")
    async with world(tmp_path) as w:
        version = await w.add(bytes(range(256)) * 10)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        assert await _missed(w, renting) == "the rent paid is below the price of a push"
        before = renting.balance(DEVICE, version)
        assert before.saved_missed > 0
        assert await Checkpoints(estimates=w.estimates, store=store, book=_book(w, renting)).save() > 0
        again = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        await Checkpoints(estimates=Estimates(), store=store, book=_book(w, again)).load()
        after = again.balance(DEVICE, version)
        assert after.requests == before.requests
        assert after.saved_missed == pytest.approx(before.saved_missed, rel=1e-3)


@pytest.mark.parametrize("is_stopped_in_order", [True, False])
async def test_no_push_is_bought_twice_over_a_restart(tmp_path: Path, is_stopped_in_order: bool) -> None:  # noqa: FBT001 - a fact of the case
    """Cut off, the checkpoint is from before the push: the pushes themselves know that one is on its way."""
    store = CheckpointFile(tmp_path / "estimates.checkpoint")
    async with world(tmp_path) as w:
        version = await w.add(bytes(range(256)) * 10)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        before = Checkpoints(estimates=w.estimates, store=store, book=_book(w, renting))
        assert await _missed(w, renting) == "the rent paid is below the price of a push"
        if not is_stopped_in_order:
            await before.save()
        await _ask_for_a_push(w, renting)
        await w.pushes.start(DEVICE, ModelRef(version.model, version=version.number), who="placement")
        if is_stopped_in_order:
            await before.save()
        again = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        await Checkpoints(estimates=Estimates(), store=store, book=_book(w, again)).load()
        w.clock.now_s += 100.0  # after a push that was tried nothing is tried for a minute
        states = {await _missed(w, again) for _ in range(50)}
        assert "a push pays: it is asked for" not in states
        assert "a push would pay, but one is on its way" in states
        assert len(await w.pushes.recent(10)) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 100, encode_learned(Learned())[:-1]])
async def test_a_broken_checkpoint_is_dropped_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "estimates.checkpoint"
    path.write_bytes(content)
    estimates = Estimates()
    checkpoints = Checkpoints(estimates=estimates, store=CheckpointFile(path))
    await checkpoints.load()
    assert estimates.learned() == Learned()
    assert "estimates begin anew, their checkpoint was dropped" in caplog.text
    estimates.saw_ping(DEVICE, 0.01)
    assert await checkpoints.save() > 0


async def test_a_disk_that_refuses_is_said_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    estimates = Estimates()
    checkpoints = Checkpoints(estimates=estimates, store=CheckpointFile(folder / "estimates.checkpoint"))
    estimates.saw_ping(DEVICE, 0.01)
    assert await checkpoints.save() == 0
    assert "estimates not kept" in caplog.text
    folder.mkdir()
    assert await checkpoints.save() > 0


@pytest.mark.parametrize(("devices", "a_day_bytes"), [(10, 5e6 / 1.5), (1000, 50e6 / 1.5)])
def test_checkpoints_leave_room_in_what_an_sd_card_should_bear(devices: int, a_day_bytes: float) -> None:
    def odd(number: int) -> Estimate:
        return Estimate(0.123456789 + number, 0.0123456789 * number, 7.0)

    names = [DeviceId(f"sensor-{number:04}") for number in range(devices)]
    learned = Learned(
        tuple((name, Digest(f"{slot:064x}"), odd(slot), odd(slot)) for name in names for slot in range(3)),
        (),
        tuple((name, LinkEstimate(odd(1), odd(2), default_link(LinkKind.MQTT).failures)) for name in names),
        tuple((name, 0, odd(3)) for name in names),
    )
    size = len(encode_learned(learned))
    pause_s = pause_of(size, devices=devices)
    # Twice the bytes for the journal, and twice two blocks for the file's name.
    assert 86_400 / pause_s * 2 * (size + 8192) <= a_day_bytes
    assert EVERY_S <= pause_s < 3600
