"""Records as they are written and read, their results, and the enumerations of the reference contract."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from kinstream.errors import UsageError

Data = TypeVar("Data")
Encoder: TypeAlias = Callable[[Any], str | bytes]
"""Turns a record's data into what is written: UTF-8 text as `str`, or `bytes`."""

NO_KEY = "kinstream-no-key"
"""The partition key in the stream of records that were put without one. Reserved: no record may be put with it."""


class EncryptionType(StrEnum):
    """How Kinesis keeps a record on its disks."""

    NONE = "NONE"
    """Not encrypted by the stream."""
    KMS = "KMS"
    """Encrypted on the server's side with a customer-managed KMS key."""

    @classmethod
    def _missing_(cls, value: object) -> EncryptionType | None:
        # A kind that the service learns later must not stop the reading of a shard: it is handed on by its name.
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


class ShardIteratorType(StrEnum):
    """Where in a shard reading starts (API reference, `GetShardIterator`)."""

    AT_SEQUENCE_NUMBER = "AT_SEQUENCE_NUMBER"
    """At the record with this sequence number."""
    AFTER_SEQUENCE_NUMBER = "AFTER_SEQUENCE_NUMBER"
    """Right after the record with this sequence number."""
    AT_TIMESTAMP = "AT_TIMESTAMP"
    """At the first record that arrived at this time or later."""
    TRIM_HORIZON = "TRIM_HORIZON"
    """At the oldest record that the stream still keeps."""
    LATEST = "LATEST"
    """Right after the newest record."""


def json_text(data: Any) -> str:
    """Return `data` as compact JSON; the default encoder of a record.

    Raises:
        TypeError, ValueError: It is not JSON-compatible. NaN and infinities are refused: JSON has none.
    """
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record to write. Construction never raises: a record is checked when it is put.

    Args:
        data: `bytes`, `bytearray` or `memoryview` are written as they are, whatever the encoder; anything else goes through
            the encoder.
        partition_key: 1 to 256 Unicode characters; its MD5 chooses the shard.
        explicit_hash_key: A decimal number below 2**128 that chooses the shard in the partition key's place.
        prev_sequence_number: `put_record` gives this record a greater sequence number than this one
            (`SequenceNumberForOrdering`). `put_records` ignores it: PutRecords keeps no order.
        encoder: Makes `str` or `bytes` of data that is not bytes-like; JSON when None.

    Example:
        >>> Record({"temperature": 21}, "sensor-7")
        Record(data=<dict>, partition_key='sensor-7')
    """

    # The fields bear their wire names so that a list of records is encoded in one call, with no dict for each.
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


class ReceivedRecord(msgspec.Struct, Generic[Data], frozen=True, gc=False):
    """A record that was read.

    Attributes:
        data: The record's bytes; in `kinstream.callbacks` the parsed JSON, unless the consumer has `is_blob`.
        sequence_number: Decimal text, unique in its shard and increasing.
        arrival_time: When Kinesis took the record, in seconds since 1970, to the millisecond.
        partition_key: As written; None if the record was put without one. `get_records` shows the key in the stream: for such a
            record "kinstream-no-key", or None on a stream that distributes records itself.
        encryption_type: NONE where the answer names none.
        subsequence_number: The index of a user record in its aggregate; None where it came alone.
        origin: The reading that it came from; None where it was read by `get_records`.
    """

    data: Data = msgspec.field(name="Data")
    sequence_number: str = msgspec.field(name="SequenceNumber")
    arrival_time: float = msgspec.field(name="ApproximateArrivalTimestamp")
    partition_key: str | None = msgspec.field(default=None, name="PartitionKey")
    encryption_type: EncryptionType = msgspec.field(default=EncryptionType.NONE, name="EncryptionType")
    subsequence_number: int | None = msgspec.field(
        default=None, name=" subsequence_number"
    )  # a blank: no answer can set it
    # Whatever an Origin is made of must not lead back to records: with gc=False such a circle would never be freed.
    origin: Any = msgspec.field(default=None, name=" origin")

    @property
    def shard_id(self) -> str:
        """The shard that it was read from; empty where it was read by `get_records`, whose caller knows."""
        return "" if self.origin is None else self.origin.shard_id

    def checkpoint(self) -> Awaitable[None]:
        """Say that this record and all before it in its shard are done: reading starts after it the next time.

        `await` it in a coroutine. In a thread, such as a handler's that is a plain function, it returns when that is written
        down. A record before one that was said already changes nothing.

        Raises:
            LeaseLost: Somebody else reads the shard now; nothing was changed.
            UsageError: No running `Consumer` read the record.
            KinesisError: The store failed.
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
            ValueError: It is not JSON. The message has no part of the data.
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
    """What Kinesis says of one record that was put.

    Attributes:
        sequence_number: The record's number in its shard; None if the write failed.
        shard_id: The shard that took it; None if the write failed.
        error_code: Why the write failed, such as "ProvisionedThroughputExceededException"; None if it did not.
        error_message: The same for people.
        attempts: Requests that were sent, retries included.
        maybe_duplicate: True where an earlier attempt of this call may have been written too.
    """

    sequence_number: str | None = msgspec.field(default=None, name="SequenceNumber")
    shard_id: str | None = msgspec.field(default=None, name="ShardId")
    error_code: str | None = msgspec.field(default=None, name="ErrorCode")
    error_message: str | None = msgspec.field(default=None, name="ErrorMessage")
    stream_encryption_type: EncryptionType = msgspec.field(default=EncryptionType.NONE, name="EncryptionType")
    attempts: int = msgspec.field(default=1, name=" attempts")  # a blank: no answer can set it
    maybe_duplicate: bool = msgspec.field(default=False, name=" maybe_duplicate")

    @property
    def encryption_type(self) -> EncryptionType | None:
        """How the record is kept; None if the write failed."""
        return None if self.error_code is not None else self.stream_encryption_type

    def __repr__(self) -> str:
        if self.error_code is not None:
            return f"PutRecordResult(error_code={self.error_code!r}, error_message={self.error_message!r})"
        again = f", attempts={self.attempts}, maybe_duplicate={self.maybe_duplicate}" if self.attempts > 1 else ""
        return f"PutRecordResult(shard_id={self.shard_id!r}, sequence_number={self.sequence_number!r}{again})"


