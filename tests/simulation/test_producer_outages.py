"""Logs of a producer while the failures of its requests persist."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.doubles.network import Fate
from tests.doubles.virtual_loop import simulate
from tests.simulation.failing import STREAM, FailingService, Fates

from kinstream import (
    Aggregation,
    Batching,
    ConnectionFailed,
    ConnectionLost,
    Deliveries,
    DeliveryPolicy,
    KinesisError,
    ProduceError,
    Producer,
    RequestTimedOut,
    ServiceUnavailable,
    Throttled,
    Undelivered,
)
from kinstream.events import RecordsFailed, RecordsRetried, RequestCompleted


class Ground(FailingService):
    """A service and its producers."""

    def producer(self, **options: Any) -> Producer:
        return Producer(STREAM, client=self.client(), **options)


async def write(ground: Ground, seconds: float, **options: Any) -> None:
    """Put a record every half second for so long, and wait for each."""
    producer = ground.producer(**({"delivery": DeliveryPolicy(timeout=3600)} | options))
    deliveries = []
    for number in range(int(seconds * 2)):
        deliveries.append(asyncio.ensure_future(_result(await producer.put(b"canary", f"k{number}"))))
        await asyncio.sleep(0.5)
    await asyncio.gather(*deliveries, return_exceptions=True)
    await producer.close()
    await producer.client.close()


async def _result(delivery: Any) -> Any:
    return await delivery


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return the lines that the producer logged at a level."""
    return [one.getMessage() for one in caplog.records if one.name == "kinstream.producer" and one.levelno == level]


@pytest.mark.parametrize("fate", [Fate.UNSENT, Fate.BLACK_HOLE, Fate.BROKEN_BEFORE, Fate.CUT_BEFORE])
@pytest.mark.parametrize("shards", [1, 4])
def test_endpoint_that_is_gone_for_half_a_minute(caplog: pytest.LogCaptureFixture, fate: Fate, shards: int) -> None:
    async def story() -> None:
        await write(Ground({"all": (10.0, 38.0, fate)}, shards=shards), 60)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    (warning,) = lines(caplog, logging.WARNING)
    assert "orders: PutRecords failed: " in warning
    assert "the records are retried" in warning
    (info,) = lines(caplog, logging.INFO)
    assert "orders: PutRecords works again after" in info
    assert "canary" not in caplog.text


def test_outage_of_minutes_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await write(Ground({"all": (10.0, 310.0, Fate.UNSENT)}, shards=4), 400)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert 5 <= len(warnings) <= 6
    assert "has failed for" in warnings[-1]
    assert "failures)" in warnings[-1]
    assert len(lines(caplog, logging.INFO)) == 1


