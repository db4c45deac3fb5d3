"""Logs, status and statistics of a consumer while a failure persists."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.doubles.leases import StoreOf
from tests.doubles.network import Fate, Faults
from tests.doubles.virtual_loop import LoopClock, simulate
from tests.simulation.failing import STREAM, FailingService

from kinstream import (
    Checkpoints,
    ConnectionFailed,
    Consumer,
    ConsumerStatistics,
    DiscoveryFailed,
    EnhancedFanOut,
    ErrorPolicy,
    FetchFailed,
    KinesisError,
    MemoryLeaseStore,
    Polling,
    ReceivedRecord,
    ServiceUnavailable,
    ShardStatus,
    Throttled,
    events,
)
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import Write, Written
from kinstream.kpl.builder import Builder


class Ground(FailingService):
    """A service and its consumers."""

    def write(self, count: int = 1) -> None:
        for number in range(count):
            self.service.ask("PutRecord", StreamName=STREAM, PartitionKey=f"k{number}", Data=b"canary %d" % number)

    def consumer(self, **options: Any) -> Consumer:
        usual: dict[str, Any] = {"application": "billing", "lease_store": MemoryLeaseStore(), "start": "TRIM_HORIZON"}
        return Consumer(STREAM, client=self.client(), **(usual | options))


ALONE: dict[str, Any] = {"application": None, "lease_store": None}
"""Options of a consumer that reads the stream alone, and therefore lists its shards regularly."""


class Seen:
    """Lines that were logged.

    Attributes:
        warnings: Lines at WARNING or above.
        infos: Lines at INFO.
    """

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        records = [record for record in caplog.records if record.name == "kinstream.consumer"]
        self.warnings = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
        self.infos = [record.getMessage() for record in records if record.levelno == logging.INFO]


Program = Callable[[Consumer], Coroutine[Any, Any, None]]


async def handle(record: ReceivedRecord[bytes]) -> None:
    pass


async def run(consumer: Consumer) -> None:
    await consumer.run(handle)


async def run_batches(consumer: Consumer) -> None:
    await consumer.run_batches(handle)  # type: ignore[arg-type]


async def iterate(consumer: Consumer) -> None:
    async for _ in consumer:
        pass


async def iterate_batches(consumer: Consumer) -> None:
    async for _ in consumer.batches():
        pass


async def read(
    ground: Ground, seconds: float, read: Program = run, **options: Any
) -> tuple[list[ShardStatus], ConsumerStatistics]:
    """Read for so long; return the status and the statistics of that moment."""
    consumer = ground.consumer(**options)
    running = asyncio.create_task(read(consumer))
    await asyncio.sleep(seconds)
    status, statistics = consumer.status(), consumer.statistics()
    assert not running.done(), "it was told by an error"
    await consumer.close()
    await running
    await consumer.client.close()
    return status, statistics


@pytest.mark.parametrize("program", [run, run_batches, iterate, iterate_batches])
@pytest.mark.parametrize("fate", [Fate.UNSENT, Fate.BLACK_HOLE, Fate.BROKEN_BEFORE])
@pytest.mark.parametrize("shards", [1, 4])
def test_endpoint_that_is_gone_for_half_a_minute(
    caplog: pytest.LogCaptureFixture, program: Program, fate: Fate, shards: int
) -> None:
    """28 seconds: a warning that names stream, shard and cause, and one line once it is over."""

    async def story() -> tuple[list[ShardStatus], list[ShardStatus]]:
        ground = Ground({"all": (5.0, 33.0, fate)}, shards=shards)
        ground.write(20)
        consumer = ground.consumer(fetch=Polling())
        running = asyncio.create_task(program(consumer))
        await asyncio.sleep(32)
        during = consumer.status()
        await asyncio.sleep(60)
        after = consumer.status()
        await consumer.close()
        await running
        await consumer.client.close()
        return during, after

    with caplog.at_level(logging.INFO, "kinstream"):
        during, after = simulate(story)
    seen = Seen(caplog)
    (warning,) = seen.warnings
    assert "orders: reading shardId-00000000000" in warning
    assert "GetRecords: " in warning
    assert "retried in" in warning
    (info,) = seen.infos
    assert "works again after" in info
    assert "failures)" in info or "1 failure)" in info
    assert "canary" not in caplog.text
    for status in during:
        assert status.state == "READING"
        assert status.lag is not None
        assert status.lag > 20
        assert status.last_error is not None
        assert "GetRecords" in status.last_error
        assert status.last_success is not None
        assert abs(status.last_success - (1_800_000_000 + 5)) < 3
    for status in after:
        assert status.lag is not None
        assert status.lag < 3
        assert status.last_error is None


def test_outage_of_minutes_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        ground = Ground({"all": (5.0, 605.0, Fate.UNSENT)}, shards=8)
        await read(ground, 700, **ALONE)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    seen = Seen(caplog)
    assert 5 <= len([line for line in seen.warnings if "reading" in line]) <= 11
    assert "8 shards (shardId-000000000000, shardId-000000000001, shardId-000000000002, ...)" in seen.warnings[-2]
    assert len(seen.warnings) <= 22  # the shards cannot be listed either
    assert len(seen.infos) == 2
    assert "reading 8 shards" in seen.infos[0]


def test_request_that_fails_every_other_time_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        ground = Ground({}, shards=4)
        ground.network.weather = lambda now, operation: Faults(unsent=0.7 if operation == "GetRecords" else 0.0)
        await read(ground, 600, fetch=Polling(idle_interval=0.2))

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    seen = Seen(caplog)
    assert 2 <= len(seen.warnings) <= 40
    assert len(seen.infos) <= len(seen.warnings)


def test_listing_that_fails_while_records_come(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> list[ShardStatus]:
        ground = Ground({"ListShards": (30.0, 400.0, Fate.BROKEN_BEFORE)})
        ground.write(5)
        status, _ = await read(ground, 350, **ALONE)
        return status

    with caplog.at_level(logging.INFO, "kinstream"):
        (status,) = simulate(story)
    seen = Seen(caplog)
    assert "listing the shards failed: ServiceUnavailable: ListShards" in seen.warnings[0]
    assert 2 <= len(seen.warnings) <= 6
    assert status.last_error is None, "the shard itself is read"


def test_throttling_is_no_failure_until_a_shard_had_no_response_for_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(seconds: float) -> ConsumerStatistics:
        ground = Ground({"GetRecords": (5.0, 5.0 + seconds, Fate.THROTTLED)}, shards=2)
        _, statistics = await read(ground, 5.0 + seconds + 40)
        return statistics

    with caplog.at_level(logging.INFO, "kinstream"):
        statistics = simulate(lambda: story(4.0))
    assert Seen(caplog).warnings == []
    assert statistics.failures > 0
    assert statistics.retries > 0
    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(lambda: story(40.0))
    seen = Seen(caplog)
    (warning,) = seen.warnings
    assert "Throttled" in warning
    (info,) = seen.infos
    assert "works again" in info


@pytest.mark.parametrize("shards", [1, 2, 8])
@pytest.mark.parametrize("program", [run, iterate])
def test_throttling_of_thirteen_seconds_is_logged_although_no_retry_falls_into_its_end(
    caplog: pytest.LogCaptureFixture, program: Program, shards: int
) -> None:
    async def story() -> None:
        await read(Ground({"GetRecords": (5.0, 18.0, Fate.THROTTLED)}, shards=shards), 60, program)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    seen = Seen(caplog)
    (warning,) = seen.warnings
    assert "has failed for 10." in warning
    assert "Throttled" in warning
    assert warning.endswith("it is retried")
    assert [line for line in seen.infos if "works again" in line]


def test_expired_iterators_and_credentials_are_no_failures(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        ground = Ground({})
        ground.network.weather = lambda now, operation: Faults(iterator=0.3 if operation == "GetRecords" else 0.0)
        await read(ground, 200)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    assert Seen(caplog).warnings == []


@pytest.mark.parametrize("quiet", [True, False])
def test_subscriptions_that_fail(caplog: pytest.LogCaptureFixture, quiet: bool) -> None:
    """Five minutes are a subscription's time, and no failure; a service that is gone is one."""

    async def story() -> list[ShardStatus]:
        ground = Ground({} if quiet else {"SubscribeToShard": (200.0, 400.0, Fate.BROKEN_BEFORE)}, shards=2)
        ground.write(3)
        status, _ = await read(ground, 390, fetch=EnhancedFanOut())
        return status

    with caplog.at_level(logging.INFO, "kinstream"):
        statuses = simulate(story)
    seen = Seen(caplog)
    if quiet:
        assert seen.warnings == []
        return
    assert "the subscription to shardId-00000000000" in seen.warnings[0]
    assert 1 <= len(seen.warnings) <= 3
    for status in statuses:
        assert status.lag is not None
        assert status.lag > 60
        assert status.last_error is not None


