import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import cbor2
import pytest

from kinstream.aws.codec import (
    LARGE_TO_DECODE,
    LARGE_TO_ENCODE,
    AutoCodec,
    CborCodec,
    Codec,
    JsonCodec,
    _read_get_records,
    _read_put_records,
    _with_records,
    _with_results,
)
from kinstream.record import EncryptionType, PutRecordResult, ReceivedRecord, Record, Shard

JSON, CBOR = JsonCodec(), CborCodec()
BOTH = pytest.mark.parametrize("codec", [JSON, CBOR], ids=["json", "cbor"])
STREAM = {"StreamName": "orders"}


def body(codec: Codec, value: Any) -> bytes:
    """Return `value` as another's encoder would write it."""
    if codec is CBOR:
        return cbor2.dumps(value)
    return json.dumps(value, default=lambda blob: base64.b64encode(blob).decode()).encode()


def record_of(codec: Codec, **members: Any) -> dict[str, Any]:
    arrival = cbor2.CBORTag(1, 1787036486712) if codec is CBOR else 1787036486.712
    return {"SequenceNumber": "1", "ApproximateArrivalTimestamp": arrival, "Data": b"x", "PartitionKey": "k", **members}


@pytest.mark.parametrize(
    "size", [0, LARGE_TO_ENCODE - 1, LARGE_TO_ENCODE, LARGE_TO_DECODE - 1, LARGE_TO_DECODE, LARGE_TO_DECODE + 1, 5000]
)
def test_small_and_large_records_are_written_in_the_same_form(size: int) -> None:
    def records(size: int) -> list[Record]:
        return [
            Record(b"x" * size, "käse\n", hash_key)
            for hash_key in (None, "0", "340282366920938463463374607431768211455")
        ]

    written = json.loads(JSON.encode_put_records(STREAM, records(size)))
    assert [sorted(entry) for entry in written["Records"]] == [
        ["Data", "PartitionKey"],
        ["Data", "ExplicitHashKey", "PartitionKey"],
        ["Data", "ExplicitHashKey", "PartitionKey"],
    ]
    assert {entry["PartitionKey"] for entry in written["Records"]} == {"käse\n"}
    assert {base64.b64decode(entry["Data"]) for entry in written["Records"]} == {b"x" * size}
    assert written["StreamName"] == "orders"


@pytest.mark.parametrize("size", [1, 299, 300, 301, 5000])
def test_small_and_large_responses_are_decoded_alike(size: int) -> None:
    answer = {"Records": [record_of(JSON, Data=bytes([i]) * size) for i in range(3)], "MillisBehindLatest": 1}
    read = JSON.decode_get_records(body(JSON, answer))
    assert [record.data for record in read.records] == [bytes([i]) * size for i in range(3)]
    assert {type(record.data) for record in read.records} == {bytes}


@pytest.mark.parametrize("data", ["", "=", "a", "a===", "ab==cd==", "\u00e4bcd", "a b=", "YQ==\n"])
@pytest.mark.parametrize("padding", ["", "x" * 2000], ids=["small", "large"])
def test_invalid_base64_is_refused_in_small_and_large_responses(data: str, padding: str) -> None:
    answer = {
        "Records": [record_of(JSON, Data="", Later=padding), record_of(JSON, Data=data), record_of(JSON, Data="")],
        "MillisBehindLatest": 0,
    }
    if data == "":
        assert JSON.decode_get_records(body(JSON, answer)).records[1].data == b""
    else:
        with pytest.raises(ValueError):
            JSON.decode_get_records(body(JSON, answer))


@BOTH
@pytest.mark.parametrize("member", ["SequenceNumber", "Data", "ApproximateArrivalTimestamp"])
def test_record_without_a_required_member_is_refused(codec: Codec, member: str) -> None:
    record = record_of(codec)
    del record[member]
    with pytest.raises(ValueError, match=f"missing required field `{member}`"):
        codec.decode_get_records(body(codec, {"Records": [record], "MillisBehindLatest": 0}))


@BOTH
def test_record_without_a_partition_key_is_read(codec: Codec) -> None:
    record = record_of(codec)
    del record["PartitionKey"]
    [read] = codec.decode_get_records(body(codec, {"Records": [record], "MillisBehindLatest": 0})).records
    assert read.partition_key is None
    assert read.encryption_type is EncryptionType.NONE


@BOTH
def test_null_is_an_absent_member(codec: Codec) -> None:
    answer = {"Records": [record_of(codec)], "MillisBehindLatest": 0, "NextShardIterator": None, "ChildShards": None}
    result = codec.decode_get_records(body(codec, answer))
    assert ([record.data for record in result.records], result.next_shard_iterator, result.child_shards) == (
        [b"x"], None, [],
    )  # fmt: skip
    with pytest.raises(ValueError, match="Records"):
        codec.decode_get_records(body(codec, {**answer, "Records": None}))


@BOTH
def test_members_that_are_new_to_us_are_passed_over(codec: Codec) -> None:
    answer = {"Records": [record_of(codec, Later={"a": [1, None]})], "MillisBehindLatest": 0, "Later": [{}]}
    assert len(codec.decode_get_records(body(codec, answer)).records) == 1


@BOTH
def test_null_error_members_mean_a_record_was_written(codec: Codec) -> None:
    entry = {"SequenceNumber": "1", "ShardId": "s", "ErrorCode": None, "ErrorMessage": None}
    [result] = codec.decode_put_records(body(codec, {"FailedRecordCount": 0, "Records": [entry]})).results
    assert result.error_code is None
    assert result.shard_id == "s"


