"""A producer in misbehaving surroundings: tasks cancelled from outside, closed twice, in the wrong loop, stale maps."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

import pytest
from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Faults, LocalTransport, Network
from tests.doubles.transport import answer, refusal
from tests.doubles.virtual_loop import LoopClock, live_objects, simulate
from tests.simulation.reader import read

from kinstream import (
    Aggregation,
    Batching,
    BufferLimits,
    Client,
    Credentials,
    DeliveryPolicy,
    OrderBroken,
    ProduceError,
    Producer,
    PutResult,
)
from kinstream.aws.transport import Response, StreamedResponse
from kinstream.errors import KinesisError
from kinstream.events import (
    Event,
    MisroutedAggregateAccepted,
    RecordsBuffered,
    RecordsFailed,
    RequestCompleted,
    RequestSent,
)
from kinstream.local.operations import responses
from kinstream.produce.batch import Batch
from kinstream.produce_errors import Undelivered
from kinstream.sharding.hashkey import hash_key, hash_key_bytes

STREAM = "orders"
SECOND = (2**126).to_bytes(16, "big")
"""The first hash key that is not in the first shard of four."""
Hook = Callable[[str, Any], "Awaitable[Response | None] | Response | None"]


class _Hooked:
    """A transport that calls a function first. If that returns a response, it is used."""

    def __init__(self, inner: LocalTransport, hook: Hook) -> None:
        self.asked: list[tuple[str, float]] = []
        self._inner = inner
        self._hook = hook

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        operation = {name.lower(): value for name, value in headers}["x-amz-target"].partition(".")[2]
        self.asked.append((operation, asyncio.get_running_loop().time()))
        told = self._hook(operation, json.loads(body))
        told = told if told is None or isinstance(told, Response) else await told
        return await self._inner.post(url, headers, body, progress=progress) if told is None else told

    async def stream(
        self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float
    ) -> StreamedResponse:
        return await self._inner.stream(url, headers, body, progress=progress)

    async def close(self) -> None:
        await self._inner.close()


class Place:
    """A service with a stream, and a client of it."""

    def __init__(self, hook: Hook = lambda operation, request: None, shards: int = 2) -> None:
        clock = LoopClock()
        self.service = Kinesis(clock, quotas=False)
        self.service.ask("CreateStream", StreamName=STREAM, ShardCount=shards)
        self.transport = _Hooked(Network(self.service, 1, Faults()).connect(), hook)
        self.client = Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            transport=self.transport,
            clock=clock,
        )

    def producer(self, **options: Any) -> Producer:
        options.setdefault("aggregate", Aggregation())
        return Producer(STREAM, client=self.client, **options)

    def asked(self, operation: str) -> list[float]:
        return [when for asked, when in self.transport.asked if asked == operation]


def strangers() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


def now() -> float:
    return asyncio.get_running_loop().time()


def pairs(count: int) -> list[tuple[bytes, str]]:
    return [(b"%d" % number, f"key-{number}") for number in range(count)]


async def _forever() -> None:
    await asyncio.sleep(10_000)


@pytest.mark.parametrize("first", [True, False])
def test_a_record_is_written_though_a_stranger_cancels_all_tasks_while_it_lingers(first: bool) -> None:
    async def program() -> None:
        place = Place()
        async with place.producer(batch=Batching(linger=5.0)) as producer:
            if not first:
                await (await producer.put(b"before", "key"))
            delivery = await producer.put(b"data", "key")
            await asyncio.sleep(0.001 if first else 1.0)
            for task in strangers():
                task.cancel()
            assert (await delivery).attempts == 1
            results = await (await producer.put_many(pairs(50)))
            assert all(isinstance(result, PutResult) for result in results)
            assert producer.statistics().aggregates > 0  # the stream was looked at again
            assert now() < 20
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("order", [None, "key"])
def test_a_request_that_a_stranger_cancels_before_it_begins_is_sent_later(order: str | None) -> None:
    async def program() -> None:
        seen: list[Event] = []
        main = asyncio.current_task()

        def observe(event: Event) -> None:
            seen.append(event)
            if sum(isinstance(each, RequestSent) for each in seen) == 2 and isinstance(event, RequestSent):
                # Scheduled before the first step of the request's task.
                asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in asyncio.all_tasks() - {main}])

        place = Place(shards=1)
        producer = place.producer(aggregate=None, order=order, batch=Batching(linger=0), observer=observe)
        await (await producer.put(b"before", "key"))
        results = await (await producer.put_many([(b"1", "one"), (b"2", "two")]))
        assert [(type(result), result.attempts) for result in results] == [(PutResult, 1)] * 2
        ends = [event for event in seen if isinstance(event, RequestCompleted)]
        assert [(end.written, end.retried, end.error is None) for end in ends] == [
            (1, 0, True), (0, 2, False), (2, 0, True),
        ]  # fmt: skip
        await (await producer.put(b"after", "one"))
        assert now() < 2
        await producer.close()
        await place.client.close()

    simulate(program)


def test_records_are_written_though_a_stranger_cancels_the_first_description_before_it_begins() -> None:
    async def program() -> None:
        main = asyncio.current_task()
        place = Place()
        producer = place.producer(batch=Batching(linger=0))
        delivery = await producer.put(b"first", "key")
        # Called between the turn that starts the tasks and their first steps.
        asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in asyncio.all_tasks() - {main}])
        assert isinstance(await delivery, PutResult)
        assert len(place.asked("DescribeStreamSummary")) == 1
        assert now() < 2
        await producer.close()
        await place.client.close()

    simulate(program)


class _AtOnce:
    """A transport that responds without a wait. The first PutRecords request is misrouted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        operation = {name.lower(): value for name, value in headers}["x-amz-target"].partition(".")[2]
        self.asked.append(operation)
        if operation == "DescribeStreamSummary":
            return answer({"StreamDescriptionSummary": {"StreamStatus": "ACTIVE"}})
        if operation == "ListShards":
            hash_keys = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
            numbers = {"StartingSequenceNumber": "1"}
            return answer({"Shards": [{"ShardId": "0", "HashKeyRange": hash_keys, "SequenceNumberRange": numbers}]})
        shard = "1" if self.asked.count("PutRecords") == 1 else "0"
        results = [{"SequenceNumber": "1", "ShardId": shard} for _ in json.loads(body)["Records"]]
        return answer({"FailedRecordCount": 0, "Records": results})

    async def close(self) -> None:
        pass


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has the first eager tasks")
@pytest.mark.parametrize("order", [None, "key"])
def test_a_stream_is_described_again_though_eager_tasks_end_within_their_start(order: Literal["key"] | None) -> None:
    async def program() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        transport = _AtOnce()
        client = Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            transport=transport,  # type: ignore[arg-type]
            clock=LoopClock(),
        )
        async with Producer(STREAM, client=client, order=order, aggregate=None, batch=Batching(linger=0)) as producer:
            for _ in range(3):
                results = await (await producer.put_many(pairs(5)))
                assert all(isinstance(result, PutResult) for result in results)
            assert producer.statistics().misrouted == 5
        assert transport.asked.count("DescribeStreamSummary") == 2
        assert transport.asked.count("PutRecords") == 3
        await client.close()

    simulate(program)