class FailingTable(MemoryLeaseTable):
    """A table that cannot be written for a time.

    Args:
        start: Seconds from which it fails.
        end: Seconds up to which it does.
    """

    def __init__(self, start: float, end: float) -> None:
        super().__init__(clock=LoopClock())
        self.start, self.end = start, end

    def check(self) -> None:
        if self.start <= asyncio.get_running_loop().time() < self.end:
            raise OSError("lease store 'checkpoints.db': database is locked")

    async def write(self, write: Write) -> Written:
        self.check()
        return await super().write(write)


@pytest.mark.parametrize("program", [run, iterate])
def test_store_that_is_locked_for_less_than_the_failover_interval_costs_no_lease(
    caplog: pytest.LogCaptureFixture, program: Program
) -> None:
    seen_events: list[events.Event] = []

    async def story() -> tuple[list[ShardStatus], ConsumerStatistics]:
        ground = Ground({}, shards=2)
        ground.write(4)
        consumer = ground.consumer(
            lease_store=StoreOf(FailingTable(5.0, 11.0)),
            checkpoints=Checkpoints(interval=0.5),
            observer=seen_events.append,
        )
        running = asyncio.create_task(program(consumer))
        await asyncio.sleep(5.2)
        ground.write(10)
        await asyncio.sleep(4.8)
        during = consumer.status()
        await asyncio.sleep(20)
        assert all(status.last_error is None for status in consumer.status())
        statistics = consumer.statistics()
        await consumer.close()
        await running
        await consumer.client.close()
        return list(during), statistics

    with caplog.at_level(logging.INFO, "kinstream"):
        during, statistics = simulate(story)
    seen = Seen(caplog)
    failed = ["writing the checkpoint of", "renewing the lease of", "writing the leader's lock"]
    for operation in failed:
        (warning,) = [line for line in seen.warnings if operation in line]
        assert "database is locked" in warning
        assert [operation in line for line in seen.infos].count(True) == 1
    assert any("records since the last checkpoint are delivered again" in line for line in seen.warnings)
    assert len(seen.warnings) == len(failed)
    assert any("database is locked" in str(status.last_error) for status in during)
    assert statistics.checkpoints > 0
    assert statistics.failures > 10
    assert not any(isinstance(event, events.ShardLeaseLost) for event in seen_events)


