"""The pipeline against a real server. All records arrive through any failure, in aggregates that a KCL reader accepts."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.doubles.kinesis import Written
from tests.simulation.reader import Reading, see

from kinstream import (
    Aggregation,
    Batching,
    BufferFull,
    BufferLimits,
    Client,
    ClosedError,
    ConfigError,
    Consumer,
    Credentials,
    Deliveries,
    DeliveryPolicy,
    InvalidArgument,
    InvalidRecord,
    NotFound,
    OrderBroken,
    ProduceError,
    Producer,
    PutResult,
    RateLimits,
    Record,
    Undelivered,
    UsageError,
    WireFormat,
)
from kinstream.events import (
    AggregationDisabled,
    Event,
    RecordsAggregated,
    RecordsFailed,
    RequestCompleted,
    ShardMapRefreshed,
)
from kinstream.local import Server

STREAM = "events"


class Place:
    """A server with a stream, and a client of it."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.client = client

    def producer(self, **options: Any) -> Producer:
        options.setdefault("rate_limits", None)
        options.setdefault("aggregate", Aggregation())
        return Producer(STREAM, client=self.client, **options)

    async def create(self, shards: int | None, **params: Any) -> None:
        count = {} if shards is None else {"ShardCount": shards}
        await self.client.call("CreateStream", {"StreamName": STREAM, **count, **params})

    async def split(self, shard_id: str, at: int = 2**127) -> None:
        split = {"StreamName": STREAM, "ShardToSplit": shard_id, "NewStartingHashKey": str(at)}
        await self.client.call("SplitShard", split)

    async def read(self) -> Reading:
        """Return the records that a KCL reader sees in the stream, shard by shard."""
        reading = Reading([], [])
        consumer = Consumer(STREAM, client=self.client)
        for shard in await consumer.get_shards():
            low = int(shard.hash_key_range.starting_hash_key).to_bytes(16, "big")
            high = int(shard.hash_key_range.ending_hash_key).to_bytes(16, "big")
            iterator: str | None = await consumer.get_shard_iterator(shard.shard_id, "TRIM_HORIZON")
            while iterator is not None:
                page = await consumer.get_records(iterator)
                if not page.records and page.millis_behind_latest == 0 and not shard.closed:
                    break
                iterator = page.next_shard_iterator
                for record in page.records:
                    key = record.partition_key or ""
                    written = Written(shard.shard_id, record.sequence_number, key, record.data, record.arrival_time)
                    see(reading, written, low, high)
        return reading


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(quotas=False, transition=0) as server:
        yield server


@pytest.fixture
async def place(server: Server) -> AsyncIterator[Place]:
    credentials = Credentials(server.access_key_id, server.secret_access_key)
    async with Client(region=server.region, endpoint_url=server.url, credentials=credentials) as client:
        yield Place(server, client)


def pairs(count: int, keys: int = 50) -> list[tuple[bytes, str]]:
    return [(b"%d" % number, f"key-{number % keys}") for number in range(count)]


def check(results: list[PutResult | ProduceError], given: list[tuple[bytes, str]], reading: Reading) -> None:
    """Check that each record is exactly at the position in its result."""
    there = {(one.shard_id, one.sequence_number, one.subsequence_number): one for one in reading.seen}
    for result, (data, key) in zip(results, given, strict=True):
        assert isinstance(result, PutResult)
        one = there[result.shard_id, result.sequence_number, result.subsequence_number]
        assert (one.data, one.partition_key) == (data, key)


async def test_a_record_alone_arrives_as_it_is_and_its_delivery_says_where(place: Place) -> None:
    await place.create(1)
    async with place.producer() as producer:
        delivery = await producer.put("héllo", "key")
        result = await delivery
        assert delivery.done
        assert delivery.result() == result
    reading = await place.read()
    assert (reading.aggregates, reading.alone) == (0, 1)
    check([result], [("héllo".encode(), "key")], reading)
    assert (result.attempts, result.maybe_duplicate, result.subsequence_number) == (1, False, None)


