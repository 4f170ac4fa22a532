"""The gateway of the proof: the real transition table over the real journal rows, driven as `services.pushes` drives it.

Synchronous and in simulated time, so that a hundred thousand runs fit into minutes. A state is committed before its commands
leave; the process may be killed on either side of each commit. `prove/service.py` drives the real service in its place.
"""

import sqlite3
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from gatewayd.adapters import store_rows as rows
from gatewayd.adapters.store_schema import connect
from gatewayd.core.device import Born, Lost, PushReport, Report
from gatewayd.core.ended import IN_PROGRESS
from gatewayd.core.names import DeviceId, PushId
from gatewayd.core.update import (
    Cancelled,
    Command,
    DeviceBack,
    DeviceGone,
    Event,
    Limits,
    Push,
    PushState,
    RunTrial,
    SendAccept,
    SendActivate,
    SendCancel,
    SendChunk,
    SendOffer,
    Step,
    TimePassed,
    TrialFailed,
    TrialPassed,
    new_push,
    resumed_after_restart,
    step,
)
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.manifest import key_ring
from prove.device import ANSWER_BYTES, digest_of
from prove.keys import KEY
from prove.models import Artifact

T = TypeVar("T")

DEVICE = DeviceId("cam-7")
LIMITS = Limits()
KEYS = dict(key_ring([KEY.public_key().public_bytes_raw()]))


class Killed(RuntimeError):
    """SIGKILL."""


def open_journal() -> sqlite3.Connection:
    """Return an empty database with the store's own schema."""
    return connect(Path(":memory:"), 0.0)


