"""`make prove-mutants`: the proof can fail. Each mutant is the real source with one safety rule disabled; every one is caught.

A mutant is a replacement of text that stands exactly once in its file, made in a copy of the tree: the code that runs
everywhere else has no switches. The copy is judged by `prove.sample` in a process of its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.common import Report

ROOT = Path(__file__).parents[1]
_JUDGE_S = 240.0
_COPIED = ("gatewayd", "prove", "bench")
_UNUSED = shutil.ignore_patterns("__pycache__", "demo", "edges", "links", "api", "cli", "worker")


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` stands exactly once in the file `path`; `new` in its place disables `rule`; `judge` is the program that notices."""

    rule: str
    path: str
    old: str
    new: str
    judge: str = "prove.sample"


_PUSH, _FLASH, _JOURNAL = (
    "gatewayd/wire/agent_push.py",
    "gatewayd/wire/agent_flash.py",
    "gatewayd/wire/agent_journal.py",
)
_AGENT, _RULES, _UPDATE = "gatewayd/wire/agent.py", "gatewayd/wire/agent_rules.py", "gatewayd/core/update.py"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("the digest of what is in flash is compared", _PUSH, "if event.digest != slot.digest:", "if not event.digest:"),
    Mutant("the self-test's output is compared", _PUSH, "elif test is not None and not", "elif test is None and not"),
    Mutant("a trial is not for ever", _PUSH, "elif state.step is Step.TRIAL and", "elif state.step is Step.OFF and"),
    Mutant(
        "the old model is erased after the journal says so", _PUSH,
        "    raise_floor(state, new)\n    _rest(state)\n",
        "    raise_floor(state, new)\n    _rest(state)\n    for slot in gone:\n        erase_slot(board, state, slot)\n",
    ),
    Mutant(
        "a new model is staged in an empty slot", _PUSH,
        "if slot.state is SlotState.EMPTY), 0)", "if slot.state is SlotState.ACTIVE), 0)",
    ),
    Mutant("attempts at a self-test are counted", _PUSH, "if state.attempts >= MAX_ATTEMPTS:", "if state.attempts >= 10**9:"),
    Mutant(
        "what may be torn is erased before it is written again", _PUSH,
        "state.out.append(EraseSlot(state.staging, at + state.offset, slot_end))", "pass",
    ),
    Mutant(
        "the journal never says more than is in flash", _FLASH,
        "state.offset - state.offset % board.page_bytes",
        "min(state.offset + board.page_bytes, state.slots[state.staging].size_bytes)",
    ),
    Mutant("the journal is in two copies", _FLASH, "in (1 - state.journal_newest, state.journal_newest):", "in (0, 0):"),
    Mutant(
        "the copy that is behind is written first", _FLASH,
        "(1 - state.journal_newest, state.journal_newest)", "(state.journal_newest, 1 - state.journal_newest)",
    ),
    Mutant(
        "a copy that is behind is brought up to date", _FLASH,
        "state.is_journal_stale = first.journal != second.journal or -1 in state.journal_ends", "state.is_journal_stale = False",
    ),
    Mutant("a record's checksum counts", _JOURNAL, "return _CRC.pack(zlib.crc32(body)) == crc", "return bool(crc)"),
    Mutant(
        "a torn record's place is not written again", _JOURNAL,
        "is_blank = content.count(_ERASED, end) == copy_bytes - end", "is_blank = True",
    ),
    Mutant(
        "restarts in a trial are counted in flash", _AGENT,
        "    state.is_journal_stale = True\n    state.attempts += 1", "    state.attempts += 1",
    ),
    Mutant("a trial ends after a few restarts", _AGENT, "if state.attempts > MAX_ATTEMPTS:", "if state.attempts > 10**9:"),
    Mutant("every model is hashed at the start", _AGENT, "    if event.digest != slot.digest:", "    if not event.digest:"),
    Mutant(
        "the only model is not dropped", "gatewayd/wire/agent_drop.py",
        "if others == 0 and not message.is_last", "if others < 0 and not message.is_last",
    ),
    Mutant("what gives way is remembered over a restart", _FLASH, "state.leaving = journal.leaving", "state.leaving = 0"),
    Mutant("an older version is refused", _RULES, "return is_older or is_other, f", "return is_other, f"),
    Mutant(
        "a manifest's signature holds", "gatewayd/wire/manifest.py",
        'raise BadRequest("signed manifest: the signature does not hold") from error', "_ = error",
    ),
    Mutant(
        "the gateway accepts after the trial", _UPDATE,
        "command = SendAccept() if push.confirmed else RunTrial()", "command = SendAccept()",
    ),
    Mutant("silence is failure", _UPDATE, "if turn.now_s < push.deadline_s:", "if push.deadline_s:"),
    Mutant(
        "a push is taken up after a restart of the gateway", "gatewayd/adapters/store_rows.py",
        "FROM pushes WHERE NOT ended ORDER BY id", "FROM pushes WHERE NOT ended AND 0 ORDER BY id",
    ),
    Mutant(
        "a device that is back is asked where it stands", _UPDATE,
        'return _resumed(replace(push, present=True, reason=""), turn)', 'return Step(replace(push, present=True, reason=""))',
    ),
)  # fmt: skip

