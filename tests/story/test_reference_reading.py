"""The reference's reading half, against the local Kinesis: shards, positions, records, and the children of a closed shard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.doubles.heard import Heard
from tests.doubles.streams import Place, local_stream, split

from kinstream import EncryptionType, Record, ShardIteratorType, UnexpectedResponse, blocking, callbacks
from kinstream.record import json_text

FIRST = "shardId-000000000000"


@pytest.fixture
def place() -> Iterator[Place]:
    with local_stream() as place:
        yield place


@pytest.fixture
def consumer(place: Place) -> Iterator[callbacks.Consumer]:
    with callbacks.Consumer(*place.account, endpoint_url=place.url) as consumer:
        yield consumer


def write(place: Place, *data: Any) -> list[str]:
    """Write records one after another, as the reference's producer does, and return their sequence numbers."""
    with blocking.Producer(place.stream, encoder=json_text, **place.options) as producer:
        return [producer.put_record(Record(each, "key")).sequence_number or "" for each in data]


def iterator(consumer: callbacks.Consumer, type_: Any, options: Any = None, shard_id: str = FIRST) -> str:
    heard = Heard()
    assert consumer.get_shard_iterator(shard_id, type_, options, heard) is None  # type: ignore[func-returns-value]
    error, shard_iterator = heard.wait()
    assert error is None
    assert isinstance(shard_iterator, str)
    return shard_iterator


def read(consumer: callbacks.Consumer, options: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any] | None]:
    heard = Heard()
    assert consumer.get_records(options, heard) is None  # type: ignore[func-returns-value]
    error, records, millis_behind_latest, next_options = heard.wait()
    assert error is None
    return records, millis_behind_latest, next_options


def read_from(consumer: callbacks.Consumer, type_: Any, options: Any = None) -> list[Any]:
    return [record.data for record in read(consumer, {"shard_iterator": iterator(consumer, type_, options)})[0]]


def shard_ids(consumer: callbacks.Consumer) -> list[str]:
    heard = Heard()
    assert consumer.get_shards(heard) is None  # type: ignore[func-returns-value]
    error, ids = heard.wait()
    assert error is None
    return list(ids)


def test_get_shards_names_closed_shards_too_and_none_disappears(place: Place, consumer: callbacks.Consumer) -> None:
    assert shard_ids(consumer) == [FIRST]
    split(place, FIRST)
    assert shard_ids(consumer) == [FIRST, "shardId-000000000001", "shardId-000000000002"]
    split(place, "shardId-000000000001", str(2**126))
    assert shard_ids(consumer) == [f"shardId-{n:012}" for n in range(5)]


def test_trim_horizon_starts_at_the_oldest_record(place: Place, consumer: callbacks.Consumer) -> None:
    write(place, 1, 2, 3)
    assert read_from(consumer, ShardIteratorType.TRIM_HORIZON) == [1, 2, 3]


def test_latest_starts_after_the_newest_record(place: Place, consumer: callbacks.Consumer) -> None:
    write(place, 1, 2)
    place_to_read = iterator(consumer, ShardIteratorType.LATEST)
    write(place, 3)
    assert [record.data for record in read(consumer, {"shard_iterator": place_to_read})[0]] == [3]


def test_at_sequence_number_starts_at_that_record(place: Place, consumer: callbacks.Consumer) -> None:
    _, second, _ = write(place, 1, 2, 3)
    assert read_from(consumer, ShardIteratorType.AT_SEQUENCE_NUMBER, {"starting_sequence_number": second}) == [2, 3]


def test_after_sequence_number_starts_after_that_record(place: Place, consumer: callbacks.Consumer) -> None:
    _, second, _ = write(place, 1, 2, 3)
    assert read_from(consumer, ShardIteratorType.AFTER_SEQUENCE_NUMBER, {"starting_sequence_number": second}) == [3]


def test_at_timestamp_starts_at_the_first_record_of_that_second(place: Place, consumer: callbacks.Consumer) -> None:
    write(place, 1)
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)
    write(place, 2)
    assert read_from(consumer, ShardIteratorType.AT_TIMESTAMP, {"timestamp": now + 1}) == [2]
    assert read_from(consumer, ShardIteratorType.AT_TIMESTAMP, {"timestamp": 0}) == [1, 2]


def test_type_may_be_its_name_and_options_it_has_no_use_for_are_ignored(
    place: Place, consumer: callbacks.Consumer
) -> None:
    write(place, 1)
    unused = {"timestamp": 1, "starting_sequence_number": "2", "else": None}
    assert read_from(consumer, "TRIM_HORIZON", unused) == [1]
    assert read_from(consumer, "TRIM_HORIZON", {}) == [1]


def test_received_record_has_all_of_the_references_properties(place: Place, consumer: callbacks.Consumer) -> None:
    before = int(time.time())
    (number,) = write(place, {"temperature": 21})
    (record,), millis_behind_latest, _ = read(
        consumer, {"shard_iterator": iterator(consumer, ShardIteratorType.TRIM_HORIZON)}
    )
    assert record.data == {"temperature": 21}
    assert record.partition_key == "key"
    assert record.sequence_number == number
    assert type(record.timestamp) is int
    assert before <= record.timestamp <= time.time()
    assert record.encryption_type is EncryptionType.NONE
    assert millis_behind_latest == 0