def test_throttling_of_ten_seconds_is_logged_while_the_retry_backs_off(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await write(Ground({"PutRecords": (10.0, 40.0, Fate.THROTTLED)}), 60)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    (warning,) = lines(caplog, logging.WARNING)
    assert "PutRecords has failed for 10.0 s" in warning


def test_endpoint_that_never_was_there_is_named_by_both_operations(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await write(Ground({"all": (0.0, 20.0, Fate.UNSENT)}), 40)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert len(warnings) == 2
    assert any("describing the stream failed: ConnectionFailed" in line for line in warnings)
    assert any("PutRecords failed: ConnectionFailed" in line for line in warnings)
    assert len(lines(caplog, logging.INFO)) == 2


@pytest.mark.parametrize(("seconds", "told"), [(5.0, 0), (45.0, 1)])
def test_throttling_is_no_failure_until_nothing_was_accepted_for_ten_seconds(
    caplog: pytest.LogCaptureFixture, seconds: float, told: int
) -> None:
    async def story() -> None:
        await write(Ground({"PutRecords": (10.0, 10.0 + seconds, Fate.THROTTLED)}), 100)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert len(warnings) == told
    assert len(lines(caplog, logging.INFO)) == told
    if told:
        assert "ProvisionedThroughputExceededException" in warnings[0]
        assert "add shards" in warnings[0]


@pytest.mark.parametrize("aggregate", [Aggregation(), None])
def test_wrong_stream_is_the_first_line(caplog: pytest.LogCaptureFixture, aggregate: Aggregation | None) -> None:
    async def story() -> None:
        await write(Ground({}, shards=0), 2, aggregate=aggregate)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert "NotFound: " in warnings[0]
    assert "orders" in warnings[0]
    assert "check the stream's name, region and account" in warnings[0]
    assert "not aggregated" not in caplog.text


def test_shards_that_cannot_be_listed(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await write(Ground({"ListShards": (0.0, 30.0, Fate.BROKEN_BEFORE)}), 60, aggregate=Aggregation())

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    (warning,) = lines(caplog, logging.WARNING)
    assert "describing the stream failed: ServiceUnavailable: ListShards" in warning
    (info,) = lines(caplog, logging.INFO)
    assert "describing the stream works again" in info


DEAD: Fates = {"all": (0.0, 1e9, Fate.UNSENT)}
QUICK: dict[str, Any] = {"batch": Batching(linger=0.01), "delivery": DeliveryPolicy(timeout=0.3)}


async def _together(producer: Producer) -> None:
    assert len(await (await producer.put_many([(b"canary", f"k{n}") for n in range(100)]))) == 100


async def _gathered(producer: Producer) -> None:
    deliveries = [await producer.put(b"canary", f"k{n}") for n in range(100)]
    assert len(await asyncio.gather(*deliveries, return_exceptions=True)) == 100


async def _one_after_the_other(producer: Producer) -> None:
    for delivery in await producer.put_many([(b"canary", f"k{n}") for n in range(100)]):
        with pytest.raises(ProduceError):
            await delivery
        await asyncio.sleep(0.001)


async def _two_groups(producer: Producer) -> None:
    first = await producer.put_many([(b"canary", f"k{n}") for n in range(50)])
    second = await producer.put_many([(b"canary", f"k{n}") for n in range(50)])
    await asyncio.gather(first, second)


async def _one_group_twice(producer: Producer) -> None:
    deliveries = await producer.put_many([(b"canary", f"k{n}") for n in range(100)])
    short = asyncio.ensure_future(asyncio.wait_for(deliveries, 0.1))
    await deliveries
    with pytest.raises(TimeoutError):
        await short


@pytest.mark.parametrize(
    ("wait", "all_awaited"),
    [
        (_together, True),
        (_gathered, True),
        (_two_groups, True),
        (_one_group_twice, True),
        (_one_after_the_other, False),
    ],
)
@pytest.mark.parametrize("order", [None, "key"])
def test_failure_that_is_awaited_is_no_surprise(
    caplog: pytest.LogCaptureFixture, wait: Any, all_awaited: bool, order: Any
) -> None:
    events: list[Any] = []

    async def story() -> None:
        producer = Ground(DEAD).producer(observer=events.append, order=order, **QUICK)
        await wait(producer)
        await asyncio.sleep(5)
        assert producer.statistics().failures_unobserved == 0
        await producer.close()
        await producer.client.close()

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    failed = [event for event in events if isinstance(event, RecordsFailed)]
    assert sum(event.records for event in failed) == 100
    assert (sum(event.awaited for event in failed) == 100) is all_awaited
    assert "no caller awaits" not in caplog.text


async def _left(producer: Producer) -> None:
    await producer.put_many([(b"canary", f"k{n}") for n in range(100)])


async def _given_up(producer: Producer) -> None:
    deliveries = await producer.put_many([(b"canary", f"k{n}") for n in range(100)])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(deliveries, 0.1)


@pytest.mark.parametrize("leave", [_left, _given_up])
def test_failure_that_is_not_awaited_is_one_line_and_one_error(caplog: pytest.LogCaptureFixture, leave: Any) -> None:
    events: list[Any] = []

    async def story() -> Undelivered:
        producer = Ground(DEAD).producer(observer=events.append, **QUICK)
        await leave(producer)
        await asyncio.sleep(5)
        with pytest.raises(Undelivered) as undelivered:
            await producer.close()
        await producer.client.close()
        return undelivered.value

    with caplog.at_level(logging.INFO, "kinstream"):
        error = simulate(story)
    assert {type(event.error) for event in events if isinstance(event, RecordsFailed)} == {RequestTimedOut}
    (line,) = [line for line in lines(caplog, logging.WARNING) if "no caller awaits" in line]
    assert "100 records failed, and no caller awaits them: RequestTimedOut: " in line
    assert "close: 100 records were not written" in str(error)
    assert "100 RequestTimedOut: " in str(error)
    assert error.count == 100
    assert sum(event.awaited for event in events if isinstance(event, RecordsFailed)) == 0


@pytest.mark.parametrize(
    ("fate", "error", "reason"),
    [
        (Fate.UNSENT, ConnectionFailed, "failed"),
        (Fate.CUT_BEFORE, ConnectionLost, "unknown"),
        (Fate.BROKEN_BEFORE, ServiceUnavailable, "unknown"),
        (Fate.THROTTLED, Throttled, "throttled"),
    ],
)
def test_events_of_requests_have_the_error_without_its_traceback(
    fate: Fate, error: type[KinesisError], reason: str
) -> None:
    events: list[Any] = []

    async def story() -> None:
        await write(Ground({"PutRecords": (10.0, 12.0, fate)}), 20, observer=events.append)

    simulate(story)
    errors = [event.error for event in events if isinstance(event, RequestCompleted)]
    assert None in errors
    assert {type(one) for one in errors if one is not None} == {error}
    assert not [one for one in errors if one is not None and one.__traceback__ is not None]
    assert {event.reason for event in events if isinstance(event, RecordsRetried)} == {reason}


@pytest.mark.parametrize("count", [1000, 10_000])
@pytest.mark.parametrize("size", [6, 50_000])
@pytest.mark.parametrize("observed", ["the first", "the last", "none"])
def test_errors_at_close_are_those_that_are_still_unobserved(count: int, size: int, observed: str) -> None:
    if count * size > 100_000_000:
        count = 2000

    async def story() -> tuple[Undelivered, set[str]]:
        producer = Ground(DEAD).producer(**QUICK)
        deliveries = list(await producer.put_many([(b"x" * size, f"k{n}") for n in range(count)]))
        await asyncio.sleep(5)
        left = set(range(count))
        if observed != "none":
            left = set(range(count - 200, count) if observed == "the first" else range(200))
        for number, delivery in enumerate(deliveries):
            if number not in left:
                with pytest.raises(ProduceError):
                    await delivery
        with pytest.raises(Undelivered) as undelivered:
            await producer.close()
        await producer.client.close()
        assert undelivered.value.count == len(left)
        return undelivered.value, {f"k{number}" for number in left}

    error, left = simulate(story)
    shown = [one.record.partition_key for one in error.exceptions]
    assert len(shown) == len(set(shown))
    assert set(shown) <= left
    assert len(shown) == 100 or (len(shown) >= 40 and size == 50_000)
    assert {type(one.__cause__) for one in error.exceptions} == {RequestTimedOut}


def test_await_that_is_cancelled_after_the_failure_is_reported_at_close() -> None:
    async def story() -> Undelivered:
        producer = Ground(DEAD).producer(**QUICK)
        early = await producer.put_many([(b"canary", f"k{n}") for n in range(10)])
        await asyncio.sleep(0.2)
        late = await producer.put_many([(b"canary", f"k{n}") for n in range(10)])
        both = Deliveries([*early, *late], producer._pipeline.unobserved)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(both, 0.25)  # the early ones have failed
        assert early.done
        assert not late.done
        with pytest.raises(Undelivered) as undelivered:
            await producer.close()
        await producer.client.close()
        return undelivered.value

    assert simulate(story).count == 20


def test_keys_that_are_given_up_for_one_reason_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        producer = Ground(DEAD).producer(order="key", **QUICK)
        await producer.put_many([(b"canary", f"k{n}") for n in range(300)])
        await asyncio.sleep(0.2)
        await producer.put_many([(b"canary", f"k{n}") for n in range(300)])
        await asyncio.sleep(5)
        with pytest.raises(Undelivered, match="300 OrderBroken: given up: an earlier record of its key failed"):
            await producer.close()
        await producer.client.close()

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    (line,) = [line for line in lines(caplog, logging.WARNING) if "an earlier record of its key" in line]
    assert "300 records failed" in line


def test_records_that_fail_one_by_one_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        producer = Ground(DEAD).producer(**QUICK)
        for n in range(600):
            await producer.put(b"canary", f"k{n}")
            await asyncio.sleep(0.5)
        await asyncio.sleep(61)
        with pytest.raises(Undelivered, match="600"):
            await producer.close()
        await producer.client.close()

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    told = [line for line in lines(caplog, logging.WARNING) if "no caller awaits" in line]
    assert 4 <= len(told) <= 6
    assert "1 record failed" in told[0]
    assert "120 records failed" in told[1]
