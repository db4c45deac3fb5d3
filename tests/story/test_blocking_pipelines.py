"""The producer's pipeline and the whole consumer in threads, on the local Kinesis."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.streams import Place, new_stream, split, until_active

from kinstream import (
    Aggregation,
    Batching,
    BufferFull,
    BufferLimits,
    ClosedError,
    ConfigError,
    ConsumeError,
    DeliveryPolicy,
    ErrorPolicy,
    Handling,
    InvalidRecord,
    NotFound,
    Polling,
    ProduceError,
    PutResult,
    ReceivedRecord,
    Record,
    RecordBatch,
    SQLiteLeaseStore,
    Undelivered,
    UsageError,
    blocking,
)
from kinstream.events import Event, ShardMapRefreshed
from kinstream.local import Server

FROM_THE_START: dict[str, Any] = {"start": "TRIM_HORIZON", "until": "now"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        yield server


@pytest.fixture
def place(server: Server) -> Place:
    """A new stream of two shards."""
    return new_stream(server, shards=2)


def write(place: Place, count: int, keys: int = 7) -> None:
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many((str(n).encode(), f"key {n % keys}") for n in range(count)).results()


def read(place: Place, **options: Any) -> list[ReceivedRecord[bytes]]:
    with blocking.Consumer(place.stream, **FROM_THE_START, **options, **place.options) as consumer:
        return list(consumer)


def until(condition: Any) -> None:
    while not condition():
        time.sleep(0.001)


# Writing.


@pytest.mark.parametrize(("aggregate", "count"), [(None, 100), (Aggregation(), 3000)])
def test_what_many_threads_put_is_read_back_in_the_order_of_each_key(place: Place, aggregate: Any, count: int) -> None:
    with blocking.Producer(place.stream, order="key", aggregate=aggregate, **place.options) as producer:

        def put(thread: int) -> list[blocking.Delivery]:
            return [producer.put(f"{n}", f"key {thread}") for n in range(count)]

        with ThreadPoolExecutor(4) as pool:
            deliveries = [delivery for put_there in pool.map(put, range(4)) for delivery in put_there]
        results = [delivery.result() for delivery in deliveries]
        assert all(delivery.done for delivery in deliveries)
        said = producer.statistics()
        assert (said.records_put, said.records_written, said.buffered_records) == (4 * count, 4 * count, 0)
    found = defaultdict(list)
    for record in read(place):
        found[record.partition_key].append(record.data)
    assert found == {f"key {thread}": [str(n).encode() for n in range(count)] for thread in range(4)}
    assert len({(r.shard_id, r.sequence_number, r.subsequence_number) for r in results}) == 4 * count


def test_put_many_gives_results_in_the_records_order(place: Place) -> None:
    with blocking.Producer(place.stream, **place.options) as producer:
        handle = producer.put_many([(b"1", "a"), Record(b"2", "b"), ("3", "c")] * 1000)
        assert len(handle) == len(list(handle)) == 3000
        results = handle.results(timeout=50)
        assert handle.done
        assert results == [delivery.result() for delivery in handle]
        assert producer.flush() == producer.flush()
    assert sorted(record.data for record in read(place)) == sorted([b"1", b"2", b"3"] * 1000)


def test_flush_waits_for_all_that_was_put_before_and_not_for_company(place: Place) -> None:
    with blocking.Producer(place.stream, batch=Batching(linger=60), **place.options) as producer:
        deliveries = [producer.put(str(n), "key") for n in range(100)]
        flushed = producer.flush()
        assert (flushed.written, flushed.failed) == (100, 0)
        assert all(delivery.done for delivery in deliveries)


def test_result_in_time_or_timeout_error_and_the_record_stays_queued(place: Place) -> None:
    with blocking.Producer(place.stream, batch=Batching(linger=60), **place.options) as producer:
        delivery = producer.put(b"x", "key")
        with pytest.raises(TimeoutError):
            delivery.result(timeout=0.05)
        handle = producer.put_many([(b"x", "key")])
        with pytest.raises(TimeoutError):
            handle.results(timeout=0.05)
        assert not delivery.done
        assert not handle.done
        producer.flush()
        assert isinstance(delivery.result(timeout=0.05), PutResult)


def test_wrong_records_are_refused_in_the_callers_thread(place: Place) -> None:
    threads = []

    def encoder(data: Any) -> bytes:
        threads.append(threading.current_thread())
        return b"encoded"

    with blocking.Producer(place.stream, **place.options) as producer:
        for wrong in (None, object(), (b"x", "key")):
            with pytest.raises(InvalidRecord):
                producer.put(wrong, "key")  # type: ignore[arg-type]
        with pytest.raises(InvalidRecord) as refused:
            producer.put_many([(b"good", "key"), (b"bad", "")])
        assert refused.value.index == 1
        for no_records in (b"x", {"a": 1}, 5):
            with pytest.raises(ConfigError):
                producer.put_many(no_records)  # type: ignore[arg-type]
        producer.put(Record(object(), "key", encoder=encoder)).result()
        producer.put_many([Record(object(), "key", encoder=encoder)]).results()
    assert threads == [threading.current_thread()] * 2
    assert sorted(record.data for record in read(place)) == [b"encoded", b"encoded", b"good"]


def test_put_and_wait_returns_the_result_of_its_record_or_raises_its_error(place: Place) -> None:
    with blocking.Producer(place.stream, batch=Batching(linger=0), **place.options) as producer:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda n: producer.put_and_wait({"n": n}, f"key {n}"), range(8)))
        assert all(isinstance(result, PutResult) for result in results)
        with pytest.raises(InvalidRecord):
            producer.put_and_wait((b"x", "key"))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="timeout"):
            producer.put_and_wait(b"never put", "key", timeout=-1)
    assert sorted(record.data for record in read(place)) == [b'{"n":%d}' % n for n in range(8)]


def test_put_and_wait_that_times_out_leaves_its_record_in_flight(server: Server, place: Place) -> None:
    hold = server.every("PutRecords").hold()
    with blocking.Producer(place.stream, batch=Batching(linger=0), **place.options) as producer:
        with pytest.raises(TimeoutError):
            producer.put_and_wait(b"late", "key", timeout=0)
        hold.cancel()
    assert [record.data for record in read(place)] == [b"late"]


def test_put_many_that_raises_midway_attaches_the_records_that_it_had_buffered(place: Place) -> None:
    def broken() -> Iterator[tuple[bytes, str]]:
        for number in range(700):
            yield b"%d" % number, "key"
        raise LookupError("the caller's own")

    with blocking.Producer(place.stream, **place.options) as producer:
        with pytest.raises(LookupError) as broke:
            producer.put_many(broken())
        with pytest.raises(InvalidRecord) as refused:
            producer.put_many([(b"good", "key"), (b"bad", "")])
        mine: Any = broke.value
        assert isinstance(mine.deliveries, blocking.Deliveries)
        assert isinstance(refused.value.deliveries, blocking.Deliveries)
        assert len(mine.deliveries.raise_for_failures()) == 700
        assert len(refused.value.deliveries.raise_for_failures()) == 1
        assert pickle.loads(pickle.dumps(refused.value)).deliveries is None
        assert pickle.loads(pickle.dumps(mine)).deliveries is None


def test_put_many_into_a_full_buffer_attaches_the_records_that_had_space(server: Server, place: Place) -> None:
    hold = server.every("PutRecords").hold()
    full = BufferLimits(max_records=3, when_full="raise")
    with blocking.Producer(place.stream, buffer=full, batch=Batching(linger=0), **place.options) as producer:
        with pytest.raises(BufferFull) as caught:
            producer.put_many([(b"%d" % number, "key") for number in range(5)])
        assert isinstance(caught.value.deliveries, blocking.Deliveries)
        assert len(caught.value.deliveries) == 3
        assert caught.value.record.data == b"3"
        hold.cancel()
        assert len(caught.value.deliveries.raise_for_failures()) == 3


def test_text_is_utf8_and_other_data_json_in_every_method_unless_there_is_an_encoder(place: Place) -> None:
    def put(producer: blocking.Producer, data: Any) -> None:
        producer.put(data, "key").result()
        producer.put_and_wait(Record(data, "key"))
        producer.put_many([(data, "key"), Record(data, "key")]).raise_for_failures()
        producer.put_record(Record(data, "key"))
        producer.put_records([Record(data, "key")])

    options = {"batch": Batching(linger=0)} | place.options
    with blocking.Producer(place.stream, **options) as plain:
        put(plain, "text")
        put(plain, [1])
    with blocking.Producer(place.stream, encoder=lambda data: f"<{data}>", **options) as encoded:
        put(encoded, "text")
        put(encoded, bytearray(b"bytes"))
    assert Counter(record.data for record in read(place)) == dict.fromkeys((b"text", b"[1]", b"<text>", b"bytes"), 6)


def test_full_buffer_makes_threads_wait_and_all_is_written(place: Place) -> None:
    buffer = BufferLimits(max_records=50)
    with blocking.Producer(place.stream, buffer=buffer, batch=Batching(linger=0), **place.options) as producer:
        most = 0

        def put(thread: int) -> None:
            nonlocal most
            for n in range(300):
                producer.put(f"{thread} {n}", f"key {n % 9}")
                if n % 50 == 0:
                    most = max(most, producer.statistics().buffered_records)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(put, range(3)))
    assert most <= 50
    assert len({record.data for record in read(place)}) == 900


def test_put_that_finds_no_space_within_its_maximum_wait_raises_and_keeps_its_record() -> None:
    nowhere = Place("http://127.0.0.1:1")
    producer = blocking.Producer(nowhere.stream, buffer=BufferLimits(max_records=3, max_wait=0.05), **nowhere.options)
    for number in range(3):
        producer.put(b"%d" % number, "key")
    with pytest.raises(BufferFull, match="max_wait") as full:
        producer.put(b"3", "key")
    assert full.value.record.data == b"3"
    with pytest.raises(Undelivered, match="3 records"):
        producer.close(0)


def test_full_buffer_is_an_error_where_that_is_asked_for() -> None:
    place = Place("http://127.0.0.1:1")
    buffer = BufferLimits(max_records=10, when_full="raise")
    producer = blocking.Producer("events", buffer=buffer, **place.options)
    with pytest.raises(BufferFull):  # noqa: PT012
        for _ in range(100):
            producer.put(b"x", "key")
    with pytest.raises(Undelivered) as told:
        producer.close(timeout=0)
    assert told.value.count == 10


def test_close_raises_unobserved_failures_and_no_observed_ones() -> None:
    place = Place("http://127.0.0.1:1")
    producer = blocking.Producer("events", delivery=DeliveryPolicy(timeout=0.3), **place.options)
    seen, unseen = producer.put(b"seen", "key"), producer.put(b"unseen", "key")
    with pytest.raises(ProduceError) as failed:
        seen.result()
    assert failed.value.record.data == b"seen"
    until(lambda: unseen.done)
    assert producer.statistics().failures_unobserved == 1
    with pytest.raises(Undelivered) as told:
        producer.close()
    (error,) = told.value.exceptions
    assert isinstance(error, ProduceError)
    assert error.record.data == b"unseen"
    with pytest.raises(ProduceError):
        unseen.result()
    producer.close()


def test_closed_producer_refuses_records_and_still_returns_results(place: Place) -> None:
    producer = blocking.Producer(place.stream, **place.options)
    delivery, handle = producer.put(b"x", "key"), producer.put_many([(b"y", "key")])
    producer.close()
    assert delivery.result().shard_id.startswith("shardId-")
    assert isinstance(handle.results()[0], PutResult)
    for call in (lambda: producer.put(b"x", "key"), lambda: producer.put_many([(b"x", "key")]), producer.flush):
        with pytest.raises(ClosedError):
            call()
    assert producer.statistics().records_written == 2


def test_close_wakes_threads_that_wait_for_space() -> None:
    place = Place("http://127.0.0.1:1")
    producer = blocking.Producer("events", buffer=BufferLimits(max_records=5), **place.options)
    told: list[BaseException] = []

    def put() -> None:
        try:
            while True:
                producer.put(b"x", "key")
        except ClosedError as error:
            told.append(error)

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: producer.statistics().waiting_puts == 3)
    with pytest.raises(Undelivered):
        producer.close(timeout=0)
    for thread in threads:
        thread.join()
    assert len(told) == 3


@pytest.mark.parametrize("options", [{}, {"max_wait": 600.0}])
@pytest.mark.parametrize("end", ["close", "stopped", "ended by itself"])
def test_put_that_waits_for_space_gets_closed_error_at_once(end: str, options: dict[str, Any]) -> None:
    """Not when the records that fill the buffer are settled, which is never here."""
    place = Place("http://127.0.0.1:1")
    buffer = BufferLimits(max_records=5, **options)
    producer = blocking.Producer("events", buffer=buffer, delivery=DeliveryPolicy(timeout=600), **place.options)
    told: list[BaseException] = []

    def waiting(put: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                put()
            except ClosedError as error:
                told.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def leave() -> None:
        raise SystemExit

    first = producer.put_many([(b"x", "key")] * 5)
    threads = [waiting(lambda: producer.put(b"x", "key")), waiting(lambda: producer.put_many([(b"x", "key")] * 2000))]
    until(lambda: producer.statistics().waiting_puts == 2)
    closing: list[threading.Thread] = []
    if end == "close":
        closing.append(threading.Thread(target=lambda: suppress_undelivered(producer.close)))
        closing[0].start()
    elif end == "stopped":
        producer._background.stop()
    else:
        producer._background.call(leave)
    for thread in threads:
        thread.join()
    assert len(told) == 2
    if end == "close":
        assert not first.done
    suppress_undelivered(lambda: producer.close(0))
    for thread in closing:
        thread.join()


def suppress_undelivered(call: Callable[[], object]) -> None:
    with suppress(Undelivered):
        call()


def test_forgotten_producer_writes_what_was_put_and_ends_its_thread(place: Place) -> None:
    producer = blocking.Producer(place.stream, **place.options)
    for n in range(500):
        producer.put(str(n), "key")
    thread = producer._background._thread
    assert thread is not None
    del producer
    thread.join()
    assert len(read(place)) == 500


def test_nothing_hangs_when_the_event_loops_thread_dies(place: Place) -> None:
    def observer(event: object) -> None:
        if fatal:
            raise SystemExit

    fatal: list[bool] = []
    producer = blocking.Producer(place.stream, batch=Batching(linger=60), observer=observer, **place.options)
    first = producer.put(b"x", "key")
    producer.flush()
    fatal.append(True)
    waiting = producer.put(b"x", "key")
    with pytest.raises((ClosedError, ProduceError)):
        waiting.result()
    with pytest.raises(ClosedError):  # noqa: PT012
        for _ in range(3000):  # more than the credit
            producer.put(b"x", "key")
    assert first.result().shard_id.startswith("shardId-")
    producer.close()


# Reading.


def test_records_come_in_the_order_of_each_shard_through_a_split(place: Place) -> None:
    write(place, 2000)
    split(place, "shardId-000000000000", str(2**126))
    with blocking.Producer(place.stream, **place.options) as producer:
        producer.put_many((str(n).encode(), f"key {n % 7}") for n in range(2000, 4000)).results()
    by_key: dict[Any, list[int]] = defaultdict(list)
    for record in read(place):
        by_key[record.partition_key].append(int(record.data))
    assert sum(map(len, by_key.values())) == 4000
    for numbers in by_key.values():
        assert [n for n in numbers if n < 2000] == sorted(n for n in numbers if n < 2000)
        assert max(numbers[: len([n for n in numbers if n < 2000])]) < 2000


def test_batches_are_of_one_shard_and_hold_all(place: Place) -> None:
    write(place, 1000)
    data = []
    with blocking.Consumer(
        place.stream, **FROM_THE_START, handling=Handling(max_batch_records=100), **place.options
    ) as consumer:
        for batch in consumer.batches():
            assert isinstance(batch, RecordBatch)
            assert len(batch) <= 100
            assert {record.shard_id for record in batch} == {batch.shard_id}
            data += [record.data for record in batch]
    assert sorted(data) == sorted(str(n).encode() for n in range(1000))


def test_record_is_done_when_the_next_is_asked_for_and_not_where_the_loop_is_left(place: Place, tmp_path: Path) -> None:
    write(place, 100, keys=1)
    store = SQLiteLeaseStore(tmp_path / "checkpoints.db")
    options = {"application": "app", "lease_store": store, "until": "now", **place.options}
    seen = []
    with blocking.Consumer(place.stream, **options) as consumer:
        for record in consumer:
            seen.append(int(record.data))
            if len(seen) == 30:
                break
    with pytest.raises(KeyError), blocking.Consumer(place.stream, **options) as consumer:  # noqa: PT012
        for record in consumer:
            assert int(record.data) == 29 + len(seen) - 30
            seen.append(int(record.data))
            if len(seen) == 60:
                raise KeyError
    with blocking.Consumer(place.stream, **options) as consumer:
        seen += [int(record.data) for record in consumer]
    with blocking.Consumer(place.stream, **options) as consumer:
        assert list(consumer) == []
    assert seen == [*range(30), *range(29, 59), *range(58, 100)]


@pytest.mark.parametrize("way", ["for", "run", "batches", "run_batches"])
def test_checkpoint_by_hand_is_written_when_it_returns(place: Place, tmp_path: Path, way: str) -> None:
    write(place, 50, keys=1)
    options = {
        "application": "app",
        "lease_store": SQLiteLeaseStore(tmp_path / "checkpoints.db"),
        "until": "now",
        **place.options,
    }

    def by_record(record: ReceivedRecord[bytes]) -> None:
        if int(record.data) == 20:
            record.checkpoint()

    def by_batch(batch: RecordBatch) -> None:
        if int(batch[-1].data) == 20:
            batch.checkpoint()

    deliver = Handling(max_batch_records=1)
    with blocking.Consumer(place.stream, checkpoints="manual", handling=deliver, **options) as consumer:
        if way == "for":
            for record in consumer:
                by_record(record)
        elif way == "batches":
            for batch in consumer.batches():
                by_batch(batch)
        elif way == "run":
            consumer.run(by_record)
        else:
            consumer.run_batches(by_batch)
    with blocking.Consumer(place.stream, **options) as consumer:
        assert next(iter(consumer)).data == b"21"


@pytest.mark.parametrize("concurrency", [1, 8])
def test_run_calls_its_handler_in_threads_in_the_order_of_each_key(place: Place, concurrency: int) -> None:
    write(place, 1000)
    found: dict[Any, list[int]] = defaultdict(list)
    threads = set()
    lock = threading.Lock()

    def handle(record: ReceivedRecord[bytes]) -> None:
        with lock:
            threads.add(threading.current_thread())
            found[record.partition_key].append(int(record.data))

    deliver = Handling(concurrency=concurrency)
    with blocking.Consumer(place.stream, **FROM_THE_START, handling=deliver, **place.options) as consumer:
        consumer.run(handle)
    assert found == {f"key {k}": list(range(k, 1000, 7)) for k in range(7)}
    assert threading.current_thread() not in threads


def test_handler_may_close_the_consumer(place: Place) -> None:
    write(place, 100, keys=1)
    seen = []
    consumer = blocking.Consumer(place.stream, start="TRIM_HORIZON", **place.options)

    def handle(record: ReceivedRecord[bytes]) -> None:
        seen.append(record)
        if len(seen) == 5:
            consumer.close()

    consumer.run(handle)
    assert len(seen) == 5
    with pytest.raises(ClosedError):
        consumer.get_shards()


@pytest.mark.parametrize("way", ["for", "batches", "run"])
def test_close_from_another_thread_ends_reading_as_the_streams_end_does(place: Place, way: str) -> None:
    write(place, 10)
    consumer = blocking.Consumer(place.stream, start="TRIM_HORIZON", **place.options)
    seen: list[object] = []

    def close() -> None:
        until(lambda: len(seen) == 10)
        consumer.close()

    closing = threading.Thread(target=close)
    closing.start()
    if way == "for":
        for record in consumer:
            seen.append(record)  # noqa: PERF402
    elif way == "batches":
        for batch in consumer.batches():
            seen.extend(batch)
    else:
        consumer.run(seen.append)
    closing.join()
    assert len(seen) == 10


def test_record_that_cannot_be_handled_ends_run_with_its_cause(place: Place) -> None:
    write(place, 10)

    def fail(record: ReceivedRecord[bytes]) -> None:
        raise KeyError(record.sequence_number)

    failing = ErrorPolicy(max_attempts=2, initial_delay=0.01)
    with (
        blocking.Consumer(place.stream, **FROM_THE_START, errors=failing, **place.options) as consumer,
        pytest.raises(ConsumeError) as failed,
    ):
        consumer.run(fail)
    assert isinstance(failed.value.__cause__, KeyError)


@pytest.mark.parametrize("kind", ["a plain function", "an async one", "a producer"])
def test_dead_letters_of_all_kinds_do_not_hold_up_the_event_loop(place: Place, server: Server, kind: str) -> None:
    write(place, 3)
    letters: list[Any] = []

    async def later(record: ReceivedRecord[bytes], error: Exception) -> None:
        letters.append(threading.current_thread().name)

    def now(record: ReceivedRecord[bytes], error: Exception) -> None:
        letters.append(threading.current_thread().name)

    def fail(record: ReceivedRecord[bytes]) -> None:
        raise KeyError

    with blocking.Producer(place.stream, **place.options) as producer:
        then: Any = {"a plain function": now, "an async one": later, "a producer": producer}[kind]
        failing = ErrorPolicy(max_attempts=1, then=then)
        with blocking.Consumer(place.stream, **FROM_THE_START, errors=failing, **place.options) as consumer:
            consumer.run(fail)
    if kind == "a producer":
        letters = [record.json()["error"] for record in read(place) if record.data.startswith(b"{")]
    assert len(letters) == 3
    assert ("kinstream-consumer" in letters) is (kind == "an async one")


def test_async_handlers_are_refused(place: Place) -> None:
    async def handle(_: object) -> None: ...

    with blocking.Consumer(place.stream, **place.options) as consumer:
        for run in (consumer.run, consumer.run_batches):
            with pytest.raises(ConfigError, match="plain function"):
                run(handle)


def test_other_threads_pause_resume_seek_and_look(place: Place) -> None:
    write(place, 10, keys=1)
    fetch = Polling(idle_interval=0.05)
    with blocking.Consumer(place.stream, start="TRIM_HORIZON", fetch=fetch, **place.options) as consumer:
        assert consumer.status() == []
        with pytest.raises(UsageError, match="not being read"):
            consumer.pause()
        seen: list[int] = []
        reading = threading.Thread(target=consumer.run, args=(lambda record: seen.append(int(record.data)),))
        reading.start()
        until(lambda: len(seen) == 10)
        consumer.pause()
        assert {status.state for status in consumer.status()} == {"PAUSED"}
        consumer.resume()
        shard_id = next(status.shard_id for status in consumer.status() if status.position != "TRIM_HORIZON")
        for status in consumer.status():
            consumer.seek(status.shard_id, "TRIM_HORIZON")
        until(lambda: len(seen) == 20)
        assert shard_id.startswith("shardId-")
        assert seen == [*range(10), *range(10)]
        consumer.close()
        reading.join()


# Signals and the end of the process.

FORKS = ["-W", "ignore:This process:DeprecationWarning"]  # since Python 3.12, for each fork of a process with threads
PROGRAM = """
import os, signal, sys, threading
from kinstream import Batching, Credentials, DeliveryPolicy, SQLiteLeaseStore, UsageError, blocking
place = dict(region="us-east-1", credentials=Credentials("local", "local"), endpoint_url={url!r})
stream = {stream!r}
{code}
"""


def program(place: Place, code: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-W",
        "error",
        *FORKS,
        "-c",
        PROGRAM.format(url=place.url, stream=place.stream, code=code),
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ended(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=50)
    return running.returncode, out, err


def test_exit_of_the_process_waits_for_queued_records(place: Place) -> None:
    code = """
