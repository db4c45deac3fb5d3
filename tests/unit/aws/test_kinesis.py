"""Encoding of requests and decoding of responses, without a client."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest

from kinstream import ConfigError, EncryptionType, InvalidRecord, Record
from kinstream.aws import kinesis
from kinstream.aws.codec import CborCodec, Codec, JsonCodec
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter, ShardFilterType
from kinstream.aws.request import Malformed

STREAM = Stream("events")
ARN = Stream.parse("arn:aws:kinesis:eu-west-1:123456789012:stream/events")
CODECS = pytest.mark.parametrize("codec", [JsonCodec(), CborCodec()], ids=["json", "cbor"])


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


@CODECS
def test_every_request_names_the_stream_by_its_name_or_by_its_arn(codec: Codec) -> None:
    record = Record(b"x", "key")
    for stream, name in ((STREAM, {"StreamName": "events"}), (ARN, {"StreamARN": ARN.arn})):
        for request in (
            kinesis.put_record(codec, stream, record),
            kinesis.put_records(codec, stream, [record]),
            kinesis.list_shards(codec, stream),
            kinesis.get_shard_iterator(codec, stream, "shardId-000000000000", "LATEST"),
        ):
            assert codec.decode(request.body).items() >= name.items()
            assert (request.region, request.account) == (stream.region, stream.account)
    assert codec.decode(kinesis.get_records(codec, ARN, "A").body) == {"ShardIterator": "A", "StreamARN": ARN.arn}
    assert codec.decode(kinesis.get_records(codec, STREAM, "A").body) == {"ShardIterator": "A"}


@CODECS
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (ShardFilter("AT_LATEST"), {"Type": "AT_LATEST"}),
        (ShardFilter(ShardFilterType.FROM_TRIM_HORIZON), {"Type": "FROM_TRIM_HORIZON"}),
        (ShardFilter("AFTER_SHARD_ID", shard_id="shard-7"), {"Type": "AFTER_SHARD_ID", "ShardId": "shard-7"}),
        (
            ShardFilter("AT_TIMESTAMP", timestamp=1_700_000_000.5),
            {"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_000.5},
        ),
        (
            ShardFilter("FROM_TIMESTAMP", timestamp=datetime(2026, 1, 1, tzinfo=UTC)),
            {"Type": "FROM_TIMESTAMP", "Timestamp": 1_767_225_600.0},
        ),
    ],
)
def test_listing_is_filtered_as_the_api_has_it(codec: Codec, given: ShardFilter, sent: dict[str, Any]) -> None:
    request = kinesis.list_shards(codec, STREAM, shard_filter=given)
    assert codec.decode(request.body) == {"StreamName": "events", "ShardFilter": sent}


def test_next_page_is_requested_by_its_token_alone() -> None:
    request = kinesis.list_shards(JsonCodec(), ARN, "token", shard_filter=ShardFilter("AT_LATEST"))
    assert json.loads(request.body) == {"NextToken": "token"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ShardFilter("AT_NOON"), "type"),
        (ShardFilter("AFTER_SHARD_ID"), "shard_id: must be given"),
        (ShardFilter("AT_LATEST", shard_id="shard-7"), "shard_id: must not be given"),
        (ShardFilter("AFTER_SHARD_ID", shard_id=""), "shard_id=''"),
        (ShardFilter("AT_TIMESTAMP"), "timestamp: must be given"),
        (ShardFilter("FROM_TRIM_HORIZON", timestamp=1.0), "timestamp: must not be given"),
        (ShardFilter("FROM_TIMESTAMP", timestamp=-1.0), "timestamp=-1.0"),
    ],
)
def test_filter_that_the_api_would_refuse_is_refused_here(wrong: ShardFilter, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kinesis.list_shards(JsonCodec(), STREAM, shard_filter=wrong)


def test_only_puts_write() -> None:
    codec, record = JsonCodec(), Record(b"x", "key")
    assert kinesis.put_record(codec, STREAM, record).writes
    assert kinesis.put_records(codec, STREAM, [record]).writes
    assert not kinesis.list_shards(codec, STREAM).writes
    assert not kinesis.get_records(codec, STREAM, "A").writes


@CODECS
def test_plain_and_checked_records_are_encoded_alike(codec: Codec) -> None:
    # One record that is not plain sends all of them the careful way.
    plain = [Record(b"a", "k1"), Record(b"b", "k2")]
    careful = [Record(bytearray(b"a"), "k1"), Record(memoryview(b"b"), "k2", None, "77")]
    assert kinesis.put_records(codec, STREAM, plain).body == kinesis.put_records(codec, STREAM, careful).body


class Text(str):  # numpy's texts are such a class too
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Key(str, Enum):  # noqa: UP042 - its str() is not its value
    ONE = "12"


@CODECS
@pytest.mark.parametrize("kind", [Text, Key])
def test_text_of_a_subclass_goes_as_text(codec: Codec, kind: type[str]) -> None:
    text, shard = kind("12"), Text("shardId-000000000000")
    stream = Stream.parse(text)
    records = [Record(b"x", text, text, text), Record(b"x" * 1000, text)]
    for request, members in (
        (
            kinesis.put_record(codec, stream, records[0]),
            {"PartitionKey", "ExplicitHashKey", "SequenceNumberForOrdering"},
        ),
        (kinesis.get_shard_iterator(codec, stream, shard, "AT_SEQUENCE_NUMBER", text), {"StartingSequenceNumber"}),
        (kinesis.get_records(codec, stream, text), {"ShardIterator"}),
    ):
        sent = codec.decode(request.body)
        assert {name for name, value in sent.items() if value == "12"} - {"StreamName"} == members
    for sized in (records, records[::-1]):  # small and large records are written in ways of their own
        sent = codec.decode(kinesis.put_records(codec, stream, sized).body)
        assert [record["PartitionKey"] for record in sent["Records"]] == ["12", "12"]
        assert sent["StreamName"] == "12"


def test_refusal_names_the_field_and_the_place_never_the_data() -> None:
    def encoder(data: Any) -> bytes:
        raise ValueError(f"cannot encode {data}")

    records = [Record(b"x", "key"), Record("canary", "key", None, None, encoder)]
    with pytest.raises(InvalidRecord) as refused:
        kinesis.put_records(JsonCodec(), STREAM, records)
    assert refused.value.index == 1
    assert refused.value.details.startswith("records[1].data: the encoder failed on data of type str: ValueError")
    assert "canary" not in refused.value.details
    assert refused.value.__cause__ is None


def test_released_memoryview_is_an_invalid_record() -> None:
    view = memoryview(b"x")
    view.release()
    with pytest.raises(InvalidRecord, match="released"):
        kinesis.put_record(JsonCodec(), STREAM, Record(view, "key"))


def test_memoryview_is_measured_in_bytes() -> None:
    wide = memoryview(bytearray(8 * 1024 * 1024 + 16)).cast("q")
    assert len(wide) < 10 * 1024 * 1024
    kinesis.put_record(JsonCodec(), STREAM, Record(wide, "key"))
    with pytest.raises(InvalidRecord, match="bytes of data"):
        kinesis.put_record(JsonCodec(), STREAM, Record(memoryview(bytearray(11 * 1024 * 1024)).cast("I"), "key"))


def test_keys_of_256_characters_are_counted_in_characters() -> None:
    kinesis.put_record(JsonCodec(), STREAM, Record(b"", "🌍" * 256))
    with pytest.raises(InvalidRecord, match="257 characters"):
        kinesis.put_record(JsonCodec(), STREAM, Record(b"", "🌍" * 257))


def test_encryption_type_of_the_response_applies_to_each_result() -> None:
    request = kinesis.put_records(JsonCodec(), STREAM, [Record(b"x", "key")] * 2)
    written = {"SequenceNumber": "1", "ShardId": "s"}
    failed = {"ErrorCode": "InternalFailure", "ErrorMessage": "m"}
    answer = request.parse(body({"FailedRecordCount": 1, "Records": [written, failed], "EncryptionType": "KMS"}))
    assert [result.encryption_type for result in answer.results] == [EncryptionType.KMS, None]


def test_members_that_are_null_are_as_good_as_missing() -> None:
    request = kinesis.put_records(JsonCodec(), STREAM, [Record(b"x", "key")])
    entry = {"SequenceNumber": "1", "ShardId": "s", "ErrorCode": None, "ErrorMessage": None}
    assert request.parse(body({"FailedRecordCount": 0, "Records": [entry]})).failed_record_count == 0


def test_unknown_members_are_ignored() -> None:
    request = kinesis.put_record(JsonCodec(), STREAM, Record(b"x", "key"))
    answer = request.parse(body({"SequenceNumber": "1", "ShardId": "s", "New": {"of": ["2027"]}, " attempts": 9}))
    assert answer.sequence_number == "1"


@CODECS
def test_consumer_of_a_stream_is_registered_and_described_by_the_streams_arn(codec: Codec) -> None:
    described = {"ConsumerName": "billing", "ConsumerARN": "arn", "ConsumerStatus": "ACTIVE"}
    for request, answer in (
        (kinesis.register_stream_consumer(codec, ARN, "billing"), {"Consumer": described}),
        (kinesis.describe_stream_consumer(codec, ARN, "billing"), {"ConsumerDescription": described}),
    ):
        assert codec.decode(request.body) == {"StreamARN": ARN.arn, "ConsumerName": "billing"}
        assert (request.region, request.account) == ("eu-west-1", "123456789012")
        consumer = request.parse(codec.encode(answer))
        assert (consumer.arn, consumer.status) == ("arn", "ACTIVE")


@CODECS
def test_arn_of_a_stream_is_in_its_summary(codec: Codec) -> None:
    request = kinesis.describe_stream_arn(codec, STREAM)
    assert codec.decode(request.body) == {"StreamName": "events"}
    assert request.parse(codec.encode({"StreamDescriptionSummary": {"StreamARN": "arn:stream"}})) == "arn:stream"


def test_subscription_is_no_whole_response() -> None:
    consumer = "arn:aws:kinesis:eu-west-1:123456789012:stream/events/consumer/billing:1700000000"
    request = kinesis.subscribe_to_shard(JsonCodec(), consumer, "shardId-000000000000", "LATEST")
    with pytest.raises(Malformed, match="stream of events"):
        request.parse(b"{}")


def test_written_record_without_a_shard_is_a_malformed_response() -> None:
    request = kinesis.put_records(JsonCodec(), STREAM, [Record(b"x", "key")])
    with pytest.raises(Malformed, match="lacks the ShardId"):
        request.parse(body({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1"}]}))


def test_failures_are_counted_whatever_the_response_says() -> None:
    request = kinesis.put_records(JsonCodec(), STREAM, [Record(b"x", "key")])
    answer = request.parse(body({"FailedRecordCount": 0, "Records": [{"ErrorCode": "InternalFailure"}]}))
    assert answer.failed_record_count == 1


def test_empty_iterator_is_a_malformed_response() -> None:
    request = kinesis.get_shard_iterator(JsonCodec(), STREAM, "shardId-000000000000", "LATEST")
    with pytest.raises(Malformed, match="ShardIterator is empty"):
        request.parse(body({"ShardIterator": ""}))


@CODECS
def test_key_with_a_lone_surrogate_is_an_invalid_record_with_its_index(codec: Codec) -> None:
    with pytest.raises(InvalidRecord) as caught:
        kinesis.put_records(codec, STREAM, [Record(b"x", "key"), Record(b"x", "\ud800")])
    assert caught.value.index == 1