def test_in_order_a_key_continues_after_a_stranger_cancelled_its_request() -> None:
    async def program() -> None:
        place = Place()
        producer = place.producer(order="key", batch=Batching(linger=0))
        await (await producer.put(b"before", "key"))
        delivery = await producer.put(b"data", "key")
        await asyncio.sleep(0.001)
        for task in strangers():
            task.cancel()
        with pytest.raises(ProduceError) as failed:
            await delivery
        assert failed.value.maybe_written
        began = now()
        await (await producer.put(b"after", "key"))
        assert now() - began < 1
        await producer.close()
        await place.client.close()

    simulate(program)


def test_close_that_was_cancelled_repeatedly_closes_the_producer() -> None:
    async def program() -> None:
        place = Place(lambda operation, request: _forever() if operation == "PutRecords" else None)
        producer = place.producer(batch=Batching(linger=0))
        delivery = await producer.put(b"data", "key")
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(producer.close())
        for _ in range(4):
            await asyncio.sleep(0)
            closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert delivery.done
        await producer.close()
        await place.client.close()

    simulate(program)


def test_a_second_close_keeps_to_its_own_timeout() -> None:
    async def program() -> None:
        place = Place(lambda operation, request: _forever() if operation == "PutRecords" else None)
        producer = place.producer(batch=Batching(linger=0))
        delivery = await producer.put(b"data", "key")
        await asyncio.sleep(0.1)
        patient = asyncio.create_task(producer.close())
        await asyncio.sleep(0.1)
        began = now()
        await producer.close(1.0)
        assert now() - began == pytest.approx(1.0, abs=0.1)
        with pytest.raises(Undelivered):
            await patient
        with pytest.raises(ProduceError):
            delivery.result()
        await place.client.close()

    simulate(program)


