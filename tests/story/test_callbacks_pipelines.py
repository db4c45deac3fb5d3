"""The producer's pipeline and the whole consumer for callbacks, on the local Kinesis."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.heard import Heard
from tests.doubles.streams import Place, new_stream

from kinstream import (
    Aggregation,
    Batching,
    BufferFull,
    BufferLimits,
    ClosedError,
    ConsumeError,
    DeliveryPolicy,
    ErrorPolicy,
    FlushResult,
    Handling,
    InvalidRecord,
    KinesisError,
    Polling,
    ProduceError,
    PutResult,
    ReceivedRecord,
    Record,
    SQLiteLeaseStore,
    UnexpectedResponse,
    UsageError,
    blocking,
    callbacks,
)
from kinstream.local import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        yield server


@pytest.fixture
def place(server: Server) -> Place:
    """A new stream of two shards."""
    return new_stream(server, shards=2)


def producer_on(place: Place, **options: Any) -> callbacks.Producer:
    return callbacks.Producer(*place.account, endpoint_url=place.url, **options)


def consumer_on(place: Place, is_blob: bool = False, **options: Any) -> callbacks.Consumer:
    return callbacks.Consumer(*place.account, is_blob, endpoint_url=place.url, **options)


def write(place: Place, data: list[Any], key: str = "key") -> None:
    with blocking.Producer(place.stream, aggregate=Aggregation(), encoder=json.dumps, **place.options) as producer:
        producer.put_many((value, key) for value in data).results()


class Told:
    """Callback of a subscription that keeps its arguments until the call that reports the end.

    Attributes:
        records: The records' data.
        errors: Errors that came with a record.
        end: The last call's error, in a list.
    """

    def __init__(self, act: Callable[[Any], object] = id) -> None:
        self.records: list[Any] = []
        self.errors: list[KinesisError] = []
        self.end: list[KinesisError | None] = []
        self.threads: set[threading.Thread] = set()
        self._act = act
        self._ended = threading.Event()

    def __call__(self, error: KinesisError | None, record: ReceivedRecord[Any] | None) -> None:
        self.threads.add(threading.current_thread())
        if record is None:
            self.end.append(error)
            self._ended.set()
            return
        if error is not None:
            self.errors.append(error)
        self.records.append(record.data)
        self._act(record)

    def wait(self) -> KinesisError | None:
        assert self._ended.wait(15)
        (end,) = self.end
        return end


def read(place: Place, is_blob: bool = False) -> list[Any]:
    told = Told()
    with consumer_on(place, is_blob, start="TRIM_HORIZON", until="now") as consumer:
        consumer.subscribe(told)
        assert told.wait() is None
    return told.records


# Writing.


def test_callback_of_each_put_is_called_once_with_the_position_of_its_record(place: Place) -> None:
    results: list[tuple[KinesisError | None, PutResult | None]] = []
    with producer_on(place) as producer:
        for n in range(3000):
            producer.put(f"{n}", f"key {n % 7}", lambda error, result: results.append((error, result)))
        producer.put(Record({"a": 1}, "key"), None, lambda error, result: results.append((error, result)))
    assert len(results) == 3001
    assert all(error is None and result is not None for error, result in results)
    assert len({(r.shard_id, r.sequence_number, r.subsequence_number) for _, r in results if r}) == 3001
    assert len(read(place)) == 3001


def test_put_returns_before_its_callback_and_a_callback_may_put(place: Place) -> None:
    heard = Heard()
    with producer_on(place, batch=Batching(linger=0)) as producer:

        def again(error: KinesisError | None, result: PutResult | None) -> None:
            producer.put("second", "key", heard)

        assert producer.put("first", "key", again) is None  # type: ignore[func-returns-value]
        assert heard.quiet
        assert isinstance(heard.wait()[1], PutResult)
    (thread,) = heard.threads
    assert thread.name == "kinstream-callbacks-producer"


def test_callback_of_flush_is_called_after_those_of_all_earlier_puts(place: Place) -> None:
    order: list[Any] = []
    done = threading.Event()

    def flushed_all(error: KinesisError | None, flushed: FlushResult | None) -> None:
        order.append(flushed)
        done.set()

    with producer_on(place, batch=Batching(linger=60)) as producer:
        for n in range(1000):
            producer.put(str(n), "key", lambda error, result: order.append(error))
        producer.flush(flushed_all)
        assert done.wait(15)
        assert order == [None] * 1000 + [FlushResult(1000, 0)]


def test_every_method_writes_text_as_json_unless_there_is_an_encoder(place: Place) -> None:
    def put(producer: callbacks.Producer, data: Any) -> None:
        producer.put(data, "key")
        producer.put(Record(data, "key"))
        producer.put_record(Record(data, "key"))
        producer.put_records([Record(data, "key")])

    with producer_on(place) as plain:
        put(plain, "text")
        put(plain, {"a": 1})
        put(plain, memoryview(b"bytes"))
    with producer_on(place, encoder=lambda data: f"<{data}>") as encoded:
        put(encoded, "text")
    written = Counter(read(place, is_blob=True))
    assert written == dict.fromkeys((b'"text"', b'{"a":1}', b"bytes", b"<text>"), 4)


def test_refused_records_are_reported_and_the_rest_is_written(place: Place) -> None:
    heard = Heard()
    with producer_on(place) as producer:
        producer.put(object(), "key", heard)  # type: ignore[arg-type]
        producer.put(b"x", "", heard)
        producer.put(b"x", "key", explicit_hash_key="x", callback=heard)
        for _ in range(3):
            error, result = heard.wait()
            assert isinstance(error, InvalidRecord)
            assert result is None
        producer.put(b"1", "key", heard)
        assert heard.wait()[0] is None


def test_full_buffer_is_reported_at_once_and_never_waited_for() -> None:
    place = Place("http://127.0.0.1:1")
    outcomes: list[KinesisError | None] = []
    with producer_on(place, buffer=BufferLimits(max_records=100), delivery=DeliveryPolicy(timeout=1)) as producer:
        for _ in range(1000):
            producer.put(b"x", "key", lambda error, result: outcomes.append(error))
    assert len(outcomes) == 1000
    kinds = [type(error) for error in outcomes]
    assert (kinds.count(BufferFull), kinds.count(ProduceError)) == (900, 100)


def test_record_that_failed_without_a_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    place = Place("http://127.0.0.1:1")
    with (
        caplog.at_level(logging.WARNING, "kinstream.callbacks"),
        producer_on(place, delivery=DeliveryPolicy(timeout=0.1)) as producer,
    ):
        producer.put(b"canary", "key")
    assert "had no callback" in caplog.text
    assert "canary" not in caplog.text


def test_records_that_failed_without_a_callback_are_counted_not_listed(caplog: pytest.LogCaptureFixture) -> None:
    place = Place("http://127.0.0.1:1")
    with (
        caplog.at_level(logging.WARNING, "kinstream.callbacks"),
        producer_on(place, delivery=DeliveryPolicy(timeout=0.1), batch=Batching(linger=0.0)) as producer,
    ):
        for n in range(1000):
            producer.put(b"canary", f"k{n}")
    lines = [record.getMessage() for record in caplog.records if record.name == "kinstream.callbacks"]
    assert 1 <= len(lines) <= 2
    assert failed_calls(lines) == 1000
    assert "canary" not in caplog.text


def failed_calls(lines: list[str]) -> int:
    """Return how many calls without a callback the log's lines count."""
    counts = [count for line in lines for count in re.findall(r"\b[\d,]+(?= calls| more)", line)]
    return sum(int(count.replace(",", "")) for count in counts) + sum("a call" in line for line in lines)


