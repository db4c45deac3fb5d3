"""Reads of a shard: the starting position for an iterator, and the records from a position onward."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kinstream.local.operations import responses
from kinstream.local.operations.naming import millis
from kinstream.local.state import sequence
from kinstream.local.state.model import ACCOUNT, Shard, Stream, shard_id
from kinstream.local.state.request_error import RequestError, invalid
from kinstream.local.storage.record_store import Store


class Start(NamedTuple):
    """Starting position in a request."""

    kind: str | None
    """Type of the position, such as "TRIM_HORIZON"."""
    number: str | None
    timestamp: float | None
    operation: str
    """Name of the operation, for error messages."""


class Found(NamedTuple):
    """Result of a read."""

    records: list[responses.ReadRecord]
    size: int
    """Bytes of data and partition keys."""
    millis_behind: int
    position: int
    """Position of the next read."""
    ended: bool
    """True if the shard is closed and was read to its end."""


class ShardReader:
    """Reader of shards.

    Args:
        store: Store of the records.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def start_position(self, stream: Stream, shard: Shard, start: Start, now: float) -> int:
        """Return the position at which reading starts. Raises RequestError if the request is invalid."""
        kind, number, timestamp = start.kind, start.number, start.timestamp
        if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            if number is None or timestamp is not None:
                raise _invalid_start(start)
            position = _position_of(stream, shard, number, start.operation)
            return position if kind == "AT_SEQUENCE_NUMBER" else position + 1
        if number is not None:
            raise _invalid_start(start)
        if kind == "AT_TIMESTAMP":
            if timestamp is None:
                raise invalid(
                    "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                    "Current request has no timestamp parameter."
                )
            present = int(now * 1000)
            moment = millis(timestamp)
            if moment > present:
                raise invalid(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                    f"timestampInMillis: {moment}, currentTimestampInMillis: {present}"
                )
            return self._store.find(shard.number, moment)
        if timestamp is not None:
            raise _invalid_start(start)
        return 1 if kind == "TRIM_HORIZON" else self._store.newest(shard.number).position + 1

    def read(self, stream: Stream, shard: Shard, position: int, now: float, *, limit: int, size: int) -> Found:
        """Return records from a position onward: at most `limit`, and at most `size` bytes unless a single record is larger."""
        horizon = stream.horizon(now)
        slices = self._store.read(shard.number, position, limit=limit, size=size)
        if slices and slices[0].arrival < horizon:
            position = self._store.find(shard.number, horizon)
            slices = self._store.read(shard.number, position, limit=limit, size=size)
        records = []
        record_response, absent = responses.ReadRecord, msgspec.UNSET
        for first, arrival, _, kept in slices:
            number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
            seconds = arrival / 1000
            encryption = "KMS" if stream.settings.encrypted(arrival) else "NONE"
            for record in kept:
                key = record.partition_key or absent
                records.append(record_response(str(number), seconds, record.data, key, encryption))
                number += sequence.STEP
            position = first + len(kept)
        newest = self._store.newest(shard.number)
        if not slices:
            position = max(position, newest.position + 1)
        behind = 0
        if slices and position <= newest.position:
            behind = max(1, int(now * 1000) - slices[-1].arrival)  # 0 would mean that no records follow
        ended = shard.ending_place is not None and position >= shard.ending_place
        return Found(records, sum(slice_.size for slice_ in slices), behind, position, ended)


def _position_of(stream: Stream, shard: Shard, number: str, operation: str) -> int:
    """Return the position of a sequence number in a shard. Raises RequestError if it belongs to another shard."""
    prefix = (
        f"StartingSequenceNumber {number} used in {operation} on shard {shard.id} in stream {stream.name} "
        f"under account {ACCOUNT} is invalid"
    )
    parsed = sequence.parse(number)
    if parsed is None:
        raise invalid(f"{prefix}.")
    if parsed.shard_index != shard.index:
        raise invalid(
            f"Invalid StartingSequenceNumber. It encodes {shard_id(parsed.shard_index)}, "
            f"while it was used in a call to a shard with {shard.id}"
        )
    if parsed.origin != shard.origin or parsed.position > shard.last_place + 1:
        raise invalid(f"{prefix} because it did not come from this stream.")
    return parsed.position


def _invalid_start(start: Start) -> RequestError:
    return invalid(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
        "(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
        f"Request specified {start.kind} and {'a' if start.number is not None else 'no'} StartingSequenceNumber"
        f"{' and also a Timestamp' if start.timestamp is not None else ''}."
    )