class PutRecordsResult(msgspec.Struct, frozen=True):
    """The answer to PutRecords.

    Attributes:
        results: One for each record, in the order of the records.
        failed_record_count: How many of them were not written.
        encryption_type: How the stream keeps its records.
        attempts: Requests that were sent, retries included.
        maybe_duplicate: True where an earlier attempt of this call may have been written too.
    """

    results: list[PutRecordResult] = msgspec.field(name="Records")
    failed_record_count: int = msgspec.field(default=0, name="FailedRecordCount")
    encryption_type: EncryptionType = msgspec.field(default=EncryptionType.NONE, name="EncryptionType")
    attempts: int = msgspec.field(default=1, name=" attempts")
    maybe_duplicate: bool = msgspec.field(default=False, name=" maybe_duplicate")


class PutResult(msgspec.Struct, frozen=True, gc=False):
    """Where a record is that was put through a producer's pipeline.

    Attributes:
        shard_id: The shard that took it.
        sequence_number: Its number there; the records of one aggregate share it.
        subsequence_number: Its index in its aggregate; None if it was sent alone. Data that is itself an aggregate is sent in a
            container of one record, so that it is 0.
        attempts: Requests that were sent with it.
        maybe_duplicate: True where an earlier attempt may have been written too.
    """

    shard_id: str
    sequence_number: str
    subsequence_number: int | None = None
    attempts: int = 1
    maybe_duplicate: bool = False


class HashKeyRange(msgspec.Struct, frozen=True):
    """A range of hash keys, both ends included.

    Attributes:
        starting_hash_key: The lowest, as decimal text.
        ending_hash_key: The highest, as decimal text.
    """

    starting_hash_key: str = msgspec.field(name="StartingHashKey")
    ending_hash_key: str = msgspec.field(name="EndingHashKey")


class SequenceNumberRange(msgspec.Struct, frozen=True):
    """The sequence numbers of a shard.

    Attributes:
        starting_sequence_number: The lowest.
        ending_sequence_number: The highest, once the shard is closed; None while it is open.
    """

    starting_sequence_number: str = msgspec.field(name="StartingSequenceNumber")
    ending_sequence_number: str | None = msgspec.field(default=None, name="EndingSequenceNumber")


class Shard(msgspec.Struct, frozen=True):
    """A shard of a stream, open or closed.

    Attributes:
        shard_id: Its id, such as "shardId-000000000000".
        hash_key_range: The hash keys that it takes, or took.
        sequence_number_range: Its sequence numbers; the end is set once it is closed.
        parent_shard_id: The shard that it came from by a split or a merge.
        adjacent_parent_shard_id: The other parent of a merge.
    """

    shard_id: str = msgspec.field(name="ShardId")
    hash_key_range: HashKeyRange = msgspec.field(name="HashKeyRange")
    sequence_number_range: SequenceNumberRange = msgspec.field(name="SequenceNumberRange")
    parent_shard_id: str | None = msgspec.field(default=None, name="ParentShardId")
    adjacent_parent_shard_id: str | None = msgspec.field(default=None, name="AdjacentParentShardId")

    @property
    def closed(self) -> bool:
        """Whether the shard takes no more records."""
        return self.sequence_number_range.ending_sequence_number is not None


