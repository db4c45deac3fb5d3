"""An exception leaves the block of a blocking or callbacks object. It propagates, with a note of unwritten records."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.doubles.leases import StoreOf
from tests.doubles.streams import Place, local_stream

from kinstream import Consumer, Credentials, DeliveryPolicy, blocking, callbacks
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import Update, Write, Written

NOWHERE = "http://127.0.0.1:1"
"""No server listens there."""


def blocking_producer(place: Place | None, timeout: float) -> Any:
    options: dict[str, Any] = {
        "region": "us-east-1",
        "credentials": Credentials("local", "local"),
        "endpoint_url": NOWHERE,
    }
    options = options if place is None else place.options
    return blocking.Producer(
        "events" if place is None else place.stream, delivery=DeliveryPolicy(timeout=timeout), **options
    )


def callbacks_producer(place: Place | None, timeout: float) -> Any:
    account = ("us-east-1", "local", "local", "events") if place is None else place.account
    url = NOWHERE if place is None else place.url
    return callbacks.Producer(*account, endpoint_url=url, delivery=DeliveryPolicy(timeout=timeout))


STYLES = [blocking_producer, callbacks_producer]
Style = Callable[[Place | None, float], Any]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_stream() as place:
        yield place


def leave(producer: Any, error: BaseException) -> BaseException:
    """Raise an exception in a producer's block with 30 records in it; return the error that propagates."""
    try:
        with producer:
            for _ in range(30):
                producer.put(b"data", "key")
            raise error  # noqa: TRY301
    except BaseException as raised:
        return raised


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
def test_it_propagates_with_a_note(style: Style, error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    own = error()
    assert leave(style(None, 0.5), own) is own
    (note,) = own.__notes__
    assert "30 records were not written" in note
    assert note in caplog.text


@pytest.mark.parametrize("style", STYLES)
def test_records_that_are_written_leave_no_note(style: Style, place: Place) -> None:
    own = LookupError()
    assert leave(style(place, 30.0), own) is own
    assert not hasattr(own, "__notes__")


@pytest.mark.parametrize("style", STYLES)
def test_ctrl_c_drains_for_five_seconds_at_most_and_a_second_one_not_at_all(style: Style) -> None:
    own = KeyboardInterrupt()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    second = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    try:
        second.start()
        began = time.monotonic()
        raised = leave(style(None, 60.0), own)
        took = time.monotonic() - began
    finally:
        second.join()
        signal.signal(signal.SIGINT, before)
    assert isinstance(raised, KeyboardInterrupt)
    assert raised is not own
    assert raised.__context__ is own
    assert 0.4 < took < 5, "the second one ended it, not the limit of the first"
    assert "30 records were not written" in raised.__notes__[0]


class _Failing(MemoryLeaseTable):
    """A table in which no checkpoint can be written."""

    async def write(self, write: Write) -> Written:
        if isinstance(write.change, Update) and "checkpoint" in write.change.set:
            raise OSError("the disk is full")
        return await super().write(write)


def test_last_checkpoints_of_a_blocking_consumer_that_cannot_be_written_become_a_note(place: Place) -> None:
    with blocking.Producer(place.stream, **place.options) as producer:
        producer.put_many([(b"data", "key")] * 3).results()
    own = LookupError()
    options: dict[str, Any] = {"application": "app", "lease_store": StoreOf(_Failing()), "start": "TRIM_HORIZON"}
    with pytest.raises(LookupError) as raised, blocking.Consumer(place.stream, **options, **place.options) as consumer:  # noqa: PT012
        records = iter(consumer)
        next(records)
        next(records)
        raise own
    assert raised.value is own
    assert "the disk is full" in own.__notes__[0]


async def test_last_checkpoints_of_an_asyncio_consumer_that_cannot_be_written_become_a_note(place: Place) -> None:
    own = LookupError()
    options: dict[str, Any] = {"application": "app", "lease_store": StoreOf(_Failing()), "start": "TRIM_HORIZON"}
    with pytest.raises(LookupError) as raised:  # noqa: PT012
        async with Consumer(place.stream, **options, **place.options) as consumer:
            records = aiter(consumer)
            await anext(records)
            await anext(records)
            raise own
    assert raised.value is own
    assert "the disk is full" in own.__notes__[0]
