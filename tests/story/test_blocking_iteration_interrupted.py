"""Blocking iterators survive exceptions that strike within `next`: no record is lost or returned twice."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.doubles.streams import Place, local_stream
from tests.doubles.striking import Strike

from kinstream import Handling, Polling, SQLiteLeaseStore, blocking
from kinstream.consume.worker import Worker

# Interrupted before the event loop had it.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")

RECORDS = 12
POINTS = 60
"""At how many lines, and at how many steps of the interpreter, the exception strikes."""


class Interrupted(Exception):
    """Raised in the middle of something else, as by a signal handler."""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_stream() as place:
        with blocking.Producer(place.stream, **place.options) as producer:
            producer.put_many((b"%d" % number, "key") for number in range(RECORDS)).results()
        yield place


@pytest.fixture(scope="module")
def client(place: Place) -> Iterator[blocking.Client]:
    with blocking.Client(**place.options) as client:
        client.call(
            "ListStreams", {}
        )  # starts its event loop: an interrupted start of a thread leaves that thread behind
        yield client
        # An interrupt between a lock's release and the end of its `with`, where no signal handler runs, leaves the lock to this
        # thread. Objects that the garbage collector finalizes must be finalized in this thread.
        gc.collect()


def consumer(place: Place, client: blocking.Client, **options: Any) -> blocking.Consumer:
    usual: dict[str, Any] = {"start": "TRIM_HORIZON", "until": "now", "handling": Handling(max_batch_records=5)}
    return blocking.Consumer(place.stream, client=client, **(usual | options))


def by_record(consumer: blocking.Consumer) -> Callable[[], list[bytes]]:
    records = iter(consumer)
    return lambda: [next(records).data]


def by_batch(consumer: blocking.Consumer) -> Callable[[], list[bytes]]:
    batches = consumer.batches()
    return lambda: [record.data for record in next(batches)]


def read_through(ask: Callable[[], list[bytes]], strike: Strike) -> list[bytes]:
    """Return all records, and ask again after each interruption."""
    found: list[bytes] = []
    while True:
        try:
            with strike.armed():
                records = ask()
        except Interrupted:
            continue
        except StopIteration:
            return found
        found += records


@pytest.mark.parametrize("way", [by_record, by_batch])
@pytest.mark.parametrize("opcodes", [False, True], ids=["lines", "steps"])
def test_no_record_is_lost_or_returned_twice_wherever_an_exception_strikes(
    way: Callable[[blocking.Consumer], Callable[[], list[bytes]]], opcodes: bool, place: Place, client: blocking.Client
) -> None:
    def read(k: int) -> Strike:
        strike = Strike(k, Interrupted, folder="kinstream/b", opcodes=opcodes)  # background.py and blocking/
        with consumer(place, client) as reader:
            assert read_through(way(reader), strike) == [b"%d" % number for number in range(RECORDS)], strike.place
        return strike

    gc.disable()  # an exception that strikes within a finalizer cannot be seen
    try:
        total = read(0).lines
        places = {read(k).place for k in range(1, total, max(total // POINTS, 1))}
    finally:
        gc.enable()
    print(f"{total} steps; struck in {sorted(places)}")
    assert len(places) > 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer")
@pytest.mark.timeout(method="thread")  # the test has SIGALRM for itself
def test_no_record_is_lost_or_returned_twice_in_a_storm_of_signals(
    place: Place, client: blocking.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An exception that strikes within a finalizer is ignored by Python; pytest's report of it would be struck too.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    interrupted = 0
    storm = True

    def ring(number: int, frame: Any) -> None:
        nonlocal interrupted
        inside = frame
        while inside is not None and inside.f_code.co_name != "__next__":
            inside = inside.f_back
        if inside is not None and storm:
            interrupted += 1
            raise Interrupted

    before = signal.signal(signal.SIGALRM, ring)
    gc.disable()  # an exception that strikes within a finalizer cannot be seen
    try:
        with consumer(
            place, client, handling=Handling(max_batch_records=1), fetch=Polling(idle_interval=0.05)
        ) as reader:
            records = iter(reader)
            found: list[bytes] = []
            signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0003)
            while True:
                try:
                    record = next(records, None)
                except Interrupted:
                    storm = interrupted < 200
                    continue
                if record is None:
                    break
                found.append(record.data)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert found == [b"%d" % number for number in range(RECORDS)]
    assert interrupted > 0


def test_next_waits_while_the_fetch_of_an_interrupted_one_is_still_ending(
    place: Place, client: blocking.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ring(number: int, frame: Any) -> None:
        raise Interrupted

    async def never(worker: Worker) -> Any:
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)

    before = signal.signal(signal.SIGUSR1, ring)
    monkeypatch.setattr(Worker, "next_batch", never)
    try:
        with consumer(place, client) as reader:
            records = iter(reader)
            with pytest.raises(Interrupted):
                next(records)
            assert [record.data for record in records] == [b"%d" % number for number in range(RECORDS)]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_record_is_completed_by_the_request_for_the_next_also_if_that_is_interrupted(
    place: Place, client: blocking.Client, tmp_path: Any
) -> None:
    store = {"application": "app", "lease_store": SQLiteLeaseStore(tmp_path / "checkpoints.db"), "until": None}
    with consumer(place, client, **store) as reader:
        records = iter(reader)
        for _ in range(3):
            next(records)
        with Strike(7, Interrupted, folder="kinstream/blocking/iterate").armed(), pytest.raises(Interrupted):
            next(records)
    with consumer(place, client, **(store | {"lease_store": SQLiteLeaseStore(tmp_path / "checkpoints.db")})) as reader:
        assert next(iter(reader)).data == b"3"


def test_an_iterator_that_is_no_longer_referenced_ends_reading(place: Place, client: blocking.Client) -> None:
    with consumer(place, client, until=None) as reader:
        for way in (by_record, by_batch):
            assert way(reader)()[0] == b"0"  # would be refused while the consumer is read
        records = iter(reader)
        next(records)
        records.close()
        assert next(records, None) is None
        records.close()
