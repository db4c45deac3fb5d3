"""Progress of long work: a bar on the last line of the terminal, on standard error. Without a terminal, nothing is shown."""

from __future__ import annotations

import os
import shutil
import sys
from types import TracebackType
from typing import Self

from kinstream.cli.printable import printable
from kinstream.cli.text_table import shortened
from kinstream.clock import SYSTEM_CLOCK

INTERVAL = 0.1
"""Minimum seconds between two updates of the terminal."""
BAR_WIDTH = 24
_CLEAR = "\r\x1b[2K"


class Progress:
    """Context manager of a bar. It is removed at the end, so that only results stay on the terminal.

    Args:
        work: Name of the work.
        enabled: False to show nothing, even on a terminal.
    """

    def __init__(self, work: str, *, enabled: bool = True) -> None:
        self._work = printable(work)
        self._shown = enabled and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._began = SYSTEM_CLOCK.monotonic()
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown and self._next:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return SYSTEM_CLOCK.monotonic() - self._began

    def show(self, text: str, done: float | None = None) -> None:
        """Show the state of the work, unless it was shown just now.

        Args:
            text: The state.
            done: Part of the work that is completed, 0 to 1. None: unknown.
        """
        now = SYSTEM_CLOCK.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + INTERVAL
        line = f"{self._work}  {'' if done is None else bar(done) + '  '}{printable(text)}"
        sys.stderr.write(_CLEAR + shortened(line, shutil.get_terminal_size().columns - 1))
        sys.stderr.flush()


def bar(done: float) -> str:
    """Return a bar with its percentage.

    Args:
        done: Completed part, 0 to 1.
    """
    share = min(max(done, 0.0), 1.0)
    full = int(share * BAR_WIDTH)
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {int(100 * share):3d} %"


def bytes_text(count: int) -> str:
    """Return a number of bytes as text, in the largest unit below it."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}" if unit != "B" else f"{count} B"
        size /= 1024
    return f"{size:,.1f} TiB"
