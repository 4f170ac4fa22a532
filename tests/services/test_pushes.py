from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.compression import inflated
from gatewayd.core.device import PushPhase, Slot, SlotState
from gatewayd.core.errors import Conflict, Forbidden, GatewayError, NodeError, NotFound, UnknownDevice, UnknownModel
from gatewayd.core.events import DeviceChanged, PushMoved
from gatewayd.core.names import DeviceId, parse_model_ref
from gatewayd.core.push import PushState
from tests.services.world import CAPABILITIES, EMPTY, World, running, world

MODEL_BYTES = bytes(range(256)) * 10  # three chunks of the device's 1,024 bytes
KWS = parse_model_ref("kws")


def _states(w: World) -> list[PushState]:
    states = [event.push.state for event in w.events if isinstance(event, PushMoved)]
    return [state for index, state in enumerate(states) if index == 0 or state is not states[index - 1]]


async def test_a_push_goes_through_every_state_and_the_device_holds_the_bytes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            assert (await w.ended(push)).state is PushState.ACCEPTED
        assert bytes(w.device.received) == MODEL_BYTES
        assert w.device.sent == ["offer", "chunk", "chunk", "chunk", "activate", "accept"]
        assert _states(w) == [
            PushState.OFFERED, PushState.TRANSFERRING, PushState.WRITTEN, PushState.VERIFIED, PushState.SELF_TESTED,
            PushState.TRIAL, PushState.ACCEPTED,
        ]  # fmt: skip
        assert w.tracking.device(w.device.id).desired == (("kws", 1),)
        assert w.pushes.live() == ()


async def test_the_offer_says_what_the_device_must_know(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        await w.pushes.start(w.device.id, KWS, who="ann")
        offer = w.device.offered
        assert offer is not None
        told = offer.manifest
        assert (told.model, told.version, told.size_bytes, told.arena_bytes) == ("kws", 1, 2560, 4096)
        assert (told.operators, told.self_test) == (("FULLY_CONNECTED",), version.variants[0].self_test)


async def test_a_device_that_says_no_has_the_last_word(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        await w.join()
        w.device.rejects = "battery too low"
        async with running(w.pushes):
            ended = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert (ended.state, ended.reason) == (PushState.REJECTED, "battery too low")


@pytest.mark.parametrize(
    "phase", [PushPhase.WANT, PushPhase.WRITTEN, PushPhase.VERIFIED, PushPhase.TESTED, PushPhase.TRIAL]
)
async def test_silence_in_any_state_ends_the_push(tmp_path: Path, phase: PushPhase) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = phase
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            while w.pushes.live():
                await w.store.recent(1)
                w.clock.now_s += 1
            ended = await w.ended(push)
        assert ended.state is PushState.FAILED
        assert ended.reason
        assert any(sent.startswith("cancel") for sent in w.device.sent)


async def test_a_new_model_that_answers_wrongly_is_rolled_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.output = b"\x7f\x7f\x7f"
        async with running(w.pushes):
            ended = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert ended.state is PushState.ROLLED_BACK
        assert "self-test" in ended.reason
        assert w.device.sent[-1].startswith("cancel")


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        ("unknown model", UnknownModel, "nope"),
        ("unknown device", UnknownDevice, "ghost"),
        ("not approved", Forbidden, "waits for approval"),
        ("offline", Conflict, "is offline"),
        (
            "arena",
            Conflict,
            "kws@1 does not fit on dev-1: tflite-int8: needs a 4,096-byte arena, the device gives 2,048 (2,048 short)",
        ),
        ("one slot", Conflict, "kws@1 has no room on dev-1"),
        ("there", Conflict, "dev-1 runs kws@1 already"),
    ],
)
async def test_what_cannot_work_is_refused_before_a_byte_is_sent(
    tmp_path: Path, prepare: str, error: type[GatewayError], message: str
) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        ref, device = parse_model_ref("nope" if prepare == "unknown model" else "kws"), w.device.id
        if prepare == "arena":
            w.device.capabilities = replace(CAPABILITIES, arena_bytes=2048)
        if prepare == "one slot":
            w.device.slots = EMPTY[:1]
        if prepare == "there":
            w.device.slots = (Slot(0, SlotState.ACTIVE, version.model, 1, version.variants[0].digest), EMPTY[1])
        w.device.birth()
        if prepare != "not approved":
            await w.tracking.approve(device, who="ann")
        if prepare == "offline":
            w.device.leave()
        if prepare == "unknown device":
            device = DeviceId("ghost")
        with pytest.raises(error) as caught:
            await w.pushes.start(device, ref, who="ann")
        assert message in str(caught.value)
        assert w.device.sent == []


