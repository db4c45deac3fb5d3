"""Kinesis operations as requests: checks and encodes the parameters, parses the responses.

One function per operation. They do no I/O: `Client.send` sends the request that they return.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import msgspec

from kinstream.aws.codec import Codec, Entry, is_timestamp
from kinstream.aws.endpoint import Stream
from kinstream.aws.request import Malformed, Request
from kinstream.config import choice, text, whole_number
from kinstream.errors import ConfigError
from kinstream.record import (
    Encoder,
    EncryptionType,
    GetRecordsResult,
    PutRecordResult,
    PutRecordsResult,
    Record,
    Shard,
    ShardIteratorType,
    text_or_json,
)
from kinstream.service_quotas import (
    GET_RECORDS_MAX_RECORDS,
    SEQUENCE_NUMBER_PATTERN,
    SHARD_ID_PATTERN,
)
from kinstream.speed import accelerated
from kinstream.validate import checked, checked_records

T = TypeVar("T")

_SHARD_ID = re.compile(SHARD_ID_PATTERN)
_NUMBER_OF_A_RECORD = re.compile(r"[0-9]{1,129}")  # some Kinesis-compatible servers return leading zeros
_CONSUMER_ARN = re.compile(r"arn:aws[a-z-]*:kinesis:([a-z0-9-]+):([0-9]{12}):.+/consumer/.+")
_SEQUENCE_NUMBER = re.compile(SEQUENCE_NUMBER_PATTERN)


class ShardPage(msgspec.Struct, frozen=True):
    """One response to ListShards.

    Attributes:
        shards: A page of the stream's shards, ordered by id.
        next_token: Token of the next page. None on the last page.
    """

    shards: list[Shard] = msgspec.field(name="Shards")
    next_token: str | None = msgspec.field(default=None, name="NextToken")


class ShardFilterType(StrEnum):
    """Filter of ListShards (API reference, `ShardFilter`). A shard is open at a time if it accepted records then."""

    AFTER_SHARD_ID = "AFTER_SHARD_ID"
    """Shards with ids after a given id."""
    AT_TRIM_HORIZON = "AT_TRIM_HORIZON"
    """Shards that were open at the trim horizon."""
    FROM_TRIM_HORIZON = "FROM_TRIM_HORIZON"
    """Shards that were open at the trim horizon or were created since: all that may contain records."""
    AT_LATEST = "AT_LATEST"
    """Shards that are open now."""
    AT_TIMESTAMP = "AT_TIMESTAMP"
    """Shards that were open at a time."""
    FROM_TIMESTAMP = "FROM_TIMESTAMP"
    """Shards that were open at a time or were created since."""


@dataclass(frozen=True, slots=True)
class ShardFilter:
    """Filter of a shard listing.

    Attributes:
        type: Type of the filter.
        shard_id: Shard id. Required with AFTER_SHARD_ID, otherwise invalid.
        timestamp: Seconds since 1970, or a datetime with a time zone. Required with AT_TIMESTAMP and FROM_TIMESTAMP,
            otherwise invalid.
    """

    type: ShardFilterType | str
    shard_id: str | None = None
    timestamp: float | datetime | None = None

    @property
    def parameter(self) -> dict[str, Any]:
        """The filter as a request parameter.

        Raises:
            ConfigError: An attribute is invalid, missing, or not allowed with the type.
        """
        kind: ShardFilterType = choice("type", self.type, ShardFilterType)
        after = kind is ShardFilterType.AFTER_SHARD_ID
        by_time = kind in (ShardFilterType.AT_TIMESTAMP, ShardFilterType.FROM_TIMESTAMP)
        if (self.shard_id is not None) is not after:
            raise ConfigError(f"shard_id: must {'' if after else 'not '}be given with type {kind.value}")
        if (self.timestamp is not None) is not by_time:
            raise ConfigError(f"timestamp: must {'' if by_time else 'not '}be given with type {kind.value}")
        parameter: dict[str, Any] = {"Type": kind.value}
        if after:
            parameter["ShardId"] = checked_shard_id(self.shard_id)
        if by_time:
            parameter["Timestamp"] = _seconds(self.timestamp)
        return parameter


class StreamConsumer(msgspec.Struct, frozen=True):
    """Consumer that is registered with a stream for enhanced fan-out.

    Attributes:
        name: Consumer name, unique in the stream.
        arn: Consumer ARN. It changes if the consumer is deregistered and registered again.
        status: "CREATING", "ACTIVE" or "DELETING". Only an active consumer can subscribe.
    """

    name: str = msgspec.field(name="ConsumerName")
    arn: str = msgspec.field(name="ConsumerARN")
    status: str = msgspec.field(name="ConsumerStatus")


class _Registered(msgspec.Struct, frozen=True):
    consumer: StreamConsumer = msgspec.field(name="Consumer")


class _Described(msgspec.Struct, frozen=True):
    consumer: StreamConsumer = msgspec.field(name="ConsumerDescription")


class _Summary(msgspec.Struct, frozen=True):
    arn: str = msgspec.field(name="StreamARN")


class _Summarized(msgspec.Struct, frozen=True):
    summary: _Summary = msgspec.field(name="StreamDescriptionSummary")


class _Iterator(msgspec.Struct, frozen=True):
    value: str = msgspec.field(name="ShardIterator")


def put_record(
    codec: Codec, stream: Stream, record: Record, encoder: Encoder = text_or_json
) -> Request[PutRecordResult]:
    """Return the request that writes one record.

    Args:
        codec: Encodes the request.
        stream: The stream.
        record: The record.
        encoder: Encodes data that is not bytes-like, if the record has no encoder.

    Raises:
        InvalidRecord: The record is not valid.
    """
    record = checked(record, "record", encoder=encoder)
    params: dict[str, Any] = {**stream.parameter, "Data": record.data, "PartitionKey": record.partition_key}
    if record.explicit_hash_key is not None:
        params["ExplicitHashKey"] = record.explicit_hash_key
    if record.prev_sequence_number is not None:
        params["SequenceNumberForOrdering"] = record.prev_sequence_number
    parse = partial(_written, codec)
    return Request("PutRecord", codec.encode(params), parse, stream.region, stream.account, _count_record)


def put_records(
    codec: Codec, stream: Stream, records: Iterable[Record], encoder: Encoder = text_or_json
) -> Request[PutRecordsResult]:
    """Return the request that writes up to 500 records.

    Args:
        codec: Encodes the request.
        stream: The stream.
        records: The records.
        encoder: Encodes data that is not bytes-like, if its record has no encoder.

    Raises:
        ConfigError: The number of records is 0 or too large, or their total size is too large.
        InvalidRecord: A record is not valid. `.index` is its index.
    """
    records = checked_records(records, encoder)
    request = _encodable(codec, stream, records)
    if request is None:  # a partition key has a lone surrogate, which the full check reports
        return put_checked_records(
            codec, stream, [checked(record, f"records[{i}]", index=i) for i, record in enumerate(records)]
        )
    return request


def _encodable(codec: Codec, stream: Stream, records: Sequence[Entry]) -> Request[PutRecordsResult] | None:
    """Return the request that writes records. None if a partition key cannot be encoded as UTF-8."""
    try:
        return put_checked_records(codec, stream, records)
    except UnicodeEncodeError:
        return None


def put_checked_records(
    codec: Codec, stream: Stream, records: Sequence[Entry], omitted: str | None = None
) -> Request[PutRecordsResult]:
    """Return the request that writes records that were already checked, each one and all together.

    Args:
        codec: Encodes the request.
        stream: The stream.
        records: The records.
        omitted: Partition key to leave out of the request, compared by identity, for streams that distribute records
            themselves.
    """
    codec = codec.best_for(records)
    body = codec.encode_put_records(stream.parameter, records, omitted)
    parse = partial(_all_written, codec, len(records))
    return Request("PutRecords", body, parse, stream.region, stream.account, _count_records, codec.content_type)


def list_shards(
    codec: Codec, stream: Stream, next_token: str | None = None, *, shard_filter: ShardFilter | None = None
) -> Request[ShardPage]:
    """Return the request for a page of the stream's shards.

    Args:
        codec: Encodes the request.
        stream: The stream.
        next_token: Token from the previous page. None for the first page.
        shard_filter: Filter. None: all shards, including closed ones. The token of a filtered page includes its filter.

    Raises:
        ConfigError: The filter is not valid.
    """
    # The API takes either a token or a stream's name and a filter (API reference, `ListShards`).
    params: dict[str, Any] = {"NextToken": next_token} if next_token is not None else {**stream.parameter}
    if next_token is None and shard_filter is not None:
        params["ShardFilter"] = shard_filter.parameter
    parse = partial(codec.decode_as, ShardPage)
    return Request("ListShards", codec.encode(params), parse, stream.region, stream.account)


def get_shard_iterator(
    codec: Codec,
    stream: Stream,
    shard_id: str,
    type: ShardIteratorType | str,  # noqa: A002 - the API's own name
    starting_sequence_number: str | None = None,
    timestamp: float | datetime | None = None,
) -> Request[str]:
    """Return the request for a shard iterator.

    Args:
        codec: Encodes the request.
        stream: The stream.
        shard_id: Shard such as "shardId-000000000000".
        type: Starting position.
        starting_sequence_number: Required with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, otherwise invalid.
        timestamp: Seconds since 1970, or a datetime with a time zone. Required with AT_TIMESTAMP, otherwise invalid.

    Raises:
        ConfigError: An argument is invalid, missing, or not allowed with the type.
    """
    params: dict[str, Any] = {**stream.parameter, "ShardId": checked_shard_id(shard_id)}
    kind, moment = _start(type, starting_sequence_number, timestamp)
    params["ShardIteratorType"] = kind.value
    if starting_sequence_number is not None:
        params["StartingSequenceNumber"] = starting_sequence_number
    if moment is not None:
        params["Timestamp"] = moment
    return Request("GetShardIterator", codec.encode(params), partial(_iterator, codec), stream.region, stream.account)


def subscribe_to_shard(
    codec: Codec,
    consumer_arn: str,
    shard_id: str,
    type: ShardIteratorType | str,  # noqa: A002 - the API's own name
    starting_sequence_number: str | None = None,
    timestamp: float | datetime | None = None,
) -> Request[None]:
    """Return the request for a subscription. Its response is a stream, which `Client.subscribe` reads.

    Args:
        codec: Encodes the request.
        consumer_arn: The consumer's ARN, from RegisterStreamConsumer.
        shard_id: Shard such as "shardId-000000000000".
        type: Starting position.
        starting_sequence_number: Required with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, otherwise invalid.
        timestamp: Seconds since 1970, or a datetime with a time zone. Required with AT_TIMESTAMP, otherwise invalid.

    Raises:
        ConfigError: An argument is invalid, missing, or not allowed with the type.
    """
    arn = _CONSUMER_ARN.fullmatch(consumer_arn) if isinstance(consumer_arn, str) else None
    if arn is None:
        raise ConfigError(
            f"consumer_arn={consumer_arn!r}: must be a consumer ARN such as "
            "'arn:aws:kinesis:eu-west-1:123456789012:stream/orders/consumer/billing:1700000000'"
        )
    kind, moment = _start(type, starting_sequence_number, timestamp)
    position: dict[str, Any] = {"Type": kind.value}
    if starting_sequence_number is not None:
        position["SequenceNumber"] = starting_sequence_number
    if moment is not None:
        position["Timestamp"] = moment
    params = {"ConsumerARN": consumer_arn, "ShardId": checked_shard_id(shard_id), "StartingPosition": position}
    return Request("SubscribeToShard", codec.encode(params), _no_response, arn.group(1), arn.group(2))


def register_stream_consumer(codec: Codec, stream_arn: Stream, name: str) -> Request[StreamConsumer]:
    """Return the request that registers a consumer with a stream, for enhanced fan-out.

    Args:
        codec: Encodes the request.
        stream_arn: The stream, given by its ARN.
        name: Consumer name.
    """
    return _about_consumer(codec, "RegisterStreamConsumer", stream_arn, name, _Registered)


def describe_stream_consumer(codec: Codec, stream_arn: Stream, name: str) -> Request[StreamConsumer]:
    """Return the request that describes a stream's consumer.

    Args:
        codec: Encodes the request.
        stream_arn: The stream, given by its ARN.
        name: Consumer name.
    """
    return _about_consumer(codec, "DescribeStreamConsumer", stream_arn, name, _Described)


def describe_stream_arn(codec: Codec, stream: Stream) -> Request[str]:
    """Return the request (DescribeStreamSummary) for a stream's ARN.

    Args:
        codec: Encodes the request.
        stream: The stream, given by its name.
    """

    def parse(body: bytes) -> str:
        return codec.decode_as(_Summarized, body).summary.arn

    return Request("DescribeStreamSummary", codec.encode(stream.parameter), parse, stream.region, stream.account)


def _about_consumer(
    codec: Codec, operation: str, stream: Stream, name: str, shape: type[_Registered | _Described]
) -> Request[StreamConsumer]:
    def parse(body: bytes) -> StreamConsumer:
        return codec.decode_as(shape, body).consumer

    params = {**stream.parameter, "ConsumerName": name}
    return Request(operation, codec.encode(params), parse, stream.region, stream.account)


def _no_response(_: bytes) -> None:
    raise Malformed("a whole response to a request for a stream of events")


def _start(type: Any, starting_sequence_number: Any, timestamp: Any) -> tuple[ShardIteratorType, float | None]:  # noqa: A002
    """Return the starting position and the time of AT_TIMESTAMP. Raises ConfigError if the arguments do not fit together."""
    kind: ShardIteratorType = choice("type", type, ShardIteratorType)
    by_number = kind in (ShardIteratorType.AT_SEQUENCE_NUMBER, ShardIteratorType.AFTER_SEQUENCE_NUMBER)
    by_time = kind is ShardIteratorType.AT_TIMESTAMP
    if (starting_sequence_number is not None) is not by_number:
        raise ConfigError(
            f"starting_sequence_number: must {'' if by_number else 'not '}be given with type {kind.value}"
        )
    if (timestamp is not None) is not by_time:
        raise ConfigError(f"timestamp: must {'' if by_time else 'not '}be given with type {kind.value}")
    if by_number and not (
        isinstance(starting_sequence_number, str) and _NUMBER_OF_A_RECORD.fullmatch(starting_sequence_number)
    ):
        raise ConfigError(
            f"starting_sequence_number={starting_sequence_number!r}: must be decimal text of up to 129 digits"
        )
    return kind, _seconds(timestamp) if by_time else None


def get_records(
    codec: Codec, stream: Stream, shard_iterator: str, limit: int | None = None
) -> Request[GetRecordsResult[bytes]]:
    """Return the request for the records after a shard iterator.

    Args:
        codec: Encodes the request.
        stream: The stream.
        shard_iterator: The shard iterator.
        limit: Maximum records in the response, 1 to 10,000. None: the service's limit.

    Raises:
        ConfigError: An argument is not valid.
    """
    params: dict[str, Any] = {"ShardIterator": text("shard_iterator", shard_iterator)}
    if limit is not None:
        whole_number("limit", limit, 1, GET_RECORDS_MAX_RECORDS, "API reference, GetRecords")
        params["Limit"] = limit
    if stream.arn is not None:
        params["StreamARN"] = stream.arn
    return Request("GetRecords", codec.encode(params), codec.decode_get_records, stream.region, stream.account)


def checked_shard_id(shard_id: Any) -> str:
    """Return a shard id.

    Raises:
        ConfigError: It is not valid.
    """
    if not isinstance(shard_id, str) or not _SHARD_ID.fullmatch(shard_id):
        raise ConfigError(f"shard_id={shard_id!r}: must be a shard id such as 'shardId-000000000000'")
    return shard_id


def _seconds(timestamp: Any) -> float:
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ConfigError(f"timestamp={timestamp!r}: a datetime must have a time zone")
        timestamp = timestamp.timestamp()
    if not is_timestamp(timestamp) or not 0 <= timestamp < 253402300800:
        raise ConfigError(
            f"timestamp={timestamp!r}: must be seconds since 1970, from 0 to the year 9999, or a datetime"
        )
    return float(timestamp)


@accelerated
def count_failed(results: list[PutRecordResult], /) -> int:
    """Return the number of failed results, or -1 if a successful one lacks its shard or its sequence number."""
    failed = 0
    for result in results:
        if result.error_code is not None:
            failed += 1
        elif result.sequence_number is None or result.shard_id is None:
            return -1
    return failed


def _written(codec: Codec, body: bytes) -> PutRecordResult:
    result = codec.decode_put_record(body)
    if result.sequence_number is None or result.shard_id is None:
        raise Malformed("it lacks the ShardId or the SequenceNumber")
    return result


def _all_written(codec: Codec, count: int, body: bytes) -> PutRecordsResult:
    response = codec.decode_put_records(body)
    if len(response.results) != count:
        raise Malformed(f"{len(response.results)} results for {count} records")
    failed = count_failed(response.results)
    if failed < 0:
        raise Malformed("a result lacks the ShardId or the SequenceNumber, and has no ErrorCode")
    if response.encryption_type is not EncryptionType.NONE:
        # The response has it once for all records (API reference, PutRecords).
        for result in response.results:
            msgspec.structs.force_setattr(result, "stream_encryption_type", response.encryption_type)
    # The response's own count is not trusted, because a caller that checks only the count must not miss a failure.
    if failed != response.failed_record_count:
        msgspec.structs.force_setattr(response, "failed_record_count", failed)
    return response


def _count_record(result: PutRecordResult, attempts: int, maybe_duplicate: bool) -> PutRecordResult:
    return msgspec.structs.replace(result, attempts=attempts, maybe_duplicate=maybe_duplicate)


def _count_records(response: PutRecordsResult, attempts: int, maybe_duplicate: bool) -> PutRecordsResult:
    results = [_count_record(result, attempts, maybe_duplicate) for result in response.results]
    return msgspec.structs.replace(response, results=results, attempts=attempts, maybe_duplicate=maybe_duplicate)


def _iterator(codec: Codec, body: bytes) -> str:
    iterator = codec.decode_as(_Iterator, body).value
    if not iterator:
        raise Malformed("its ShardIterator is empty")
    return iterator