class Gateway:
    """One gateway. `send(kind, payload)` puts a message into the air; `on_commit(is_before)` may raise Killed."""

    def __init__(
        self,
        artifacts: dict[int, Artifact],
        *,
        journal: sqlite3.Connection,
        send: Callable[[str, bytes], None],
        on_commit: Callable[[bool], None],
    ) -> None:
        self._artifacts = artifacts
        self._journal = journal
        self._send = send
        self._on_commit = on_commit
        self._report: Report | None = None
        self._trial: tuple[PushId, float] | None = None
        self._requests = 0
        self.live: Push | None = None
        self.now_s = 0.0

    def push(self, version: int) -> bool:
        """Begin a push; there is nothing against it here."""
        artifact = self._artifacts[version]
        number = self._committed(lambda: rows.next_push_id(self._journal))
        first = new_push(
            id=number, device=DEVICE, model=artifact.model, version=version, variant="tflite-int8",
            digest=digest_of(artifact.content), size_bytes=len(artifact.stream), now_s=self.now_s, limits=LIMITS,
        )  # fmt: skip
        self.live = first.push
        self._committed(lambda: rows.save_push(self._journal, first.push))
        self._take(first)
        return True

    def restart(self) -> None:
        """Come up again with nothing but the journal."""
        self._report, self._trial, self.live = None, None, None
        for push in rows.live_pushes(self._journal):
            resumed = resumed_after_restart(push, now_s=self.now_s, limits=LIMITS).push
            if resumed.state.is_end:
                self._committed(partial(rows.save_push, self._journal, resumed))
            else:
                self.live = resumed

    def ended(self) -> list[Push]:
        """Return the journal's pushes that have ended, oldest first."""
        return [push for push in reversed(rows.recent_pushes(self._journal, 100)) if push.state.is_end]

    def due_s(self) -> float | None:
        """Return when time alone matters next."""
        times = [] if self.live is None else [self.live.deadline_s]
        return min([*times, *([] if self._trial is None else [self._trial[1]])], default=None)

    def tick(self) -> None:
        """Look at the deadlines."""
        if self._trial is not None and self.now_s >= self._trial[1]:
            self._trial = None
            self._advance(TrialFailed("no answer"))
        if self.live is not None and self.now_s >= self.live.deadline_s:
            self._advance(TimePassed())

    def hear(self, kind: str, payload: bytes) -> None:
        """Take a message of the device."""
        heard = wire.decode_up(kind, payload, DEVICE)
        match heard:
            case Born():
                self._report = heard.report
                self._born(DeviceBack(heard.report.slots))
            case Lost():
                self._advance(DeviceGone(heard.reason))
            case PushReport() if self.live is None or self.live.id != heard.push:
                self._reported_late(heard)
            case PushReport():
                self._advance(heard)
            case wire.ResultFrame() if self._trial is not None:
                self._trial = None
                self._advance(self._verdict(heard))
            case _:
                pass

    def _born(self, event: DeviceBack) -> None:
        """A birth leads a push on, or corrects how the last one ended."""
        newest = rows.recent_pushes(self._journal, 1)
        if self.live is not None:
            self._advance(event)
        elif newest and newest[0].state is not PushState.ACCEPTED:
            self._revise(newest[0], event)

    def _reported_late(self, report: PushReport) -> None:
        over = next((push for push in self.ended() if push.id == report.push), None)
        if over is not None and over.state is not PushState.ACCEPTED:
            self._revise(over, report)
        elif report.phase in IN_PROGRESS:
            self._send("cancel", wire.encode_cancel(report.push, "no such push"))

    def _revise(self, over: Push, event: Event) -> None:
        taken = step(over, event, now_s=self.now_s, limits=LIMITS)
        if taken.push.state is not over.state:
            self._committed(partial(rows.save_push, self._journal, taken.push))
        for command in taken.commands:
            self._obey(taken.push, command)

    def _verdict(self, frame: wire.ResultFrame) -> TrialPassed | TrialFailed:
        push = self.live
        if push is None or frame.content[:ANSWER_BYTES] != self._artifacts[push.version].expected:
            return TrialFailed(frame.reason or "a wrong answer")
        return TrialPassed()

    def _advance(self, event: Event) -> None:
        if self.live is not None:
            self._take(step(self.live, event, now_s=self.now_s, limits=LIMITS))

    def _take(self, taken: Step) -> None:
        before, after = self.live, taken.push
        self.live = after
        if before is not None and before.state is not after.state:
            self._committed(lambda: rows.save_push(self._journal, after))
        if after.state.is_end:
            self.live, self._trial = None, None
        for command in taken.commands:
            self._obey(after, command)

    def _obey(self, push: Push, command: Command) -> None:
        artifact = self._artifacts[push.version]
        match command:
            case SendOffer():
                self._send("offer", wire.encode_offer(push.id, artifact.signed))
            case SendChunk(offset, length):
                self._send("chunk", wire.encode_chunk(push.id, offset, artifact.stream[offset : offset + length]))
            case SendActivate():
                self._send("activate", wire.encode_activate(push.id))
            case SendAccept():
                self._send("accept", wire.encode_accept(push.id))
            case SendCancel(reason):
                self._send("cancel", wire.encode_cancel(push.id, reason))
            case RunTrial():
                self._try(push)

    def _try(self, push: Push) -> None:
        slots = () if self._report is None else self._report.slots
        slot = next((each.index for each in slots if each.digest == push.digest), None)
        if slot is None:
            self._advance(TrialFailed("the device shows no slot that holds the new model"))
            return
        self._requests += 1
        self._trial = (push.id, self.now_s + LIMITS.trial_s / 2)
        self._send("run", wire.encode_run(self._requests, slot=slot, version=push.version, content=b"\0"))

    def cancel(self, reason: str) -> None:
        """Somebody wants the push to end."""
        self._advance(Cancelled(reason))

    def _committed(self, work: Callable[[], T]) -> T:
        self._on_commit(True)  # noqa: FBT003 - before
        self._journal.execute("BEGIN IMMEDIATE")
        result = work()
        self._journal.commit()
        self._on_commit(False)  # noqa: FBT003 - after
        return result


@cache
def _journal() -> sqlite3.Connection:
    return open_journal()


def shared_journal() -> sqlite3.Connection:
    """Return an empty journal: one database per process, as making one takes longer than a push."""
    journal = _journal()
    if journal.in_transaction:
        journal.rollback()
    for table in ("pushes", "desires", "push_terms", "devices", "variants", "versions"):
        journal.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
    return journal
