"""Withholds record data from logged tracebacks: a text is shown only if it does not quote the record that its error is about."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import TypeAlias

RUN = 8
"""Characters of a text that are compared with the data at a time: a quotation of twice this length is always found."""

COMPARED_BYTES = 1 << 18
"""Maximum bytes of data that are compared. With more, the text is withheld."""

COMPARED_CHARACTERS = 20_000
"""Maximum characters of a text that are compared. A longer text is withheld."""

ExceptionInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"


class WithheldError(Exception):
    """Replacement in the log for an exception whose text quotes a record's data."""


def exception_info(error: BaseException, data: Sequence[bytes]) -> ExceptionInfo:
    """Return the `exc_info` of an exception for `logging`: its traceback, without the data of the records it was raised for."""
    if quotes(_texts(error), data):
        return withheld(error, because="it quotes a record's data")
    return type(error), error, error.__traceback__


def withheld(error: BaseException, because: str = "it may quote a record's data") -> ExceptionInfo:
    """Return the `exc_info` of an exception for `logging`: its traceback, without its text."""
    shown = WithheldError(f"{type(error).__name__}: its text is withheld, because {because}")
    return WithheldError, shown.with_traceback(error.__traceback__), error.__traceback__


def quotes(text: str, data: Sequence[bytes]) -> bool:
    """Return whether a text may quote the data of records."""
    if len(text) > COMPARED_CHARACTERS or sum(map(len, data)) > COMPARED_BYTES:
        return True
    runs = {text[start : start + RUN] for start in range(0, len(text) - RUN + 1, RUN)}
    for one in data:
        quoted = one.decode("utf-8", "replace").strip()
        if quoted and (quoted in text or any(run in quoted for run in runs)):
            return True
    return False


def _texts(error: BaseException) -> str:
    """Return the texts of an exception and of all that are shown with it, without the traceback."""
    shown = traceback.TracebackException.from_exception(error)
    shown_at: list[traceback.TracebackException | None] = [shown]
    texts: list[str] = []
    while shown_at:
        one = shown_at.pop()
        if one is not None:
            texts += one.format_exception_only()
            shown_at += [one.__cause__, one.__context__, *(one.exceptions or ())]
    return "\n".join(texts)
