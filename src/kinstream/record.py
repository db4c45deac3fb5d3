"""Records as they are written and read, their results, and the enumerations of the reference contract."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from kinstream.errors import UsageError

Payload = TypeVar("Payload")
"""Type of the data of a record that was read."""

JSON: TypeAlias = Mapping[str, Any] | list[Any] | int | float | bool
"""Data that is written as JSON unless an encoder is given."""

Data: TypeAlias = bytes | bytearray | memoryview | str | JSON
"""Data of a record to write. Bytes-like data is written as it is, `str` as UTF-8, and everything else as JSON."""

Encoder: TypeAlias = Callable[[Any], str | bytes]
"""Returns data as the bytes to write, or as text that is written as UTF-8."""

NO_KEY = "kinstream-no-key"
"""Partition key, in the stream, of records that were put without one. Reserved: `put` refuses records with this key."""


class EncryptionType(StrEnum):
    """Server-side encryption of a stream's records."""

    NONE = "NONE"
    """The stream does not encrypt records."""
    KMS = "KMS"
    """The stream encrypts records with a KMS key."""

    @classmethod
    def _missing_(cls, value: object) -> EncryptionType | None:
        # A type that the service adds later must not stop reading. It becomes a member with its own name.
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


class ShardIteratorType(StrEnum):
    """Starting positions in a shard (API reference, `GetShardIterator`)."""

    AT_SEQUENCE_NUMBER = "AT_SEQUENCE_NUMBER"
    """At the record with this sequence number."""
    AFTER_SEQUENCE_NUMBER = "AFTER_SEQUENCE_NUMBER"
    """After the record with this sequence number."""
    AT_TIMESTAMP = "AT_TIMESTAMP"
    """At the first record that arrived at this time or later."""
    TRIM_HORIZON = "TRIM_HORIZON"
    """At the oldest record that the stream retains."""
    LATEST = "LATEST"
    """After the newest record."""


def json_text(data: Any) -> str:
    """Return `data` as compact JSON. The default encoder of `kinstream.callbacks`, which encodes `str` as JSON too.

    Raises:
        TypeError: A value in it is not JSON-compatible.
        ValueError: A number is NaN or infinite, which JSON cannot express.
    """
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_json_object)


def _json_object(value: Any) -> dict[Any, Any]:
    """Return a mapping that is not a dict as one. Raises TypeError."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def text_or_json(data: Any) -> str:
    """Return `str` unchanged and other data as compact JSON. The default encoder of `kinstream` and `kinstream.blocking`.

    Raises:
        TypeError: The data is None or a tuple, or a value in it is not JSON-compatible.
        ValueError: A number is NaN or infinite, which JSON cannot express.
    """
    if isinstance(data, str):
        return data
    if data is None:
        raise TypeError("use b'' for an empty record, or b'null' for null in JSON")
    if isinstance(data, tuple):
        raise TypeError("use a list for an array in JSON")
    return json_text(data)


DEFAULT_ENCODERS: tuple[Encoder, Encoder] = (text_or_json, json_text)
"""The encoders of this library. Their errors do not quote data."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record to write. Construction never raises. A record is checked when it is put.

    Args:
        data: Bytes-like data (`bytes`, `bytearray`, `memoryview`) is written as it is. Other data goes through the encoder.
        partition_key: 1 to 256 Unicode characters. Its MD5 selects the shard.
        explicit_hash_key: A decimal number below 2**128 that selects the shard instead of the partition key.
        prev_sequence_number: `put_record` writes this record with a greater sequence number than this one
            (`SequenceNumberForOrdering`). `put_records` ignores it, because PutRecords keeps no order.
        encoder: Returns `str` or `bytes` for data that is not bytes-like, `str` included. None: the producer's encoder. If the
            producer has none, `str` is written as UTF-8 and other data as JSON. In `kinstream.callbacks`, all of it is written
            as JSON, `str` included.

    Example:
        >>> Record({"temperature": 21}, "sensor-7")
        Record(data=<dict>, partition_key='sensor-7')
    """

    # The fields have their wire names, so that one call encodes a list of records without a dict for each.
    data: Any = msgspec.field(name="Data")
    partition_key: str = msgspec.field(name="PartitionKey")
    explicit_hash_key: str | None = msgspec.field(default=None, name="ExplicitHashKey")
    prev_sequence_number: str | None = None
    encoder: Encoder | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = [("data", _Hidden(self.data)), ("partition_key", self.partition_key)]
        return shown if self.explicit_hash_key is None else [*shown, ("explicit_hash_key", self.explicit_hash_key)]

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class Source:
    """Shard that a record was read from, in records that no consumer reads: they have no checkpoint.

    Attributes:
        shard_id: The shard.
        stream_name: Name of its stream. Empty: unknown.
    """

    __slots__ = ("shard_id", "stream_name")

    def __init__(self, shard_id: str, stream_name: str = "") -> None:
        self.shard_id: str = shard_id
        self.stream_name: str = stream_name

    def checkpoint(self, record: ReceivedRecord[bytes]) -> Awaitable[None]:
        """Refuse to checkpoint a record.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "checkpoint: no Consumer read this record, so there is no checkpoint to store: store its position yourself, as"
            " Position.after(record.sequence_number, record.subsequence_number or 0)"
        )

    def __eq__(self, other: object) -> bool:
        """Compare the shards only, so that records are equal regardless of their readers."""
        return self.shard_id == other.shard_id if isinstance(other, Source) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.shard_id)

    def __reduce__(self) -> tuple[type[Source], tuple[str, str]]:
        return Source, (self.shard_id, self.stream_name)


