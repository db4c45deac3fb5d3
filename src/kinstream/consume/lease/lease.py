"""Leases as values: the owner and the checkpoint of one shard, read from and written to a row of the lease table. Pure.

The columns are those of the Kinesis Client Library (KCL), so that workers of both may share a table. The names of its columns are
in parentheses below (KCL 3.5, `DynamoDBLeaseSerializer`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from kinstream.consume.fetch.position import TRIM_HORIZON, Position
from kinstream.consume.lease.row import Row, Value
from kinstream.errors import LeaseStoreFailed
from kinstream.record import HashKeyRange

WHOLE_AGGREGATE = 2**63 - 1
"""Subsequence number of a checkpoint after all user records of an aggregate: the highest value of a `long` of the KCL."""
BEFORE_RECORD = -1
"""Subsequence number of a checkpoint before the first user record of a record. A KCL delivers the record."""
EXTRAS = "kinstream"
"""Column with further properties of a row, which the KCL leaves unchanged. A map with its version in `v`."""
EXTRAS_VERSION = 1
"""Version of the map in `EXTRAS`. A map of another version is ignored."""
INSTANCE = "kinstreamInstance"
"""Column of a worker's row: distinguishes two processes with the same worker id."""
EXTRAS_DIGITS = 6
"""Decimals of the times in `EXTRAS`, so that each store returns the number that was written."""

_LEASE = "lease"
_SENTINELS = frozenset({"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"})
_SEQUENCE_NUMBER = re.compile(r"[0-9]{1,129}")  # service model, `SequenceNumber`
_HASH_KEY = re.compile(r"[0-9]{1,39}")  # service model, `HashKey`
# Key of a lease of a KCL that reads several streams: account, stream, time of the stream's creation, shard
# (KCL, `StreamIdentifier` and `MultiStreamLease`).
_MULTI_STREAM = re.compile(r"(?P<stream>[0-9]+:[A-Za-z0-9_.-]+:[0-9]+):(?P<shard>.+)", re.DOTALL)


class Pending(msgspec.Struct, frozen=True):
    """A checkpoint that a KCL application has prepared and not confirmed.

    Attributes:
        checkpoint: Its position (pendingCheckpoint, pendingCheckpointSubSequenceNumber).
        state: State that the application stored with it (pendingCheckpointState).
    """

    checkpoint: Position
    state: bytes | None = None

    def __repr__(self) -> str:
        return f"Pending(checkpoint={self.checkpoint!r}, state={'None' if self.state is None else '...'})"


class Lease(msgspec.Struct, frozen=True):
    """The owner of a shard and its checkpoint. The names of the columns are in parentheses.

    Attributes:
        key: Key of the row (leaseKey): the shard's id. If one application reads several streams, the stream's identifier, a
            colon and the shard's id.
        stream: Identifier of the stream, `account:name:creation time`, if one application reads several streams (streamName).
            None: the application reads one stream.
        owner: The worker that reads the shard (leaseOwner). None: no worker. During a handoff, its next owner.
        checkpoint_owner: The worker that still reads the shard and stores its checkpoints during a handoff (checkpointOwner).
            None: no handoff.
        counter: Incremented by each write of the owner (leaseCounter). A write based on an older counter is refused.
        checkpoint: Position after the completed records (checkpoint, checkpointSubSequenceNumber). The KCL stores AT_TIMESTAMP
            without its time. Then `checkpoint.timestamp` is None, and the time is the configured start.
        pending: A prepared checkpoint. None: there is none.
        parents: Shards that must be completed first, in the order of their ids (parentShardId).
        children: Shards that follow this one after a reshard, in the order of their ids (childShardIds).
        hash_key_range: Range of its hash keys (startingHashKey, endingHashKey).
        owner_switches: Number of changes of the owner since the last checkpoint (ownerSwitchesSinceCheckpoint).
        throughput_kbps: Bytes read from the shard, smoothed, in KB per second (throughputKBps). None: unknown.
        idle_until: All records before this time are completed, though the record of the checkpoint is much older. None:
            unknown. In seconds since 1970. The KCL has no such column.
    """

    key: str
    stream: str | None = None
    owner: str | None = None
    checkpoint_owner: str | None = None
    counter: int = 0
    checkpoint: Position = TRIM_HORIZON
    pending: Pending | None = None
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    hash_key_range: HashKeyRange | None = None
    owner_switches: int = 0
    throughput_kbps: float | None = None
    idle_until: float | None = None

    @property
    def shard_id(self) -> str:
        """The shard's id (shardId)."""
        return self.key if self.stream is None else self.key.removeprefix(f"{self.stream}:")

    @property
    def qualified_id(self) -> str:
        """The shard's id as the application sees it: with the stream's name before it if it reads several streams."""
        return qualified_id(self.shard_id, None if self.stream is None else name_of(self.stream))