producer = blocking.Producer(stream, batch=Batching(linger=60), **place)
for n in range(1000):
    producer.put(str(n), "key")
"""
    assert ended(program(place, code)) == (0, "", "")
    assert len(read(place)) == 1000


def test_exit_of_the_process_waits_for_a_forgotten_producer_too(place: Place) -> None:
    code = """
def write():
    producer = blocking.Producer(stream, batch=Batching(linger=60), **place)
    producer.put("x", "key")
write()
"""
    assert ended(program(place, code)) == (0, "", "")
    assert len(read(place)) == 1


def test_exit_of_the_process_waits_for_a_bounded_time_and_reports_lost_records(place: Place) -> None:
    code = """
import kinstream.blocking.producer
kinstream.blocking.producer.EXIT_DRAIN = 0.3
producer = blocking.Producer(stream, **{**place, "endpoint_url": "http://127.0.0.1:1"})
producer.put("x", "key")
"""
    status, out, err = ended(program(place, code))
    assert (status, out) == (0, "")
    assert "never closed: close: 1 record was not written" in err


def test_forked_process_gets_an_error_that_advises_an_object_of_its_own(place: Place) -> None:
    code = """
with blocking.Producer(stream, **place) as producer:
    producer.put("x", "key").result()
    held = producer._gate._lock
    held.acquire()  # as another thread may hold it
    child = os.fork()
    if child == 0:
        for put in (lambda: producer.put("x", "key"), lambda: producer.put_many([("x", "key")])):
            try:
                put()
            except UsageError as error:
                print(error.details, flush=True)
        sys.exit(0)
    held.release()
    assert os.waitpid(child, 0)[1] == 0
