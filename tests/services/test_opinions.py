import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.opinion_file import OpinionFile
from gatewayd.core.device import Slot, SlotState
from gatewayd.core.errors import BadRequest, NodeError, NotFound, NotStored, UnknownModel, WorkerDied
from gatewayd.core.model import Version
from gatewayd.core.names import ModelName, RequestId, parse_model_ref
from gatewayd.core.opinion import SecondOpinion
from gatewayd.core.request import NODE, InferenceResult, Privacy, Target
from gatewayd.services.inference import Inference
from gatewayd.services.opinions import Opinions
from gatewayd.services.running import Runner
from tests.fakes_opinions import OpinionsInMemory
from tests.services.finding import finder_of
from tests.services.world import CAPABILITIES, DEVICE, MODEL, World, world

BIG = ModelName("kws-big")
LABELS = ("a", "b", "c")
UNSURE = bytes([0, 1, 0])  # 0.25, 0.5, 0.25 at scale 0.25, zero point -1
SURE = bytes([255, 255, 3])  # 0, 0, 1
OPINION = SecondOpinion(MODEL, parse_model_ref("kws-big"))


class Cascaded:
    """A device that holds the small model, and a node with the bigger one."""

    def __init__(self, w: World, opinions: Opinions, inference: Inference, small: Version, big: Version) -> None:
        self.w, self.opinions, self.inference, self.small, self.big = w, opinions, inference, small, big

    async def ask(self, output: bytes, *, privacy: Privacy = Privacy.ANY) -> InferenceResult:
        self.w.device.output = output
        request = self.w.request(source=True, prefer=Target(DEVICE), privacy=privacy)
        return await self.inference.infer(request)

    @property
    def told(self) -> str:
        return self.w.decisions.why(RequestId("r1")).opinion


@asynccontextmanager
async def cascaded(folder: Path, big_labels: Sequence[str] = LABELS) -> AsyncIterator[Cascaded]:
    async with world(folder) as w:
        small = await w.add(labels=LABELS)
        big = await w.catalog.add(
            model=BIG, files=(b"bigger",), labels=big_labels, preprocessing="", note="", who="test"
        )
        w.device.slots = (Slot(0, SlotState.ACTIVE, MODEL, 1, small.variants[0].digest), Slot(1, SlotState.EMPTY))
        await w.join()
        runner = Runner(runtime=w.runtime, link_of=lambda _: w.device, tracking=w.tracking, estimates=w.estimates)
        opinions = Opinions(
            catalog=w.catalog, runner=runner, runtime=w.runtime, estimates=w.estimates, store=OpinionsInMemory()
        )
        inference = Inference(
            catalog=w.catalog, finder=finder_of(w.tracking, w.estimates, w.runtime), runner=runner, decisions=w.decisions,
            notify=w.events.append, clock=w.clock, on_served=w.served.append, opinions=opinions,
        )  # fmt: skip
        yield Cascaded(w, opinions, inference, small, big)


async def test_without_one_the_devices_answer_stands(tmp_path: Path) -> None:
    async with cascaded(tmp_path) as c:
        result = await c.ask(UNSURE)
        assert (result.ran_on, result.label) == (Target(DEVICE), "b")
        assert c.told == ""


async def test_an_unsure_answer_is_judged_by_the_bigger_model(tmp_path: Path) -> None:
    async with cascaded(tmp_path) as c:
        await c.opinions.set(OPINION)
        result = await c.ask(UNSURE)
        assert (result.ran_on, result.label, result.model) == (NODE, "c", "kws")
        assert result.variant.startswith("kws-big@1 ")
        assert result.reason.startswith("second opinion: the device said b with 0.50")
        assert c.told.endswith("kws-big@1 said c")
        assert c.w.decisions.why(RequestId("r1")).served_by == Target(DEVICE)
        level = c.opinions.learned(c.small, c.big).levels[8]
        assert (level.asked, level.wrong) == (1.0, 1.0)


async def test_an_answer_that_was_always_right_is_asked_about_no_more(tmp_path: Path) -> None:
    async with cascaded(tmp_path) as c:
        await c.opinions.set(OPINION)
        c.w.device.output = SURE
        asked = [(await c.ask(SURE)).ran_on == NODE for _ in range(200)]
        assert asked[0]
        assert not asked[-1]
        assert c.told.startswith("not asked: the device said c with 1.00")
        assert (await c.ask(UNSURE)).ran_on == NODE  # of these nothing is known yet