@pytest.mark.parametrize("order", [None, "key"])
@pytest.mark.parametrize("aggregate", [None, Aggregation(max_bytes=4096)])
async def test_many_records_arrive_each_where_its_result_says(place: Place, order: Any, aggregate: Any) -> None:
    await place.create(4)
    given = pairs(3000)
    async with place.producer(order=order, aggregate=aggregate) as producer:
        results = await (await producer.put_many(given))
        statistics = producer.statistics()
    reading = await place.read()
    check(results, given, reading)
    assert (len(reading.seen), reading.dropped, len(reading.strays)) == (3000, 0, 0)
    assert (statistics.records_written, statistics.buffered_records, statistics.buffered_bytes) == (3000, 0, 0)
    assert statistics.kinesis_records == reading.aggregates + reading.alone
    if aggregate is None:
        assert reading.aggregates == 0
    else:
        assert 4 < reading.aggregates < 100
    if order:
        for key in {key for _, key in given}:
            mine = [int(one.data) for one in reading.seen if one.partition_key == key]
            assert mine == sorted(mine)


@pytest.mark.parametrize("wire", ["json", "cbor", "auto"])
async def test_small_and_large_records_arrive_in_every_form(server: Server, place: Place, wire: str) -> None:
    await place.create(2)
    given = [(bytes([number % 256]) * (number * 20), f"key-{number}") for number in range(300)]
    credentials = Credentials(server.access_key_id, server.secret_access_key)
    async with Client(
        region=server.region, endpoint_url=server.url, credentials=credentials, wire_format=WireFormat(wire)
    ) as client:
        for aggregate in (None, Aggregation()):
            async with Producer(STREAM, client=client, rate_limits=None, aggregate=aggregate) as producer:
                check(await (await producer.put_many(given)), given, await place.read())


async def test_records_without_a_key_are_spread_over_the_shards_evenly(place: Place) -> None:
    await place.create(4)
    async with place.producer() as producer:
        deliveries = await producer.put_many([(b"%d" % number, None) for number in range(80)])
        results = await deliveries
    counts = Counter(result.shard_id for result in results if isinstance(result, PutResult))
    assert list(counts.values()) == [20, 20, 20, 20]
    reading = await place.read()
    assert (reading.dropped, len(reading.seen)) == (0, 80)


@pytest.mark.parametrize("order", [None, "key"])
async def test_no_record_is_lost_to_a_kcl_reader_while_shards_split_and_merge(place: Place, order: Any) -> None:
    await place.create(1)
    given = pairs(4000, keys=40)
    async with place.producer(order=order, batch=Batching(linger=0.01)) as producer:
        deliveries = []
        for number, (data, key) in enumerate(given):
            deliveries.append(await producer.put(data, key))
            if number % 50 == 0:
                await asyncio.sleep(0.002)
            if number == 1000:
                await place.split("shardId-000000000000")
            if number == 2500:
                merge = {"ShardToMerge": "shardId-000000000001", "AdjacentShardToMerge": "shardId-000000000002"}
                await place.client.call("MergeShards", {"StreamName": STREAM, **merge})
        results: list[PutResult | ProduceError] = [await delivery for delivery in deliveries]
        statistics = producer.statistics()
    reading = await place.read()
    check(results, given, reading)
    assert statistics.misrouted > 0
    assert statistics.retried_misrouted == reading.dropped > 0
    assert statistics.shard_map_refreshes >= 3
    assert Counter(one.data for one in reading.seen) == Counter(data for data, _ in given)
    if order:
        by_key: dict[str, list[int]] = {}
        for one in reading.seen:  # parents stand before their children in the list of shards
            by_key.setdefault(one.partition_key, []).append(int(one.data))
        assert all(numbers == sorted(numbers) for numbers in by_key.values())


