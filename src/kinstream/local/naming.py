"""How requests name streams, shards and times, and when they come too late."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from kinstream import service_quotas
from kinstream.local.kept import ACCOUNT, Consumer, Stream
from kinstream.local.refusal import Refused, invalid, not_found
from kinstream.local.requests import StreamRequest
from kinstream.local.state import State

TOKEN_LIFETIME = 300.0
"""Seconds for which a page token is good (API reference, `ListShards`)."""

_ARN = re.compile(service_quotas.STREAM_ARN_PATTERN)
_MAX_MILLIS = 2**53


class Rehearsed(Protocol):
    """A request that may be a rehearsal."""

    @property
    def dry_run(self) -> bool | None:
        """Return whether it is."""


class Call(NamedTuple):
    """What an operation knows of its request besides the arguments."""

    region: str
    """The signature's: the streams are the same in every region, their ARNs say the one that was asked."""
    now: float
    """Seconds since 1970."""


def stream_name(request: StreamRequest) -> str:
    """Return the name of the stream that a request is about. Raises Refused where it names none, or two."""
    if request.stream_arn is None:
        if request.stream_name is None:
            raise invalid("Either StreamName or StreamARN should be provided.")
        return request.stream_name
    name = named_by(request.stream_arn)
    if request.stream_name not in (None, name):
        raise invalid("StreamName and StreamARN name different streams.")
    return name


def named_by(arn: str | None) -> str:
    """Return the name of the stream that an ARN names. Raises Refused where it is none of ours."""
    if arn is None:
        raise invalid("StreamARN should be provided.")
    match = _ARN.fullmatch(arn)
    if match is None:
        raise invalid(f"StreamARN {arn} is invalid.")
    account, name = match[3], match[4]
    if account != ACCOUNT:
        raise not_found(f"Stream {name} under account {account} not found.")
    return name


class ConsumerName(NamedTuple):
    """What a consumer's ARN says."""

    stream: str
    name: str
    created: int
    """Second of its registration."""


def consumer_named_by(arn: str) -> ConsumerName | None:
    """Return what a consumer's ARN says, or None where it is no consumer's. Raises Refused where it is none of ours."""
    stream, slash, rest = arn.partition("/consumer/")
    if not slash:
        return None
    name, _, second = rest.rpartition(":")
    if not (name and second.isascii() and second.isdecimal() and len(second) <= 12):
        raise invalid(f"ConsumerARN {arn} is invalid.")
    return ConsumerName(named_by(stream), name, int(second))


def consumer_arn(stream: Stream, consumer: Consumer, call: Call) -> str:
    """Return a consumer's ARN, in the region that was asked."""
    return f"{stream_arn(stream, call)}/consumer/{consumer.name}:{consumer.created // 1000}"


def find_consumer(state: State, found: ConsumerName) -> tuple[Stream, Consumer]:
    """Return a consumer and its stream. Raises Refused where there is none."""
    stream = state.stream(found.stream)
    consumer = stream.settings.consumers.get(found.name)
    if consumer is None or consumer.created // 1000 != found.created:
        raise no_consumer(f"{found.name} with creation timestamp {found.created}", stream)
    return stream, consumer


def no_consumer(which: str, stream: Stream) -> Refused:
    """Return the refusal for a consumer that does not exist."""
    return not_found(f"Consumer {which} under stream: {stream.name}, account {ACCOUNT} not found.")


def stream_arn(stream: Stream, call: Call) -> str:
    """Return a stream's ARN, in the region that was asked."""
    return f"arn:aws:kinesis:{call.region}:{ACCOUNT}:stream/{stream.name}"


def shard_index(name: str) -> int:
    """Return the index in the id of a shard that need not be there. Raises Refused where it is no id."""
    digits = name.removeprefix("shardId-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 12):
        raise invalid(f"ExclusiveStartShardId {name} is not a shard id.")
    return int(digits)


def millis(timestamp: float) -> int:
    """Return a request's timestamp in whole milliseconds. Raises Refused where it is no time."""
    if not abs(timestamp) < _MAX_MILLIS / 1000:
        raise Refused("SerializationException", "Timestamp out of range")
    return round(timestamp * 1000)


def check_token_age(issued: int, call: Call) -> None:
    """Refuse a page token that is too old. `issued` is in milliseconds."""
    if call.now - issued / 1000 > TOKEN_LIFETIME:
        raise Refused("ExpiredNextTokenException", "NextToken has expired.")


def check_rehearsal(request: Rehearsed) -> None:
    """Refuse a call that is a rehearsal, and would have been done."""
    if request.dry_run:
        raise Refused("DryRunOperationException", "Request would have succeeded, but DryRun flag is set.")
