"""Errors raised at the k-th line of some files: for every k, no record may be lost, and no task may wait forever."""

from __future__ import annotations

import opcode
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

RETURNS = opcode.opmap["RETURN_VALUE"]
"""The step at which a frame ends. No signal handler can run there, nor at a `return` of a name before it."""


class Strike:
    """Counts the lines that run in some files, and raises at one of them, once.

    Args:
        k: The line at which it raises; the first is 1. 0 for none.
        error: Creates the error.
        folder: Part of the path of the files.
        below: Only lines run by a function of this name, or by functions it calls. None: all lines.
        opcodes: Whether it counts single steps of the interpreter in place of lines.

    Attributes:
        lines: How many lines, or steps, have run.
        struck: True once it has raised.
        place: The function in which it raised.
    """

    def __init__(
        self,
        k: int,
        error: Callable[[], BaseException],
        *,
        folder: str,
        below: str | None = None,
        opcodes: bool = False,
    ) -> None:
        self.lines = 0
        self.struck = False
        self.place = ""
        self._k = k
        self._error = error
        self._folder = folder
        self._below = below
        self._depth = 0
        self._event = "opcode" if opcodes else "line"

    def _entered(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self._folder not in frame.f_code.co_filename:
            return None
        if frame.f_code.co_name == self._below:
            self._depth += 1
            return self._left
        if self._below is not None and not self._depth:
            return None
        frame.f_trace_opcodes = self._event == "opcode"
        return self._ran

    def _left(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self._depth -= 1
        return self._left

    def _ran(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == self._event and not (event == "opcode" and frame.f_code.co_code[frame.f_lasti] == RETURNS):
            self.lines += 1
            if self.lines == self._k:
                self.struck = True
                self.place = frame.f_code.co_qualname
                raise self._error()
        return self._ran

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Trace the functions that are called from now on."""
        before = sys.gettrace()
        sys.settrace(self._entered)
        try:
            yield
        finally:
            sys.settrace(before)