async def test_asking_twice_joins_and_another_version_supersedes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        await w.join()
        w.device.silent_at = PushPhase.WANT
        first = await w.pushes.start(w.device.id, KWS, who="ann")
        assert await w.pushes.start(w.device.id, KWS, who="bob") == w.pushes.live()[0]
        second = await w.pushes.start(w.device.id, parse_model_ref("kws@2"), who="ann")
        rows = {row.id: row for row in await w.pushes.recent(10)}
        assert (rows[first.id].state, rows[first.id].reason) == (PushState.CANCELLED, "superseded by kws@2")
        assert [push.id for push in w.pushes.live()] == [second.id]


async def test_a_push_goes_on_after_the_gateway_restarts(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        push = await w.pushes.start(w.device.id, KWS, who="ann")  # its loop never runs: killed right after the offer
    async with world(tmp_path) as w:
        async with running(w.pushes):
            w.device.birth()
            assert (await w.ended(push)).state is PushState.ACCEPTED
        assert bytes(w.device.received) == MODEL_BYTES


async def test_a_push_whose_device_never_comes_back_ends(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = PushPhase.WRITTEN
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            w.device.leave()
            while w.pushes.live():
                await w.store.recent(1)
                w.clock.now_s += 1
            assert (await w.ended(push)).state is PushState.FAILED


async def test_a_device_that_works_on_a_push_nobody_knows_is_told_to_stop(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            await w.pushes.cancel(push.id, why="operator")
            ended = await w.ended(push)
        assert (ended.state, ended.reason) == (PushState.CANCELLED, "operator")
        w.device.sent.clear()
        w.device.send_offer(w.device.id, w.device.offered)  # type: ignore[arg-type] # it was offered above
        assert w.device.sent[-1] == "cancel: no such push"


async def _failed(w: World, times: int) -> None:
    await w.seen(lambda: w.pushes.desired(w.device.id)[0].failures == times)


async def test_a_failed_push_is_tried_again_after_its_pause_and_then_given_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.output = b"\x7f\x7f\x7f"
        async with running(w.pushes):
            await w.pushes.start(w.device.id, KWS, who="ann")
            await _failed(w, 1)
            for tries, pause_s in ((2, 100), (3, 200)):
                w.clock.now_s += pause_s - 1
                await w.pushes.meet_wishes()
                assert len(await w.pushes.recent(10)) == tries - 1
                w.clock.now_s += 1
                await w.pushes.meet_wishes()
                (latest, *_) = await w.pushes.recent(10)
                assert (latest.id, latest.who) == (tries, "ann")
                await _failed(w, tries)
        (desire,) = w.pushes.desired(w.device.id)
        assert (desire.version, desire.failures) == (1, 3)
        assert desire.settled.startswith("given up after 3 tries: the trial failed")
        assert w.tracking.device(w.device.id).desired == (("kws", 1),)


async def test_poison_is_left_alone_until_an_operator_says_otherwise(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.output = b"\x7f\x7f\x7f"
        async with running(w.pushes):
            for count in range(1, 5):
                await w.pushes.start(w.device.id, KWS, who="ann")
                await w.seen(lambda: w.pushes.terms(w.device.id).failures == count)  # noqa: B023 - waited for at once
            with pytest.raises(Conflict, match=r"in quarantine: 4 pushes in a row failed.*devices\.release ends that"):
                await w.pushes.start(w.device.id, KWS, who="ann")
            told = [event.what for event in w.events if isinstance(event, DeviceChanged)]
            assert any(what.startswith("quarantined: 4 pushes in a row failed") for what in told)
    async with world(tmp_path) as w:
        assert w.pushes.terms(w.device.id).quarantine.startswith("4 pushes in a row failed")
        await w.join()
        assert (await w.pushes.release(w.device.id)).quarantine == ""
        async with running(w.pushes):
            w.clock.now_s += 2
            await w.pushes.meet_wishes()
            (latest, *_) = await w.pushes.recent(10)
            assert (await w.ended(latest)).state is PushState.ACCEPTED


async def test_a_device_that_comes_back_with_something_else_gets_what_is_wanted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
    async with world(tmp_path) as w:
        assert [(wish.model, wish.version) for wish in w.pushes.desired(w.device.id)] == [("kws", 1)]
        async with running(w.pushes):
            w.device.birth()  # its flash was replaced: it holds nothing
            w.clock.now_s += 2
            await w.pushes.meet_wishes()
            (latest, *_) = await w.pushes.recent(10)
            assert (latest.id, (await w.ended(latest)).state) == (2, PushState.ACCEPTED)


async def test_a_cancelled_push_is_wanted_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = PushPhase.WANT
        push = await w.pushes.start(w.device.id, KWS, who="ann")
        ended = await w.pushes.cancel(push.id, why="wrong board")
        assert (ended.state, ended.reason, ended.ended_at) == (PushState.CANCELLED, "wrong board", 1.7e9)
        assert w.device.sent[-1] == "cancel: wrong board"
        assert w.pushes.desired(w.device.id) == ()
        assert w.tracking.device(w.device.id).desired == ()
        with pytest.raises(NotFound, match="no push 1 is running"):
            await w.pushes.cancel(push.id, why="again")


async def test_going_back_needs_the_operators_word_and_is_recorded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        second = await w.add(b"two")
        w.device.slots = (Slot(0, SlotState.ACTIVE, second.model, 2, second.variants[0].digest), EMPTY[1])
        await w.join()
        old = parse_model_ref("kws@1")
        with pytest.raises(Conflict, match=r"dev-1 runs kws@2, which is newer: --allow-downgrade"):
            await w.pushes.start(w.device.id, old, who="ann")
        push = await w.pushes.start(w.device.id, old, who="ann", downgrade=True)
        assert push.replaces == 2
        assert w.device.offered is not None
        assert w.device.offered.manifest.replaces == 2
        (row,) = await w.pushes.recent(10, w.device.id)
        assert (row.who, row.replaces) == ("ann", 2)


async def test_one_slot_is_pushed_to_only_when_the_operator_allows_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        w.device.slots = EMPTY[:1]
        await w.join()
        with pytest.raises(Conflict, match=r"devices\.one-slot allows it"):
            await w.pushes.start(w.device.id, KWS, who="ann")
        assert (await w.pushes.allow_one_slot(w.device.id, allowed=True)).one_slot
        async with running(w.pushes):
            ended = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert ended.state is PushState.ACCEPTED


async def test_a_compressed_push_sends_less_and_the_gateway_decoded_it_before(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        w.device.capabilities = replace(CAPABILITIES, deflate_bits=12)
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            assert (await w.ended(push)).state is PushState.ACCEPTED
        assert push.size_bytes == len(w.device.received) < len(MODEL_BYTES) / 2
        assert inflated(bytes(w.device.received), 12, len(MODEL_BYTES)) == MODEL_BYTES
        assert push.digest == version.variants[0].digest


async def test_an_artifact_that_is_damaged_on_the_disk_is_not_offered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        path = w.artifacts.path(version.variants[0].digest)
        whole = path.read_bytes()
        for bit in range(0, len(whole) * 8, 97):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(changed))
            with pytest.raises(NodeError, match="damaged on the disk"):
                await w.pushes.start(w.device.id, KWS, who="ann")
        assert w.device.sent == []


async def test_an_encoded_form_that_is_damaged_on_the_disk_is_mended(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        w.device.capabilities = replace(CAPABILITIES, deflate_bits=12)
        await w.join()
        w.device.rejects = "not now"
        async with running(w.pushes):
            first = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
            path = w.artifacts.path(first.stream)
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert path.read_bytes() == whole


async def test_an_offer_whose_signature_was_damaged_in_the_journal_is_not_repeated(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        push = await w.pushes.start(w.device.id, KWS, who="ann")
        signed = bytearray(push.signed)
        signed[40] ^= 1
        await w.store.save_push(replace(push, signed=bytes(signed)))
    async with world(tmp_path) as w, running(w.pushes):
        w.device.birth()
        ended = await w.ended(push)
        assert (ended.state, "signature does not hold" in ended.reason) == (PushState.CANCELLED, True)
        assert "offer" not in w.device.sent


async def test_a_long_self_test_is_cut_to_what_a_manifest_holds(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.trial.expected = bytes(1200)
        await w.add(MODEL_BYTES)
        await w.join()
        await w.pushes.start(w.device.id, KWS, who="ann")
        assert w.device.offered is not None
        assert len(w.device.offered.signed) <= 1024
        test = w.device.offered.manifest.self_test
        assert test is not None
        assert test.expected == bytes(600)
