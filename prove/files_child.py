"""What is recorded: the gateway's own store and artifacts, doing what a few pushes make them do. Each promise is acknowledged.

An acknowledgement is a line of a file that the recorder sees too: from there on, whatever was promised has to survive.
"""

import asyncio
import os
import sys
from dataclasses import fields
from pathlib import Path

from gatewayd.adapters.artifacts import open_artifacts
from gatewayd.adapters.store import open_store
from gatewayd.core.names import DeviceId, ModelName, PushId
from gatewayd.core.push import Limits, Push, PushState
from gatewayd.core.update import new_push
from prove.device import digest_of

ARTIFACTS = tuple(bytes((index * factor) % 251 for index in range(54_000)) for factor in (3, 5, 7))
STATES = (PushState.OFFERED, PushState.TRANSFERRING, PushState.WRITTEN, PushState.VERIFIED, PushState.SELF_TESTED,
          PushState.TRIAL, PushState.ACCEPTED)  # fmt: skip
ROWS = tuple((number, state) for number in range(1, 4) for state in STATES)
"""The journal's writes, in order: (push, its state)."""


def push_row(number: int, state: PushState) -> Push:
    """Return the row of a push."""
    first = new_push(
        id=PushId(number), device=DeviceId("cam-7"), model=ModelName("kws"), version=number, variant="tflite-int8",
        digest=digest_of(ARTIFACTS[number - 1]), size_bytes=54_000, now_s=0.0, limits=Limits(),
    ).push  # fmt: skip
    return Push(**{name: getattr(first, name) for name in (each.name for each in fields(first))} | {"state": state})


async def work(folder: Path) -> None:
    """Store an artifact, then the rows of its push, three times; the store is opened anew each time."""
    acks = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT, 0o600)
    for number, content in enumerate(ARTIFACTS, start=1):
        async with open_store(folder / "db.sqlite") as store, open_artifacts(folder / "artifacts") as artifacts:
            await artifacts.put(content)
            os.write(acks, b"artifact\n")
            for row in ROWS:
                if row[0] == number:
                    await store.save_push(push_row(*row))
                    os.write(acks, b"row\n")
    os.close(acks)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
