"""The application's observer: its exceptions are logged once and never propagate."""

from __future__ import annotations

import logging

import pytest

from kinstream.events import Event, ShardSkipped
from kinstream.observe import guarded

LOG = logging.getLogger("kinstream.test_observe")


def test_no_observer_is_no_function() -> None:
    assert guarded(None, "orders", LOG) is None


def test_observer_receives_every_event_although_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    received: list[Event] = []

    def observer(event: Event) -> None:
        received.append(event)
        raise ZeroDivisionError

    announce = guarded(observer, "orders", LOG)
    assert announce is not None
    events = [ShardSkipped("0"), ShardSkipped("1")]
    for event in events:
        announce(event)
    assert received == events
    assert [record.getMessage() for record in caplog.records] == [
        "orders: the observer failed on ShardSkipped; further failures are not logged"
    ]
