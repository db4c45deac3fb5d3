"""Removal of traceback frames from exceptions: their variables hold record data and secrets."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T", bound=BaseException)


def without_frames(error: T) -> T:
    """Remove the tracebacks of an exception, its causes and its contexts, and return the exception.

    Error trackers show the variables of every frame, and a frame keeps alive all objects that its variables refer to.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        found = pending.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            found.__traceback__ = None
            pending += found.__cause__, found.__context__
    return error
