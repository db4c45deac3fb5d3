"""Records that the callbacks producer refuses: the time and thread of the refusal, its callback, and its memory."""

from __future__ import annotations

import gc
import logging
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.doubles.heard import Heard
from tests.doubles.memory import errors_alive
from tests.doubles.streams import Place, new_stream

from kinstream import (
    Batching,
    BufferFull,
    BufferLimits,
    ClosedError,
    DeliveryPolicy,
    KinesisError,
    ProduceError,
    callbacks,
)
from kinstream.callbacks.refuse import MAX_REFUSALS
from kinstream.local import Server

NOWHERE = Place("http://127.0.0.1:1")
FOR_EVER = DeliveryPolicy(timeout=600)
CHARGE = 256
"""Bytes that a record counts for besides its data and its key."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        yield server


def producer_on(place: Place, **options: Any) -> callbacks.Producer:
    return callbacks.Producer(*place.account, endpoint_url=place.url, **options)


class Counted:
    """A callback that counts its outcomes.

    Attributes:
        outcomes: How often each error class, or None, came.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[type[KinesisError] | None] = Counter()
        self._lock = threading.Lock()

    def __call__(self, error: KinesisError | None, result: object) -> None:
        with self._lock:
            self.outcomes[None if error is None else type(error)] += 1


class Gate:
    """A callback that blocks until it is opened.

    Attributes:
        entered: Set once the first call waits.
        calls: Number of calls that have ended.
    """

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.calls = 0
        self._open = threading.Event()

    def __call__(self, error: KinesisError | None, result: object) -> None:
        self.entered.set()
        assert self._open.wait(60)
        self.calls += 1

    def open(self) -> None:
        self._open.set()


# When a record is refused.


@pytest.mark.parametrize("count", [1, 7, 3000])
def test_exactly_what_the_buffer_holds_is_accepted_from_the_first_put_on(count: int) -> None:
    told = Counted()
    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=count), delivery=FOR_EVER)
    for _ in range(count):
        producer.put(b"x", "key", told)
    refused = Heard()
    for _ in range(5):
        producer.put(b"x", "key", refused)
        assert isinstance(refused.wait()[0], BufferFull)
    assert not told.outcomes
    producer.close(0)
    assert told.outcomes == {ProduceError: count}


def test_bytes_are_counted_too_and_a_smaller_record_may_still_fit() -> None:
    told, refused = Counted(), Heard()
    size = 1000 + 3 + CHARGE
    producer = producer_on(NOWHERE, buffer=BufferLimits(max_bytes=3 * size - 500), delivery=FOR_EVER)
    for _ in range(2):
        producer.put(bytes(1000), "key", told)
    producer.put(bytes(1000), "key", refused)
    error = refused.wait()[0]
    assert isinstance(error, BufferFull)
    assert (error.record.data, error.record.partition_key) == (bytes(1000), "key")
    producer.put(bytes(400), "key", told)
    producer.put(b"", "key", refused)
    assert isinstance(refused.wait()[0], BufferFull)
    producer.close(0)
    assert told.outcomes == {ProduceError: 3}


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("order", [None, "key"])
def test_load_that_fits_the_buffer_is_never_refused(server: Server, shards: int, order: Any) -> None:
    """At full speed, before the event loop has started, and however much comes within one of its turns."""
    place, told = new_stream(server, shards=shards), Counted()
    with producer_on(place, buffer=BufferLimits(max_records=20_000), rate_limits=None, order=order) as producer:
        for number in range(20_000):
            producer.put(b"x", f"key {number % 100}", told)
    assert told.outcomes == {None: 20_000}


def test_accepted_records_keep_the_order_of_their_key_whatever_was_refused_between(server: Server) -> None:
    place = new_stream(server, shards=2)
    written: list[int] = []
    refused: list[int] = []

    def callback(number: int) -> Callable[[Any, Any], None]:
        return lambda error, result: (refused if isinstance(error, BufferFull) else written).append(number)

    with producer_on(place, order="key", batch=Batching(linger=0), buffer=BufferLimits(max_records=20)) as producer:
        for number in range(3000):
            producer.put(number, f"key {number % 3}", callback(number))
    assert refused
    assert sorted(written + refused) == list(range(3000))
    got: list[int] = []
    with callbacks.Consumer(*place.account, endpoint_url=place.url, start="TRIM_HORIZON", until="now") as consumer:
        ended = Heard()
        consumer.subscribe(lambda error, record: got.append(record.data) if record else ended(error))
        assert ended.wait() == (None,)
    assert sorted(got) == sorted(written)
    for key in range(3):
        numbers = [number for number in got if number % 3 == key]
        assert numbers == sorted(numbers)


def test_settled_record_counts_as_buffered_until_its_callback_is_called() -> None:
    gate, told, refused = Gate(), Counted(), Heard()
    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=10), delivery=DeliveryPolicy(timeout=0.1))
    for _ in range(10):
        producer.put(b"x", "key", gate)
    assert gate.entered.wait(60)  # all ten have failed: one is called back, nine wait for that
    producer.put(b"x", "key", told)
    producer.put(b"x", "key", refused)
    gate.open()
    assert isinstance(refused.wait()[0], BufferFull)
    producer.close()
    assert (gate.calls, told.outcomes) == (10, {ProduceError: 1})


