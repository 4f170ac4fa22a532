"""What the demonstration prints: sections, request lines, a progress bar. Colour and redrawing only on a terminal."""

import os
import sys
import threading
from dataclasses import dataclass, field

_BAR_CELLS = 28


@dataclass(slots=True)
class Screen:
    """Standard output, safe from paho's thread and the main one."""

    is_live: bool = field(default_factory=lambda: sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _has_bar: bool = False

    def section(self, number: int, title: str) -> None:
        """Start a numbered part of the story."""
        self.line("")
        self.line(self._styled(f"{number}. {title}", "1;36"))

    def line(self, text: str) -> None:
        """Print one line, below a bar if one is shown."""
        with self._lock:
            if self._has_bar:
                sys.stdout.write("\n")
                self._has_bar = False
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def good(self, text: str) -> None:
        """Print a line that confirms."""
        self.line(f"   {self._styled('✓', '32')} {text}")

    def bad(self, text: str) -> None:
        """Print a line that tells of a refusal or failure."""
        self.line(f"   {self._styled('✗', '31')} {text}")

    def bar(self, share: float, text: str) -> None:
        """Show progress: redrawn in place on a terminal, one line per call elsewhere."""
        full = round(share * _BAR_CELLS)
        drawn = f"   [{'█' * full}{'·' * (_BAR_CELLS - full)}] {share:4.0%}  {text}"
        with self._lock:
            sys.stdout.write(f"\r\x1b[2K{drawn}" if self.is_live else f"{drawn}\n")
            sys.stdout.flush()
            self._has_bar = self.is_live

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.is_live else text
