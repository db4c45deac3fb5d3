"""Removal of traceback frames and record data from exceptions: error trackers show the variables of every frame."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from kinstream.errors import KinesisError
from kinstream.events import Event
from kinstream.produce_errors import ProduceError, Undelivered

T = TypeVar("T", bound=BaseException)

MAX_LINKS = 50
"""Maximum exceptions in the causes, contexts and groups of an event's error. Further ones are left out."""

_C_FIELDS = (
    "errno",
    "strerror",
    "filename",
    "filename2",
    "encoding",
    "object",
    "start",
    "end",
    "reason",
    "value",
    "code",
    "name",
    "path",
)
"""Attributes of built-in exceptions that are not in `__dict__`."""


def without_frames(error: T) -> T:
    """Remove the tracebacks of an exception, its causes and its contexts, and return the exception.

    A frame shows record data in error trackers, and keeps alive all objects that its variables refer to.
    """
    for found in _chain(error):
        found.__traceback__ = None
    return error


def without_data(event: Event) -> Event:
    """Return an event for an observer: its error has no traceback and no records, nor have the causes and contexts.

    The error is copied if it has any. A ProduceError is replaced by its cause.
    """
    error: BaseException | None = getattr(event, "error", None)
    if error is None or all(map(_clean, _chain(error))):
        return event
    return msgspec.structs.replace(event, error=_copied(error))


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception, its causes, its contexts and the members of its groups."""
    found: dict[int, BaseException] = {}
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            pending += one.__cause__, one.__context__
            if isinstance(one, BaseExceptionGroup):
                pending += one.exceptions
    return list(found.values())


def _clean(error: BaseException) -> bool:
    """True if an exception has no traceback, no record and no body of a response."""
    if error.__traceback__ is not None or isinstance(error, (ProduceError, Undelivered)):
        return False
    return getattr(error, "http_response", None) is None


def _copied(error: BaseException) -> BaseException:
    """Return a copy of an exception and its chain without tracebacks and records."""
    copies: dict[int, BaseException | None] = {}

    def copied(one: BaseException | None) -> BaseException | None:
        while isinstance(one, ProduceError) and one.__cause__ is not None:
            one = one.__cause__
        if one is None or id(one) in copies or len(copies) >= MAX_LINKS:
            return copies.get(id(one))
        same = copies[id(one)] = _copied_alone(one)
        if isinstance(one, BaseExceptionGroup):
            members = [member for member in map(copied, one.exceptions) if member is not None]
            same = copies[id(one)] = one.derive(members) if members else same
        same.__traceback__ = None
        same.__cause__ = copied(one.__cause__)
        same.__context__ = copied(one.__context__)
        same.__suppress_context__ = one.__suppress_context__
        return same

    return copied(error) or error


def _copied_alone(error: BaseException) -> BaseException:
    """Return a copy of an exception without its chain. The constructor is not called, because it may have side effects."""
    kind = type(error)
    if isinstance(error, ProduceError):
        return KinesisError(error.details)
    try:
        same = kind.__new__(kind, *error.args)
        same.args = error.args
        for name in _C_FIELDS:
            if getattr(same, name, None) != (value := getattr(error, name, None)):
                setattr(same, name, value)
        same.__dict__.update(error.__dict__)
    except Exception:  # noqa: BLE001 - a foreign class may raise anything here
        return RuntimeError(f"{kind.__module__}.{kind.__qualname__}, which cannot be copied")
    if isinstance(same, KinesisError):
        same.http_response = None
    if isinstance(same, Undelivered):
        same.exceptions = ()
    return same