# Refusals that wait for their callback.


def test_put_waits_for_callbacks_once_many_refused_records_wait_for_theirs() -> None:
    gate, returned = Gate(), 0

    def put_all() -> None:
        nonlocal returned
        for _ in range(3 * MAX_REFUSALS):
            producer.put(b"x", "key", gate)
            returned += 1

    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=10), delivery=FOR_EVER)
    thread = threading.Thread(target=put_all)
    thread.start()
    assert gate.entered.wait(60)
    while returned < 10 + MAX_REFUSALS:
        thread.join(0.001)
    gate.open()
    thread.join()
    producer.close(0)
    assert gate.calls == 3 * MAX_REFUSALS


def test_no_more_than_a_thousand_wait_however_many_threads_put() -> None:
    most = done = 0
    put = [0] * 4

    def callback(error: object, result: object) -> None:
        nonlocal most, done
        done += 1
        most = max(most, sum(put) - done)

    def put_all(index: int) -> None:
        for _ in range(5000):
            producer.put(b"x", "key", callback)
            put[index] += 1

    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=10), delivery=FOR_EVER)
    threads = [threading.Thread(target=put_all, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.close(0)
    assert done == 20_000
    assert most <= MAX_REFUSALS + 10


def test_close_waits_for_the_callbacks_of_calls_that_wait() -> None:
    gate, closing = Gate(), threading.Event()
    told = Counted()

    def callback(error: KinesisError | None, result: object) -> None:
        gate(error, result)
        told(error, result)

    def put_all() -> None:
        for _ in range(2 * MAX_REFUSALS):
            producer.put(b"x", "key", callback)

    def close() -> None:
        closing.set()
        producer.close(0)

    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=10), delivery=FOR_EVER)
    threads = [threading.Thread(target=put_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert gate.entered.wait(60)
    closer = threading.Thread(target=close)
    closer.start()
    assert closing.wait(60)
    gate.open()
    for thread in threads:
        thread.join()
    closer.join()
    while sum(told.outcomes.values()) < 6 * MAX_REFUSALS:  # those that came after the end, on a thread of their own
        closing.wait(0.001)
    assert set(told.outcomes) <= {BufferFull, ProduceError, ClosedError}


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="it sends a signal to a thread")
def test_signal_handler_may_put_and_may_raise_while_put_waits() -> None:
    gate, returned = Gate(), 0
    main = threading.get_ident()

    class Interrupted(Exception):
        pass

    def handler(*_: object) -> None:
        if not stopped.is_set():
            stopped.set()
            producer.put(b"x", "key")
            raise Interrupted

    def interrupt() -> None:
        while returned < 10 + 1 + MAX_REFUSALS:  # accepted, in the callback, waiting: the next call waits
            stopped.wait(0.001)
        signal.pthread_kill(main, signal.SIGUSR1)

    stopped = threading.Event()
    before = signal.signal(signal.SIGUSR1, handler)
    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=10), delivery=FOR_EVER)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        while True:
            producer.put(b"x", "key", gate)
            returned += 1
    except Interrupted:
        gate.open()
        producer.close(0)  # as a `with` block does, while the exception is being handled
    finally:
        interrupting.join()
        signal.signal(signal.SIGUSR1, before)
    assert gate.calls == returned


def test_callback_may_put_while_the_most_wait() -> None:
    """It must not wait for callbacks: it is one itself."""
    told, again = Counted(), 3 * MAX_REFUSALS

    def callback(error: KinesisError | None, result: object) -> None:
        nonlocal again
        told(error, result)
        for _ in range(2):
            if again:
                again -= 1
                producer.put(b"x", "key", callback)

    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=1), delivery=FOR_EVER)
    for _ in range(100):
        producer.put(b"x", "key", callback)
    while again:
        threading.Event().wait(0.001)
    producer.close(0)
    assert told.outcomes == {BufferFull: 99 + 3 * MAX_REFUSALS, ProduceError: 1}


def test_callback_of_another_object_does_not_wait_either() -> None:
    gate, heard = Gate(), Heard()
    full = producer_on(NOWHERE, buffer=BufferLimits(max_records=1), delivery=FOR_EVER)
    other = producer_on(NOWHERE, buffer=BufferLimits(max_records=1), delivery=FOR_EVER)
    for _ in range(1 + MAX_REFUSALS):
        full.put(b"x", "key", gate)
    assert gate.entered.wait(60)

    def callback(error: object, result: object) -> None:
        for _ in range(3):
            full.put(b"x", "key", gate)
        heard()

    for _ in range(2):
        other.put(b"x", "key", callback)
    heard.wait()
    other.close(0)  # the record that was accepted fails: its callback puts too
    gate.open()
    full.close(0)
    assert gate.calls == 1 + MAX_REFUSALS + 2 * 3