def test_store_that_is_locked_for_longer_than_the_failover_interval_ends_no_reading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen_events: list[events.Event] = []
    handled: list[tuple[str, str]] = []

    async def story() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            handled.append((record.shard_id, record.sequence_number))

        ground = Ground({}, shards=2)
        ground.write(4)
        consumer = ground.consumer(
            lease_store=StoreOf(FailingTable(5.0, 45.0)),
            checkpoints=Checkpoints(interval=0.5),
            observer=seen_events.append,
        )
        running = asyncio.create_task(consumer.run(handle))
        await asyncio.sleep(30)
        ground.write(10)
        assert len(consumer.status()) == 0
        await asyncio.sleep(60)
        assert len(consumer.status()) == 2
        await consumer.close()
        await running
        await consumer.client.close()

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    assert [line for line in Seen(caplog).infos if "lost the lease of shardId-00000000000" in line]
    assert len(set(handled)) == 14
    assert [type(event) for event in seen_events].count(events.ShardLeaseLost) == 2


def test_store_that_cannot_be_written_at_first(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        ground = Ground({}, shards=3)
        await read(ground, 30, lease_store=StoreOf(FailingTable(0.0, 5.0)))

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    seen = Seen(caplog)
    (warning,) = seen.warnings
    assert "announcing this worker failed" in warning
    (info,) = seen.infos
    assert "announcing this worker works again" in info


@pytest.mark.parametrize("then", ["stop", "skip", "letter"])
def test_last_failure_of_a_handler_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture, then: Any) -> None:
    letters: list[ReceivedRecord[bytes]] = []

    async def fails(record: ReceivedRecord[bytes]) -> None:
        if record.data == b"canary 3":
            raise ValueError(f"cannot use {record.data!r}")

    async def story() -> ConsumerStatistics:
        ground = Ground({})
        ground.write(6)
        policy = ErrorPolicy(
            max_attempts=2,
            initial_delay=0.1,
            then=(lambda record, error: letters.append(record)) if then == "letter" else then,
        )
        consumer = ground.consumer(errors=policy)
        running = asyncio.create_task(consumer.run(fails))
        await asyncio.sleep(10)
        await consumer.close()
        await asyncio.wait([running])
        assert (running.exception() is not None) == (then == "stop")
        await consumer.client.close()
        return consumer.statistics()

    with caplog.at_level(logging.DEBUG, "kinstream"):
        statistics = simulate(story)
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "could not be handled in 2 attempts (ValueError)" in line.getMessage()
    assert "in fails" in caplog.text
    assert "canary" not in caplog.text
    assert statistics.handler_failures == 2
    assert statistics.skipped == (then == "skip")
    assert statistics.dead_letters == len(letters) == (then == "letter")
    assert statistics.records == 6