class ReceivedRecord(msgspec.Struct, Generic[Payload], frozen=True, gc=False):
    """A record that was read.

    Attributes:
        data: The record's bytes. In `kinstream.callbacks`, the parsed JSON unless the consumer has `is_blob`.
        sequence_number: Decimal text, unique in its shard and increasing.
        arrival_time: The time when Kinesis accepted the record, in seconds since 1970, with milliseconds.
        partition_key: The key that the record was put with, or None if it was put without one. `get_records` returns the key in
            the stream, which for such a record is "kinstream-no-key", or None on a stream that distributes records itself.
        encryption_type: The stream's encryption of the record. NONE if the response does not contain it.
        subsequence_number: Index of a user record in its aggregate. None if the record was not aggregated.
        origin: The shard that the record was read from, and its reader. None if `get_records` returned the record.
    """

    data: Payload = msgspec.field(name="Data")
    sequence_number: str = msgspec.field(name="SequenceNumber")
    arrival_time: float = msgspec.field(name="ApproximateArrivalTimestamp")
    partition_key: str | None = msgspec.field(default=None, name="PartitionKey")
    encryption_type: EncryptionType = msgspec.field(default=EncryptionType.NONE, name="EncryptionType")
    subsequence_number: int | None = msgspec.field(
        default=None, name=" subsequence_number"
    )  # with a blank, no response can set it
    # An Origin must not refer to records. With gc=False such a cycle would never be freed.
    origin: Any = msgspec.field(default=None, name=" origin")

    @property
    def shard_id(self) -> str:
        """ID of the shard that the record was read from. Empty if `get_records` returned the record.

        If the consumer reads several streams, it has the stream's name before it, such as "orders:shardId-000000000000".
        """
        return "" if self.origin is None else self.origin.shard_id

    @property
    def stream_name(self) -> str:
        """Name of the stream that the record was read from. Empty if `get_records` returned the record."""
        return "" if self.origin is None else self.origin.stream_name

    def checkpoint(self) -> Awaitable[None]:
        """Checkpoint this record: it and all records before it in its shard are completed, and reading resumes after it.

        Await it in a coroutine. In a thread, such as that of a handler that is a plain function, it returns once the checkpoint
        is stored. Checkpointing a record before the current checkpoint has no effect. If the lease store fails, the call is
        retried until the checkpoint is stored or the lease has expired.

        Raises:
            LeaseLost: Another consumer reads the shard now, or may: the lease has expired. The stored checkpoint is unchanged.
            UsageError: No running `Consumer` read the record.
            ClosedError: Reading has ended.
        """
        if self.origin is None:
            raise UsageError(
                "checkpoint: get_records read this record, so there is no checkpoint to store: continue with the next shard"
                " iterator, or read with a Consumer"
            )
        return self.origin.checkpoint(self)  # type: ignore[no-any-return]

    @property
    def timestamp(self) -> int:
        """`arrival_time` in whole seconds since 1970."""
        return int(self.arrival_time)

    def json(self: ReceivedRecord[bytes]) -> Any:
        """Return the data parsed as JSON.

        Raises:
            ValueError: The data is not JSON. The message does not quote the data.
        """
        return parse_json(self.data)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = [
            ("data", _Hidden(self.data)),
            ("partition_key", self.partition_key),
            ("sequence_number", self.sequence_number),
            ("arrival_time", self.arrival_time),
            ("encryption_type", self.encryption_type.value),
        ]
        if self.subsequence_number is not None:
            shown.insert(3, ("subsequence_number", self.subsequence_number))
        return shown

    def __repr__(self) -> str:
        return f"ReceivedRecord({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class PutRecordResult(msgspec.Struct, frozen=True, gc=False):
    """Result of writing one record by `put_record` or `put_records`.

    Attributes:
        sequence_number: The record's sequence number in its shard. None if the write failed.
        shard_id: The shard that stored the record. None if the write failed.
        error_code: The service's error code, such as "ProvisionedThroughputExceededException". None if the record was written.
        error_message: The service's error message. None if the record was written.
        attempts: Requests that were sent, including retries.
        maybe_duplicate: True if an earlier attempt of this call may have been written too.
    """

    sequence_number: str | None = msgspec.field(default=None, name="SequenceNumber")
    shard_id: str | None = msgspec.field(default=None, name="ShardId")
    error_code: str | None = msgspec.field(default=None, name="ErrorCode")
    error_message: str | None = msgspec.field(default=None, name="ErrorMessage")
    stream_encryption_type: EncryptionType = msgspec.field(default=EncryptionType.NONE, name="EncryptionType")
    attempts: int = msgspec.field(default=1, name=" attempts")  # with a blank, no response can set it
    maybe_duplicate: bool = msgspec.field(default=False, name=" maybe_duplicate")

    @property
    def encryption_type(self) -> EncryptionType | None:
        """The stream's encryption of the record. None if the write failed."""
        return None if self.error_code is not None else self.stream_encryption_type

    def __repr__(self) -> str:
        if self.error_code is not None:
            return f"PutRecordResult(error_code={self.error_code!r}, error_message={self.error_message!r})"
        again = f", attempts={self.attempts}, maybe_duplicate={self.maybe_duplicate}" if self.attempts > 1 else ""
        return f"PutRecordResult(shard_id={self.shard_id!r}, sequence_number={self.sequence_number!r}{again})"


