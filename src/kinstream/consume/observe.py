"""Hands events to the program's observer, which must not harm what it observes."""

from __future__ import annotations

import logging

from kinstream.events import Event, Observer
from kinstream.frames import without_data

_log = logging.getLogger("kinstream.consumer")


class Announcer:
    """Hands events to an observer; logs the first that it fails on.

    Args:
        observer: The program's; None: nobody listens.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self._logged = False

    def __call__(self, event: Event) -> None:
        """Hand an event on."""
        if self._observer is None:
            return
        try:
            self._observer(without_data(event))
        except Exception:  # noqa: BLE001 - an observer is anybody's code
            if not self._logged:
                self._logged = True
                _log.exception("the observer failed on %s; further failures are not logged", type(event).__name__)