def test_many_records_that_fail_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(record: ReceivedRecord[bytes]) -> None:
        raise ValueError("no")

    async def story() -> ConsumerStatistics:
        ground = Ground({})
        ground.write(2000)
        consumer = ground.consumer(errors=ErrorPolicy(max_attempts=1, then="skip"))
        running = asyncio.create_task(consumer.run(fails))
        await asyncio.sleep(30)
        await consumer.close()
        await running
        await consumer.client.close()
        return consumer.statistics()

    with caplog.at_level(logging.INFO, "kinstream"):
        statistics = simulate(story)
    assert statistics.skipped == 2000
    *shown, rest = Seen(caplog).warnings
    assert len(shown) == 10
    assert rest == "orders: records skipped: 1,990 more"


def test_handler_that_fails_for_long_is_reported_before_its_last_try(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        ground = Ground({})
        ground.write(1)
        broken = asyncio.get_running_loop().time() + 30

        async def handle(record: ReceivedRecord[bytes]) -> None:
            if asyncio.get_running_loop().time() < broken:
                raise ConnectionError("no database")

        await consume(ground, handle)

    async def consume(ground: Ground, handle: Any) -> None:
        consumer = ground.consumer(errors=ErrorPolicy(max_attempts=1000, initial_delay=1.0, max_delay=1.0))
        running = asyncio.create_task(consumer.run(handle))
        await asyncio.sleep(60)
        await consumer.close()
        await running
        await consumer.client.close()

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    seen = Seen(caplog)
    (warning,) = seen.warnings
    assert "the handler of records of shardId-000000000000 has failed for" in warning
    (info,) = seen.infos
    assert "works again" in info


def test_statistics_count_by_response_and_batch() -> None:
    async def story() -> ConsumerStatistics:
        ground = Ground({}, shards=2)
        ground.write(100)
        _, statistics = await read(ground, 20)
        return statistics

    statistics = simulate(story)
    assert statistics.records == 100
    assert statistics.responses >= 20
    assert statistics.bytes > 100 * len("canary 1")
    assert statistics.checkpoints == 2
    assert (statistics.failures, statistics.retries, statistics.handler_failures) == (0, 0, 0)
    assert (statistics.dead_letters, statistics.skipped, statistics.dropped) == (0, 0, 0)


@pytest.mark.parametrize("damaged", [False, True])
def test_aggregates_that_are_dropped_or_damaged_are_logged_with_a_limit(
    caplog: pytest.LogCaptureFixture, damaged: bool
) -> None:
    async def story() -> ConsumerStatistics:
        ground = Ground({}, shards=2)
        builder = Builder(10_000, 100)
        for _ in range(2):
            builder.add("k1", "0", b"canary")
        data = builder.finish()
        stray = str(2**128 - 1)
        for _ in range(20):
            sent = data[:-1] + b"?" if damaged else data
            ground.service.ask("PutRecord", StreamName=STREAM, PartitionKey="a", Data=sent, ExplicitHashKey=stray)
        _, statistics = await read(ground, 20)
        return statistics

    with caplog.at_level(logging.INFO, "kinstream"):
        statistics = simulate(story)
    about = [record for record in caplog.records if "aggregate" in record.getMessage()]
    assert {record.levelno for record in about} == {logging.WARNING if damaged else logging.INFO}
    first, rest = [record.getMessage() for record in about]
    assert ("an aggregate is damaged" if damaged else "an aggregate is dropped") in first
    assert "19 more" in rest
    assert statistics.dropped == (0 if damaged else 40)
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("fate", "error"),
    [(Fate.UNSENT, ConnectionFailed), (Fate.BROKEN_BEFORE, ServiceUnavailable), (Fate.THROTTLED, Throttled)],
)
def test_events_of_failed_requests_have_the_error_without_its_traceback(fate: Fate, error: type[KinesisError]) -> None:
    events: list[Any] = []

    async def story() -> None:
        ground = Ground({"all": (10.0, 38.0, fate)})
        ground.write(5)
        await read(ground, 60, observer=events.append)

    simulate(story)
    errors = [event.error for event in events if isinstance(event, (FetchFailed, DiscoveryFailed))]
    assert {type(one) for one in errors} == {error}
    assert not [one for one in errors if one.__traceback__ is not None]
