"""When a record times out, and when it does not: each clause of the rule in `produce/expire.py`, on the virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.doubles.transport import answer, refusal
from tests.doubles.virtual_loop import VirtualLoop, simulate
from tests.simulation.producing import outcome
from tests.simulation.reader import read
from tests.simulation.test_producer_alone import STREAM, Place, now, pairs

from kinstream import (
    Aggregation,
    Batching,
    BufferFull,
    BufferLimits,
    ConfigError,
    DeliveryPolicy,
    InvalidRecord,
    NotFound,
    OrderBroken,
    ProduceError,
    PutResult,
    RateLimits,
)
from kinstream.aws.transport import Response
from kinstream.errors import RequestTimedOut
from kinstream.produce_errors import Undelivered

THROTTLED = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded."}
HALF = str(2**127)
LOW, HIGH = "0", str(2**128 - 1)
"""Explicit hash keys in the first and in the last shard."""


def refuse_high(
    place: Callable[[], Place], written_every: float | None = None
) -> Callable[[str, Any], Response | None]:
    """Return a hook that throttles every record of the upper half of the hash keys; or writes one of them now and then."""
    last = 0.0

    def hook(operation: str, request: Any) -> Response | None:
        nonlocal last
        if operation != "PutRecords":
            return None
        results = []
        for record in request["Records"]:
            if record.get("ExplicitHashKey") == HIGH and not (
                written_every is not None and now() - last >= written_every
            ):
                results.append(THROTTLED)
                continue
            if record.get("ExplicitHashKey") == HIGH:
                last = now()
            import base64

            done = place().service.ask(
                "PutRecord",
                StreamName=STREAM,
                Data=base64.b64decode(record["Data"]),
                PartitionKey=record["PartitionKey"],
                ExplicitHashKey=record.get("ExplicitHashKey"),
            )
            results.append({"ShardId": done["ShardId"], "SequenceNumber": done["SequenceNumber"]})
        failed = sum("ErrorCode" in result for result in results)
        return answer({"FailedRecordCount": failed, "Records": results})

    return hook


async def failure(delivery: Any) -> tuple[float, ProduceError]:
    """Wait for a record to fail; return when it did, and the error."""
    with pytest.raises(ProduceError) as failed:
        await delivery
    return now(), failed.value


def test_shard_that_accepts_nothing_fails_its_records_and_no_others() -> None:
    async def program() -> None:
        place: Place = Place(refuse_high(lambda: place))
        producer = place.producer(aggregate=None, rate_limits=RateLimits(records_per_second=20))
        dead = [await producer.put(b"dead", "key", explicit_hash_key=HIGH) for _ in range(100)]
        living = [await producer.put(b"%d" % n, "key", explicit_hash_key=LOW) for n in range(1500)]
        ends = await asyncio.gather(*(failure(delivery) for delivery in dead))
        assert {round(when) for when, _ in ends} == {30}
        never_sent = [error for _, error in ends if error.attempts == 0]
        assert never_sent  # behind the others
        assert not any(error.maybe_written for _, error in ends)
        assert "has accepted no record for 30 s" in never_sent[0].details
        assert "Rate exceeded" in never_sent[0].details
        assert isinstance(never_sent[0].__cause__, RequestTimedOut)
        assert all([isinstance(await delivery, PutResult) for delivery in living])
        assert now() > 60  # they waited for their shard's rate for twice the timeout
        await producer.close()
        await place.client.close()

    simulate(program)


def test_shard_that_accepts_one_record_per_timeout_fails_none_that_it_has_not_refused() -> None:
    async def program() -> None:
        place: Place = Place(refuse_high(lambda: place, written_every=25.0))
        producer = place.producer(
            aggregate=None,
            order="key",
            batch=Batching(linger=0, max_records=1),
            delivery=DeliveryPolicy(max_delay=1.0),
        )
        deliveries = [await producer.put(b"%d" % n, f"k{n}", explicit_hash_key=HIGH) for n in range(6)]
        for number, delivery in enumerate(deliveries):
            await delivery
            assert now() == pytest.approx(25.0 * (number + 1), abs=8)
        await producer.close()
        await place.client.close()

    simulate(program)


def test_record_that_keeps_being_refused_times_out_though_its_shard_accepts_others() -> None:
    def refuse_one(operation: str, request: Any) -> Response | None:
        if operation != "PutRecords":
            return None
        results = [
            THROTTLED
            if record["PartitionKey"] == "poor"
            else {"ShardId": "shardId-000000000000", "SequenceNumber": "7"}
            for record in request["Records"]
        ]
        return answer({"FailedRecordCount": sum("ErrorCode" in result for result in results), "Records": results})

    async def program() -> None:
        place = Place(refuse_one, shards=1)
        producer = place.producer(aggregate=None, batch=Batching(linger=0))
        await asyncio.sleep(5)
        poor = await producer.put(b"poor", "poor")
        ending = asyncio.create_task(failure(poor))
        while not ending.done():
            assert isinstance(await (await producer.put(b"rich", "rich")), PutResult)
            await asyncio.sleep(0.5)
        when, error = ending.result()
        assert when == pytest.approx(35.0, abs=0.2)
        assert "of the first request that failed for it" in error.details
        assert error.attempts > 3
        assert not error.maybe_written
        await producer.close()
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("order", [None, "key"])
def test_record_in_a_request_without_a_response_times_out_once_and_may_be_written(order: Any) -> None:
    async def hang(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords":
            await asyncio.sleep(10_000)
        return None

    async def program() -> None:
        place = Place(hang, shards=1)
        producer = place.producer(order=order, batch=Batching(linger=0), delivery=DeliveryPolicy(timeout=10.0))
        first = await producer.put(b"1", "key")
        await asyncio.sleep(4.0)
        second = await producer.put(b"2", "another")
        (when, error), (later, other) = await asyncio.gather(failure(first), failure(second))
        assert when == pytest.approx(10.0, abs=0.1)
        assert error.maybe_written
        assert error.attempts == 1
        assert later == pytest.approx(14.0, abs=0.1)
        if order == "key":  # its shard had one request in flight: it was sent after the first one's end
            assert other.attempts <= 1
        await producer.close(0)
        await place.client.close()

    simulate(program)


def test_request_ends_after_the_timeout_even_if_the_call_may_last_longer() -> None:
    ended: list[float] = []

    async def hang(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords":
            try:
                await asyncio.sleep(10_000)
            finally:
                ended.append(now())
        return None

    async def program() -> None:
        place = Place(hang, shards=1)
        producer = place.producer(batch=Batching(linger=0), delivery=DeliveryPolicy(timeout=5.0))
        await failure(await producer.put(b"1", "key"))
        await producer.put(b"2", "key")
        with pytest.raises(Undelivered):
            await producer.close(0)
        assert ended[0] == pytest.approx(5.0, abs=0.1)
        await place.client.close()

    simulate(program)


def test_misrouted_aggregate_that_cannot_be_judged_times_out_and_its_lane_opens_again() -> None:
    refused: list[float] = []

    def refuse_listing(operation: str, request: Any) -> Response | None:
        if operation == "ListShards" and refused:
            return refusal("AccessDeniedException")
        return None

    async def program() -> None:
        place = Place(refuse_listing, shards=1)
        producer = place.producer(order="key", aggregate=Aggregation(), batch=Batching(linger=0.05))
        assert all(isinstance(each, PutResult) for each in await (await producer.put_many(pairs(20))))
        refused.append(now())
        place.service.ask("SplitShard", StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey=HALF)
        began = now()
        first = [await producer.put(b"%d" % n, f"key-{n}") for n in range(5)]
        await asyncio.sleep(1)
        behind = [await producer.put(b"later", f"other-{n}") for n in range(5)]
        ends = await asyncio.gather(*(failure(delivery) for delivery in first))
        for when, error in ends:
            assert when - began == pytest.approx(30.05, abs=0.2)
            assert error.maybe_written
            assert error.attempts == 1
            assert "AccessDenied" in error.details or "denied" in error.details
        # The lane is open again: records queued behind are sent, or have timed out themselves, and nothing hangs.
        await asyncio.wait([asyncio.ensure_future(failure(each)) for each in behind], timeout=61)
        assert all(each.done for each in behind)
        await producer.put(b"last", "key")
        with pytest.raises(Undelivered):
            await producer.close(0)
        await place.client.close()

    simulate(program)


def test_record_behind_another_that_is_refused_does_not_count_that_refusal_as_its_own() -> None:
    def refuse_poison(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords" and any(record["PartitionKey"] == "poison" for record in request["Records"]):
            return refusal("InvalidArgumentException")
        return None

    async def program() -> None:
        place = Place(refuse_poison, shards=1)
        producer = place.producer(aggregate=None, delivery=DeliveryPolicy(timeout=0.5))
        good = await producer.put_many(pairs(20))
        bad = await producer.put(b"bad", "poison")
        results = await good
        assert all(isinstance(result, PutResult) for result in results)
        assert (
            max(result.attempts for result in results if isinstance(result, PutResult)) > 1
        )  # each request is counted
        with pytest.raises(ProduceError) as failed:
            await bad
        assert failed.value.attempts > 1
        assert not failed.value.maybe_written
        await producer.close()
        await place.client.close()

    simulate(program)


def test_attempts_of_a_record_that_timed_out_in_flight_are_the_same_whenever_its_error_is_read() -> None:
    async def slow(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords":
            await asyncio.sleep(20)
            return refusal("InternalFailure", 500)
        return None

    async def program() -> None:
        place = Place(slow, shards=1)
        producer = place.producer(aggregate=None, batch=Batching(linger=0), delivery=DeliveryPolicy(max_age=10))
        delivery = await producer.put(b"1", "key")
        await asyncio.sleep(15)
        early = outcome(delivery)
        await asyncio.sleep(15)  # its request has failed by now
        late = outcome(delivery)
        assert isinstance(early, ProduceError)
        assert isinstance(late, ProduceError)
        assert (early.attempts, early.maybe_written) == (late.attempts, late.maybe_written) == (1, True)
        await producer.close()
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("order", [None, "key"])
@pytest.mark.parametrize("aggregate", [None, Aggregation(max_records=4)], ids=["alone", "aggregated"])
@pytest.mark.parametrize("in_flight", [False, True])
def test_record_that_timed_out_in_a_part_of_a_refused_request_is_not_retried(
    order: Any, aggregate: Aggregation | None, in_flight: bool
) -> None:
    requests: list[list[str]] = []

    async def refuse_then_hang(operation: str, request: Any) -> Response | None:
        if operation != "PutRecords":
            return None
        requests.append([record["Data"] for record in request["Records"]])
        if len(requests) == 1:
            await asyncio.sleep(4 if in_flight else 0)
            return refusal("InvalidArgumentException")
        if not in_flight:
            await asyncio.sleep(4)
            return refusal("InternalFailure", 500)
        return None

    async def program() -> None:
        place = Place(refuse_then_hang, shards=1)
        producer = place.producer(
            order=order, aggregate=aggregate, batch=Batching(max_in_flight=1), delivery=DeliveryPolicy(max_age=2.0)
        )
        outcomes = await (await producer.put_many(pairs(40)))
        assert now() == pytest.approx(2.0, abs=0.2)
        assert all(isinstance(each, ProduceError) for each in outcomes)
        await asyncio.sleep(20)
        assert len(requests) == (1 if in_flight else 2)
        written = {one.data for one in read(place.service.written(STREAM), place.service.shards(STREAM)).seen}
        assert not written
        await producer.close()
        await place.client.close()

    simulate(program)


def test_error_does_not_name_an_earlier_failure_that_its_shard_has_recovered_from() -> None:
    answered: list[float] = []

    async def throttle_once(operation: str, request: Any) -> Response | None:
        if operation != "PutRecords":
            return None
        answered.append(now())
        if len(answered) == 1:
            return answer({"FailedRecordCount": 1, "Records": [THROTTLED]})
        if now() > 100:
            await asyncio.sleep(1000)
        return None

    async def program() -> None:
        place = Place(throttle_once, shards=1)
        producer = place.producer(
            order="key", aggregate=None, batch=Batching(linger=0), delivery=DeliveryPolicy(max_age=5.0)
        )
        assert (await (await producer.put(b"1", "key"))).attempts == 2
        await asyncio.sleep(101 - now())
        in_flight = await producer.put(b"2", "key")
        await asyncio.sleep(0.5)
        behind = await producer.put(b"3", "another")
        (_, error), (_, never_sent) = await asyncio.gather(failure(in_flight), failure(behind))
        for each in (error, never_sent):
            assert "Rate exceeded" not in each.details
            assert "faster" not in each.details
        await producer.close()
        await place.client.close()

    simulate(program)


def test_record_that_was_never_sent_names_the_failure_of_the_other_requests() -> None:
    def broken(operation: str, request: Any) -> Response | None:
        return refusal("InternalFailure", 500, message="disk on fire") if operation == "PutRecords" else None

    async def program() -> None:
        place = Place(broken, shards=2)
        producer = place.producer(aggregate=None, order="key")
        others = [await producer.put(b"%d" % number, "key", explicit_hash_key=LOW) for number in range(100)]
        await asyncio.sleep(5)
        deliveries = [
            await producer.put(b"%d" % n, f"k{n % 2}", explicit_hash_key=(LOW, HIGH)[n % 2]) for n in range(2)
        ]
        for delivery in [*others, *deliveries]:
            _, error = await failure(delivery)
            cause = error.__cause__ if isinstance(error, OrderBroken) else error
            assert "disk on fire" in str(cause)
            assert "has not responded" not in str(cause)
        await producer.close()
        await place.client.close()

    simulate(program)


def test_maximum_age_drops_records_that_wait_behind_the_rate_of_a_shard_that_accepts() -> None:
    async def program() -> None:
        place = Place(shards=1)
        producer = place.producer(
            order="key",
            aggregate=None,
            rate_limits=RateLimits(records_per_second=10),
            delivery=DeliveryPolicy(max_age=3.0),
        )
        deliveries = await producer.put_many([(b"%d" % number, f"key-{number % 3}") for number in range(100)])
        outcomes = await deliveries
        dropped = [each for each in outcomes if isinstance(each, ProduceError)]
        assert 40 < len(dropped) < 95
        assert not any(isinstance(each, OrderBroken) or each.maybe_written for each in dropped)
        assert "max_age" in dropped[0].details
        assert now() == pytest.approx(3.0, abs=0.3)
        assert isinstance(await (await producer.put(b"fresh", "key-1")), PutResult)
        await producer.close()
        await place.client.close()

    simulate(program)


def test_record_dropped_by_age_that_may_be_written_breaks_the_order_of_its_key() -> None:
    async def hang(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords" and now() < 3:
            await asyncio.sleep(10)
        return None

    async def program() -> None:
        place = Place(hang, shards=1)
        producer = place.producer(
            order="key", aggregate=None, batch=Batching(linger=0), delivery=DeliveryPolicy(max_age=4.0)
        )
        first = await producer.put(b"1", "key")
        await asyncio.sleep(1)
        second = await producer.put(b"2", "key")
        _, error = await failure(first)
        assert error.maybe_written
        with pytest.raises(OrderBroken):
            await second
        await producer.close(0)
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("many", [False, True])
def test_put_waits_for_space_no_longer_than_it_may(many: bool) -> None:
    async def hang(operation: str, request: Any) -> Response | None:
        await asyncio.sleep(10_000)
        return None

    async def program() -> None:
        place = Place(hang, shards=1)
        producer = place.producer(buffer=BufferLimits(max_records=5, max_wait=2.0))
        for number in range(5):
            await producer.put(b"%d" % number, "key")
        began = now()
        with pytest.raises(BufferFull, match=r"2 s .*max_wait") as full:
            await (producer.put_many([(b"6", "key")]) if many else producer.put(b"6", "key"))
        assert full.value.record.data == b"6"
        assert now() - began == pytest.approx(2.0, abs=0.01)
        assert producer.statistics().waiting_puts == 0
        with pytest.raises(Undelivered):
            await producer.close(0)
        await place.client.close()

    simulate(program)


def test_put_that_waits_for_space_gets_it_before_its_limit() -> None:
    async def program() -> None:
        place = Place(shards=1)
        async with place.producer(
            buffer=BufferLimits(max_records=5, max_wait=5.0),
            rate_limits=RateLimits(records_per_second=2),
            aggregate=None,
        ) as producer:
            for number in range(20):
                await producer.put(b"%d" % number, "key")
        assert producer.statistics().records_written == 20
        await place.client.close()

    simulate(program)


# The stream is not there yet, or not any more.


def creating(place: Callable[[], Place], until: float) -> Callable[[str, Any], Response | None]:
    def hook(operation: str, request: Any) -> Response | None:
        if now() >= until:
            return None
        if operation == "DescribeStreamSummary":
            return answer({"StreamDescriptionSummary": {"StreamStatus": "CREATING", "StreamName": STREAM}})
        return refusal("ResourceNotFoundException")

    return hook


def test_records_wait_for_a_stream_that_is_being_created() -> None:
    async def program() -> None:
        place: Place = Place(creating(lambda: place, 20.0))
        producer = place.producer(order="key")
        results = await (await producer.put_many(pairs(50)))
        assert all(isinstance(result, PutResult) and result.attempts == 1 for result in results)
        assert now() == pytest.approx(21.0, abs=1.1)
        assert len(place.asked("DescribeStreamSummary")) < 30
        await producer.close()
        await place.client.close()

    simulate(program)


def test_records_time_out_if_their_stream_is_not_created_in_time() -> None:
    async def program() -> None:
        place: Place = Place(creating(lambda: place, 1000.0))
        producer = place.producer()
        first = await producer.put(b"1", "key")
        await asyncio.sleep(10)
        second = await producer.put(b"2", "key")
        (when, error), (later, _) = await asyncio.gather(failure(first), failure(second))
        assert when == pytest.approx(30.0, abs=0.1)
        assert later == pytest.approx(40.0, abs=0.1)
        assert "CREATING" in error.details
        assert error.attempts == 0
        assert not error.maybe_written
        assert place.asked("PutRecords") == []
        await producer.close()
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("times", [1, 5])
def test_stream_that_is_not_found_for_a_moment_though_it_is_there_is_written_to(times: int) -> None:
    refused: list[float] = []

    def flicker(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords" and len(refused) < times:
            refused.append(now())
            return refusal("ResourceNotFoundException")
        return None

    async def program() -> None:
        place = Place(flicker)
        async with place.producer(batch=Batching(linger=0)) as producer:
            result = await (await producer.put(b"1", "key"))
            assert result.attempts == times + 1
            assert not result.maybe_duplicate
            assert len(refused) == times
        await place.client.close()

    simulate(program)


def test_missing_stream_fails_all_buffered_records_at_once() -> None:
    async def program() -> None:
        place = Place()
        place.service.ask("DeleteStream", StreamName=STREAM)
        producer = place.producer(order="key", aggregate=None)
        outcomes = await (await producer.put_many(pairs(2000)))
        assert {type(each.__cause__) for each in outcomes if isinstance(each, ProduceError)} == {NotFound}
        assert not any(isinstance(each, PutResult) for each in outcomes)
        assert now() < 1
        assert len(place.asked("DescribeStreamSummary")) < 10
        await producer.close()
        await place.client.close()

    simulate(program)


def test_not_found_is_final_if_describing_the_stream_is_denied() -> None:
    def deny(operation: str, request: Any) -> Response | None:
        return refusal("AccessDeniedException" if operation == "DescribeStreamSummary" else "ResourceNotFoundException")

    async def program() -> None:
        place = Place(deny)
        producer = place.producer()
        when, error = await failure(await producer.put(b"1", "key"))
        assert when < 2
        assert isinstance(error.__cause__, NotFound)
        await producer.close()
        await place.client.close()

    simulate(program)


def test_a_refusal_that_cannot_be_confirmed_times_out() -> None:
    def lost(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords":
            return refusal("ResourceNotFoundException")
        return refusal("InternalFailure", 500) if now() > 1 else None

    async def program() -> None:
        place = Place(lost)
        producer = place.producer()
        await asyncio.sleep(2)
        when, error = await failure(await producer.put(b"1", "key"))
        assert when == pytest.approx(32.0, abs=1)
        assert error.attempts == 1
        await producer.close()
        await place.client.close()

    simulate(program)


def described_as(status: str) -> Response:
    return answer({"StreamDescriptionSummary": {"StreamStatus": status, "StreamName": STREAM}})


def test_records_behind_a_refusal_that_cannot_be_confirmed_time_out_too() -> None:
    def lost(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords":
            return refusal("ResourceNotFoundException")
        return refusal("InternalFailure", 500) if now() > 1 else None

    async def program() -> None:
        place = Place(lost)
        producer = place.producer(aggregate=None, batch=Batching(linger=0))
        await asyncio.sleep(2)
        first = await producer.put(b"1", "key")
        await asyncio.sleep(10)
        second = await producer.put(b"2", "key")
        (when, _), (later, error) = await asyncio.gather(failure(first), failure(second))
        assert when == pytest.approx(32.0, abs=0.1)
        assert later == pytest.approx(42.0, abs=0.1)
        assert error.attempts == 0
        await producer.close()
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize("order", [None, "key"])
def test_record_put_after_others_timed_out_is_written_as_soon_as_the_stream_is_created(order: Any) -> None:
    async def program() -> None:
        place: Place = Place(creating(lambda: place, 40.0))
        producer = place.producer(order=order)
        await failure(await producer.put(b"1", "key"))
        await asyncio.sleep(2)
        assert (await (await producer.put(b"2", "key"))).attempts == 1
        assert now() == pytest.approx(40.0, abs=1.5)
        await producer.close()
        await place.client.close()

    simulate(program)


def test_record_put_after_others_timed_out_unconfirmed_is_written_as_soon_as_the_stream_is_found() -> None:
    def lost(operation: str, request: Any) -> Response | None:
        if not 2 <= now() < 36:
            return None
        return refusal("ResourceNotFoundException") if operation == "PutRecords" else refusal("InternalFailure", 500)

    async def program() -> None:
        place = Place(lost)
        producer = place.producer()
        await asyncio.sleep(2)
        await failure(await producer.put(b"1", "key"))
        await asyncio.sleep(1)
        await (await producer.put(b"2", "key"))
        assert now() == pytest.approx(36.0, abs=1.5)
        await producer.close()
        await place.client.close()

    simulate(program)


def test_records_behind_the_pace_time_out_if_their_stream_is_being_deleted() -> None:
    def deleting(operation: str, request: Any) -> Response | None:
        return described_as("DELETING") if operation == "DescribeStreamSummary" and now() > 1 else None

    async def program() -> None:
        place = Place(deleting, shards=1)
        producer = place.producer(aggregate=None, rate_limits=RateLimits(records_per_second=10))
        waiting = await producer.put_many([(b"%d" % number, "key") for number in range(100)])
        await asyncio.sleep(2)
        with pytest.raises(InvalidRecord):  # the stream is described again: it may accept larger records by now
            await producer.put(bytes(2**20 + 5), "key")
        failed = [each for each in await waiting if isinstance(each, ProduceError)]
        assert now() == pytest.approx(32.0, abs=0.1)
        assert 50 < len(failed) < 100
        assert {(each.attempts, each.maybe_written) for each in failed} == {(0, False)}
        assert "the stream was not ready for 30 s (the stream is DELETING)" in failed[0].details
        await producer.close()
        await place.client.close()

    simulate(program)


def test_records_that_linger_while_a_refusal_is_confirmed_cause_no_busy_loop() -> None:
    async def slow(operation: str, request: Any) -> Response | None:
        if operation == "PutRecords" and 1 < now() < 1.2:
            return refusal("ResourceNotFoundException")
        if operation == "DescribeStreamSummary" and now() > 1:
            await asyncio.sleep(3)
        return None

    async def program() -> None:
        place = Place(slow, shards=64)  # with many shards, records wait in the inbox first
        producer = place.producer(aggregate=None, batch=Batching(linger=8))
        await producer.put(b"1", "first")
        await producer.flush()
        await asyncio.sleep(1.05 - now())
        refused = await producer.put(b"2", "second")
        flushing = asyncio.create_task(producer.flush())
        await asyncio.sleep(0.3)
        lingering = await producer.put(b"3", "third")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        turns = loop.turns
        assert (await refused).attempts == 2
        assert (await lingering).attempts == 1
        assert loop.turns - turns < 100
        await flushing
        await producer.close()
        await place.client.close()

    simulate(program)


def test_stream_not_found_for_a_moment_fails_none_of_the_records_that_wait_behind_the_pace() -> None:
    refused: list[float] = []

    def flicker(operation: str, request: Any) -> Response | None:
        if operation == "ListShards":
            return refusal("InternalFailure", 500)  # the look that fails all the time is not the one that they wait for
        if operation == "PutRecords" and now() > 50 and not refused:
            refused.append(now())
            return refusal("ResourceNotFoundException")
        return None

    async def program() -> None:
        place = Place(flicker, shards=1)
        producer = place.producer(aggregate=None, batch=Batching(linger=0, max_records=1, max_in_flight=1))
        deliveries = await producer.put_many(pairs(5000))
        assert all(isinstance(each, PutResult) for each in await deliveries)
        assert refused
        await producer.close()
        await place.client.close()

    simulate(program)


def test_records_linger_less_than_their_maximum_age_with_many_shards() -> None:
    async def program() -> None:
        place = Place(shards=64)
        producer = place.producer(aggregate=None, batch=Batching(linger=10), delivery=DeliveryPolicy(max_age=1.0))
        await producer.put(b"1", "key")
        await producer.flush()
        assert (await (await producer.put(b"2", "key"))).attempts == 1
        await producer.close()
        await place.client.close()

    simulate(program)


def test_many_records_that_wait_for_a_stream_time_out_together() -> None:
    async def program() -> None:
        place: Place = Place(creating(lambda: place, 1000.0))
        producer = place.producer()
        outcomes = await (await producer.put_many(pairs(30_000)))
        assert all(isinstance(each, ProduceError) for each in outcomes)
        assert now() == pytest.approx(30.0, abs=0.1)
        await producer.close()
        await place.client.close()

    simulate(program)


@pytest.mark.parametrize(
    "options",
    [
        {"delivery": {"max_age": 0}},
        {"delivery": {"max_age": "5"}},
        {"buffer": {"max_wait": -1}},
        {"buffer": {"max_wait": float("nan")}},
    ],
)
def test_options_are_checked(options: dict[str, dict[str, Any]]) -> None:
    kinds = {"delivery": DeliveryPolicy, "buffer": BufferLimits}
    ((name, given),) = options.items()
    with pytest.raises(ConfigError, match=next(iter(given))):
        kinds[name](**given)
