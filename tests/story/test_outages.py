"""An endpoint that goes away and comes back, in all three styles: the logs, `status` and `statistics`."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.doubles.heard import Heard

from kinstream import (
    Batching,
    Consumer,
    ConsumerStatistics,
    Credentials,
    DeliveryPolicy,
    Polling,
    ProduceError,
    ShardStatus,
    Undelivered,
    blocking,
    callbacks,
)
from kinstream.events import Event, RecordsFailed
from kinstream.local import Server
from kinstream.produce.unobserved import GRACE

OPTIONS: dict[str, Any] = {"region": "us-east-1", "credentials": Credentials("local", "local")}
READING: dict[str, Any] = {"start": "TRIM_HORIZON", "fetch": Polling(idle_interval=0.05)}
RECORDS = 10


@pytest.fixture
def server() -> Iterator[Server]:
    """A stream with records, on a server that a test may stop."""
    server = Server(quotas=False, transition=0).start()
    with blocking.Client(endpoint_url=server.url, **OPTIONS) as client:
        client.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
    with blocking.Producer("orders", endpoint_url=server.url, **OPTIONS) as producer:
        producer.put_many([(b"canary", "key")] * RECORDS).results()
    yield server
    server.stop()


Asked = tuple[list[ShardStatus], ConsumerStatistics]


def check(ask: Callable[[], Asked], server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Stop the server under a consumer, and check its status, statistics and logs."""
    until(lambda: ask()[1].records == RECORDS)
    (before,) = ask()[0]
    assert before.last_error is None
    server.stop()
    until(lambda: ask()[0][0].last_error is not None)
    (first,), _ = ask()
    assert first.last_error is not None
    assert "no connection" in first.last_error or "connection" in first.last_error
    assert first.last_success is not None
    assert abs(first.last_success - time.time()) < 600
    until(lambda: (ask()[0][0].lag or 0.0) > (first.lag or 0.0) + 0.5)
    (later,), statistics = ask()
    assert later.state == "READING"
    assert later.last_success == first.last_success
    assert statistics.failures > 0
    assert statistics.responses > 0
    assert statistics.bytes > 0
    lines = [record for record in caplog.records if record.name == "kinstream.consumer"]
    assert [record.levelno for record in lines] == [logging.WARNING]
    assert lines[0].getMessage().startswith("orders: reading shardId-000000000000 failed: ")
    assert "canary" not in caplog.text


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_asyncio(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def read() -> None:
        async with Consumer("orders", endpoint_url=server.url, **READING, **OPTIONS) as consumer:
            loop = asyncio.get_running_loop()

            def ask() -> Asked:
                async def asked() -> Asked:
                    return consumer.status(), consumer.statistics()

                return asyncio.run_coroutine_threadsafe(asked(), loop).result(10)

            async def handle(record: object) -> None:
                pass

            running = asyncio.create_task(consumer.run(handle))
            await asyncio.to_thread(check, ask, server, caplog)
        await running

    asyncio.run(read())


def test_blocking(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with blocking.Consumer("orders", endpoint_url=server.url, **READING, **OPTIONS) as consumer:
        assert (consumer.status(), consumer.statistics().responses) == ([], 0)
        records = iter(consumer)
        for _ in range(RECORDS):
            next(records)
        check(lambda: (consumer.status(), consumer.statistics()), server, caplog)
    assert consumer.statistics().records == RECORDS


def test_callbacks(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with callbacks.Consumer(
        "us-east-1", "local", "local", "orders", True, endpoint_url=server.url, **READING
    ) as consumer:  # fmt: skip
        consumer.subscribe(lambda error, record: None)

        def ask() -> Asked:
            heard = Heard()
            consumer.status(heard)
            consumer.statistics(heard)
            (no_error, status), (none, statistics) = heard.wait(), heard.wait()
            assert (no_error, none) == (None, None)
            return status, statistics

        check(ask, server, caplog)


def test_wrong_constructor_arguments_arrive_in_the_callback_of_statistics() -> None:
    heard = Heard()
    with callbacks.Consumer("", "local", "local", "orders") as consumer:
        consumer.statistics(heard)
        error, statistics = heard.wait()
    assert error is not None
    assert statistics is None


GONE: dict[str, Any] = {
    "endpoint_url": "http://127.0.0.1:1",
    "batch": Batching(linger=0.01),
    "delivery": DeliveryPolicy(timeout=0.3),
}


def together(producer: blocking.Producer) -> None:
    results = producer.put_many([(b"canary", f"k{n}") for n in range(100)]).results()
    assert all(isinstance(result, ProduceError) for result in results)


def one_after_the_other(producer: blocking.Producer) -> None:
    for delivery in [producer.put(b"canary", f"k{n}") for n in range(100)]:
        with pytest.raises(ProduceError):
            delivery.result()


@pytest.mark.parametrize("wait", [together, one_after_the_other])
def test_blocking_producer_whose_failures_are_waited_for(
    caplog: pytest.LogCaptureFixture, wait: Callable[[blocking.Producer], None]
) -> None:
    events: list[Event] = []
    with blocking.Producer("orders", observer=events.append, **GONE, **OPTIONS) as producer:
        wait(producer)
        time.sleep(GRACE + 0.2)  # long enough for a false alarm
        assert producer.statistics().failures_unobserved == 0
    failed = [event for event in events if isinstance(event, RecordsFailed)]
    assert sum(event.records for event in failed) == 100
    if wait is together:
        assert sum(event.awaited for event in failed) == 100
    lines = [record.getMessage() for record in caplog.records if record.name == "kinstream.producer"]
    assert len([line for line in lines if "failed: ConnectionFailed" in line]) in (1, 2), lines
    assert "no caller awaits" not in caplog.text
    assert "canary" not in caplog.text


def test_blocking_producer_that_is_left_alone_shows_a_summary(caplog: pytest.LogCaptureFixture) -> None:
    producer = blocking.Producer("orders", **GONE, **OPTIONS)
    producer.put_many([(b"canary", f"k{n}") for n in range(500)])
    producer.flush()
    with pytest.raises(Undelivered) as undelivered:
        producer.close()
    shown = "".join(traceback.format_exception(undelivered.value))
    assert "500 records were not written" in shown
    assert "500 RequestTimedOut: " in shown
    assert shown.count("RequestTimedOut") == 1
    assert len(undelivered.value.exceptions) == 100
    assert len([record for record in caplog.records if "no caller awaits" in record.getMessage()]) == 1
    assert "canary" not in caplog.text + shown