async def test_only_records_that_kinesis_refused_are_retried(place: Place) -> None:
    await place.create(1)
    place.server.next("PutRecords", 3).fail_entries(lambda entry: entry["Data"].endswith((b"1", b"7")))
    given = pairs(200)
    async with place.producer(aggregate=None) as producer:
        results = await (await producer.put_many(given))
        statistics = producer.statistics()
    reading = await place.read()
    check(results, given, reading)
    assert len(reading.seen) == 200
    assert {result.attempts for result in results if isinstance(result, PutResult)} == {1, 4}
    assert statistics.retried_throttled == 120
    assert statistics.possible_duplicates == 0


async def test_a_record_that_may_be_there_twice_says_so(place: Place) -> None:
    await place.create(1)
    place.server.next("PutRecords").after_applying.drop_connection()
    async with place.producer() as producer:
        result = await (await producer.put(b"data", "key"))
        statistics = producer.statistics()
    assert (result.attempts, result.maybe_duplicate) == (2, True)
    assert (statistics.retried_unknown, statistics.possible_duplicates) == (1, 1)
    assert [one.data for one in (await place.read()).seen] == [b"data", b"data"]


async def test_a_record_that_kinesis_refuses_takes_no_others_with_it(place: Place) -> None:
    await place.create(2)
    poison = place.server.every("PutRecords", when=lambda call: any(b"poison" in e["Data"] for e in call["Records"]))
    poison.fail("ValidationException")
    given = [*pairs(300), (b"poison", "key-7"), *pairs(300)]
    async with place.producer(aggregate=None) as producer:
        results = await (await producer.put_many(given))
    (failed,) = (result for result in results if isinstance(result, ProduceError))
    assert failed.record.data == b"poison"
    assert isinstance(failed.__cause__, InvalidArgument)
    assert len((await place.read()).seen) == 600


@pytest.mark.parametrize("order", [None, "key"])
async def test_a_stream_that_refuses_every_record_is_not_asked_about_each(place: Place, order: Any) -> None:
    await place.create(1)
    place.server.every("PutRecords").fail("InvalidArgumentException", "no such stream today")
    async with place.producer(aggregate=None, order=order) as producer:
        results = await (await producer.put_many([(b"x%d" % n, f"key-{n}") for n in range(500)]))
        requests = producer.statistics().requests
        assert (producer.statistics().buffered_records, producer.statistics().waiting_puts) == (0, 0)
    failures = [result for result in results if isinstance(result, ProduceError)]
    assert len(failures) == 500
    assert {type(failure.__cause__) for failure in failures} == {InvalidArgument}
    assert requests < 20
    told = {failure.details.partition(" (")[2] for failure in failures}
    assert "4 of 500 records of one request were refused alone; the others were not retried alone)" in told


async def test_a_stream_that_refuses_every_aggregate_is_not_asked_about_each_record(place: Place) -> None:
    await place.create(1)
    place.server.every("PutRecords").fail("InvalidArgumentException", "no such stream today")
    async with place.producer(aggregate=Aggregation(max_records=10)) as producer:
        results = await (await producer.put_many([(b"x%d" % n, f"key-{n}") for n in range(1000)]))
        requests = producer.statistics().requests
    assert all(isinstance(result, ProduceError) for result in results)
    assert requests < 60


async def test_many_records_that_kinesis_refuses_alike_take_no_others_with_them(place: Place) -> None:
    await place.create(1)
    place.server.every("PutRecords", when=lambda call: any(len(e["Data"]) > 10 for e in call["Records"])).fail(
        "ValidationException", "too long"
    )
    given = [(b"long" * 10, f"key-{n}") for n in range(40)]
    given[7] = given[33] = (b"short", "key-7")
    async with place.producer(aggregate=None) as producer:
        results = await (await producer.put_many(given))
    assert [n for n, result in enumerate(results) if isinstance(result, PutResult)] == [7, 33]


async def test_an_aggregate_that_kinesis_refuses_is_split(place: Place) -> None:
    await place.create(1)
    place.server.every("PutRecords", when=lambda call: any(b"poison" in e["Data"] for e in call["Records"])).fail(
        "ValidationException"
    )
    given = [*pairs(20), (b"poison", "key-7")]
    async with place.producer() as producer:
        results = await (await producer.put_many(given))
    assert [isinstance(result, PutResult) for result in results] == [True] * 20 + [False]


