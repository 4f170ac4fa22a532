import asyncio
from pathlib import Path

import pytest

from gatewayd.core.airtime import AirRules
from gatewayd.core.names import PushId, parse_model_ref
from gatewayd.core.push import Push as PushValue
from gatewayd.core.push import SendChunk
from gatewayd.core.update import new_push
from gatewayd.services.proving import Prover
from gatewayd.services.push_sending import Sender, SendPorts
from tests.services.world import LIMITS, World, world

MODEL_BYTES = bytes(range(256)) * 16


class Chunks:
    """Only notes what is sent."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def send_chunk(self, _device: str, _push: int, *, offset: int, content: bytes) -> None:
        assert content == MODEL_BYTES[offset : offset + 1024]
        self.offsets.append(offset)


async def made(w: World, rules: AirRules) -> tuple[Sender, PushValue, Chunks]:
    version = await w.add(MODEL_BYTES)
    await w.join()
    variant, chunks = version.variants[0], Chunks()
    sender = Sender(
        SendPorts(w.artifacts, w.signer, lambda _: chunks, w.clock),  # type: ignore[arg-type,return-value]  # chunks only
        tracking=w.tracking,
        estimates=w.estimates,
        prover=Prover(catalog=w.catalog, tracking=w.tracking, timeout_s=1),
        rules=rules,
        max_trials=1,
        report=lambda _push, _event: None,
    )
    step = new_push(
        id=PushId(1), device=w.device.id, model=version.model, version=1, variant=variant.name, digest=variant.digest,
        size_bytes=len(MODEL_BYTES), now_s=w.clock(), limits=LIMITS,
    )  # fmt: skip
    return sender, step.push, chunks


RULES = AirRules(share=0.5, quiet_s=5.0, burst_s=0.0)


async def test_chunks_wait_for_their_share_while_inference_uses_the_link(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sender, push, chunks = await made(w, RULES)
        air_s = w.estimates.link(push.device).transfer_s(1024)
        w.tracking.began(push.device)
        for number in range(3):
            await sender.send(push, SendChunk(1024 * number, 1024))
            assert chunks.offsets == [1024 * each for each in range(number)]
            due_s = sender.next_s()
            assert due_s == pytest.approx(w.clock() + 2 * air_s)
            w.clock.now_s = due_s or 0.0
            await sender.send_due()
        assert chunks.offsets == [0, 1024, 2048]
        assert sender.next_s() is None


async def test_without_inference_they_leave_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sender, push, chunks = await made(w, RULES)
        w.tracking.began(push.device)
        w.tracking.ended(push.device)
        w.clock.now_s += 5.1
        for number in range(3):
            await sender.send(push, SendChunk(1024 * number, 1024))
        assert chunks.offsets == [0, 1024, 2048]


async def test_a_request_for_a_held_chunk_is_not_paid_twice_and_its_end_drops_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sender, push, chunks = await made(w, RULES)
        w.tracking.began(push.device)
        await sender.send(push, SendChunk(0, 1024))
        due_s = sender.next_s()
        await sender.send(push, SendChunk(0, 1024))
        assert sender.next_s() == due_s
        sender.forget(push)
        w.clock.now_s += 10
        await sender.send_due()
        assert chunks.offsets == []


async def test_a_question_that_was_lost_is_asked_again_before_silence_counts(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.answers = False
        prover = Prover(catalog=w.catalog, tracking=w.tracking, timeout_s=30)
        push = await w.pushes.start(w.device.id, parse_model_ref("kws@1"), who="ann")
        w.device.send_activate(push.device, PushId(1))
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(prover.failure(push, w.device))
            await w.seen(lambda: w.device.asked > 0)
            w.device.answers = True
        assert asked.result() == ""
        assert w.device.asked > 1