@BOTH
@pytest.mark.parametrize("answer", [[], "text", None, 1, {"Records": {}}, {"Records": [[]]}, {"Records": None}, {}])
def test_responses_of_another_shape_are_refused(codec: Codec, answer: Any) -> None:
    for decode in (codec.decode_get_records, codec.decode_put_records):
        with pytest.raises(ValueError):
            decode(body(codec, answer))


@BOTH
def test_one_response_must_be_the_whole_body(codec: Codec) -> None:
    with pytest.raises(ValueError):
        codec.decode_put_record(body(codec, {"SequenceNumber": "1", "ShardId": "s"}) + body(codec, {}))


@BOTH
@pytest.mark.parametrize("depth", [300, 3000, 100_000])
def test_deep_nesting_is_a_value_error_or_read(codec: Codec, depth: int) -> None:
    nested = b"\x81" * depth + b"\x00" if codec is CBOR else b"[" * depth + b"]" * depth
    for decode in (codec.decode, codec.decode_get_records, lambda body: codec.decode_as(Shard, body)):
        try:
            value = decode(nested)
        except ValueError:
            continue
        assert depth == 300
        assert isinstance(value, list)


@BOTH
def test_empty_body_is_an_empty_response(codec: Codec) -> None:
    assert codec.decode(b"") == {}
    with pytest.raises(ValueError):
        codec.decode_get_records(b"")


@BOTH
def test_datetimes_and_seconds_are_the_same_timestamp(codec: Codec) -> None:
    moment = datetime(2026, 8, 18, 12, 1, 26, 712_000, tzinfo=UTC)
    assert codec.encode({"Timestamp": moment}) == codec.encode({"Timestamp": moment.timestamp()})


@BOTH
def test_blobs_of_every_kind_are_written_alike(codec: Codec) -> None:
    expected = codec.encode({"Data": b"hello"})
    assert codec.encode({"Data": bytearray(b"hello")}) == expected
    assert codec.encode({"Data": memoryview(b"_hello_")[1:-1]}) == expected
    assert codec.decode(expected) == {"Data": b"hello"}


@BOTH
@pytest.mark.parametrize("value", [object(), {1}, Decimal(1), float("nan"), float("inf"), 1j, [object()]])
def test_unsupported_values_are_refused(codec: Codec, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        codec.encode({"Limit": value})


@BOTH
def test_numbers_and_blobs_of_a_subclass_are_sent_as_their_base_type(codec: Codec) -> None:
    class Whole(int):
        pass

    class Real(float):
        pass

    class Blob(bytes):
        pass

    class Buffer(bytearray):
        pass

    sent = {"Limit": Whole(3), "Timestamp": Real(1.5), "Data": Blob(b"x"), "Records": [{"Data": Buffer(b"y")}]}
    assert codec.decode(codec.encode(sent)) == {"Limit": 3, "Timestamp": 1.5, "Data": b"x", "Records": [{"Data": b"y"}]}


def test_cbor_tags_that_kinesis_does_not_send_make_no_objects() -> None:
    tags = [cbor2.CBORTag(tag, "x") for tag in (0, 35, 36, 37, 1004)]
    cycle = bytes.fromhex("d81c81d81d00")  # tag 28: an array that holds a reference (tag 29) to itself
    assert CBOR.decode(cbor2.dumps({"Later": tags})) == {"Later": ["x"] * 5}
    assert CBOR.decode(b"\xa1eLater" + cycle) == {"Later": [0]}


def test_cbor_length_beyond_the_body_is_refused_without_the_memory() -> None:
    for head in (b"\x5b", b"\x7b", b"\x9b", b"\xbb"):
        with pytest.raises(ValueError):
            CBOR.decode(head + b"\x7f" + b"\xff" * 7)


def test_timestamp_that_is_not_a_number_is_refused() -> None:
    for value in ("now", float("nan"), None, [1]):
        with pytest.raises(ValueError):
            CBOR.decode(cbor2.dumps({"Timestamp": cbor2.CBORTag(1, value)}))


def test_form_of_a_put_follows_the_size_of_its_first_records() -> None:
    codec = AutoCodec()
    small, large = Record(b"x", "key"), Record(b"x" * 100_000, "key")
    assert codec.best_for([small] * 9) is codec
    assert isinstance(codec.best_for([large]), CborCodec)
    assert codec.best_for([*[small] * 8, large]) is codec


def test_records_that_are_in_the_response_twice_are_read_by_the_general_decoder() -> None:
    codec = JsonCodec()
    record = {"SequenceNumber": "1", "ShardId": "shard-0"}
    put = body(codec, {"FailedRecordCount": 0, "Records": [record]})
    twice = [PutRecordResult("wrong", "wrong")], put
    assert _with_results(twice, put, _read_put_records).results == [PutRecordResult("1", "shard-0")]
    page = body(codec, {"Records": [record_of(codec)], "MillisBehindLatest": 0})
    response = _with_records(([ReceivedRecord(b"wrong", "9", 1.0)], page), page, _read_get_records)
    assert [one.sequence_number for one in response.records] == ["1"]


def test_records_that_were_found_are_added_to_the_rest_of_the_response() -> None:
    codec = JsonCodec()
    result, record = PutRecordResult("1", "shard-0"), ReceivedRecord(b"data", "1", 1.0)
    rest = body(codec, {"FailedRecordCount": 3, "Records": []})
    response = _with_results(([result], rest), b"not read", _read_put_records)
    assert (response.results, response.failed_record_count) == ([result], 3)
    rest = body(codec, {"MillisBehindLatest": 7, "Records": []})
    page = _with_records(([record], rest), b"not read", _read_get_records)
    assert (page.records, page.millis_behind_latest) == ([record], 7)
