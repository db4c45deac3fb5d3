"""Names, ARNs, shard ids and timestamps in requests, and the age of page tokens."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from kinstream import service_quotas
from kinstream.local.operations.requests import StreamRequest
from kinstream.local.state.model import ACCOUNT, Consumer, Stream
from kinstream.local.state.request_error import RequestError, invalid, not_found
from kinstream.local.state.state import State

TOKEN_LIFETIME = 300.0
"""Seconds for which a page token is valid (API reference, `ListShards`)."""

_ARN = re.compile(service_quotas.STREAM_ARN_PATTERN)
_MAX_MILLIS = 2**53


class DryRunRequest(Protocol):
    """A request that may be a dry run."""

    @property
    def dry_run(self) -> bool | None:
        """Return True if it is a dry run."""


class CallContext(NamedTuple):
    """Context of a call: its region and its time."""

    region: str
    """Region in the signature. All regions share the same streams, and ARNs have the region of the request."""
    now: float
    """Seconds since 1970."""


def stream_name(request: StreamRequest) -> str:
    """Return the name of the stream that a request addresses. Raises RequestError unless it names exactly one."""
    if request.stream_arn is None:
        if request.stream_name is None:
            raise invalid("Either StreamName or StreamARN should be provided.")
        return request.stream_name
    name = parse_stream_arn(request.stream_arn)
    if request.stream_name not in (None, name):
        raise invalid("StreamName and StreamARN name different streams.")
    return name


def parse_stream_arn(arn: str | None) -> str:
    """Return the stream name in an ARN. Raises RequestError if it is not the ARN of a stream of this account."""
    if arn is None:
        raise invalid("StreamARN should be provided.")
    match = _ARN.fullmatch(arn)
    if match is None:
        raise invalid(f"StreamARN {arn} is invalid.")
    account, name = match[3], match[4]
    if account != ACCOUNT:
        raise not_found(f"Stream {name} under account {account} not found.")
    return name


class ParsedConsumerArn(NamedTuple):
    """The parts of the ARN of a consumer."""

    stream: str
    name: str
    created: int
    """Registration time in seconds."""


def parse_consumer_arn(arn: str) -> ParsedConsumerArn | None:
    """Return the parts of the ARN of a consumer, or None for another ARN. Raises RequestError if it is of another account."""
    stream, slash, rest = arn.partition("/consumer/")
    if not slash:
        return None
    name, _, second = rest.rpartition(":")
    if not (name and second.isascii() and second.isdecimal() and len(second) <= 12):
        raise invalid(f"ConsumerARN {arn} is invalid.")
    return ParsedConsumerArn(parse_stream_arn(stream), name, int(second))


def consumer_arn(stream: Stream, consumer: Consumer, call: CallContext) -> str:
    """Return the ARN of a consumer in the region of the request."""
    return f"{stream_arn(stream, call)}/consumer/{consumer.name}:{consumer.created // 1000}"


def find_consumer(state: State, found: ParsedConsumerArn) -> tuple[Stream, Consumer]:
    """Return a consumer and its stream. Raises RequestError if it does not exist."""
    stream = state.stream(found.stream)
    consumer = stream.settings.consumers.get(found.name)
    if consumer is None or consumer.created // 1000 != found.created:
        raise consumer_not_found(f"{found.name} with creation timestamp {found.created}", stream)
    return stream, consumer


def consumer_not_found(which: str, stream: Stream) -> RequestError:
    """Return the error for a consumer that does not exist."""
    return not_found(f"Consumer {which} under stream: {stream.name}, account {ACCOUNT} not found.")


def stream_arn(stream: Stream, call: CallContext) -> str:
    """Return the ARN of a stream in the region of the request."""
    return f"arn:aws:kinesis:{call.region}:{ACCOUNT}:stream/{stream.name}"


def shard_index(name: str) -> int:
    """Return the index in a shard id. The shard need not exist. Raises RequestError if the id is invalid."""
    digits = name.removeprefix("shardId-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 12):
        raise invalid(f"ExclusiveStartShardId {name} is not a shard id.")
    return int(digits)


def millis(timestamp: float) -> int:
    """Return the timestamp of a request in whole milliseconds. Raises RequestError if it is out of range."""
    if not abs(timestamp) < _MAX_MILLIS / 1000:
        raise RequestError("SerializationException", "Timestamp out of range")
    return round(timestamp * 1000)


def check_token_age(issued: int, call: CallContext) -> None:
    """Refuse an expired page token. `issued` is in milliseconds."""
    if call.now - issued / 1000 > TOKEN_LIFETIME:
        raise RequestError("ExpiredNextTokenException", "NextToken has expired.")


def check_dry_run(request: DryRunRequest) -> None:
    """Refuse a dry run that would have succeeded, as AWS does."""
    if request.dry_run:
        raise RequestError("DryRunOperationException", "Request would have succeeded, but DryRun flag is set.")