"""
    status, out, err = ended(program(place, code))
    assert (status, err) == (0, "")
    assert out.count("forked") == 2


def test_sigterm_ends_run_after_the_records_being_handled(place: Place) -> None:
    write(place, 100, keys=1)
    code = """
import time
def handle(record):
    print(record.data.decode(), flush=True)
    sys.stdin.readline()  # until the signal has been sent
    time.sleep(0.05)
with blocking.Consumer(stream, start="TRIM_HORIZON", **place) as consumer:
    consumer.run(handle)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print("ended", flush=True)
"""
    running = program(place, code)
    assert running.stdout is not None
    assert running.stdout.readline() == "0\n"
    running.send_signal(signal.SIGTERM)
    status, out, err = ended(running)  # it closes the input
    assert (status, err) == (0, "")
    assert out.endswith("ended\n")
    assert "99" not in out


def test_interrupt_ends_a_wait_and_leaves_the_producer_usable(place: Place) -> None:
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)
with blocking.Producer(stream, batch=Batching(linger=60), **place) as producer:
    delivery = producer.put("x", "key")
    try:
        print("waiting", flush=True)
        delivery.result()
    except KeyboardInterrupt:
        print("interrupted", delivery.done, flush=True)
    producer.flush()
    print(delivery.result().shard_id[:8])
"""
    running = program(place, code)
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    assert ended(running) == (0, "interrupted False\nshardId-\n", "")