class PutRecordsResult(msgspec.Struct, frozen=True):
    """Response to PutRecords.

    Attributes:
        results: One result for each record, in the order of the records.
        failed_record_count: Number of records that were not written.
        encryption_type: The stream's encryption of its records.
        attempts: Requests that were sent, including retries.
        maybe_duplicate: True if an earlier attempt of this call may have been written too.
    """

    results: list[PutRecordResult] = msgspec.field(name="Records")
    failed_record_count: int = msgspec.field(default=0, name="FailedRecordCount")
    encryption_type: EncryptionType = msgspec.field(default=EncryptionType.NONE, name="EncryptionType")
    attempts: int = msgspec.field(default=1, name=" attempts")
    maybe_duplicate: bool = msgspec.field(default=False, name=" maybe_duplicate")


class PutResult(msgspec.Struct, frozen=True, gc=False):
    """Result of a record that a producer's pipeline has written.

    Attributes:
        shard_id: The shard that stored the record.
        sequence_number: The record's sequence number in its shard. The records of one aggregate share it.
        subsequence_number: The record's index in its aggregate, or None if it was not aggregated. It is 0 for data that is itself
            an aggregate, which is sent in a container of one record.
        attempts: Requests that were sent with the record.
        maybe_duplicate: True if an earlier attempt may have been written too.
    """

    shard_id: str
    sequence_number: str
    subsequence_number: int | None = None
    attempts: int = 1
    maybe_duplicate: bool = False


class HashKeyRange(msgspec.Struct, frozen=True):
    """A range of hash keys, both ends included.

    Attributes:
        starting_hash_key: The lowest hash key, as decimal text.
        ending_hash_key: The highest hash key, as decimal text.
    """

    starting_hash_key: str = msgspec.field(name="StartingHashKey")
    ending_hash_key: str = msgspec.field(name="EndingHashKey")


class SequenceNumberRange(msgspec.Struct, frozen=True):
    """Range of the sequence numbers of a shard.

    Attributes:
        starting_sequence_number: The lowest sequence number.
        ending_sequence_number: The highest sequence number of a closed shard. None while the shard is open.
    """

    starting_sequence_number: str = msgspec.field(name="StartingSequenceNumber")
    ending_sequence_number: str | None = msgspec.field(default=None, name="EndingSequenceNumber")


