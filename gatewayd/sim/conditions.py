"""What changes around a simulated board while it runs: interference, an outage, a processor that has other things to do.

Lines on standard input change it (`gatewayd sim-device --steer`), so that a drill or a benchmark can choose the moment.
"""

import asyncio
import sys
from dataclasses import dataclass

from gatewayd.core.errors import BadRequest
from gatewayd.sim.log import Log

MAX_LINE_BYTES = 200
"""Bounds what is read before a line is refused."""
_MOST = 1e6
_USAGE = "link FACTOR, compute FACTOR, or outage on|off"


@dataclass(slots=True)
class Conditions:
    """As things are now: the radio's bytes per second times `link`, computing times `compute`; `is_out`: nothing gets through."""

    link: float = 1.0
    compute: float = 1.0
    is_out: bool = False

    def change(self, line: str) -> None:
        """Obey one line. Raises: BadRequest saying what may be written."""
        what, _, value = line.strip().partition(" ")
        match what:
            case "link":
                self.link = _factor(value)
            case "compute":
                self.compute = _factor(value)
            case "outage" if value in {"on", "off"}:
                self.is_out = value == "on"
            case _:
                raise BadRequest(f"{line.strip()[:MAX_LINE_BYTES]!r}: write {_USAGE}")


async def steered(conditions: Conditions, log: Log) -> None:
    """Obey the lines of standard input until it ends; a line that makes no sense is told, and changes nothing."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    try:
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    except (ValueError, OSError):  # a file, or /dev/null
        log("steer-refused", reason="standard input is neither a pipe nor a terminal")
        return
    while True:
        try:
            line = await reader.readline()
        except ValueError:  # the line was too long, and is gone
            log("steer-refused", reason=f"a line has at most {MAX_LINE_BYTES} bytes")
            continue
        if not line:
            return
        try:
            conditions.change(line.decode(errors="replace"))
        except BadRequest as error:
            log("steer-refused", reason=error)
        else:
            log("steered", link=conditions.link, compute=conditions.compute, outage=conditions.is_out)


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 / _MOST <= factor <= _MOST:
        raise BadRequest(f"{text[:40]!r}: a factor above 0 (up to {_MOST:,.0f}); write {_USAGE}")
    return factor