def lease_key(shard_id: str, stream: str | None = None) -> str:
    """Return the key of a shard's lease.

    Args:
        shard_id: The shard's id.
        stream: Identifier of the stream, if one application reads several streams.
    """
    return shard_id if stream is None else f"{stream}:{shard_id}"


def stream_identifier(account: str, name: str, created: float) -> str:
    """Return the identifier of a stream in the leases of an application that reads several (KCL, `StreamIdentifier`).

    Args:
        account: Account ID.
        name: Name of the stream.
        created: Time at which the stream was created, in seconds since 1970. A stream that is created again is another one.
    """
    return f"{account}:{name}:{int(created)}"


def name_of(stream: str) -> str:
    """Return the name of a stream from its identifier."""
    return stream.split(":")[1]


def qualified_id(shard_id: str, stream_name: str | None) -> str:
    """Return the id of a shard as the application sees it, such as "orders:shardId-000000000000".

    Args:
        shard_id: The shard's id, which is unique in its stream only.
        stream_name: Name of its stream if the application reads several streams. None: it reads one.
    """
    return shard_id if stream_name is None else f"{stream_name}:{shard_id}"


def lease_of(row: Row) -> Lease:
    """Return the lease in a row. Each row is parsed once, although several parts of a worker need its lease.

    Raises:
        LeaseStoreFailed: A column is missing or has an invalid value. The message names the key and the column.
    """
    kept = vars(row)
    lease: Lease | None = kept.get(_LEASE)
    if lease is None:
        lease = kept[_LEASE] = _parsed(row)
    return lease


def _parsed(row: Row) -> Lease:
    columns = _Columns(row)
    stream = columns.text("streamName")
    if stream is None:
        found = _MULTI_STREAM.fullmatch(row.key)
        stream = None if found is None else found["stream"]
    elif not row.key.startswith(f"{stream}:"):
        columns.refuse("streamName")
    text, subsequence = columns.position("checkpoint")
    extras = _extras(row.values, text, subsequence)
    return Lease(
        key=row.key,
        stream=stream,
        owner=columns.text("leaseOwner"),
        checkpoint_owner=columns.text("checkpointOwner"),
        counter=columns.required("leaseCounter"),
        checkpoint=_position(text, subsequence, _time(extras.get("time"))),
        pending=columns.pending(),
        parents=columns.texts("parentShardId"),
        children=columns.texts("childShardIds"),
        hash_key_range=columns.hash_key_range(),
        owner_switches=columns.whole("ownerSwitchesSinceCheckpoint") or 0,
        throughput_kbps=columns.number("throughputKBps"),
        idle_until=_time(extras.get("idle_until")),
    )


def columns_of(lease: Lease) -> dict[str, Value]:
    """Return the columns of a lease, without its key, as a row has them after the KCL has created and changed it."""
    columns: dict[str, Value] = {
        "leaseCounter": lease.counter,
        "ownerSwitchesSinceCheckpoint": lease.owner_switches,
        **checkpoint_columns(lease.checkpoint),
        **shard_columns(lease),
    }
    optional: dict[str, Value] = {
        "leaseOwner": lease.owner,
        "checkpointOwner": lease.checkpoint_owner,
        "parentShardId": frozenset(lease.parents) or None,
        "childShardIds": frozenset(lease.children) or None,
        "throughputKBps": lease.throughput_kbps,
        EXTRAS: extras_of(lease.checkpoint, lease.idle_until),
    }
    if lease.pending is not None:
        optional |= pending_columns(lease.pending)
    return columns | {name: value for name, value in optional.items() if value is not None}


def shard_columns(lease: Lease) -> dict[str, Value]:
    """Return the columns that the KCL writes again with each checkpoint: range of hash keys, and stream and shard."""
    columns: dict[str, Value] = {}
    if lease.hash_key_range is not None:
        columns["startingHashKey"] = lease.hash_key_range.starting_hash_key
        columns["endingHashKey"] = lease.hash_key_range.ending_hash_key
    if lease.stream is not None:
        columns["streamName"] = lease.stream
        columns["shardId"] = lease.shard_id
    return columns


def checkpoint_columns(position: Position) -> dict[str, Value]:
    """Return the columns of a checkpoint. In the table it always means "after" (KCL, `ExtendedSequenceNumber`).

    The position before user record n of an aggregate is stored as after user record n - 1, and before the first one as -1.
    """
    text, subsequence = _stored(position)
    return {"checkpoint": text, "checkpointSubSequenceNumber": subsequence}