class Shard(msgspec.Struct, frozen=True):
    """A shard of a stream, open or closed.

    Attributes:
        shard_id: The shard's ID, such as "shardId-000000000000".
        hash_key_range: Range of the hash keys that the shard stores, or stored before it was closed.
        sequence_number_range: Range of the shard's sequence numbers. Its end is set once the shard is closed.
        parent_shard_id: The shard that was split or merged into this one. None if there is none, or it has expired.
        adjacent_parent_shard_id: The other parent of a merged shard.
    """

    shard_id: str = msgspec.field(name="ShardId")
    hash_key_range: HashKeyRange = msgspec.field(name="HashKeyRange")
    sequence_number_range: SequenceNumberRange = msgspec.field(name="SequenceNumberRange")
    parent_shard_id: str | None = msgspec.field(default=None, name="ParentShardId")
    adjacent_parent_shard_id: str | None = msgspec.field(default=None, name="AdjacentParentShardId")

    @property
    def closed(self) -> bool:
        """True if the shard accepts no more records."""
        return self.sequence_number_range.ending_sequence_number is not None


class ChildShard(msgspec.Struct, frozen=True):
    """A shard in which reading continues after the end of its parents.

    Attributes:
        shard_id: The shard's ID.
        parent_shards: IDs of the parents: one after a split, two after a merge.
        hash_key_range: Range of the hash keys that the shard stores.
    """

    shard_id: str = msgspec.field(name="ShardId")
    parent_shards: list[str] = msgspec.field(name="ParentShards")
    hash_key_range: HashKeyRange = msgspec.field(name="HashKeyRange")


class ShardStatus(msgspec.Struct, frozen=True):
    """Progress of a consumer in one shard.

    Attributes:
        shard_id: The shard's ID. If the consumer reads several streams, with the name of its stream before it, such as
            "orders:shardId-000000000000".
        state: "WAITING" (for its parents, for its turn, or for its first response), "READING", "PAUSED", "ENDING" (the end of the
            shard was read, but records are not completed), "ENDED", "REACHED" (the time `until`), "STOPPED" (by an error),
            "RELEASING" (it finishes, and another worker continues), "RELEASED", or "LOST" (to another worker).
        position: The position up to which all records are completed, as text. None while the shard is waiting.
        lag: Maximum seconds between the last completed record and the shard's newest one: the lag that the last response
            reported plus the time since then. It grows during an outage, while the shard is paused, and while handlers are slower
            than records come. With everything read, it stays below the time between two responses. None: not known yet.
        unread_expires_in: Seconds until the stream's retention may drop records that are not completed. None if all records are
            completed, or the retention is not known.
        aggregates_dropped: Aggregates that did not belong to the shard.
        aggregates_damaged: Records with the KPL magic bytes that were not valid aggregates.
        last_error: Type and text of the last error that stopped the shard from being read or its checkpoint from being stored.
            None once the operation has succeeded again. A shard that is "STOPPED" or "LOST" keeps the error that ended it.
        last_success: Time of the last response, in seconds since 1970. None before the first response.
    """

    shard_id: str
    state: str
    position: str | None
    lag: float | None
    unread_expires_in: float | None
    aggregates_dropped: int
    aggregates_damaged: int
    last_error: str | None = None
    last_success: float | None = None


class PendingCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint that a worker of the Kinesis Client Library prepared and did not complete (its `prepareCheckpoint`).

    Attributes:
        sequence_number: Sequence number of the record up to which records would have been completed, or the name of a position.
        subsequence_number: Index of the user record in its aggregate.
        state: State that the application stored with it. None: none. Not part of `repr`.
    """

    sequence_number: str
    subsequence_number: int
    state: bytes | None = None

    def __repr__(self) -> str:
        return f"PendingCheckpoint({self.sequence_number!r}, {self.subsequence_number})"


class ShardAssignment(msgspec.Struct, frozen=True):
    """A shard that a worker reads, for a `ShardListener`.

    Attributes:
        shard_id: The shard's ID.
        position: The position after its completed records, as text.
        successor: ID of the worker that continues after this one. None: unknown, or the shard was just assigned.
        pending: A checkpoint that another worker prepared and did not complete. The first checkpoint removes it. None: none.
    """

    shard_id: str
    position: str
    successor: str | None = None
    pending: PendingCheckpoint | None = None


class Handoff(msgspec.Struct, frozen=True):
    """A lease that one worker is releasing to another.

    Attributes:
        shard_id: The shard's ID.
        owner: ID of the worker that still reads it.
        successor: ID of the worker that will read it.
        seconds: Seconds since this worker first saw the handoff.
    """

    shard_id: str
    owner: str
    successor: str
    seconds: float


class FleetStatus(msgspec.Struct, frozen=True):
    """The workers that share a stream, as this worker last saw them.

    Attributes:
        worker_id: ID of this worker.
        mode: "3X" (one table), "3X_TABLES" (three tables), "UPGRADE_FROM_2X" or "2X": the protocol of the application's workers.
            "UNDECIDED" while a KCL worker creates the application, "UNKNOWN" until the leases were read.
        leader: ID of the worker that assigns leases. None: none is known, or the mode has none.
        owners: IDs of the shards that each worker holds, by the worker's ID. Completed shards are left out.
        handoffs: Handoffs in progress.
        unowned: Seconds for which no worker has held a shard, by the shard's ID.
        notes: Facts that limit this view, such as members of the Kinesis Client Library that publish no metrics.
        last_scan: Seconds since the leases were last read completely. None: not yet.
        last_error: Last error of the lease store while it fails. None: it works.
    """

    worker_id: str
    mode: str
    leader: str | None
    owners: dict[str, list[str]]
    handoffs: list[Handoff]
    unowned: dict[str, float]
    notes: list[str]
    last_scan: float | None
    last_error: str | None = None


class ConsumerStatus(list[ShardStatus]):
    """Status of a consumer: a list of the shards that it reads, and the workers that share the stream.

    Args:
        shards: Status of each shard, sorted by ID.
        fleet: The workers that share the stream.

    Attributes:
        fleet: The workers that share the stream. None: the consumer has no `application`, or is not reading.
    """

    def __init__(self, shards: Iterable[ShardStatus] = (), fleet: FleetStatus | None = None) -> None:
        super().__init__(shards)
        self.fleet: FleetStatus | None = fleet


class GetRecordsResult(msgspec.Struct, Generic[Payload], frozen=True):
    """Response to GetRecords.

    Attributes:
        records: The records in the order of their sequence numbers. May be empty even if more follow.
        millis_behind_latest: Milliseconds between the response and the shard's newest record.
        next_shard_iterator: The iterator for the next call. None at the end of a closed shard.
        child_shards: At the end of a closed shard, the shards in which reading continues.
    """

    records: list[ReceivedRecord[Payload]] = msgspec.field(name="Records")
    millis_behind_latest: int = msgspec.field(name="MillisBehindLatest")
    next_shard_iterator: str | None = msgspec.field(default=None, name="NextShardIterator")
    child_shards: list[ChildShard] = msgspec.field(default_factory=list, name="ChildShards")


class SubscribeToShardEvent(msgspec.Struct, Generic[Payload], frozen=True):
    """One event of a subscription to a shard.

    Attributes:
        records: The records in the order of their sequence numbers. Empty in the events that keep an idle subscription alive.
        continuation_sequence_number: The sequence number after which a new subscription continues, even if `records` is empty.
            None at the end of a closed shard.
        millis_behind_latest: Milliseconds between the event and the shard's newest record. None if the event does not say.
        child_shards: At the end of a closed shard, the shards in which reading continues.
    """

    records: list[ReceivedRecord[Payload]] = msgspec.field(name="Records")
    continuation_sequence_number: str | None = msgspec.field(default=None, name="ContinuationSequenceNumber")
    millis_behind_latest: int | None = msgspec.field(default=None, name="MillisBehindLatest")
    child_shards: list[ChildShard] = msgspec.field(default_factory=list, name="ChildShards")


def parse_json(data: bytes | str) -> Any:
    """Return `data` parsed as JSON (RFC 8259: UTF-8, no NaN).

    Raises:
        ValueError: The data is not JSON. The message has the position of the error and does not quote the data.
    """
    try:
        return json.loads(data.decode() if isinstance(data, bytes) else data, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        # The decoder's own exception contains the whole document.
        message = f"not JSON: {error.msg} at character {error.pos}"
    except UnicodeDecodeError as error:
        message = f"not JSON: not UTF-8 at byte {error.start}"
    except RecursionError:
        message = "not JSON that can be parsed: nested too deeply"
    except ValueError as error:  # NaN, or a number with more digits than Python parses
        message = f"not JSON that can be parsed: {error}"
    del data  # error trackers show the variables of a traceback's frames
    raise ValueError(message)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


class _Hidden:
    """Placeholder for data in a repr: its type and size, never its content."""

    def __init__(self, data: Any) -> None:
        self.text = (
            f"<{len(data)} bytes>" if isinstance(data, (bytes, bytearray, memoryview)) else f"<{type(data).__name__}>"
        )

    def __repr__(self) -> str:
        return self.text