def test_a_producer_is_closed_after_the_loop_of_its_puts_has_ended() -> None:
    async def program() -> tuple[Producer, Any]:
        producer = Place().producer(batch=Batching(linger=5.0))
        await (await producer.put(b"before", "key"))
        return producer, await producer.put(b"data", "key")

    async def later(producer: Producer) -> None:
        with pytest.raises(Undelivered):
            await producer.close()

    loop = asyncio.new_event_loop()
    producer, delivery = loop.run_until_complete(program())
    loop.run_until_complete(asyncio.sleep(0))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert not delivery.done
    asyncio.run(later(producer))
    with pytest.raises(ProduceError, match="closed"):
        delivery.result()


@pytest.mark.parametrize("way", ["closed", "late", "broken"])
def test_admitted_records_are_settled_or_in_the_buffer(way: str) -> None:
    async def program() -> None:
        events: list[Event] = []
        place = Place(lambda operation, request: _forever() if operation == "DescribeStreamSummary" else None)
        producer = place.producer(delivery=DeliveryPolicy(timeout=1.0), order="key", observer=events.append)
        await producer.put_many([(b"data", "key")] * 10)
        assert (producer.statistics().records_put, producer.statistics().bytes_put) == (10, 70)
        if way == "late":
            await producer.flush()
        elif way == "broken":
            await asyncio.sleep(0.5)
            await producer.put(b"data", "key")  # fails with the others, before its own time
            await asyncio.sleep(0.6)
        with pytest.raises(Undelivered):
            await producer.close(0)
        told = producer.statistics()
        assert told.records_put == told.records_failed == (11 if way == "broken" else 10)
        assert told.buffered_records == 0
        assert sum(event.records for event in events if isinstance(event, RecordsBuffered)) == told.records_put
        assert sum(event.records for event in events if isinstance(event, RecordsFailed)) == told.records_failed
        await place.client.close()

    simulate(program)


def test_listing_that_lags_behind_a_split_is_requested_again_and_nothing_is_lost() -> None:
    old: dict[str, Any] = {}

    def lag(operation: str, request: Any) -> Response | None:
        return answer(old) if operation == "ListShards" and old and now() < 6.0 and "ShardFilter" in request else None

    async def program() -> None:
        place = Place(lag, shards=1)
        old.update(await place.client.call("ListShards", {"StreamName": STREAM}))
        async with place.producer(batch=Batching(linger=0.05)) as producer:
            await (await producer.put_many(pairs(50)))
            await asyncio.sleep(1.0)
            half = {"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": str(2**127)}
            place.service.ask("SplitShard", StreamName=STREAM, **half)
            handles = [await producer.put_many(pairs(50)) for _ in range(10)]
            for handle in handles:
                assert all(isinstance(result, PutResult) for result in await handle)
            assert now() < 15
            assert producer.statistics().retried_misrouted < 20
            assert len(place.asked("ListShards")) < 20
        reading = read(place.service.written(STREAM), place.service.shards(STREAM))
        assert len(reading.seen) == 550
        await place.client.close()

    simulate(program)


