"""The terminal of a command: its width, its colours, and questions to the user."""

from __future__ import annotations

import os
import shutil
import sys
from enum import StrEnum

from kinstream.cli.printable import printable


class Colour(StrEnum):
    """Colours, as the parameters of the escape sequence SGR (ECMA-48)."""

    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    CYAN = "36"
    DIM = "2"


def width() -> int | None:
    """Return the columns of the terminal. None: the output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def has_colours() -> bool:
    """Return True if the output is a terminal with colours, and the user has not disabled them (NO_COLOR, TERM=dumb)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: Colour, enabled: bool) -> str:
    """Return a text in a colour, if colours are enabled."""
    return f"\x1b[{colour}m{text}\x1b[0m" if enabled else text


def can_ask() -> bool:
    """Return True if the user can be asked: input and error output are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str) -> bool:
    """Ask a question, and return True if the user agrees."""
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
