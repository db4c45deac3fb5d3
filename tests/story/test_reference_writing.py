"""The reference's writing half, against the local Kinesis: records are in the stream, at the position in the callback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.doubles.heard import Heard
from tests.doubles.streams import MIDDLE, Place, local_stream

from kinstream import EncryptionType, NotFound, PutRecordResult, Record, ShardIteratorType, blocking, callbacks

HIGHEST = str(2**128 - 1)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_stream(shards=2) as place:
        yield place


@pytest.fixture
def producer(place: Place) -> Iterator[callbacks.Producer]:
    with callbacks.Producer(*place.account, endpoint_url=place.url) as producer:
        yield producer


def written(place: Place, result: PutRecordResult) -> bytes:
    """Return the data of the record that a result names."""
    assert result.shard_id is not None
    with blocking.Consumer(place.stream, **place.options) as consumer:
        iterator = consumer.get_shard_iterator(
            result.shard_id, ShardIteratorType.AT_SEQUENCE_NUMBER, starting_sequence_number=result.sequence_number
        )
        return consumer.get_records(iterator, 1).records[0].data


def put(producer: callbacks.Producer, record: Record) -> PutRecordResult:
    heard = Heard()
    assert producer.put_record(record, heard) is None  # type: ignore[func-returns-value]
    error, result = heard.wait()
    assert error is None
    assert isinstance(result, PutRecordResult)
    return result


def test_callback_of_put_record_gets_the_position_of_the_record(producer: callbacks.Producer, place: Place) -> None:
    result = put(producer, Record("Hello!", "key"))
    assert result.shard_id in {"shardId-000000000000", "shardId-000000000001"}
    assert result.sequence_number is not None
    assert result.sequence_number.isdecimal()
    assert result.encryption_type is EncryptionType.NONE
    assert (result.error_code, result.error_message) == (None, None)
    assert json.loads(written(place, result)) == "Hello!"


@pytest.mark.parametrize(
    "data",
    [
        "test",
        12345,
        1.5,
        True,
        None,
        [],
        {"temperature": 21, "humidity": 60},
        ["a", {"b": [1, 2]}],
        "Grüße, 世界 🌍",
        "",
    ],
)
def test_json_compatible_data_is_written_as_json(data: Any, producer: callbacks.Producer, place: Place) -> None:
    assert json.loads(written(place, put(producer, Record(data, "key")))) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_like_data_is_written_as_it_is(kind: Any, producer: callbacks.Producer, place: Place) -> None:
    data = bytes(range(256))
    record = Record(kind(data), "key", None, None, lambda data: "never asked")
    assert written(place, put(producer, record)) == data


@pytest.mark.parametrize("encoded", ["text: é", b"\x00bytes", bytearray(b"more"), memoryview(b"view")])
def test_custom_encoder_makes_what_is_written(encoded: Any, producer: callbacks.Producer, place: Place) -> None:
    asked = []

    def encoder(data: Any) -> Any:
        asked.append(data)
        return encoded

    data = {"a": 1}
    expected = encoded.encode() if isinstance(encoded, str) else bytes(encoded)
    assert written(place, put(producer, Record(data, "key", None, None, encoder))) == expected
    assert asked == [data]


def test_explicit_hash_key_chooses_the_shard(producer: callbacks.Producer) -> None:
    assert put(producer, Record("x", "same key", "0")).shard_id == "shardId-000000000000"
    assert put(producer, Record("x", "same key", MIDDLE)).shard_id == "shardId-000000000001"
    assert put(producer, Record("x", "same key", HIGHEST)).shard_id == "shardId-000000000001"


def test_partition_key_chooses_the_shard(producer: callbacks.Producer) -> None:
    shards = {key: put(producer, Record("x", key)).shard_id for key in "abcdefgh"}
    assert len(set(shards.values())) == 2
    assert {key: put(producer, Record("y", key)).shard_id for key in shards} == shards


def test_previous_sequence_number_is_passed_by(producer: callbacks.Producer) -> None:
    number = None
    for n in range(5):
        result = put(producer, Record(n, "key", None, number))
        assert result.sequence_number is not None
        assert number is None or int(result.sequence_number) > int(number)
        number = result.sequence_number


def test_callback_of_put_records_gets_one_result_a_record_in_their_order(
    producer: callbacks.Producer, place: Place
) -> None:
    heard = Heard()
    records = [Record(n, f"key {n}", str(n % 2 * 2**127)) for n in range(20)]
    assert producer.put_records(records, heard) is None  # type: ignore[func-returns-value]
    error, failed_record_count, results = heard.wait()
    assert error is None
    assert failed_record_count == 0
    assert len(results) == 20
    for n, result in enumerate(results):
        assert isinstance(result, PutRecordResult)
        assert result.shard_id == f"shardId-{n % 2:012}"
        assert result.encryption_type is EncryptionType.NONE
        assert (result.error_code, result.error_message) == (None, None)
    assert [json.loads(written(place, result)) for result in results[:4]] == [0, 1, 2, 3]


def test_put_records_takes_500_and_ignores_previous_sequence_numbers(producer: callbacks.Producer) -> None:
    heard = Heard()
    producer.put_records([Record(b"x", str(n), None, "12345") for n in range(500)], heard)
    error, failed_record_count, results = heard.wait()
    assert (error, failed_record_count, len(results)) == (None, 0, 500)


def test_put_records_takes_a_tuple_and_mixed_kinds_of_data(producer: callbacks.Producer, place: Place) -> None:
    heard = Heard()
    producer.put_records(
        (Record("test", "1"), Record(b"\xff", "2"), Record({"a": 1}, "3", None, None, lambda data: "own")), heard
    )
    error, failed_record_count, results = heard.wait()
    assert (error, failed_record_count) == (None, 0)
    assert [written(place, result) for result in results] == [b'"test"', b"\xff", b"own"]


def test_callback_may_be_left_out(place: Place) -> None:
    with callbacks.Producer(*place.account, endpoint_url=place.url) as producer:
        assert producer.put_record(Record("no callback", "key", "0")) is None  # type: ignore[func-returns-value]
        assert producer.put_records([Record("none either", "key", "0")]) is None  # type: ignore[func-returns-value]
        producer.put_record(None)  # type: ignore[arg-type]
    with blocking.Consumer(place.stream, **place.options) as consumer:
        records = consumer.get_records(consumer.get_shard_iterator("shardId-000000000000", "TRIM_HORIZON")).records
    assert {b'"no callback"', b'"none either"'} <= {record.data for record in records}


def test_data_is_taken_as_it_is_at_the_call(producer: callbacks.Producer, place: Place) -> None:
    heard = Heard()
    table: dict[str, Any] = {"value": "before"}
    blob = bytearray(b"before")
    records = [Record(table, "key"), Record(blob, "key")]
    producer.put_records(records, heard)
    producer.put_record(Record(table, "key"), heard)
    table["value"] = "after"
    blob[:] = b"after!"
    records.clear()
    outcomes = {len(outcome): outcome for outcome in (heard.wait(), heard.wait())}
    _, _, results = outcomes[3]
    assert [written(place, result) for result in results] == [b'{"value":"before"}', b"before"]
    assert written(place, outcomes[2][1]) == b'{"value":"before"}'


def test_stream_may_be_named_by_its_arn(place: Place) -> None:
    arn = f"arn:aws:kinesis:{place.region}:000000000000:stream/{place.stream}"
    with blocking.Client(**place.options) as client:
        arn = client.call("DescribeStreamSummary", {"StreamName": place.stream})["StreamDescriptionSummary"][
            "StreamARN"
        ]
    heard = Heard()
    with callbacks.Producer(place.region, place.key, place.secret, arn, endpoint_url=place.url) as producer:
        producer.put_record(Record("x", "key"), heard)
    assert heard.wait()[0] is None


def test_endpoint_comes_from_the_environment_where_none_is_given(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", place.url)
    heard = Heard()
    with callbacks.Producer(*place.account) as producer:
        producer.put_record(Record("x", "key"), heard)
    assert heard.wait()[0] is None


def test_one_instance_writes_to_one_stream(place: Place) -> None:
    heard = Heard()
    with callbacks.Producer(*place.account[:3], "another", endpoint_url=place.url) as producer:
        producer.put_record(Record("x", "key"), heard)
    error, result = heard.wait()
    assert isinstance(error, NotFound)
    assert result is None