class ChildShard(msgspec.Struct, frozen=True):
    """A shard in which reading goes on after the end of its parents.

    Attributes:
        shard_id: Its id.
        parent_shards: One id after a split, two after a merge.
        hash_key_range: The hash keys that it takes.
    """

    shard_id: str = msgspec.field(name="ShardId")
    parent_shards: list[str] = msgspec.field(name="ParentShards")
    hash_key_range: HashKeyRange = msgspec.field(name="HashKeyRange")


class ShardStatus(msgspec.Struct, frozen=True):
    """Where the reading of a shard stands.

    Attributes:
        shard_id: The shard.
        state: "WAITING" (for its parents, to be allowed, or for its first answer), "READING", "PAUSED", "ENDING" (its end was
            read, not all is done), "ENDED", "REACHED" (up to `until`), "STOPPED" (it cannot be read on), or "LOST" (to another
            reader).
        position: After which record all is done, as text; None while it waits.
        lag: Maximum seconds between the last completed record and the shard's newest one: the lag that the last response
            reported plus the time since then. It grows during an outage, while the shard is paused, and while handlers are slower
            than records come. With everything read, it stays below the time between two responses. None: not known yet.
        unread_expires_in: Seconds until the stream may begin to drop records that are not done yet; None: all is done, or the
            stream's retention is not known.
        aggregates_dropped: Aggregates that did not belong to the shard.
        aggregates_damaged: Records that begin as an aggregate but are none.
        last_error: Why the shard is not read now, or its checkpoint not written: the type and text of the last error. None once
            the operation has succeeded again. A shard that is "STOPPED" or "LOST" keeps the error that ended it.
        last_success: When the last response came, in seconds since 1970; None before the first.
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


class GetRecordsResult(msgspec.Struct, Generic[Data], frozen=True):
    """The answer to GetRecords.

    Attributes:
        records: In the order of their sequence numbers; may be empty though more follow.
        millis_behind_latest: How far the answer is from the shard's newest record, in milliseconds.
        next_shard_iterator: Where the next call goes on; None at the end of a closed shard.
        child_shards: At the end of a closed shard, the shards in which reading goes on.
    """

    records: list[ReceivedRecord[Data]] = msgspec.field(name="Records")
    millis_behind_latest: int = msgspec.field(name="MillisBehindLatest")
    next_shard_iterator: str | None = msgspec.field(default=None, name="NextShardIterator")
    child_shards: list[ChildShard] = msgspec.field(default_factory=list, name="ChildShards")


class SubscribeToShardEvent(msgspec.Struct, Generic[Data], frozen=True):
    """One event of a subscription to a shard.

    Attributes:
        records: In the order of their sequence numbers; empty now and then, to say that the subscription is alive.
        continuation_sequence_number: After what a new subscription goes on, also where `records` is empty; None at the end of a
            closed shard.
        millis_behind_latest: How far the event is from the shard's newest record, in milliseconds; None: not said.
        child_shards: At the end of a closed shard, the shards in which reading goes on.
    """

    records: list[ReceivedRecord[Data]] = msgspec.field(name="Records")
    continuation_sequence_number: str | None = msgspec.field(default=None, name="ContinuationSequenceNumber")
    millis_behind_latest: int | None = msgspec.field(default=None, name="MillisBehindLatest")
    child_shards: list[ChildShard] = msgspec.field(default_factory=list, name="ChildShards")


def parse_json(data: bytes | str) -> Any:
    """Return `data` parsed as JSON (RFC 8259: UTF-8, no NaN).

    Raises:
        ValueError: It is not JSON. The message names the place, never the data.
    """
    try:
        return json.loads(data.decode() if isinstance(data, bytes) else data, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        # The decoder's own exception carries the whole document.
        message = f"not JSON: {error.msg} at character {error.pos}"
    except UnicodeDecodeError as error:
        message = f"not JSON: not UTF-8 at byte {error.start}"
    except RecursionError:
        message = "not JSON that can be read: nested too deep"
    except ValueError as error:  # NaN, or a number of more digits than Python reads
        message = f"not JSON that can be read: {error}"
    del data  # error trackers show the variables of a traceback's frames
    raise ValueError(message)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


class _Hidden:
    """Stands for data in a repr: its kind and size, never its content."""

    def __init__(self, data: Any) -> None:
        self.text = (
            f"<{len(data)} bytes>" if isinstance(data, (bytes, bytearray, memoryview)) else f"<{type(data).__name__}>"
        )

    def __repr__(self) -> str:
        return self.text
