"""Withholds record data from logged tracebacks: a text is shown only if it does not quote the record that its error is about."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import TypeAlias

from kinstream.record import ReceivedRecord

RUN = 8
"""Characters of a text that are compared with the data at a time: a quotation of twice this length is always found."""

COMPARED_BYTES = 1 << 18
"""Maximum bytes of data that are compared. With more, the text is withheld."""

COMPARED_CHARACTERS = 20_000
"""Maximum characters of a text that are compared. A longer text is withheld."""

ExceptionInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"


class HandlerFailed(Exception):
    """Stands in a log for an exception whose text quotes a record's data."""


def exception_info(error: BaseException, records: Sequence[ReceivedRecord[bytes]]) -> ExceptionInfo:
    """Return what `logging` needs to show an exception with its traceback, without the data of the records it was raised for."""
    if quotes(_texts(error), records):
        error = HandlerFailed(
            f"{type(error).__name__}: its text is withheld, because it quotes the record's data; the event RecordFailed has it"
        ).with_traceback(error.__traceback__)
    return type(error), error, error.__traceback__


def quotes(text: str, records: Sequence[ReceivedRecord[bytes]]) -> bool:
    """Return whether a text may quote the data of a record."""
    if len(text) > COMPARED_CHARACTERS or sum(len(record.data) for record in records) > COMPARED_BYTES:
        return True
    runs = {text[start : start + RUN] for start in range(0, len(text) - RUN + 1, RUN)}
    for record in records:
        data = record.data.decode("utf-8", "replace")
        if data.strip() and (data.strip() in text or any(run in data for run in runs)):
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