@pytest.mark.parametrize("method", ["put", "put_record", "put_records"])
def test_record_that_cannot_be_put_is_logged_where_it_has_no_callback(
    caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with producer_on(Place("http://127.0.0.1:1")) as producer:
        for _ in range(100):
            if method == "put":
                producer.put(b"canary", "")
            elif method == "put_record":
                producer.put_record(Record(b"canary", ""))
            else:
                producer.put_records([Record(b"canary", "")])
    lines = [record.getMessage() for record in caplog.records if record.name == "kinstream.callbacks"]
    assert 1 <= len(lines) <= 2
    assert failed_calls(lines) == 100
    assert re.search(rf"{method}: (a call|[\d,]+ calls) that had no callback failed: InvalidRecord", lines[0])
    assert "canary" not in caplog.text


def test_callback_that_raises_each_time_does_not_flood_the_log(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: object, result: object) -> None:
        raise ValueError

    with producer_on(place, batch=Batching(linger=0)) as producer:
        for _ in range(200):
            producer.put(b"x", "key", fail)
    assert caplog.text.count("the callback of put raised") == 10
    assert "190 more" in caplog.text


def test_callback_of_put_that_raises_affects_no_other_put(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: object, result: object) -> None:
        raise SystemExit

    heard = Heard()
    with producer_on(place, batch=Batching(linger=0)) as producer:
        for _ in range(10):
            producer.put(b"x", "key", fail)
        producer.put(b"x", "key", heard)
        assert heard.wait()[0] is None
    assert caplog.text.count("the callback of put raised") == 10


def test_put_after_close_gets_a_closed_error(place: Place) -> None:
    heard = Heard()
    producer = producer_on(place)
    producer.put(b"x", "key", heard)
    producer.close()
    assert heard.wait()[0] is None
    producer.put(b"x", "key", heard)
    assert isinstance(heard.wait()[0], ClosedError)


def test_forgotten_producer_still_calls_back(place: Place) -> None:
    heard = Heard()
    producer = producer_on(place)
    for _ in range(100):
        producer.put(b"x", "key", heard)
    del producer
    for _ in range(100):
        assert heard.wait()[0] is None


PROGRAM = """
import kinstream.callbacks.face
from kinstream import Batching
from kinstream.callbacks import Consumer, Producer
account = ("us-east-1", "local", "local", {stream!r})
url = {url!r}
{code}
"""


def run(place: Place, code: str) -> tuple[int, str, str]:
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(url=place.url, stream=place.stream, code=code)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_exit_of_the_process_waits_for_queued_records(place: Place) -> None:
    code = """
producer = Producer(*account, endpoint_url=url, batch=Batching(linger=60))
for n in range(100):
    producer.put(str(n), "key", lambda error, result: print(error or "written"))
"""
    assert run(place, code) == (0, "written\n" * 100, "")


def test_exit_of_the_process_reports_records_that_it_did_not_wait_for() -> None:
    code = """
kinstream.callbacks.face.EXIT_DRAIN = 0.3
producer = Producer(*account, endpoint_url=url)
for n in range(3):
    producer.put(str(n), "key", lambda error, result: print(type(error).__name__, result))
"""
    assert run(Place("http://127.0.0.1:1"), code)[:2] == (0, "ProduceError None\n" * 3)


# Reading.


def test_subscription_brings_all_records_in_order_on_one_thread_and_says_its_end(place: Place) -> None:
    write(place, [{"n": n} for n in range(1000)])
    told = Told()
    with consumer_on(place, start="TRIM_HORIZON", until="now") as consumer:
        assert consumer.subscribe(told) is None  # type: ignore[func-returns-value]
        assert told.wait() is None
    assert told.records == [{"n": n} for n in range(1000)]
    assert [thread.name for thread in told.threads] == ["kinstream-callbacks-consumer"]


def test_blobs_come_as_they_are(place: Place) -> None:
    write(place, [b"\x00", b"{"])
    told = Told()
    with consumer_on(place, True, start="TRIM_HORIZON", until="now") as consumer:
        consumer.subscribe(told)
        told.wait()
    assert (told.records, told.errors) == ([b"\x00", b"{"], [])


def test_data_that_is_no_json_comes_as_it_is_with_an_error_and_the_rest_follows(place: Place) -> None:
    write(place, [1, b"{nothing", 2])
    told = Told()
    with consumer_on(place, start="TRIM_HORIZON", until="now") as consumer:
        consumer.subscribe(told)
        assert told.wait() is None
    assert told.records == [1, b"{nothing", 2]
    (error,) = told.errors
    assert isinstance(error, UnexpectedResponse)
    assert "nothing" not in error.details
    assert "is_blob" in error.details


@pytest.mark.parametrize("concurrency", [1, 4])
def test_unsubscribing_from_a_callback_ends_it_after_that_record(
    place: Place, tmp_path: Path, concurrency: int
) -> None:
    write(place, list(range(100)))
    store = SQLiteLeaseStore(tmp_path / "checkpoints.db")
    options: dict[str, Any] = {
        "application": "app",
        "lease_store": store,
        "handling": Handling(concurrency=concurrency),
    }
    consumer = consumer_on(place, **options)
    first = Told(lambda record: consumer.unsubscribe() if record.data == 29 else None)
    consumer.subscribe(first)
    assert first.wait() is None
    assert first.records == list(range(30))
    second = Told(lambda record: consumer.close() if record.data == 99 else None)
    consumer.subscribe(second)
    assert second.wait() is None
    assert second.records == list(range(30, 100))


def test_unsubscribe_right_after_subscribe_ends_it(place: Place) -> None:
    with consumer_on(place) as consumer:
        told = Told()
        consumer.subscribe(told)
        consumer.unsubscribe()
        assert told.wait() is None
        consumer.unsubscribe()


def test_close_ends_a_subscription_and_waits_for_its_last_callback(place: Place) -> None:
    write(place, [1])
    told, came = Told(lambda record: came.set()), threading.Event()
    consumer = consumer_on(place, start="TRIM_HORIZON")
    consumer.subscribe(told)
    assert came.wait(15)
    consumer.close()
    assert told.end == [None]
    consumer.subscribe(late := Told())
    assert isinstance(late.wait(), ClosedError)


def test_second_subscription_at_a_time_is_refused(place: Place) -> None:
    with consumer_on(place) as consumer:
        consumer.subscribe(first := Told())
        consumer.subscribe(second := Told())
        assert isinstance(second.wait(), UsageError)
        assert first.end == []


def test_callback_that_raises_is_called_again_and_stops_the_shard_in_the_end(place: Place, tmp_path: Path) -> None:
    write(place, [0, 1, 2])

    def fail(record: ReceivedRecord[Any]) -> None:
        if record.data == 1:
            raise KeyError

    options: dict[str, Any] = {
        "application": "app",
        "lease_store": SQLiteLeaseStore(tmp_path / "checkpoints.db"),
        "until": "now",
    }
    told = Told(fail)
    with consumer_on(place, errors=ErrorPolicy(max_attempts=3, initial_delay=0.01), **options) as consumer:
        consumer.subscribe(told)
        end = told.wait()
    assert isinstance(end, ConsumeError)
    assert told.records == [0, 1, 1, 1]
    rest = Told()
    with consumer_on(place, **options) as consumer:
        consumer.subscribe(rest)
        assert rest.wait() is None
    assert rest.records == [1, 2]


def test_callback_that_raises_may_be_declared_to_be_skipped(place: Place) -> None:
    def fail(record: ReceivedRecord[Any]) -> None:
        raise SystemExit

    write(place, [0, 1, 2])
    told = Told(fail)
    with consumer_on(
        place, start="TRIM_HORIZON", until="now", errors=ErrorPolicy(max_attempts=1, then="skip")
    ) as consumer:
        consumer.subscribe(told)
        assert told.wait() is None
    assert told.records == [0, 1, 2]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_callback_of_a_manual_checkpoint_is_called_once_it_is_stored(
    place: Place, tmp_path: Path, concurrency: int
) -> None:
    write(place, list(range(50)))
    options: dict[str, Any] = {
        "application": "app",
        "lease_store": SQLiteLeaseStore(tmp_path / "checkpoints.db"),
        "until": "now",
    }
    heard = Heard()
    with consumer_on(place, checkpoints="manual", handling=Handling(concurrency=concurrency), **options) as consumer:
        told = Told(lambda record: consumer.checkpoint(record, heard) if record.data == 20 else None)
        consumer.subscribe(told)
        assert told.wait() is None
        assert heard.wait() == (None,)
    rest = Told()
    with consumer_on(place, **options) as consumer:
        consumer.subscribe(rest)
        assert rest.wait() is None
    assert rest.records == list(range(21, 50))


def test_reading_is_paused_resumed_and_moved_by_callbacks_too(place: Place) -> None:
    write(place, list(range(5)))
    heard = Heard()
    with consumer_on(place, start="TRIM_HORIZON", fetch=Polling(idle_interval=0.05)) as consumer:
        consumer.pause(None, heard)
        assert isinstance(heard.wait()[0], UsageError)
        consumer.subscribe(told := Told())
        while len(told.records) < 5:
            time.sleep(0.001)
        consumer.pause(None, heard)
        assert heard.wait() == (None,)
        consumer.status(heard)
        error, statuses = heard.wait()
        assert error is None
        assert {status.state for status in statuses} == {"PAUSED"}
        consumer.resume(None, heard)
        assert heard.wait() == (None,)
        for status in statuses:
            consumer.seek(status.shard_id, "TRIM_HORIZON", heard)
            assert heard.wait() == (None,)
        while len(told.records) < 10:
            time.sleep(0.001)
    assert told.records == [*range(5), *range(5)]


def test_exit_of_the_process_ends_a_subscription(place: Place) -> None:
    write(place, [1])
    code = """
import threading
came = threading.Event()
consumer = Consumer(*account, endpoint_url=url, start="TRIM_HORIZON")
consumer.subscribe(lambda error, record: (print(error, record and record.data, flush=True), came.set()))
came.wait(15)
"""
    assert run(place, code) == (0, "None 1\nNone None\n", "")


@pytest.mark.parametrize("is_blob", [True, False])
def test_traceback_of_a_callback_that_quotes_a_record_is_logged_without_it(
    place: Place, caplog: pytest.LogCaptureFixture, is_blob: bool
) -> None:
    with producer_on(place) as producer:
        producer.put(b'{"iban": "canary canary canary"}', "key")
    tried: list[int] = []
    twice = threading.Event()

    def fail(error: KinesisError | None, record: ReceivedRecord[Any] | None) -> None:
        if record is not None:
            tried.append(1)
            if len(tried) == 2:
                twice.set()
            raise ValueError(record.data)

    with consumer_on(
        place, is_blob, start="TRIM_HORIZON", errors=ErrorPolicy(max_attempts=2, initial_delay=0.01, then="skip")
    ) as consumer:
        consumer.subscribe(fail)
        assert twice.wait(15)
    assert "the callback of subscribe raised" in caplog.text
    assert "could not be handled in 2 attempts" in caplog.text
    assert "in fail" in caplog.text
    assert "canary" not in caplog.text