def test_first_listing_with_gaps_is_requested_again() -> None:
    half = {
        "ShardId": "shardId-000000000000",
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str(2**127 - 1)},
        "SequenceNumberRange": {"StartingSequenceNumber": "1"},
    }

    def holes(operation: str, request: Any) -> Response | None:
        return answer({"Shards": [half]}) if operation == "ListShards" and now() < 1.0 else None

    async def program() -> None:
        place = Place(holes)
        async with place.producer() as producer:
            for _ in range(20):
                await (await producer.put_many(pairs(50)))
                await asyncio.sleep(1.0)
            assert producer.statistics().aggregates > 0
        await place.client.close()

    simulate(program)


def test_records_do_not_linger_in_a_full_buffer() -> None:
    async def program() -> None:
        place = Place()
        async with place.producer(buffer=BufferLimits(max_records=10), batch=Batching(linger=5.0)) as producer:
            await producer.put_many(pairs(100))
            assert now() < 2
        await place.client.close()

    simulate(program)


def test_put_many_buffers_the_records_before_its_iterable_raised() -> None:
    async def program() -> None:
        place = Place()

        def broken() -> Iterator[tuple[bytes, str]]:
            yield from pairs(700)
            raise LookupError("the caller's own")

        async with place.producer() as producer:
            with pytest.raises(LookupError, match="own"):
                await producer.put_many(broken())
        assert producer.statistics().records_written == 700
        await place.client.close()

    simulate(program)


def test_no_aggregate_is_built_by_the_shards_of_a_stream_that_was_deleted_and_created_again() -> None:
    async def program() -> None:
        place = Place(shards=2)
        producer = place.producer(batch=Batching(linger=0.05))
        await (await producer.put_many(pairs(50)))
        place.service.ask("DeleteStream", StreamName=STREAM)
        assert all(isinstance(result, ProduceError) for result in await (await producer.put_many(pairs(50))))
        await asyncio.sleep(6.0)
        place.service.ask("CreateStream", StreamName=STREAM, ShardCount=4)  # two of them have the old ones' names
        await asyncio.sleep(6.0)
        results = await (await producer.put_many(pairs(200)))
        assert all(isinstance(result, PutResult) for result in results)
        assert producer.statistics().aggregates == 2 + 4
        reading = read(place.service.written(STREAM), place.service.shards(STREAM))
        assert (len(reading.seen), reading.dropped) == (200, 0)
        await producer.close()
        await place.client.close()

    simulate(program)


