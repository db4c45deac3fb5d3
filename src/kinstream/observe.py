"""Calls of the application's observer. Its exceptions are logged once and never propagate."""

from __future__ import annotations

from collections.abc import Callable
from logging import Logger

from kinstream.events import Event, Observer
from kinstream.frames import without_data


def guarded(observer: Observer | None, stream_name: str, log: Logger) -> Callable[[Event], None] | None:
    """Return a function that passes events to an observer and does not raise. None if there is no observer.

    Args:
        observer: The application's observer.
        stream_name: Name of the stream, at the start of the log line.
        log: Receives the first exception that the observer raises.
    """
    if observer is None:
        return None
    failed = False

    def announce(event: Event) -> None:
        nonlocal failed
        try:
            observer(without_data(event))
        except Exception:
            if not failed:
                failed = True
                kind = type(event).__name__
                log.exception("%s: the observer failed on %s; further failures are not logged", stream_name, kind)

    return announce