def test_is_blob_delivers_bytes(place: Place) -> None:
    write(place, b"\x00\xff no JSON", "text")
    with callbacks.Consumer(*place.account, True, endpoint_url=place.url) as consumer:
        assert read_from(consumer, ShardIteratorType.TRIM_HORIZON) == [b"\x00\xff no JSON", b'"text"']


@pytest.mark.parametrize("data", ["test", 12345, 2**70, 1.5, True, None, [1, [2]], {"a": {"b": None}}, "Grüße 世界"])
def test_json_data_comes_back_as_it_was_written(data: Any, place: Place, consumer: callbacks.Consumer) -> None:
    write(place, data)
    assert read_from(consumer, ShardIteratorType.TRIM_HORIZON) == [data]


@pytest.mark.parametrize("data", [b"no JSON", b"\xff", b"", b"NaN", b"[1,", b"1" * 5000, b"[" * 200_000])
def test_data_that_is_no_json_is_an_unexpected_response_that_names_the_record(
    data: bytes, place: Place, consumer: callbacks.Consumer
) -> None:
    _, number = write(place, "good", data or b" ")
    heard = Heard()
    consumer.get_records({"shard_iterator": iterator(consumer, ShardIteratorType.TRIM_HORIZON)}, heard)
    error, records, millis_behind_latest, next_options = heard.wait()
    assert isinstance(error, UnexpectedResponse)
    assert number in error.details
    assert "is_blob" in error.details
    assert error.http_response is not None
    assert len(error.details) < 400
    assert (records, millis_behind_latest, next_options) == ([], 0, None)


def test_limit_bounds_the_records_and_next_options_continue_after_them(
    place: Place, consumer: callbacks.Consumer
) -> None:
    write(place, *range(5))
    options: dict[str, Any] | None = {
        "shard_iterator": iterator(consumer, ShardIteratorType.TRIM_HORIZON),
        "limit": 2,
    }
    seen = []
    for _ in range(3):
        assert options is not None
        records, _, following = read(consumer, options)
        seen.append([record.data for record in records])
        assert following is not None
        assert set(following) == {"shard_iterator", "limit"}
        assert following["limit"] == 2
        assert following["shard_iterator"] != options["shard_iterator"]
        options = following
    assert seen == [[0, 1], [2, 3], [4]]


def test_next_options_has_no_limit_where_none_was_given(place: Place, consumer: callbacks.Consumer) -> None:
    write(place, 1)
    for options in ({}, {"limit": None}):
        _, _, following = read(consumer, {"shard_iterator": iterator(consumer, "TRIM_HORIZON"), **options})
        assert following is not None
        assert set(following) == {"shard_iterator"}


def test_no_new_records_is_an_empty_list_and_zero_behind(place: Place, consumer: callbacks.Consumer) -> None:
    write(place, 1)
    records, millis_behind_latest, following = read(consumer, {"shard_iterator": iterator(consumer, "LATEST")})
    assert (records, millis_behind_latest) == ([], 0)
    assert following is not None
    write(place, 2)
    assert [record.data for record in read(consumer, following)[0]] == [2]


def test_millis_behind_latest_says_how_far_the_tip_is(place: Place, consumer: callbacks.Consumer) -> None:
    write(place, 1)
    time.sleep(0.05)
    write(place, 2)
    _, behind, following = read(consumer, {"shard_iterator": iterator(consumer, "TRIM_HORIZON"), "limit": 1})
    assert behind > 0
    assert following is not None
    assert read(consumer, following)[1] == 0


def test_next_options_is_none_at_the_end_of_a_closed_shard_and_the_children_continue(
    place: Place, consumer: callbacks.Consumer
) -> None:
    write(place, 1, 2)
    split(place, FIRST)
    write(place, 3)
    options: dict[str, Any] | None = {"shard_iterator": iterator(consumer, "TRIM_HORIZON"), "limit": 1}
    seen = []
    while options is not None:
        records, _, options = read(consumer, options)
        seen += [record.data for record in records]
    assert seen == [1, 2]
    in_children = [
        record.data
        for shard_id in shard_ids(consumer)[1:]
        for record in read(consumer, {"shard_iterator": iterator(consumer, "TRIM_HORIZON", None, shard_id)})[0]
    ]
    assert in_children == [3]


def test_shards_may_be_read_in_parallel(place: Place) -> None:
    split(place, FIRST)
    with blocking.Producer(place.stream, **place.options) as producer:
        for n in range(10):
            producer.put_record(Record(n, "key", str(n % 2 * 2**127)))
    heard = Heard()
    with callbacks.Consumer(*place.account, endpoint_url=place.url) as consumer:
        for shard_id in shard_ids(consumer)[1:]:
            consumer.get_shard_iterator(
                shard_id,
                ShardIteratorType.TRIM_HORIZON,
                None,
                lambda _, found: consumer.get_records({"shard_iterator": found}, heard),
            )
        read_in_both = [[record.data for record in heard.wait()[1]] for _ in range(2)]
    assert sorted(read_in_both) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_options_may_be_changed_after_the_call(place: Place, consumer: callbacks.Consumer) -> None:
    write(place, 1, 2)
    heard = Heard()
    options = {"shard_iterator": iterator(consumer, "TRIM_HORIZON"), "limit": 1}
    consumer.get_records(options, heard)
    options.clear()
    _, records, _, following = heard.wait()
    assert len(records) == 1
    assert following["limit"] == 1
