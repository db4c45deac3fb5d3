"""positions and read_range on a local Kinesis: exact ranges, expired records, clocks, failures, and the ends of shards."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.streams import MIDDLE, Place, create, split

from kinstream import (
    SHARD_END,
    TRIM_HORIZON,
    Aggregation,
    Client,
    ClosedError,
    ConfigError,
    ConsumeError,
    DataExpired,
    NotFound,
    Position,
    ReceivedRecord,
    UsageError,
    blocking,
    positions,
    read_range,
)
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC
from kinstream.local import Server
from kinstream.testing import ManualClock

SHARD = "shardId-000000000000"
DAY = 24 * 3600.0


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server:
        yield server


@pytest.fixture
def place(server: Server) -> Place:
    place = Place(server.url)
    create(place, 1)
    return place


def put(place: Place, *data: bytes, key: str = "a") -> list[str]:
    """Write records, and return their sequence numbers."""
    with blocking.Client(**place.options) as client:
        return [
            client.call("PutRecord", {"StreamName": place.stream, "Data": each, "PartitionKey": key})["SequenceNumber"]
            for each in data
        ]


def aggregate(*records: tuple[str, bytes], hash_key: str | None = None) -> bytes:
    builder = Builder(1 << 20, 1000)
    for key, data in records:
        assert builder.add(key, hash_key, data)
    return builder.finish()


def read(place: Place, shard: str = SHARD, **bounds: Any) -> list[bytes]:
    return [record.data for record in records(place, shard, **bounds)]


def records(place: Place, shard: str = SHARD, **bounds: Any) -> list[ReceivedRecord[bytes]]:
    batches = list(blocking.read_range(place.stream, shard, **bounds, **place.options))
    assert all(batches)
    assert {batch.shard_id for batch in batches} <= {shard}
    return [record for batch in batches for record in batch]


def at(place: Place, **options: Any) -> dict[str, Position]:
    return blocking.positions(place.stream, **options, **place.options)


# Positions.


def test_positions_of_now_are_after_the_last_record_at_the_oldest_of_an_empty_shard_and_at_the_end_of_a_closed_one(
    place: Place,
) -> None:
    assert at(place) == {SHARD: TRIM_HORIZON}
    numbers = put(place, b"0", b"1")
    assert at(place) == {SHARD: Position.after(numbers[1])}
    split(place, SHARD)
    later = put(place, b"2")
    with blocking.Consumer(place.stream, start="TRIM_HORIZON", until="now", **place.options) as consumer:
        child = [record.shard_id for record in consumer][-1]
    other = {"shardId-000000000001", "shardId-000000000002"} - {child}
    assert at(place) == {SHARD: SHARD_END, child: Position.after(later[0]), other.pop(): TRIM_HORIZON}
    assert set(at(place, at="oldest").values()) == {TRIM_HORIZON}
    assert len(at(place, at="oldest")) == 3


def test_all_pages_of_the_listing_are_in_the_dict(server: Server, place: Place) -> None:
    split(place, SHARD)

    def cut(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "Shards": answer["Shards"][:2], "NextToken": "more"}

    with blocking.Client(**place.options) as client:
        third = client.call("ListShards", {"StreamName": place.stream})["Shards"][2]
    server.next("ListShards").after_applying.change(cut)
    server.next("ListShards").respond(200, {"Shards": [third]})
    assert list(at(place, at="oldest")) == [SHARD, "shardId-000000000001", "shardId-000000000002"]


@pytest.mark.parametrize("advance", [0, 3, 60, 3600, 20 * 3600])
def test_idle_shard_takes_at_most_twelve_requests_for_records(server: Server, place: Place, advance: int) -> None:
    (number,) = put(place, b"0")
    server.advance(advance)
    with server.every("GetRecords").watch() as requests:
        assert at(place) == {SHARD: Position.after(number)}
    assert 1 <= requests.count <= 12


def test_empty_shard_takes_at_most_twelve_requests_for_records(server: Server, place: Place) -> None:
    put(place, b"expired")
    server.advance(DAY + 60)
    with server.every("GetRecords").watch() as requests:
        assert at(place) == {SHARD: TRIM_HORIZON}
    assert 1 <= requests.count <= 12


@pytest.mark.parametrize("off", [-400.0, -1.5, 1.5, 400.0])
def test_looks_are_measured_by_the_clock_of_the_service(off: float) -> None:
    clock = ManualClock(time.time() + off, tick=True)
    with Server(transition=0, quotas=False, clock=clock) as server:
        place = Place(server.url)
        create(place, 1)
        old = put(place, *(b"%d" % i for i in range(20)))
        clock.advance(30)
        new = put(place, b"new")
        with server.every("GetShardIterator").watch() as looks, server.every("GetRecords").watch() as requests:
            assert at(place) == {SHARD: Position.after(new[0])}
        assert requests.count == 1  # the first look was at the last seconds of the service's clock
        assert abs(looks.calls[-1].parameters["Timestamp"] - clock.wall()) < 10
        assert at(place, at=clock.wall() - 15) == {SHARD: Position.at(new[0])}
        assert at(place, at=clock.wall() - 3600) == {SHARD: Position.at(old[0])}


@pytest.mark.parametrize("advance", [600, 7 * 3600])
def test_clock_of_the_service_that_is_put_forward_changes_no_position(
    server: Server, place: Place, advance: int
) -> None:
    put(place, b"0")
    server.advance(advance)
    first = put(place, b"1", b"2")[0]
    last = put(place, b"3")[0]
    assert at(place) == {SHARD: Position.after(last)}
    assert at(place, at=time.time() + advance - 60) == {SHARD: Position.at(first)}
    assert at(place, at=time.time() + advance + 60) == {SHARD: Position.after(last)}


def test_time_is_before_the_first_record_that_arrived_then_or_later() -> None:
    clock = ManualClock(1_800_000_000.0)
    with Server(transition=0, quotas=False, clock=clock) as server:
        place = Place(server.url)
        create(place, 1)
        numbers = []
        for i in range(3):
            numbers += put(place, b"%d" % i)
            clock.advance(10)
        split(place, SHARD, MIDDLE)
        child = put(place, b"3")[0]
        clock.advance(10)
        by_time = {
            moment: at(place, at=1_800_000_000 + moment)
            for moment in (-5, 0, 0.0001, 10, 20.5, 30, 30.5, 50, 86_400 * 999)
        }
    first, second = "shardId-000000000001", "shardId-000000000002"
    child_of = first if by_time[50][second] == TRIM_HORIZON else second
    before = {-5: numbers[0], 0: numbers[0], 0.0001: numbers[1], 10: numbers[1]}
    for moment, found in by_time.items():
        assert found[SHARD] == (Position.at(before[moment]) if moment in before else SHARD_END), moment
        assert found[child_of] == (Position.at(child) if moment <= 30 else Position.after(child)), moment
        assert found[first if child_of == second else second] == TRIM_HORIZON


def test_many_shards_are_read_concurrently_within_the_quotas_of_each() -> None:
    with Server(transition=0) as server:
        place = Place(server.url)
        create(place, 40)
        with blocking.Producer(place.stream, **place.options) as producer:
            written = [each.result() for each in producer.put_many((b"x", f"key-{i}") for i in range(400))]
        server.advance(100)
        with server.every("GetRecords").watch() as requests:
            found = at(place)
        last = {
            each.shard_id: each.sequence_number for each in sorted(written, key=lambda each: int(each.sequence_number))
        }
        assert found == {shard: Position.after(last[shard]) if shard in last else TRIM_HORIZON for shard in found}
        assert len(found) == 40
        assert requests.count <= 40 * 12


@pytest.mark.parametrize(
    "at",
    [
        "LATEST",
        "Now",
        None,
        True,
        -1,
        float("nan"),
        Position.at("1"),
        b"now",
        1_800_000_000_000,
        datetime.fromtimestamp(-1, UTC),
    ],
)
async def test_invalid_time_is_refused_before_any_request(at: Any) -> None:
    with pytest.raises(ConfigError, match=r"^at="):
        await positions("events", at=at, region="us-east-1", endpoint_url="http://127.0.0.1:1")


# Ranges.


def test_range_is_exactly_between_its_places_also_inside_aggregates(place: Place) -> None:
    plain = put(place, b"0")
    packed = put(place, aggregate(("a", b"1"), ("b", b"2"), ("c", b"3")))[0]
    last = put(place, b"4")[0]
    ends = at(place)
    assert ends == {SHARD: Position.after(last)}
    assert read(place, after=TRIM_HORIZON, upto=ends[SHARD]) == [b"0", b"1", b"2", b"3", b"4"]
    assert read(place, after=Position.after(packed, 0), upto=Position.after(packed, 1)) == [b"2"]
    assert read(place, after=Position.at(packed, 1), upto=Position.at(packed, 2)) == [b"2"]
    assert read(place, after=Position.after(plain[0]), upto=Position.after(packed)) == [b"1", b"2", b"3"]
    assert read(place, after=str(Position.after(packed, 1)), upto=str(Position.after(last))) == [b"3", b"4"]
    assert read(place, after=Position.after(packed), upto=Position.at(last)) == []
    assert read(place, after=Position.after(last), upto=Position.after(last)) == []


def test_records_have_their_shard_stream_and_subsequence_number_and_no_checkpoint(place: Place) -> None:
    packed = put(place, aggregate(("a", b"1"), ("b", b"2")))[0]
    first, second = records(place, after="TRIM_HORIZON", upto=Position.after(packed))
    assert (first.shard_id, first.stream_name, first.sequence_number) == (SHARD, place.stream, packed)
    assert (first.partition_key, first.subsequence_number, second.subsequence_number) == ("a", 0, 1)
    with pytest.raises(UsageError, match="no Consumer read this record"):
        first.checkpoint()
    (batch,) = blocking.read_range(
        place.stream, SHARD, after=TRIM_HORIZON, upto=Position.after(packed), **place.options
    )
    assert (batch.shard_id, batch.stream_name, batch.millis_behind_latest) == (SHARD, place.stream, 0)
    with pytest.raises(UsageError, match="no Consumer read this record"):
        batch.checkpoint()


def test_same_range_has_the_same_records_after_more_were_written_and_the_shard_was_split(place: Place) -> None:
    put(place, b"0", b"1")
    upto = at(place)[SHARD]
    before = records(place, after=TRIM_HORIZON, upto=upto)
    put(place, b"2")
    split(place, SHARD)
    put(place, b"3")
    assert records(place, after=TRIM_HORIZON, upto=upto) == before
    assert [record.data for record in before] == [b"0", b"1"]


def test_closed_shard_is_read_to_its_end_and_the_end_of_an_open_one_is_refused(place: Place) -> None:
    put(place, b"0")
    with pytest.raises(ConfigError, match=rf"^upto='SHARD_END': the shard {SHARD} is open"):
        read(place, after=TRIM_HORIZON, upto=SHARD_END)
    with pytest.raises(ConfigError, match=rf"^upto='SHARD_END': the shard {SHARD} is open"):
        read(place, after=SHARD_END, upto=SHARD_END)
    split(place, SHARD)
    put(place, b"child")
    assert read(place, after=TRIM_HORIZON, upto="SHARD_END") == [b"0"]
    assert read(place, after=at(place)[SHARD], upto=SHARD_END) == []


@pytest.mark.parametrize("closed", [False, True])
def test_record_that_is_not_written_yet_is_an_error_and_never_awaited(place: Place, closed: bool) -> None:
    (number,) = put(place, b"0")
    later = str(int(number) + 1000)
    if closed:
        split(place, SHARD)
    batches = blocking.read_range(place.stream, SHARD, after=TRIM_HORIZON, upto=Position.after(later), **place.options)
    found = [record.data for record in next(batches)]
    with pytest.raises(ConsumeError, match=f"ends before upto='after {later}'") as raised:
        next(batches)
    assert raised.value.shard_id == SHARD
    assert not isinstance(raised.value, DataExpired)
    assert found == [b"0"]


def test_empty_shard_ends_before_a_record_that_it_never_had(server: Server, place: Place) -> None:
    elsewhere = Place(server.url, stream="elsewhere")
    create(elsewhere, 1)
    number = put(elsewhere, b"0", b"1", b"2")[-1]
    with pytest.raises(ConsumeError, match="ends before"):
        read(place, after=TRIM_HORIZON, upto=Position.after(number))


def test_empty_pages_in_the_middle_of_a_shard_are_passed(server: Server, place: Place) -> None:
    put(place, b"0")
    last = put(place, b"1")[0]

    def empty(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "Records": [], "MillisBehindLatest": 5000, "NextShardIterator": iterator}

    with blocking.Consumer(place.stream, **place.options) as consumer:
        iterator = consumer.get_shard_iterator(SHARD, "TRIM_HORIZON")
    server.next("GetRecords", 3).after_applying.change(empty)
    assert read(place, after=TRIM_HORIZON, upto=Position.after(last)) == [b"0", b"1"]
    server.next("GetRecords", 3).after_applying.change(empty)
    assert at(place) == {SHARD: Position.after(last)}


def test_records_of_the_same_millisecond_as_the_request_are_all_read() -> None:
    with Server(transition=0, quotas=False, clock=ManualClock(1_800_000_000.0)) as server:
        place = Place(server.url)
        create(place, 1)
        last = put(place, b"0", b"1", b"2")[-1]
        server.every("GetRecords").change({"Limit": 1})
        assert at(place) == {SHARD: Position.after(last)}
        assert read(place, after=TRIM_HORIZON, upto=Position.after(last)) == [b"0", b"1", b"2"]

        def current(answer: dict[str, Any]) -> dict[str, Any]:
            return {**answer, "MillisBehindLatest": 0}

        server.every("GetRecords").after_applying.change(current)
        assert read(place, after=TRIM_HORIZON, upto=Position.after(last)) == [b"0", b"1", b"2"]


# Expired records.


def test_expired_record_at_the_lower_bound_is_an_error_that_names_the_shard(server: Server, place: Place) -> None:
    old = put(place, b"0", b"1", b"2")
    server.advance(DAY + 60)
    new = put(place, b"3", b"4")
    upto = Position.after(new[0])
    for after in Position.after(old[0]), Position.at(old[0]), Position.after(old[2], 0):
        with pytest.raises(DataExpired, match=rf"^{SHARD}: the record {after.sequence_number}") as raised:
            read(place, after=after, upto=upto)
        assert raised.value.shard_id == SHARD
        assert read(place, after=after, upto=upto, on_expired="skip") == [b"3"]
    assert read(place, after=TRIM_HORIZON, upto=upto) == [b"3"]
    assert read(place, after=TRIM_HORIZON, upto=Position.after(old[1])) == []
    assert read(place, after=Position.after(old[0]), upto=Position.after(old[1]), on_expired="skip") == []


def test_all_records_of_an_idle_shard_may_expire(server: Server, place: Place) -> None:
    old = put(place, b"0", b"1")
    server.advance(DAY + 60)
    upto = Position.after(old[1])
    with pytest.raises(DataExpired, match=SHARD):
        read(place, after=Position.after(old[0]), upto=upto)
    assert read(place, after=Position.after(old[0]), upto=upto, on_expired="skip") == []
    assert read(place, after=TRIM_HORIZON, upto=upto) == []
    assert at(place) == {SHARD: TRIM_HORIZON}
    assert max(upto, at(place)[SHARD]) == upto


@pytest.mark.parametrize("on_expired", ["raise", "skip"])
def test_records_that_expire_while_the_range_is_read_are_noticed(on_expired: Any) -> None:
    clock = ManualClock(1_800_000_000.0)
    with Server(transition=0, quotas=False, clock=clock) as server:
        place = Place(server.url)
        create(place, 1)
        start = Position.at(put(place, b"0")[0])
        clock.advance(60)
        put(place, b"1", b"2")
        clock.advance(60)
        upto = Position.after(put(place, b"3")[0])
        clock.advance(DAY - 150)
        server.every("GetRecords").change({"Limit": 1})
        batches = blocking.read_range(
            place.stream, SHARD, after=start, upto=upto, on_expired=on_expired, **place.options
        )
        assert [record.data for record in next(batches)] == [b"0"]
        clock.advance(110)  # 1 and 2 expire before they are read
        if on_expired == "raise":
            with pytest.raises(DataExpired, match=SHARD):
                next(batches)
        else:
            assert [record.data for batch in batches for record in batch] == [b"3"]


def test_shard_that_has_expired_has_no_records_left(server: Server, place: Place) -> None:
    (number,) = put(place, b"0")
    split(place, SHARD)
    server.advance(2 * DAY + 60)
    with pytest.raises(DataExpired, match=f"{SHARD}: the shard has expired"):
        read(place, after=Position.after(number), upto=SHARD_END)
    assert read(place, after=Position.after(number), upto=SHARD_END, on_expired="skip") == []
    assert read(place, after=TRIM_HORIZON, upto=SHARD_END) == []


# Aggregates that do not belong to the shard.


@pytest.mark.parametrize("spread", [False, True])
def test_misrouted_aggregate_is_dropped_unless_the_stream_distributes_records_itself(
    server: Server, place: Place, spread: bool
) -> None:
    split(place, SHARD)
    child = "shardId-000000000001"
    with blocking.Client(**place.options) as client:
        for data in (
            b"0",
            aggregate(("x", b"1"), hash_key="5"),
            aggregate(("x", b"misrouted"), hash_key=str(2**127 + 5)),
            b"2",
        ):
            client.call(
                "PutRecord",
                {"StreamName": place.stream, "Data": data, "PartitionKey": "p", "ExplicitHashKey": "7"},
            )
    if spread:

        def automatic(answer: dict[str, Any]) -> dict[str, Any]:
            summary = {**answer["StreamDescriptionSummary"], "RecordDistributionStrategy": "AUTO"}
            return {"StreamDescriptionSummary": summary}

        server.every("DescribeStreamSummary").after_applying.change(automatic)
    upto = at(place)[child]
    expected = [b"0", b"1", b"misrouted", b"2"] if spread else [b"0", b"1", b"2"]
    assert read(place, child, after=TRIM_HORIZON, upto=upto) == expected


def test_record_that_is_not_a_valid_aggregate_is_read_as_it_is(place: Place) -> None:
    good = aggregate(("a", b"1"), ("b", b"2"))
    message = b"\x0a\x01a\x1a\x05\x08\x05\x1a\x01x"  # a user record with the index of a key that does not exist
    damaged, bad = good[:-1] + b"x", MAGIC + message + hashlib.md5(message).digest()
    put(place, damaged, bad, b"end")
    assert read(place, after=TRIM_HORIZON, upto=at(place)[SHARD]) == [damaged, bad, b"end"]


# Failures.


def test_throttling_expired_iterators_and_lost_connections_are_recovered_from(server: Server, place: Place) -> None:
    expected = [b"%d" % i for i in range(30)]
    last = put(place, *expected)[-1]
    server.every("GetRecords").change({"Limit": 7})
    server.next("GetRecords", 2).fail("ProvisionedThroughputExceededException", "Rate exceeded")
    server.next("GetRecords").fail("ExpiredIteratorException", "Iterator expired")
    server.next("GetRecords").after_applying.drop_connection(after_bytes=100)
    server.next("GetShardIterator").fail("InternalFailure", "", status=500)
    assert read(place, after=TRIM_HORIZON, upto=Position.after(last)) == expected
    server.next("GetRecords", 2).fail("ProvisionedThroughputExceededException", "Rate exceeded")
    server.next("GetRecords").fail("ExpiredIteratorException", "Iterator expired")
    server.next("ListShards").fail("LimitExceededException", "Rate exceeded")
    assert at(place) == {SHARD: Position.after(last)}


def test_stream_that_is_deleted_while_it_is_read_is_an_error(server: Server, place: Place) -> None:
    last = put(place, *(b"%d" % i for i in range(5)))[-1]
    server.every("GetRecords").change({"Limit": 2})
    batches = blocking.read_range(place.stream, SHARD, after=TRIM_HORIZON, upto=Position.after(last), **place.options)
    next(batches)
    with blocking.Client(**place.options) as client:
        client.call("DeleteStream", {"StreamName": place.stream})
    with pytest.raises(ConsumeError, match=SHARD) as raised:
        list(batches)
    assert isinstance(raised.value.__cause__, NotFound)


def test_unknown_streams_and_shards_are_errors(place: Place) -> None:
    with pytest.raises(NotFound):
        blocking.positions("unknown", **place.options)
    with pytest.raises(NotFound):
        list(blocking.read_range("unknown", SHARD, after=TRIM_HORIZON, upto=Position.at("1"), **place.options))


async def test_shard_that_the_stream_never_had_is_an_error(place: Place) -> None:
    async with Client(**place.options, clock=VirtualClock(time.time())) as client:
        batches = read_range(place.stream, "shardId-000000000007", after="at 1", upto=SHARD_END, client=client)
        with pytest.raises(ConsumeError, match="shardId-000000000007: the stream has no shard with this id"):
            await anext(batches)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"after": Position.after("7"), "upto": Position.after("6")}, "upto='after 6': is before after='after 7'"),
        ({"after": SHARD_END, "upto": Position.after("6")}, "upto='after 6': is before after='SHARD_END'"),
        ({"after": "LATEST", "upto": Position.after("6")}, "after='LATEST': must be a place that does not change"),
        ({"after": TRIM_HORIZON, "upto": time.time()}, "upto='AT_TIMESTAMP"),
        ({"after": TRIM_HORIZON, "upto": "x"}, "upto='x': must be the text of a position"),
        ({"after": TRIM_HORIZON, "upto": SHARD_END, "shard_id": "no id"}, "shard_id='no id'"),
        ({"after": TRIM_HORIZON, "upto": SHARD_END, "stream": "no stream!"}, "stream='no stream!'"),
        ({"after": TRIM_HORIZON, "upto": SHARD_END, "on_expired": "ignore"}, "on_expired='ignore': must be 'raise' or"),
        ({"after": TRIM_HORIZON, "upto": SHARD_END, "region": "no region"}, "region='no region'"),
        ({"after": TRIM_HORIZON, "upto": SHARD_END, "client": object()}, "client: must be a kinstream."),
    ],
)
@pytest.mark.parametrize("read", [read_range, blocking.read_range])
def test_invalid_arguments_are_refused_by_the_call(read: Any, arguments: dict[str, Any], error: str) -> None:
    arguments = {"stream": "events", "shard_id": SHARD, **arguments}
    with pytest.raises(ConfigError) as raised:
        read(**arguments)
    assert raised.value.details.startswith(error)


# The end of a reading.


async def test_loop_that_is_left_early_leaves_no_task_and_no_connection(server: Server, place: Place) -> None:
    last = put(place, *(b"%d" % i for i in range(5)))[-1]
    server.every("GetRecords").change({"Limit": 1})
    bounds: dict[str, Any] = {"after": TRIM_HORIZON, "upto": Position.after(last)}
    async for batch in read_range(place.stream, SHARD, **bounds, **place.options):
        assert len(batch) == 1
        break
    async with aclosing(read_range(place.stream, SHARD, **bounds, **place.options)) as batches:
        await anext(batches)
    with pytest.raises(UsageError, match="ended by a call to close it"):
        await anext(batches)
    gc.collect()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(asyncio.all_tasks()) == 1:
            break
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelled_reading_does_not_look_complete(server: Server, place: Place) -> None:
    last = put(place, b"0", b"1")[-1]
    batches = read_range(place.stream, SHARD, after=TRIM_HORIZON, upto=Position.after(last), **place.options)
    with server.every("GetRecords").hold() as held:
        reading = asyncio.ensure_future(anext(batches))
        await held.wait_async()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    with pytest.raises(UsageError, match="ended by CancelledError, before its upper bound: call read_range again"):
        await anext(batches)


async def test_shared_client_stays_open_and_positions_cancel_their_tasks(server: Server, place: Place) -> None:
    last = put(place, b"0")[-1]
    async with Client(**place.options) as client:
        found = [
            record.data
            async for batch in read_range(
                place.stream, SHARD, after=TRIM_HORIZON, upto=Position.after(last), client=client
            )
            for record in batch
        ]
        assert found == [b"0"]
        with server.every("GetRecords").hold() as held:
            task = asyncio.create_task(positions(place.stream, client=client))
            await held.wait_async()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await positions(place.stream, client=client) == {SHARD: Position.after(last)}


def test_iterator_of_a_thread_can_be_closed_early_and_its_thread_ends(server: Server, place: Place) -> None:
    last = put(place, *(b"%d" % i for i in range(5)))[-1]
    server.every("GetRecords").change({"Limit": 1})
    before = threading.active_count()
    bounds: dict[str, Any] = {"after": TRIM_HORIZON, "upto": Position.after(last)}
    with blocking.read_range(place.stream, SHARD, **bounds, **place.options) as batches:
        next(batches)
    with pytest.raises(UsageError, match="a call to close it"):
        next(batches)
    assert threading.active_count() <= before
    for _ in blocking.read_range(place.stream, SHARD, **bounds, **place.options):
        break
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    with blocking.Client(**place.options) as client:
        shared = blocking.read_range(place.stream, SHARD, **bounds, client=client)
        next(shared)
    with pytest.raises((UsageError, ClosedError)):
        next(shared)


def test_aggregates_of_our_producer_are_read_once_each(place: Place) -> None:
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many((b"%d" % i, f"key-{i % 7}") for i in range(5000)).raise_for_failures()
    upto = at(place)[SHARD]
    batches = list(blocking.read_range(place.stream, SHARD, after=TRIM_HORIZON, upto=upto, **place.options))
    assert sorted(int(record.data) for batch in batches for record in batch) == list(range(5000))
    assert len(batches) < 5  # not a batch for each aggregate