def test_in_order_a_record_behind_one_that_timed_out_in_its_aggregate_is_not_retried() -> None:
    sent: list[int] = []

    async def hang(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords" and not sent:
            sent.append(len(request["Records"]))
            await asyncio.sleep(3.3 - now())
            return refusal("InternalFailure", 500)
        return None

    async def program() -> None:
        place = Place(hang, shards=1)
        producer = place.producer(order="key", batch=Batching(linger=1.0), delivery=DeliveryPolicy(max_age=3.0))
        first = await producer.put(b"1", "key")
        await asyncio.sleep(0.9)
        second, other = await producer.put(b"2", "key"), await producer.put(b"3", "another")
        with pytest.raises(ProduceError):
            await first
        with pytest.raises(OrderBroken) as broken:
            await second
        assert broken.value.maybe_written
        assert sent == [1]  # one aggregate
        await other
        await (await producer.put(b"4", "key"))
        assert [one.data for one in read(place.service.written(STREAM), place.service.shards(STREAM)).seen] == [
            b"3",
            b"4",
        ]
        await producer.close()
        await place.client.close()

    simulate(program)


def test_events_add_up_if_an_aggregate_is_judged_after_its_request() -> None:
    async def program() -> None:
        events: list[Event] = []
        place = Place(shards=1)
        async with place.producer(observer=events.append) as producer:
            await (await producer.put_many(pairs(50)))
            half = {"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": str(2**127)}
            place.service.ask("SplitShard", StreamName=STREAM, **half)
            low = [(data, key) for data, key in pairs(100) if hash_key(key) < 2**127]
            assert all(isinstance(result, PutResult) for result in await (await producer.put_many(low)))
        (kept,) = [event for event in events if isinstance(event, MisroutedAggregateAccepted)]
        assert kept == MisroutedAggregateAccepted("shardId-000000000001", len(low))
        settled = sum(event.written for event in events if isinstance(event, RequestCompleted))
        assert settled + kept.records == producer.statistics().records_written == 50 + len(low)
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("order", [None, "key"])
@pytest.mark.parametrize("aggregate", [None, Aggregation()])
def test_a_shard_that_refuses_everything_delays_no_other_however_small_the_buffer(
    order: Any, aggregate: Aggregation | None
) -> None:
    def refuses_low(act: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
        def refuse(operation: str, request: Any) -> Any:
            if operation != "PutRecords":
                return act(operation, request)
            entries = request.records
            low = [hash_key_bytes(one.partition_key, one.explicit_hash_key) < SECOND for one in entries]
            request.records = [one for one, is_low in zip(entries, low, strict=True) if not is_low]
            done = iter(act(operation, request).records if request.records else [])
            request.records = entries
            told = [_refused() if is_low else next(done) for is_low in low]
            return responses.PutRecords(sum(low), told, "NONE")

        return refuse

    async def program() -> None:
        place = Place(shards=4)
        place.service.act = refuses_low(place.service.act)  # type: ignore[method-assign, assignment]
        producer = place.producer(order=order, aggregate=aggregate, buffer=BufferLimits(max_records=1000))
        took: list[float] = []

        async def put(key: str) -> None:
            began = now()
            with suppress(KinesisError):
                await (await producer.put(b"data", key))
                took.append(now() - began)

        puts = []
        for turn in range(100):
            puts += [asyncio.create_task(put(f"key-{turn}-{number}")) for number in range(50)]
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        assert len(took) == sum(hash_key_bytes(f"key-{i // 50}-{i % 50}") >= SECOND for i in range(5000))
        assert max(took) < 0.5
        with suppress(Undelivered):
            await producer.close(0)
        await asyncio.gather(*puts)
        await place.client.close()

    simulate(program)


def _refused() -> Any:
    return responses.PutRecordsEntry(error_code="ProvisionedThroughputExceededException", error_message="refused")


def test_nothing_is_left_of_requests_that_failed_nor_of_a_producer_that_was_forgotten() -> None:
    async def program() -> None:
        place = Place(
            lambda operation, request: refusal("AccessDeniedException") if operation == "PutRecords" else None
        )
        producer = place.producer(batch=Batching(linger=0))
        for _ in range(10):
            with pytest.raises(ProduceError):
                await (await producer.put(b"data", "key"))
        assert live_objects(Batch) == 0
        await producer.put(b"nobody looks at it", "key")
        await asyncio.sleep(2)
        assert producer.statistics().failures_unobserved == 1
        pipeline = weakref.ref(producer._pipeline)
        del producer
        gc.collect()
        assert pipeline() is None
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("aggregate", [None, Aggregation()])
def test_with_many_shards_no_record_waits_longer_than_with_few(aggregate: Aggregation | None) -> None:
    async def took(producer: Producer, *, flush: bool = False) -> float:
        began = now()
        delivery = await producer.put(b"data", "key")
        if flush:
            await producer.flush()
        await delivery
        return now() - began

    async def program() -> None:
        place = Place(shards=60)
        async with place.producer(batch=Batching(linger=1.0), aggregate=aggregate) as producer:
            await (await producer.put_many(pairs(3000)))
            assert 1.0 <= await took(producer) < 1.1
            assert await took(producer, flush=True) < 0.1
            assert producer.statistics().records_written == 3002
        async with place.producer(batch=Batching(linger=0), aggregate=aggregate) as producer:
            await took(producer)
            assert await took(producer) < 0.1
        buffer = BufferLimits(max_records=20)
        async with place.producer(batch=Batching(linger=1.0), aggregate=aggregate, buffer=buffer) as producer:
            await (await producer.put(b"data", "key"))
            began = now()
            await producer.put_many(pairs(200))
            assert now() - began < 10  # a full buffer waits for no company
        await place.client.close()

    simulate(program)