async def test_private_data_is_not_asked_about(tmp_path: Path) -> None:
    async with cascaded(tmp_path) as c:
        await c.opinions.set(OPINION)
        assert (await c.ask(UNSURE, privacy=Privacy.STAY_ON_DEVICE)).ran_on == Target(DEVICE)
        assert c.told == "not asked: the data must stay where it is"


async def test_a_bigger_model_that_fails_takes_nothing_away(tmp_path: Path) -> None:
    async with cascaded(tmp_path) as c:
        await c.opinions.set(OPINION)
        c.w.runtime.failure = WorkerDied("SIGSEGV")
        result = await c.ask(UNSURE)
        assert (result.ran_on, result.label) == (Target(DEVICE), "b")
        assert c.told == "kws-big@1 could not be asked: SIGSEGV"


async def test_what_cannot_judge_is_refused(tmp_path: Path) -> None:
    async with cascaded(tmp_path, big_labels=("x", "y", "z")) as c:
        with pytest.raises(BadRequest, match="must have the same labels"):
            await c.opinions.set(OPINION)
        with pytest.raises(BadRequest, match="is the same version"):
            await c.opinions.set(SecondOpinion(MODEL, parse_model_ref("kws")))
        with pytest.raises(UnknownModel):
            await c.opinions.set(SecondOpinion(MODEL, parse_model_ref("huge")))
        with pytest.raises(NotFound):
            await c.opinions.unset(MODEL)


async def test_what_was_set_outlives_a_restart(tmp_path: Path) -> None:
    file = OpinionFile(tmp_path / "second-opinions.json")
    assert await file.load_opinions() == ()
    await file.save_opinions([OPINION])
    assert await file.load_opinions() == [OPINION]
    async with cascaded(tmp_path) as c:
        await c.opinions.set(OPINION)
        await c.opinions.load()
        assert c.opinions.all() == (OPINION,)
        await c.opinions.unset(MODEL)
        await c.opinions.load()
        assert c.opinions.all() == ()


async def test_a_file_that_cannot_be_read_is_not_silently_dropped(tmp_path: Path) -> None:
    path = tmp_path / "second-opinions.json"
    path.write_text('[{"model": "kws"}]')
    with pytest.raises(NodeError, match="cannot be read"):
        await OpinionFile(path).load_opinions()
    with pytest.raises(NotStored):
        await OpinionFile(tmp_path / "gone" / "x").save_opinions([OPINION])


@pytest.mark.parametrize(
    ("returns", "sent", "sample", "told"),
    [
        (8, 8, (10, 12, 14, 16), ", about the same sample; "),
        (0, 8, (2, 4, 6, 8), ", about a fresh sample (the device sends none with its answers); "),
        (4, 8, (2, 4, 6, 8), ", about a fresh sample (one has 8 bytes, the device sends 4 with answers); "),
        (8, 6, (2, 4, 6, 8), ", about a fresh sample (none came with the answer); "),
    ],
)
async def test_the_bigger_model_sees_what_the_device_saw_where_that_was_sent(
    tmp_path: Path, returns: int, sent: int, sample: tuple[int, ...], told: str
) -> None:
    async with cascaded(tmp_path) as c:
        c.w.device.capabilities = replace(CAPABILITIES, returns_bytes=returns)
        c.w.device.returned_bytes = sent
        c.w.device.birth()
        await c.opinions.set(OPINION)
        result = await c.ask(UNSURE)
        assert (result.ran_on, told in c.told) == (NODE, True), c.told
        assert c.w.runtime.inputs[-1] == struct.pack("4b", *(each // 2 for each in sample))


async def test_a_sample_is_asked_for_only_with_answers_that_are_not_sure(tmp_path: Path) -> None:
    async with cascaded(tmp_path) as c:
        c.w.device.capabilities = replace(CAPABILITIES, returns_bytes=8)
        c.w.device.birth()
        await c.ask(UNSURE)
        assert not c.w.device.below  # nobody would be asked
        await c.opinions.set(OPINION)
        await c.ask(UNSURE, privacy=Privacy.STAY_ON_DEVICE)
        assert not c.w.device.below
        for _ in range(200):
            await c.ask(SURE)
        # Surest of 16 levels: from 15/16 on, which is 2.75 as stored, so that 3 is the least that reaches it.
        assert c.w.device.below == struct.pack("<i", 3)
        assert (await c.ask(SURE)).ran_on == Target(DEVICE)
