"""Calls the application's observer. Its exceptions are logged once and never propagate."""

from __future__ import annotations

import logging

from kinstream.events import Event, Observer
from kinstream.frames import without_data

_log = logging.getLogger("kinstream.consumer")


class Announcer:
    """Passes events to an observer, and logs the first exception that it raises.

    Args:
        observer: The application's observer, or None.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self._logged = False

    def __call__(self, event: Event) -> None:
        """Pass an event to the observer."""
        if self._observer is None:
            return
        try:
            self._observer(without_data(event))
        except Exception:  # noqa: BLE001 - the observer is user code
            if not self._logged:
                self._logged = True
                _log.exception("the observer failed on %s; further failures are not logged", type(event).__name__)