def pending_columns(pending: Pending) -> dict[str, Value]:
    """Return the columns of a prepared checkpoint."""
    text, subsequence = _stored(pending.checkpoint)
    columns: dict[str, Value] = {"pendingCheckpoint": text, "pendingCheckpointSubSequenceNumber": subsequence}
    if pending.state is not None:
        columns["pendingCheckpointState"] = pending.state
    return columns


def extras_of(position: Position, idle_until: float | None) -> dict[str, Any] | None:
    """Return the column `EXTRAS` of a lease: properties of its checkpoint that the KCL has no column for. None: there are none.

    The KCL leaves the column unchanged. So it names the checkpoint that it belongs to in `of`, and counts only for that one.
    """
    extras: dict[str, Any] = {}
    if position.timestamp is not None:
        extras["time"] = round(position.timestamp, EXTRAS_DIGITS)
    if idle_until is not None:
        extras["idle_until"] = round(idle_until, EXTRAS_DIGITS)
    return {"v": EXTRAS_VERSION, "of": _checkpoint_text(*_stored(position)), **extras} if extras else None


class _Columns:
    """Columns of one row, checked as they are read."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def refuse(self, name: str) -> NoReturn:
        found = self._row.values.get(name)
        cause = "is missing" if found is None else f"has an invalid value ({type(found).__name__})"
        raise LeaseStoreFailed(
            f"lease {self._row.key!r}: column {name!r} {cause}. The row is not one of a lease table, or was damaged"
        )

    def text(self, name: str) -> str | None:
        found = self._row.values.get(name)
        if found is not None and (not isinstance(found, str) or not found):
            self.refuse(name)
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._row.values.get(name)
        if found is None:
            return ()
        if not isinstance(found, frozenset):
            self.refuse(name)
        return tuple(sorted(found))

    def number(self, name: str) -> float | None:
        found = self._row.values.get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            self.refuse(name)
        return found

    def whole(self, name: str) -> int | None:
        found = self.number(name)
        if found is not None and found != int(found):
            self.refuse(name)
        return None if found is None else int(found)

    def required(self, name: str) -> int:
        found = self.whole(name)
        if found is None:
            self.refuse(name)
        return found

    def position(self, name: str) -> tuple[str, int]:
        text = self.text(name)
        if text is None or (text not in _SENTINELS and _SEQUENCE_NUMBER.fullmatch(text) is None):
            self.refuse(name)
        name = f"{name}SubSequenceNumber"
        subsequence = self.whole(name) or 0
        if not BEFORE_RECORD <= subsequence <= WHOLE_AGGREGATE:
            self.refuse(name)
        return text, subsequence

    def pending(self) -> Pending | None:
        if self._row.values.get("pendingCheckpoint") is None:
            return None
        checkpoint = _position(*self.position("pendingCheckpoint"), None)
        state = self._row.values.get("pendingCheckpointState")
        if isinstance(state, (int, float)):  # a KCL that creates a row writes bytes as a number
            state = str(state).encode()
        if state is not None and not isinstance(state, bytes):
            self.refuse("pendingCheckpointState")
        return Pending(checkpoint, state)

    def hash_key_range(self) -> HashKeyRange | None:
        low, high = self.text("startingHashKey"), self.text("endingHashKey")
        if low is None and high is None:
            return None
        if low is None or _HASH_KEY.fullmatch(low) is None:
            self.refuse("startingHashKey")
        if high is None or _HASH_KEY.fullmatch(high) is None:
            self.refuse("endingHashKey")
        return HashKeyRange(low, high)


def _stored(position: Position) -> tuple[str, int]:
    """Return the checkpoint's columns: the text, and the subsequence number after which reading continues."""
    if not position.is_number:
        return position.sequence_number, 0
    if position.subsequence_number is None:
        return position.sequence_number, WHOLE_AGGREGATE
    return position.sequence_number, position.subsequence_number - position.inclusive


def _position(text: str, subsequence: int, moment: float | None) -> Position:
    if text in _SENTINELS:
        return Position(text, timestamp=moment if text in ("LATEST", "AT_TIMESTAMP") else None)
    if subsequence == BEFORE_RECORD:
        return Position.at(text)
    return Position.after(text, None if subsequence == WHOLE_AGGREGATE else subsequence)


def _checkpoint_text(text: str, subsequence: int) -> str:
    return f"{text}/{subsequence}"


def _extras(values: Mapping[str, Value], text: str, subsequence: int) -> dict[str, Any]:
    """Return the extra properties of the current checkpoint. Those of an earlier checkpoint do not count."""
    found = values.get(EXTRAS)
    if not isinstance(found, dict) or found.get("v") != EXTRAS_VERSION:
        return {}
    return found if found.get("of") == _checkpoint_text(text, subsequence) else {}


def _time(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