_PUSHES = "gatewayd/services/pushes.py"
_INFLATE, _ENDED = "gatewayd/wire/agent_inflate.py", "gatewayd/core/ended.py"
MUTANTS += (
    Mutant("no more is decoded than the manifest says", _INFLATE, "if len(got) > left:", "if len(got) > left + 10**9:"),
    Mutant("nothing stands after a stream's end", _INFLATE, "if decoder.unused_data:", "if decoder.unused_data is None:"),
    Mutant(
        "nothing is decoded that the manifest does not name", _PUSH,
        "if event.digest != state.encoded_digest:", "if not event.digest:",
    ),
    Mutant(
        "what may be half decoded is erased before it is decoded again", _PUSH,
        "state.out.append(EraseSlot(state.staging, 0, at))", "pass",
    ),
    Mutant("a stream is within the declared window", _RULES, "bits is not None and window_bits <= bits:", "bits is not None:"),
    Mutant(
        "a slot holds a stream beside what it decodes to", _RULES,
        'return is_too_much, f"no room', 'return False, f"no room',
    ),
    Mutant("a device that kept the model corrects the end", _ENDED, "return Step(_corrected(push))", "return Step(push)"),
    Mutant(
        "only a device that kept the model corrects the end", _ENDED,
        "event.phase is PushPhase.ACCEPTED", "event.phase is not PushPhase.REJECTED",
    ),
    Mutant(
        "a transfer does not go on for ever", _UPDATE,
        "deadline_s = min(deadline_s, push.transfer_until_s)", "deadline_s = min(deadline_s, deadline_s)",
    ),
    Mutant(
        "the service journals a state before its commands leave", _PUSHES,
        "if moved and not await self._journalled(moved, before, ending):",
        "if not moved and not await self._journalled(moved, before, ending):",
    ),
    Mutant(
        "the service takes up what the journal holds", _PUSHES,
        "            self._live.keep(resumed.push)\n", "            self._live.drop(resumed.push.id)\n",
    ),
    Mutant(
        "the service looks at the deadlines", _PUSHES,
        "due = [Given(push, TimePassed()) for push in self._due()]", "due: list[Given] = []",
    ),
)  # fmt: skip


_ARTIFACTS = "gatewayd/adapters/artifacts.py"
FILE_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "an artifact is synced before it gets its name", _ARTIFACTS,
        "            os.fsync(file.fileno())\n", "", "prove.files",
    ),
    Mutant(
        "an artifact's name is synced", _ARTIFACTS,
        "        _sync_directory(path.parent)\n        _sync_directory(self._root)\n", "", "prove.files",
    ),
    Mutant(
        "a commit is synced", "gatewayd/adapters/store_schema.py", '"synchronous = FULL"', '"synchronous = OFF"', "prove.files"
    ),
    Mutant(
        "a row is written in a transaction", "gatewayd/adapters/store.py",
        "        yield\n        connection.commit()", "        yield\n        connection.rollback()", "prove.files",
    ),
)  # fmt: skip
"""Caught by what is left on disk; these need gcc."""


def verdict(mutant: Mutant) -> str:
    """Return how the mutant was caught, "" when it was not.

    Raises: LookupError when its text is not in the source exactly once: the mutant has to follow the code.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in _COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=_UNUSED)
        _disable(copy, mutant)
        command = [sys.executable, "-m", mutant.judge]
        environ = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                command, cwd=copy, env=environ, capture_output=True, text=True, timeout=_JUDGE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no end within {_JUDGE_S:g} s"
        if done.returncode == 0:
            return ""
        lines = (done.stdout or done.stderr).strip().splitlines()
        return next((line for line in lines if line.startswith("FAULT")), lines[-1])


def _disable(copy: Path, mutant: Mutant) -> None:
    path = copy / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.rule}: {mutant.old!r} stands {text.count(mutant.old)} times in {mutant.path}")
    path.write_text(text.replace(mutant.old, mutant.new))


def judge(mutants: Sequence[Mutant]) -> dict[str, str]:
    """Return how each was caught, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip((mutant.rule for mutant in mutants), pool.map(verdict, mutants), strict=True))


def main() -> int:
    """Judge all; exit 1 when one lives."""
    found = judge(MUTANTS + (FILE_MUTANTS if shutil.which("gcc") else ()))
    for rule, how in found.items():
        print(f"{'caught' if how else 'ALIVE '}  without: {rule}\n        {how[:150]}")
    report = Report("mutants")
    report.add("mutants", len(found), (">=", 12))
    report.add("caught", sum(map(bool, found.values())), ("==", len(found)))
    return 0 if report.finish() else 1


if __name__ == "__main__":
    sys.exit(main())