async def test_what_no_retry_can_help_fails_at_once_with_its_cause(place: Place) -> None:
    producer = place.producer()
    delivery = await producer.put(b"data", "key")
    with pytest.raises(ProduceError) as failed:
        await delivery
    assert isinstance(failed.value.__cause__, NotFound)
    assert failed.value.record == Record(b"data", "key")
    await producer.close()


async def test_an_unobserved_failure_is_logged_counted_and_raised_when_the_producer_is_closed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    producer = place.producer(observer=events.append)
    with caplog.at_level(logging.WARNING, "kinstream.producer"):
        await producer.put_many([(b"canary", "key")] * 150)
        assert (await producer.flush()).failed == 150
    assert producer.statistics().failures_unobserved == 150
    with pytest.raises(Undelivered) as undelivered:
        await producer.close()
    assert (undelivered.value.count, len(undelivered.value.exceptions)) == (150, 100)
    assert all(isinstance(one, ProduceError) and one.record.data == b"canary" for one in undelivered.value.exceptions)
    await producer.close()
    lines = [record.getMessage() for record in caplog.records if "no caller awaits" in record.getMessage()]
    assert len(lines) == 1
    assert "canary" not in caplog.text
    assert sum(event.records for event in events if isinstance(event, RecordsFailed)) == 150


async def test_in_order_what_waits_behind_a_failed_record_fails_with_it_and_then_its_key_starts_afresh(
    place: Place,
) -> None:
    await place.create(1)
    place.server.next("PutRecords").fail("AccessDeniedException")
    async with place.producer(order="key", aggregate=None, batch=Batching(linger=0)) as producer:
        first = await producer.put(b"1", "a")
        behind = [await producer.put(b"2", "a"), await producer.put(b"3", "a")]
        other = await producer.put(b"4", "b")
        with pytest.raises(ProduceError) as failed:
            await first
        for delivery in behind:
            with pytest.raises(OrderBroken) as broken:
                await delivery
            assert isinstance(broken.value.__cause__, ProduceError)
            assert broken.value.__cause__.record == failed.value.record
            assert not broken.value.maybe_written
        with pytest.raises(ProduceError):  # it was in the request that was refused
            await other
        assert (await (await producer.put(b"5", "a"))).attempts == 1
    assert [one.data for one in (await place.read()).seen] == [b"5"]


