"""Observe: hands events to the observer, which harms nobody whatever it does."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kinstream.events import Event, Observer
from kinstream.frames import without_data

_log = logging.getLogger("kinstream.producer")


def teller(name: str, observer: Observer | None) -> Callable[[Event], None] | None:
    """Return a function that tells an observer of events; None where there is none, so that no event need be made.

    Args:
        name: The stream's name, for the log.
        observer: The user's function.
    """
    if observer is None:
        return None
    failed = False

    def emit(event: Event) -> None:
        nonlocal failed
        try:
            observer(without_data(event))
        except Exception:  # noqa: BLE001 - it is anybody's code
            if not failed:
                failed = True
                _log.exception("%s: the observer failed; this is said once", name)

    return emit
