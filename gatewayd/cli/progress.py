"""Waits for a push to end and shows how it goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from gatewayd.api.node import Status
from gatewayd.api.pushes import PushRow
from gatewayd.cli.client import Client, Refused
from gatewayd.cli.tables import size_text

POLL_S = 0.25
RECENT_PUSHES = 200  # the most that status shows; a push that ends is among the latest
_WIDTH = 30
DONE = "accepted"


@dataclass(frozen=True, slots=True)
class Screen:
    """Where progress goes: one line that is overwritten on a terminal, a line for each change elsewhere."""

    out: TextIO

    def show(self, push: PushRow, before: PushRow | None) -> None:
        """Show `push` when it is news."""
        if push == before:
            return
        if self.out.isatty():
            # Erase to the end of the line: the line before may have been longer.
            self.out.write(f"\r{bar(push)}\x1b[K" + ("\n" if push.ended else ""))
        elif before is None or push.state != before.state:
            self.out.write(bar(push) + "\n")
        self.out.flush()


def wait(client: Client, push: PushRow, *, screen: Screen, sleep: Callable[[float], None]) -> PushRow:
    """Poll until the push has ended and return it as it ended. The daemon gives every push its deadlines.

    Raises: NotReachable; Refused when the daemon forgot it.
    """
    before = None
    while True:
        screen.show(push, before)
        if push.ended:
            return push
        sleep(POLL_S)
        before, push = push, _again(client, push)


def bar(push: PushRow) -> str:
    """Return the push as one line with a progress bar."""
    share = push.offset / push.size_bytes if push.size_bytes else 0.0
    filled = round(_WIDTH * min(1.0, share))
    sent = f"{share:4.0%}  {size_text(push.offset)} of {size_text(push.size_bytes)}"
    reason = f" ({push.reason})" if push.reason else ""
    return f"{push.device} {push.model}@{push.version} [{'#' * filled}{'.' * (_WIDTH - filled)}] {sent}  {push.state}{reason}"


def _again(client: Client, push: PushRow) -> PushRow:
    status = Status.model_validate_json(client.call("status", {"pushes": RECENT_PUSHES}))
    for found in status.pushes:
        if found.push == push.push:
            return found
    raise Refused("not_found", f"push {push.push} is not among the latest {RECENT_PUSHES} any more")