async def test_a_stream_that_distributes_records_itself_gets_them_one_by_one_and_the_reason_is_logged(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    await place.create(None, StreamModeDetails={"StreamMode": "ON_DEMAND"}, RecordDistributionStrategy="AUTO")
    with caplog.at_level(logging.WARNING, "kinstream.producer"):
        async with place.producer(observer=events.append) as producer:
            results = await (await producer.put_many(pairs(300)))
    assert all(isinstance(result, PutResult) and result.subsequence_number is None for result in results)
    assert [event.reason for event in events if isinstance(event, AggregationDisabled)] == [
        "the stream distributes records itself (RecordDistributionStrategy AUTO)"
    ]
    assert caplog.text.count("not aggregated") == 1


@pytest.mark.parametrize("denied", ["DescribeStreamSummary", "ListShards"])
async def test_without_the_right_to_look_at_the_stream_records_go_one_by_one(place: Place, denied: str) -> None:
    events: list[Event] = []
    await place.create(2)
    place.server.every(denied).fail("AccessDeniedException")
    async with place.producer(observer=events.append) as producer:
        results = await (await producer.put_many([*pairs(300), (b"any", None)]))
    assert all(isinstance(result, PutResult) and result.subsequence_number is None for result in results)
    (off,) = (event for event in events if isinstance(event, AggregationDisabled))
    assert denied in off.reason or "denied" in off.reason


async def test_the_streams_largest_record_is_learned(place: Place) -> None:
    await place.create(1, MaxRecordSizeInKiB=2048)
    async with place.producer() as producer:
        large = await (await producer.put(bytes(2_000_000), "key"))
        assert large.subsequence_number is None
        with pytest.raises(InvalidRecord, match="The stream accepts 2097152"):
            await producer.put(bytes(2_200_000), "key")


async def set_record_limit(place: Place, kib: int) -> None:
    described = await place.client.call("DescribeStreamSummary", {"StreamName": STREAM})
    arn = described["StreamDescriptionSummary"]["StreamARN"]
    await place.client.call("UpdateMaxRecordSize", {"StreamARN": arn, "MaxRecordSizeInKiB": kib})


async def test_a_limit_that_was_raised_is_learned_when_it_refuses_a_record(place: Place) -> None:
    await place.create(1)
    looked = asyncio.Event()
    async with place.producer(
        observer=lambda event: looked.set() if isinstance(event, ShardMapRefreshed) else 0
    ) as producer:
        await (await producer.put(b"small", "key"))
        looked.clear()
        await set_record_limit(place, 2048)
        looks = place.server.every("DescribeStreamSummary").watch()
        for _ in range(20):
            with pytest.raises(InvalidRecord, match="The stream accepts 1048576"):
                await producer.put(bytes(2_000_000), "key")
        await asyncio.wait_for(looked.wait(), 15)
        await (await producer.put(bytes(2_000_000), "key"))
        for _ in range(20):
            with pytest.raises(InvalidRecord, match="The stream accepts 2097152"):
                await producer.put(bytes(2_200_000), "key")
        await asyncio.sleep(0.05)
        assert len(looks.calls) == 1


@pytest.mark.parametrize("size", [1_048_576, 2_000_000])
async def test_error_of_a_first_record_that_is_too_large_has_its_size_the_limit_and_the_cure(
    place: Place, size: int
) -> None:
    await place.create(1)
    async with place.producer() as producer:
        with pytest.raises(ProduceError) as caught:  # the limit is not known yet
            await (await producer.put(bytes(size), "key"))
        for text in (f"too large: {size} bytes", "at most 1048576 bytes", "UpdateMaxRecordSize"):
            assert text in caught.value.details
        assert "java" not in "".join(traceback.format_exception(caught.value))


async def test_a_limit_that_was_lowered_is_learned_from_the_refusal(place: Place) -> None:
    await place.create(1, MaxRecordSizeInKiB=2048)
    looked = asyncio.Event()
    async with place.producer(
        observer=lambda event: looked.set() if isinstance(event, ShardMapRefreshed) else 0
    ) as producer:
        await (await producer.put(bytes(2_000_000), "key"))
        looked.clear()
        await set_record_limit(place, 1024)
        results = await (await producer.put_many([(b"small", "a"), (bytes(2_000_000), "b"), (b"small", "c")]))
        assert [isinstance(result, PutResult) for result in results] == [True, False, True]
        await asyncio.wait_for(looked.wait(), 15)
        with pytest.raises(InvalidRecord, match="The stream accepts 1048576"):
            await producer.put(bytes(2_000_000), "key")


async def test_a_full_buffer_makes_put_wait_or_raise_as_configured(place: Place) -> None:
    await place.create(1)
    hold = place.server.every("PutRecords").hold()
    small = BufferLimits(max_records=3)
    async with (
        place.producer(buffer=small, batch=Batching(linger=0)) as waiting,
        place.producer(buffer=BufferLimits(max_records=3, when_full="raise"), batch=Batching(linger=0)) as raising,
    ):
        for producer in (waiting, raising):
            for _ in range(3):
                await producer.put(b"data", "key")
        with pytest.raises(BufferFull) as full:
            await raising.put(b"one too many", "key")
        assert full.value.record.data == b"one too many"
        late = asyncio.create_task(waiting.put(b"late", "key"))
        gone = asyncio.create_task(waiting.put(b"gone", "key"))
        await hold.wait_async()
        assert waiting.statistics().waiting_puts == 2
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert waiting.statistics().waiting_puts == 1
        hold.cancel()
        await (await late)
    assert waiting.statistics().buffered_bytes == 0
    assert not [one for one in (await place.read()).seen if one.data in (b"gone", b"one too many")]


async def test_put_and_wait_returns_the_result_of_its_record_or_raises_its_error(place: Place) -> None:
    await place.create(1)
    async with place.producer(batch=Batching(linger=0)) as producer:
        given: list[tuple[Any, str]] = [(b"bytes", "a"), ("text", "b"), ({"n": 1}, "c")]
        results = await asyncio.gather(*(producer.put_and_wait(data, key) for data, key in given))
        alone = await producer.put_and_wait(Record("own", "d", encoder=lambda data: f"<{data}>"))
        assert (await producer.put_and_wait(b"hashed", "e", explicit_hash_key="5")).shard_id == alone.shard_id
        with pytest.raises(InvalidRecord):
            await producer.put_and_wait(object(), "key")  # type: ignore[arg-type]
    reading = await place.read()
    check([*results, alone], [(b"bytes", "a"), (b"text", "b"), (b'{"n":1}', "c"), (b"<own>", "d")], reading)
    async with place.producer(delivery=DeliveryPolicy(timeout=0.1)) as producer:
        place.server.every("PutRecords").fail("InternalFailure", status=500)
        with pytest.raises(ProduceError) as failed:
            await producer.put_and_wait(b"canary", "key")
        assert failed.value.record.data == b"canary"


async def test_put_and_wait_that_is_cancelled_leaves_its_record_in_flight(place: Place) -> None:
    await place.create(1)
    hold = place.server.every("PutRecords").hold()
    async with place.producer(batch=Batching(linger=0)) as producer:
        putting = asyncio.create_task(producer.put_and_wait(b"data", "key"))
        await hold.wait_async()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        hold.cancel()
    assert [one.data for one in (await place.read()).seen] == [b"data"]


def broken(count: int) -> Iterator[tuple[bytes, str]]:
    yield from pairs(count)
    raise LookupError("the caller's own")


async def test_put_many_that_raises_midway_attaches_the_records_that_it_had_buffered(place: Place) -> None:
    await place.create(1)
    async with place.producer() as producer:
        raised: list[Any] = []
        for records in (broken(700), [*pairs(600), (b"wrong", "")], [], 5):
            try:
                await producer.put_many(records)  # type: ignore[arg-type]
            except (LookupError, InvalidRecord, ConfigError) as error:
                raised.append(error)
        assert [type(error) for error in raised] == [LookupError, InvalidRecord, ConfigError]
        assert raised[1].index == 600
        results = [await error.deliveries for error in raised]
        assert [len(each) for each in results] == [700, 600, 0]
        assert all(isinstance(result, PutResult) for result in [*results[0], *results[1]])
        assert copy.copy(raised[1]).deliveries is raised[1].deliveries
        assert [pickle.loads(pickle.dumps(error)).deliveries for error in raised] == [None] * 3
        with pytest.raises(InvalidRecord) as alone:
            await producer.put(b"x", "")
        assert alone.value.deliveries is None


async def test_put_many_into_a_full_buffer_attaches_the_records_that_had_space(place: Place) -> None:
    await place.create(1)
    hold = place.server.every("PutRecords").hold()
    full = BufferLimits(max_records=3, when_full="raise")
    async with place.producer(buffer=full, batch=Batching(linger=0)) as producer:
        with pytest.raises(BufferFull) as caught:
            await producer.put_many(pairs(5))
        deliveries = caught.value.deliveries
        assert isinstance(deliveries, Deliveries)
        assert len(deliveries) == 3
        assert caught.value.record.data == b"3"
        hold.cancel()
        check(await deliveries, pairs(3), await place.read())


async def test_put_many_that_is_cancelled_attaches_the_records_that_had_space(place: Place) -> None:
    await place.create(1)
    hold = place.server.every("PutRecords").hold()
    async with place.producer(buffer=BufferLimits(max_records=3), batch=Batching(linger=0)) as producer:
        seen: list[Any] = []

        async def put() -> None:
            try:
                await producer.put_many(pairs(5))
            except asyncio.CancelledError as cancelled:
                seen.append(cancelled)
                raise

        putting = asyncio.create_task(put())
        await hold.wait_async()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert len(seen[0].deliveries) == 3
        hold.cancel()


async def test_linger_gathers_records_and_flush_sends_them_now(place: Place) -> None:
    await place.create(1)
    async with place.producer(aggregate=None, batch=Batching(linger=10)) as producer:
        deliveries = [await producer.put(b"%d" % number, "key") for number in range(10)]
        flushed = await producer.flush()
        assert (flushed.written, flushed.failed) == (10, 0)
        assert all(delivery.done for delivery in deliveries)
        assert producer.statistics().requests == 1
        assert (await producer.flush()).written == 0


async def test_close_waits_for_all_and_then_nothing_can_be_put(place: Place) -> None:
    await place.create(1)
    producer = place.producer(batch=Batching(linger=10))
    deliveries = await producer.put_many(pairs(500))
    await producer.close()
    assert deliveries.done
    for putting in (
        producer.put(b"data", "key"),
        producer.put_many([(b"data", "key")]),
        producer.put_record(Record(b"", "k")),
    ):
        with pytest.raises(ClosedError):
            await putting
    await producer.close()


async def test_a_close_that_may_not_wait_leaves_every_delivery_with_an_error_that_holds_its_record(
    place: Place,
) -> None:
    await place.create(1)
    producer = place.producer()
    await (await producer.put(b"first", "key"))
    hold = place.server.every("PutRecords").hold()
    deliveries = [await producer.put(b"%d" % number, "key") for number in range(5)]
    waiter = asyncio.create_task(_outcome(deliveries[0]))
    await hold.wait_async()
    with pytest.raises(Undelivered) as undelivered:
        await producer.close(timeout=0.2)
    assert undelivered.value.count == 4
    for delivery in deliveries:
        with pytest.raises(ProduceError) as failed:
            delivery.result()
        assert failed.value.maybe_written
    error = await waiter
    assert isinstance(error, ProduceError)
    assert error.record.data == b"0"
    hold.cancel()


async def _outcome(delivery: Any) -> object:
    try:
        return await delivery
    except ProduceError as error:
        return error


async def test_a_dead_endpoint_holds_a_bounded_buffer_and_every_record_ends_by_its_deadline() -> None:
    producer = Producer(
        STREAM,
        region="us-east-1",
        credentials=Credentials("local", "local"),
        endpoint_url="http://127.0.0.1:9",
        buffer=BufferLimits(max_records=100),
        delivery=DeliveryPolicy(timeout=0.5),
        batch=Batching(linger=0.01),
    )
    results = await (await producer.put_many(pairs(300)))
    assert all(isinstance(result, ProduceError) and not result.maybe_written for result in results)
    assert all("no connection" in result.details for result in results if isinstance(result, ProduceError)), "says why"
    assert producer.statistics().requests < 100
    await producer.close()


async def test_an_internal_error_leaves_no_caller_waiting(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    await place.create(1)

    class Broken(RuntimeError):
        pass

    def fail(*_: object) -> float:
        raise Broken

    producer = place.producer(batch=Batching(linger=0))
    await (await producer.put(b"data", "key"))
    producer._pipeline._batcher.ready = fail  # type: ignore[assignment,method-assign]
    delivery = await producer.put(b"data", "key")
    with pytest.raises(ProduceError) as failed:
        await delivery
    assert isinstance(failed.value.__cause__, Broken)
    with pytest.raises(ClosedError) as refused:
        await producer.put(b"data", "key")
    assert isinstance(refused.value.__cause__, Broken)
    await producer.close()
    assert "the producer failed" in caplog.text


async def test_a_hot_shard_leaves_the_buffer_and_the_requests_to_the_others(place: Place) -> None:
    await place.create(2)
    slow = RateLimits(records_per_second=1)
    hot, cold = "0", str(2**127)
    producer = place.producer(
        aggregate=None,
        rate_limits=slow,
        buffer=BufferLimits(max_records=60),
        batch=Batching(linger=0),
        delivery=DeliveryPolicy(timeout=9),
    )
    await (await producer.put(b"first", "key", explicit_hash_key=cold))
    flood = [asyncio.create_task(producer.put(b"hot", "key", explicit_hash_key=hot)) for _ in range(200)]
    await asyncio.sleep(0.05)
    result = await (await producer.put(b"cold", "key", explicit_hash_key=cold))
    assert result.shard_id == "shardId-000000000001"
    assert producer.statistics().waiting_puts > 100
    for task in flood:
        task.cancel()
    await asyncio.wait(flood)
    with pytest.raises(Undelivered):
        await producer.close(timeout=0)


async def test_an_observer_sees_what_happens_and_may_fail(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []

    def observe(event: Event) -> None:
        events.append(event)
        raise ValueError

    await place.create(1)
    async with place.producer(observer=observe) as producer:
        await (await producer.put_many(pairs(100)))
    assert [type(event).__name__ for event in events] == [
        "ShardMapRefreshed",
        "RecordsBuffered",
        "RecordsAggregated",
        "RequestSent",
        "RequestCompleted",
    ]
    (settled,) = (event for event in events if isinstance(event, RequestCompleted))
    assert (settled.written, settled.retried, settled.failed) == (100, 0, 0)
    (packed,) = (event for event in events if isinstance(event, RecordsAggregated))
    assert packed.records == 100
    assert "key-" not in repr(events)
    assert caplog.text.count("the observer failed") == 1


def test_a_producer_that_is_forgotten_does_not_hold_up_the_loops_end(server: Server) -> None:
    async def forget() -> None:
        credentials = Credentials(server.access_key_id, server.secret_access_key)
        client = Client(region=server.region, endpoint_url=server.url, credentials=credentials)
        await client.call("CreateStream", {"StreamName": STREAM, "ShardCount": 1})
        producer = Producer(STREAM, client=client, batch=Batching(linger=60))
        await producer.put(b"data", "key")
        assert (await producer.flush()).written == 1
        await producer.put(b"never sent", "key")

    asyncio.run(forget())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": "time"}, "order='time'"),
        (
            {"aggregate": True},
            r"aggregate=True: must be a kinstream.Aggregation or None. Pass aggregate=Aggregation\(\) to aggregate",
        ),
        ({"aggregate": False}, "Pass None, or leave it out, for no aggregation"),
        ({"aggregate": Aggregation}, r"not the class. Pass aggregate=Aggregation\(\) to aggregate"),
        ({"aggregate": {"max_bytes": 1024}}, "aggregate: must be a kinstream.Aggregation or None, not dict. Pass"),
        ({"batch": None}, "batch: must be a kinstream.Batching"),
        ({"rate_limits": 5}, "rate_limits: must be a kinstream.RateLimits"),
        ({"observer": 5}, "observer: must be a function"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Producer(STREAM, region="us-east-1", **options)


@pytest.mark.parametrize(
    "put", [lambda producer: producer.put(b"b", "key"), lambda producer: producer.put_many([(b"b", "key")])]
)
async def test_another_event_loop_puts_nothing_even_while_this_one_is_about_to_take_records(
    place: Place, put: Any
) -> None:
    await place.create(1)
    async with place.producer() as producer:
        await producer.put(b"a", "key")  # from now on, until this loop's next turn, more is taken without a closer look

        with ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(asyncio.run, put(producer))
            with pytest.raises(UsageError, match="another event loop"):
                elsewhere.result()
        assert (await producer.flush()).written == 1


@pytest.mark.parametrize("records", ["text", b"bytes", {"a": 1}, 5])
async def test_put_many_takes_records_and_nothing_that_only_looks_like_them(place: Place, records: Any) -> None:
    producer = place.producer()
    with pytest.raises(ValueError, match="must be an iterable of Records"):
        await producer.put_many(records)
    await producer.close()
