"""What the demonstration prints: sections, request lines, progress bars. Colour, wrapping and redrawing only on a terminal."""

import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_BAR_CELLS = 24
_NARROW = 40
"""Columns below which nothing is wrapped to fit: protects against a terminal that says it has none."""


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, _NARROW)


@dataclass(slots=True)
class Screen:
    """Standard output, safe from paho's thread and the main one. Bars stand below the last line and are redrawn in place."""

    is_terminal: bool = field(default_factory=sys.stdout.isatty)
    columns: Callable[[], int] = _columns
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _bars: dict[str, str] = field(default_factory=dict)
    _drawn: int = 0

    def section(self, number: int, title: str) -> None:
        """Start a numbered part of the story."""
        self.line("")
        self.line(f"{number}. {title}", style="1;36", hang=3)

    def line(self, text: str, *, style: str | None = None, hang: int | None = None) -> None:
        """Print one line; a terminal wraps it with its further lines indented by `hang`, None: as the first is."""
        indent = len(text) - len(text.lstrip()) if hang is None else hang
        with self._lock:
            self._erase()
            for part in self._wrapped(text, indent):
                sys.stdout.write(self._styled(part, style) + "\n")
            self._draw()

    def whole(self, text: str) -> None:
        """Print one line as it is, for commands: a terminal's own wrapping can be copied."""
        with self._lock:
            self._erase()
            sys.stdout.write(text + "\n")
            self._draw()

    def good(self, text: str) -> None:
        """Print a line that confirms."""
        self.line(f"   ✓ {text}", hang=5)

    def bad(self, text: str) -> None:
        """Print a line that tells of a refusal or failure."""
        self.line(f"   ✗ {text}", hang=5)

    def bar(self, name: str, share: float, text: str) -> None:
        """Show the progress of `name` on a terminal, cut to its width; elsewhere nothing."""
        if not self.is_terminal:
            return
        full = round(share * _BAR_CELLS)
        drawn = f"   [{'█' * full}{'·' * (_BAR_CELLS - full)}] {share:4.0%}  {text}"
        with self._lock:
            self._erase()
            self._bars[name] = drawn
            self._draw()

    def drop_bar(self, name: str) -> None:
        """Take a bar away."""
        with self._lock:
            self._erase()
            self._bars.pop(name, None)
            self._draw()

    def _erase(self) -> None:
        if self._drawn:
            sys.stdout.write("\r\x1b[2K" + "\x1b[1A\x1b[2K" * (self._drawn - 1))
            self._drawn = 0

    def _draw(self) -> None:
        most = self.columns() - 1
        sys.stdout.write("\n".join(bar if len(bar) <= most else bar[: most - 1] + "…" for bar in self._bars.values()))
        self._drawn = len(self._bars)
        sys.stdout.flush()

    def _wrapped(self, text: str, indent: int) -> list[str]:
        if not self.is_terminal:
            return [text]
        wrapper = textwrap.TextWrapper(self.columns() - 1, subsequent_indent=" " * indent, break_long_words=False)
        wrapper.break_on_hyphens = False
        return wrapper.wrap(text) or [""]

    def _styled(self, text: str, style: str | None) -> str:
        marks = {"   ✓ ": "32", "   ✗ ": "31"}
        if not self.is_terminal or "NO_COLOR" in os.environ:
            return text
        if style is not None:
            return f"\x1b[{style}m{text}\x1b[0m"
        colour = marks.get(text[:5])
        return f"   \x1b[{colour}m{text[3]}\x1b[0m{text[4:]}" if colour else text
