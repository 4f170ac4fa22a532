from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from gatewayd.core.device import Born, LinkKind, Report, Slot, SlotState
from gatewayd.core.errors import Conflict, ModelRefused
from gatewayd.core.events import ArtifactsCollected
from gatewayd.core.model import Verdict, Version
from gatewayd.core.names import Digest, parse_model_ref
from gatewayd.services.collecting import Collected, Collector, CollectorPorts
from tests.services.world import CAPABILITIES, DEVICE, DEVICE_RUNS, MODEL, World, running, world

WEEK_S = 7 * 86_400.0
NOW_S = 1.7e9  # the catalog's wall clock in this world


def digest(content: bytes) -> Digest:
    return Digest(sha256(content).hexdigest())


@dataclass
class WallClock:
    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Site:
    w: World
    clock: WallClock
    collector: Collector

    async def retired(self, content: bytes) -> Version:
        """Add a version beside the stable one and retire it; its files may go at once."""
        if not self.w.catalog.versions():
            await self.w.add(b"the stable one")
        version = await self.w.add(content)
        await self.w.catalog.retire(MODEL, version.number, who="ann", why="")
        self.clock.now_s = NOW_S + WEEK_S + 1
        return version

    def report(self, *slots: Slot) -> None:
        """Let the device say what it holds, as the daemon hands it on."""
        event = Born(DEVICE, LinkKind.MQTT, Report(CAPABILITIES, slots))
        self.w.tracking.handle(event)
        self.collector.saw(event)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    async with world(folder) as w:
        clock = WallClock()
        ports = CollectorPorts(w.artifacts, w.store, w.store, w.events.append, clock)
        collector = Collector(
            ports, catalog=w.catalog, tracking=w.tracking, pushes=w.pushes, keep_retired_s=WEEK_S, every_s=3600
        )
        await collector.load()
        yield Site(w, clock, collector)


