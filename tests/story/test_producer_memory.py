"""Memory of a producer with a dead endpoint, in all three styles: R19, and `close(timeout)` with many records buffered."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from tests.doubles.memory import errors_alive
from tests.doubles.streams import Place

import kinstream
from kinstream import BufferLimits, DeliveryPolicy, KinesisError, ProduceError, blocking, callbacks

MIB = 2**20
NOWHERE = Place("http://127.0.0.1:1")
BUFFERED = 100_000

PUTTING = """
import asyncio, gc, logging, sys, threading
import kinstream
from kinstream import BufferLimits, BufferFull, Credentials, ProduceError, DeliveryPolicy, blocking, callbacks
from tests.doubles.memory import peak_bytes

logging.disable(logging.CRITICAL)
style, order = sys.argv[1], sys.argv[2] or None
account = {"region": "us-east-1", "credentials": Credentials("local", "local"), "endpoint_url": "http://127.0.0.1:1"}
options = {"order": order, "buffer": BufferLimits(max_bytes=4 * 2**20), "delivery": DeliveryPolicy(timeout=0.05)}
data = [bytes(1000 + number) for number in range(64)]

def records(count):
    for number in range(count):
        yield data[number % 64] + b"x", f"key {number % 500}"

async def tasks():
    producer = kinstream.Producer("s", **account, **options)
    for record in records(3000):
        await producer.put(*record)
    before = peak_bytes()
    for record in records(100_000):
        await producer.put(*record)
    try:
        await producer.close(0)
    except kinstream.Undelivered:
        pass
    return before

def threads():
    producer = blocking.Producer("s", **account, **options)
    for record in records(3000):
        producer.put(*record)
    before = peak_bytes()
    putting = [threading.Thread(target=lambda: [producer.put(*record) and None for record in records(50_000)]) for _ in "ab"]
    for thread in putting:
        thread.start()
    for thread in putting:
        thread.join()
    try:
        producer.close(0)
    except kinstream.Undelivered:
        pass
    return before

def called_back():
    def callback(error, result):
        assert isinstance(error, ProduceError)
        kinds.add(type(error))

    kinds = set()
    producer = callbacks.Producer(
        "us-east-1", "local", "local", "s", endpoint_url="http://127.0.0.1:1", **options
    )
    for record in records(3000):
        producer.put(*record, callback)
    before = peak_bytes()
    for record in records(120_000):
        producer.put(*record, callback)
    producer.close(0)
    assert {BufferFull, ProduceError} <= kinds
    return before

before = asyncio.run(tasks()) if style == "asyncio" else threads() if style == "blocking" else called_back()
grown = peak_bytes() - before
gc.collect()
print(grown, sum(isinstance(found, ProduceError) for found in gc.get_objects()))
"""


@pytest.mark.parametrize("order", [None, "key"])
@pytest.mark.parametrize("style", ["asyncio", "blocking", "callbacks"])
def test_memory_stays_near_the_buffers_limit_while_the_endpoint_is_dead(style: str, order: str | None) -> None:
    """R19: at most the buffer's limit and 64 MiB, while more than 100 MB of records are put at full rate.

    A process of its own, because memory is a process's. It prints how far its memory grew, and how many errors are left.
    """
    command = [sys.executable, "-c", PUTTING, style, order or ""]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    grown, errors = map(int, ended.stdout.split())
    print(f"R19 {style}, order={order}: {grown / MIB:.1f} MiB more, {errors} errors left")
    assert grown <= (4 + 64) * MIB
    assert errors <= (150 if order is None else 500 + 150)  # the records of one of the 500 keys share an error


def many() -> Iterable[tuple[bytes, str]]:
    return ((b"x" * 300, f"key {number % 1000}") for number in range(BUFFERED))


LARGE: dict[str, Any] = {"buffer": BufferLimits(max_records=BUFFERED), "delivery": DeliveryPolicy(timeout=600)}


async def test_close_with_many_records_buffered_creates_few_errors() -> None:
    before = errors_alive()
    producer = kinstream.Producer("s", **NOWHERE.options, **LARGE)
    deliveries = await producer.put_many(many())
    with pytest.raises(kinstream.Undelivered) as undelivered:
        await producer.close(0.2)
    assert undelivered.value.count == BUFFERED
    assert deliveries.done
    assert errors_alive() - before <= 150
    results = await deliveries  # a caller that asks gets each error
    assert Counter(map(type, results)) == {ProduceError: BUFFERED}
    assert [result.record.partition_key for result in results if isinstance(result, ProduceError)] == [
        key for _, key in many()
    ]


def test_close_of_the_blocking_producer_with_many_records_buffered_creates_few_errors() -> None:
    before = errors_alive()
    producer = blocking.Producer("s", **NOWHERE.options, **LARGE)
    deliveries = producer.put_many(many())
    with pytest.raises(kinstream.Undelivered) as undelivered:
        producer.close(0.2)
    assert undelivered.value.count == BUFFERED
    assert deliveries.done
    assert errors_alive() - before <= 150


def test_close_of_the_callbacks_producer_with_many_records_buffered_keeps_no_error() -> None:
    before = errors_alive()
    kinds: Counter[type[KinesisError] | None] = Counter()
    most = 0

    def callback(error: KinesisError | None, result: object) -> None:
        nonlocal most
        kinds[None if error is None else type(error)] += 1
        if sum(kinds.values()) % 25_000 == 0:
            most = max(most, errors_alive())

    producer = callbacks.Producer(*NOWHERE.account, endpoint_url=NOWHERE.url, **LARGE)
    for record in many():
        producer.put(*record, callback)
    producer.close(0.2)
    assert kinds == {ProduceError: BUFFERED}
    assert most - before <= 50
    assert errors_alive() - before <= 50