def test_callbacks_that_raise_hold_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def callback(error: KinesisError | None, result: object) -> None:
        nonlocal calls
        calls += 1
        raise SystemExit if calls % 2 or error is None else error

    with caplog.at_level(logging.CRITICAL):
        producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=1), delivery=FOR_EVER)
        for _ in range(3 * MAX_REFUSALS):
            producer.put(b"x", "key", callback)
        producer.close(0)
    assert calls == 3 * MAX_REFUSALS


@pytest.mark.parametrize("data", [b"x", object()])
def test_refused_records_without_a_callback_are_counted_and_never_wait(
    caplog: pytest.LogCaptureFixture, data: Any
) -> None:
    gate = Gate()
    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=1), delivery=FOR_EVER)
    producer.put(b"x", "key", gate)
    producer.put(b"x", "key", gate)
    assert gate.entered.wait(60)
    for _ in range(3 * MAX_REFUSALS):  # while the object's thread is in a callback
        producer.put(data, "key")
    gate.open()
    producer.close(0)
    (line,) = [record.getMessage() for record in caplog.records if "had no callback" in record.getMessage()]
    assert re.search(r"put: 3,000 calls that had no callback failed: (BufferFull|InvalidRecord)", line)


def test_calls_after_close_are_bounded_and_each_is_called_back() -> None:
    gate, producer = Gate(), producer_on(NOWHERE)
    producer.put(b"x", "key")
    producer.close(0)

    def put_all() -> None:
        for _ in range(3 * MAX_REFUSALS):
            producer.put(b"x", "key", gate)

    before = threading.active_count()
    thread = threading.Thread(target=put_all)
    thread.start()
    assert gate.entered.wait(60)
    assert threading.active_count() <= before + 2  # no thread for each
    gate.open()
    thread.join()
    while gate.calls < 3 * MAX_REFUSALS:
        thread.join(0.001)
        gate.entered.wait(0.001)


PROGRAM = """
import os, sys, threading
from kinstream import BufferLimits, DeliveryPolicy
from kinstream.callbacks import Producer
producer = Producer("us-east-1", "local", "local", "s", endpoint_url="http://127.0.0.1:1", buffer=BufferLimits(max_records=10))
"""


def run(code: str) -> tuple[int, str, str]:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", PROGRAM + code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_exit_of_the_process_waits_for_the_callbacks_of_refused_records() -> None:
    code = """
import kinstream.callbacks.face
kinstream.callbacks.face.EXIT_DRAIN = 0.3
for _ in range(510):
    producer.put(b"x", "key", lambda error, result: print(type(error).__name__))
"""
    returned, out, err = run(code)
    assert (returned, "Traceback" in err) == (0, False)
    assert Counter(out.split()) == {"BufferFull": 500, "ProduceError": 10}


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="it forks")
def test_forked_process_gets_an_error_for_each_call_and_the_parents_refusals_stay_its_own() -> None:
    code = """
gate, told, all_told = threading.Event(), [], threading.Event()
def mine(error, result):
    gate.wait(30)
def theirs(error, result):
    told.append(type(error).__name__)
    if len(told) == 3000:
        all_told.set()
for _ in range(510):
    producer.put(b"x", "key", mine)
child = os.fork()
if child == 0:
    for _ in range(3000):
        producer.put(b"x", "key", theirs)
    all_told.wait(30)
    print(set(told), len(told), flush=True)
    os._exit(0)
os.waitpid(child, 0)
gate.set()
producer.close(0)
"""
    assert run(code)[:2] == (0, "{'UsageError'} 3000\n")


# Memory of refused records.


@pytest.mark.parametrize("raises", [False, True])
def test_refused_record_is_freed_once_its_callback_was_called(raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    def callback(error: KinesisError | None, result: object) -> None:
        if raises and error is not None:
            raise error

    before = errors_alive()
    with caplog.at_level(logging.CRITICAL):
        producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=10), delivery=FOR_EVER)
        for _ in range(3000):
            producer.put(bytes(1000), "key", callback)
        producer.close(0)
    assert errors_alive() - before < 20


def test_refusing_a_record_keeps_nothing() -> None:
    heard = Heard()
    producer = producer_on(NOWHERE, buffer=BufferLimits(max_records=1), delivery=FOR_EVER)
    producer.put(b"x", "key")

    def refuse() -> None:
        producer.put(bytes(400), "key", heard)
        error, _ = heard.wait()
        assert isinstance(error, BufferFull)
        assert error.__traceback__ is None
        heard.threads.clear()

    for _ in range(50):
        refuse()
    gc.collect()
    objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
    for _ in range(5000):
        refuse()
    gc.collect()
    # Each object of up to 512 bytes is a block, so also the data. The other thread allocates some: it retries.
    assert sys.getallocatedblocks() - blocks < 1000
    assert len(gc.get_objects()) - objects < 100
    producer.close(0)
