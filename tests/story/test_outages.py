"""An endpoint that goes away and comes back, in all three styles: what is logged, what `status` and `statistics` say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.doubles.heard import Heard

from kinstream import Consumer, ConsumerStatistics, Credentials, Poll, ShardStatus, blocking, callbacks
from kinstream.local import Server

OPTIONS: dict[str, Any] = {"region": "us-east-1", "credentials": Credentials("local", "local")}
READING: dict[str, Any] = {"start": "TRIM_HORIZON", "fetch": Poll(idle=0.05)}
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
    """Stop the server under a consumer, and look at what it says of that."""
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
