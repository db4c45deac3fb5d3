"""What an observer may see: one frozen class for each kind of event. No event holds a record's data or key.

An observer is a function of one event. It runs on the event loop and must be quick; what it raises harms nobody. Events tell of
requests, aggregates, batches and shards, never of each record that goes well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec


class Event(msgspec.Struct, frozen=True):
    """What all events are."""


Observer: TypeAlias = Callable[[Event], object]
"""Sees events; what it returns is not looked at."""


class ShardStarted(Event, frozen=True):
    """A shard is read from now on: its first answer came. Also where it begins at LATEST, what is written from now on is read.

    Attributes:
        shard_id: The shard.
        position: From where, as text.
    """

    shard_id: str
    position: str


class ShardEnded(Event, frozen=True):
    """All of a closed shard was read and handled.

    Attributes:
        shard_id: The shard.
        children: The shards in which reading goes on, as far as they are known yet.
    """

    shard_id: str
    children: tuple[str, ...]


class ShardSkipped(Event, frozen=True):
    """A shard's records were trimmed before it was read to its end: reading goes on in its children.

    Attributes:
        shard_id: The shard.
    """

    shard_id: str


class RecordsExpired(Event, frozen=True):
    """Retention took records before they were read: they are lost to this application.

    Attributes:
        shard_id: The shard.
        checkpoint: The position up to which records are done, as text.
        resumed_at: The position at which reading resumes, as text: the first record that is still there, or TRIM_HORIZON if there
            is none now; also in the children of a shard that is gone.
        certain: True if the shard is gone with its records. False if records may have been lost: the record of the checkpoint is
            not there any more, or the last record that was read is older than the retention.
    """

    shard_id: str
    checkpoint: str
    resumed_at: str
    certain: bool


class StartShardNotFound(Event, frozen=True):
    """The start names a shard that the stream does not have now: it is gone, or is not there yet, or was never.

    Attributes:
        shard_id: The shard.
    """

    shard_id: str


class HandlerFailed(Event, frozen=True):
    """A record whose handler failed for the last time.

    Attributes:
        shard_id: The shard.
        sequence_number: The record's.
        subsequence_number: Its index in its aggregate; None where it came alone.
        error: What was raised.
        attempts: How often the handler had it.
        outcome: What became of it: "stopped", "skipped" or "dead-lettered".
    """

    shard_id: str
    sequence_number: str
    subsequence_number: int | None
    error: BaseException
    attempts: int
    outcome: str


class MisroutedAggregateDropped(Event, frozen=True):
    """An aggregate with a record outside the shard's hash-key range was dropped whole: its producer sends it again.

    Attributes:
        shard_id: The shard.
        sequence_number: The aggregate's.
        records: How many records were in it.
    """

    shard_id: str
    sequence_number: str
    records: int


class AggregateDamaged(Event, frozen=True):
    """A record that begins as an aggregate but is none was passed on as a plain record.

    Attributes:
        shard_id: The shard.
        sequence_number: The record's.
        reason: What is wrong with it.
    """

    shard_id: str
    sequence_number: str
    reason: str


class ShardStalled(Event, frozen=True):
    """A shard made no progress while its lag grew; it is read anew from the last record that was handed on.

    Attributes:
        shard_id: The shard.
        seconds: For how long.
    """

    shard_id: str
    seconds: float


class FetchFailed(Event, frozen=True):
    """Reading a shard failed. It is retried after a delay.

    Attributes:
        shard_id: The shard.
        error: What was raised.
        delay: Seconds until the next attempt.
        operation: The operation that failed: "GetRecords" or "SubscribeToShard".
    """

    shard_id: str
    error: BaseException
    delay: float
    operation: str = "GetRecords"


class ConsumerRegistered(Event, frozen=True):
    """A consumer was registered with the stream, for enhanced fan-out.

    Attributes:
        consumer_name: Its name.
        consumer_arn: Its ARN.
    """

    consumer_name: str
    consumer_arn: str


class Subscribed(Event, frozen=True):
    """A shard is read by enhanced fan-out from now on.

    Attributes:
        shard_id: The shard.
    """

    shard_id: str


class Resubscribed(Event, frozen=True):
    """A subscription has ended, and another goes on where it ended.

    Attributes:
        shard_id: The shard.
        gap: Seconds between the two.
        error: Why the old one ended; None: it had its five minutes.
    """

    shard_id: str
    gap: float
    error: BaseException | None


class DiscoveryFailed(Event, frozen=True):
    """The stream's shards could not be listed; it is tried again.

    Attributes:
        error: What was raised.
    """

    error: BaseException


class CheckpointFailed(Event, frozen=True):
    """A checkpoint could not be written, or a lease not be taken; it is tried again.

    Attributes:
        shard_id: The shard; "" if the leases of all shards could not be read.
        error: What was raised.
        operation: The operation that failed: "checkpoint"; "lease" when the shard's lease was to be taken; "leases" when the
            leases of all shards were to be read.
    """

    shard_id: str
    error: BaseException
    operation: str = "checkpoint"


class ShardLeaseLost(Event, frozen=True):
    """Somebody else reads the shard now.

    Attributes:
        shard_id: The shard.
    """

    shard_id: str


class RecordsBuffered(Event, frozen=True):
    """Records were taken into a producer's buffer.

    Attributes:
        records: How many, since the last such event.
        size: Their bytes, partition keys included.
    """

    records: int
    size: int


class RecordsAggregated(Event, frozen=True):
    """Records were packed into one aggregated record.

    Attributes:
        shard_id: The shard that it is meant for.
        records: How many.
        size: Bytes of the aggregated record.
    """

    shard_id: str
    records: int
    size: int


class ShardPaced(Event, frozen=True):
    """A shard has had what its pace allows; its records wait.

    Attributes:
        shard_id: The shard.
        seconds: For how long.
        share: The part of the pace's bounds that is used: less than 1 after the shard refused records.
    """

    shard_id: str
    seconds: float
    share: float


class ShardLimitedByRecords(Event, frozen=True):
    """A shard has been limited by its number of records, not by bytes, for 5 seconds; aggregation would raise its throughput.

    It is sent once for each producer, and only if `aggregate` is None.

    Attributes:
        shard_id: The shard.
        factor: How many times more records of this size the shard would accept with `aggregate=Aggregation()`.
    """

    shard_id: str
    factor: float


class RequestSent(Event, frozen=True):
    """A PutRecords request goes out.

    Attributes:
        entries: Kinesis records in it.
        records: User records in it.
        size: Bytes of data and partition keys.
    """

    entries: int
    records: int
    size: int


class RequestCompleted(Event, frozen=True):
    """A PutRecords request has ended.

    Attributes:
        seconds: How long it took.
        written: User records that were written by it.
        retried: Kinesis records that are sent again.
        failed: User records that failed for good.
        error: What became of the request as a whole, as an error's name; None where it was answered.
    """

    seconds: float
    written: int
    retried: int
    failed: int
    error: str | None


class RecordsRetried(Event, frozen=True):
    """Kinesis records are sent again.

    Attributes:
        shard_id: The shard that they were meant for; None where that was not known.
        entries: How many.
        reason: "throttled", "failed", "unknown" (they may have been written) or "wrong shard".
    """

    shard_id: str | None
    entries: int
    reason: str


class MisroutedAggregateAccepted(Event, frozen=True):
    """An aggregate that another shard took than was meant turned out to be well there, after its request had settled.

    Attributes:
        shard_id: The shard that has it.
        records: How many of its records are written; no `RequestCompleted` counts them.
    """

    shard_id: str
    records: int


class RecordsFailed(Event, frozen=True):
    """Records failed for good.

    Attributes:
        records: How many.
        awaited: How many of them somebody waits for.
        error: Why, as an error's name.
        details: Why, for people.
    """

    records: int
    awaited: int
    error: str
    details: str


class ShardMapRefreshed(Event, frozen=True):
    """The shard map was read anew.

    Attributes:
        open_shards: How many shards take records now.
        changed: Whether they are others than before.
    """

    open_shards: int
    changed: bool


class AggregationDisabled(Event, frozen=True):
    """Records are not aggregated, though the producer may: no shard can be told beforehand.

    Attributes:
        reason: Why, for people.
    """

    reason: str


class FellBackToPolling(Event, frozen=True):
    """Enhanced fan-out was refused: the stream's shards are read by polling from now on.

    Attributes:
        error: Why.
    """

    error: BaseException