async def test_a_retired_version_is_kept_for_a_while_and_then_goes(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.retired(b"old")
        s.clock.now_s = NOW_S + 3600
        kept = await s.collector.collect()
        assert (kept.removed, kept.kept) == ({}, {digest(b"old"): "kws@2 was retired only 1.0 hours ago"})
        s.clock.now_s = NOW_S + WEEK_S
        assert (await s.collector.collect()).removed == {digest(b"old"): 3}
        assert s.w.events[-1] == ArtifactsCollected(1, 3)
        assert not await s.w.artifacts.has(digest(b"old"))
        assert await s.w.artifacts.has(digest(b"the stable one"))
        assert s.w.catalog.resolve(parse_model_ref("kws@2")).number == 2


async def test_what_was_collected_cannot_come_back(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.retired(b"old")
        await s.collector.collect()
        with pytest.raises(Conflict, match="was collected; add its files again"):
            await s.w.catalog.bring_back(MODEL, 2)


async def test_a_dry_run_only_tells(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.retired(b"old")
        assert list((await s.collector.collect(dry_run=True)).removed) == [digest(b"old")]
        assert await s.w.artifacts.has(digest(b"old"))


async def test_what_a_version_in_use_shares_stays(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.retired(b"shared")
        await s.w.add(b"shared")
        assert (await s.collector.collect()).removed == {}


@pytest.mark.parametrize("state", [SlotState.ACTIVE, SlotState.TRIAL])
async def test_what_a_device_holds_stays_also_when_it_is_away_and_we_restart(tmp_path: Path, state: SlotState) -> None:
    async with site(tmp_path) as s:
        await s.retired(b"old")
        s.report(Slot(0, state, MODEL, 2, digest(b"old")), Slot(1, SlotState.EMPTY))
        found = await s.collector.collect()
        assert (found.removed, found.kept) == ({}, {digest(b"old"): f"device {DEVICE} holds it"})
        await s.w.store.save_holdings(DEVICE, frozenset({digest(b"old")}))
    async with site(tmp_path) as s:
        s.clock.now_s = NOW_S + WEEK_S + 1
        assert (await s.collector.collect()).removed == {}
        s.report(Slot(0, SlotState.EMPTY), Slot(1, SlotState.EMPTY))
        assert list((await s.collector.collect()).removed) == [digest(b"old")]


async def test_holdings_are_written_when_they_change(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        held = Slot(0, SlotState.ACTIVE, MODEL, 2, digest(b"old"))
        s.report(held)
        s.report(held)
        assert s.collector.unsaved() == 1
        await s.collector.save_next()
        assert await s.w.store.load_holdings() == {DEVICE: frozenset({digest(b"old")})}


async def test_what_a_push_sends_stays(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.w.add(b"the stable one")
        version = await s.w.add(b"pushed")
        await s.w.join()
        s.w.device.is_silent = True
        async with running(s.w.pushes):
            push = await s.w.pushes.start(DEVICE, parse_model_ref("kws@2"), who="ann")
            await s.w.catalog.retire(MODEL, version.number, who="ann", why="")
            s.clock.now_s = NOW_S + WEEK_S + 1
            found = await s.collector.collect()
            assert (found.removed, found.kept) == ({}, {digest(b"pushed"): "a device is to hold kws@2"})
            assert push.digest == digest(b"pushed")


async def test_the_encoded_form_that_a_push_sends_stays_and_is_made_again_for_the_next(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.w.add(b"zero" * 500)
        s.w.device.capabilities = replace(CAPABILITIES, deflate_bits=12)
        await s.w.join()
        s.w.device.rejects, s.w.device.is_silent = "not now", True
        async with running(s.w.pushes):
            push = await s.w.pushes.start(DEVICE, parse_model_ref("kws"), who="ann")
            assert push.stream != push.digest
            assert (await s.collector.collect()).removed == {}
            await s.w.pushes.cancel(push.id, why="later")
            assert list((await s.collector.collect()).removed) == [push.stream]
            again = await s.w.pushes.start(DEVICE, parse_model_ref("kws"), who="ann")
            assert again.stream == push.stream
            assert await s.w.artifacts.has(push.stream)


async def test_a_retired_version_is_not_pushed_not_even_to_a_device_that_was_to_have_it(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.w.add(b"the stable one")
        version = await s.w.add(b"pushed")
        await s.w.join()
        s.w.device.rejects = "not now"
        async with running(s.w.pushes):
            await s.w.ended(await s.w.pushes.start(DEVICE, parse_model_ref("kws@2"), who="ann"))
            await s.w.catalog.retire(MODEL, version.number, who="ann", why="")
            s.w.clock.now_s += 10_000
            await s.w.pushes.meet_wishes()
            assert s.w.pushes.live() == ()
            with pytest.raises(Conflict, match="retired"):
                await s.w.pushes.start(DEVICE, parse_model_ref("kws@2"), who="ann")


async def test_what_is_being_admitted_stays(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        collected: list[Collected] = []

        async def meanwhile() -> None:
            collected.append(await s.collector.collect())

        s.w.trial.meanwhile = meanwhile
        version = await s.w.add(b"fresh")
        assert [found.removed for found in collected] == [{}]
        assert await s.w.artifacts.has(version.variants[0].digest)


async def test_what_was_refused_leaves_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.w.add(b"good")
        s.w.trial.verdicts = (Verdict(DEVICE_RUNS.place, "tflm", runs=False, reason="no CUSTOM"),)
        for content in (b"refused", b"good"):
            with pytest.raises(ModelRefused):
                await s.w.add(content)
        assert set(await s.w.artifacts.digests()) == {digest(b"good")}


async def test_leftovers_of_a_crash_go(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.w.add(b"good")
        await s.w.artifacts.put(b"nobody's")
        found = await s.collector.collect()
        assert (list(found.removed), found.kept_count, found.kept_bytes) == ([digest(b"nobody's")], 1, 4)


async def test_many_artifacts_do_not_hold_up_the_loop_for_each(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        for number in range(150):
            await s.w.artifacts.put(b"%d" % number)
        assert len((await s.collector.collect()).removed) == 150
        assert await s.w.artifacts.digests() == {}