@pytest.mark.parametrize("way", ["records", "batches"])
def test_error_that_ends_a_loop_has_no_other_error_as_its_context(place: Place, way: str) -> None:
    with blocking.Consumer("wrong", start="TRIM_HORIZON", **place.options) as consumer:
        records: Any = iter(consumer) if way == "records" else consumer.batches()
        with pytest.raises(NotFound) as caught:
            next(records)
    assert caught.value.__context__ is None


def test_interrupt_ends_a_loop_over_records(place: Place) -> None:
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)
with blocking.Consumer(stream, start="LATEST", **place) as consumer:
    try:
        print("waiting", flush=True)
        for record in consumer:
            pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    running = program(place, code)
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    time.sleep(0.3)
    os.kill(running.pid, signal.SIGINT)
    assert ended(running) == (0, "interrupted\n", "")


def test_a_limit_that_was_raised_is_learned_in_whatever_thread_it_refuses_a_record(place: Place) -> None:
    looked = threading.Event()

    def see(event: Event) -> None:
        if isinstance(event, ShardMapRefreshed):
            looked.set()

    with blocking.Client(**place.options) as client:
        described = client.call("DescribeStreamSummary", {"StreamName": place.stream})["StreamDescriptionSummary"]
        with blocking.Producer(place.stream, observer=see, client=client) as producer:
            producer.put(b"small", "key").result()
            looked.clear()
            client.call("UpdateMaxRecordSize", {"StreamARN": described["StreamARN"], "MaxRecordSizeInKiB": 2048})
            until_active(client, place.stream)
            with pytest.raises(InvalidRecord, match="The stream accepts 1048576"):
                producer.put(bytes(2_000_000), "key")
            assert looked.wait(15)
            producer.put(bytes(2_000_000), "key").result()
