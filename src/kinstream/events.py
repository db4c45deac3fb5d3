"""Events that an observer receives: one frozen class for each kind.

An observer is a function of one event. It runs on the event loop and must return quickly. Its exceptions are logged once and
never propagate. Events report requests, aggregates, batches and shards, never each record that succeeds.

No event contains a record's data or partition key. An `error` is the exception without its traceback, its records and its
`http_response`, and so are its causes. It is never a ProduceError but the cause of that. The text of an exception that a handler
raised is the application's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Base class of all events."""


Observer: TypeAlias = Callable[[Event], object]
"""Receives events. Its return value is ignored."""


class ShardStarted(Event, frozen=True):
    """Reading of a shard has begun: its first response has arrived. From LATEST, all records written from now on are read.

    Attributes:
        shard_id: ID of the shard.
        position: Start position, as text.
    """

    shard_id: str
    position: str


class ShardEnded(Event, frozen=True):
    """All records of a closed shard were read and handled.

    Attributes:
        shard_id: ID of the shard.
        children: IDs of the child shards in which reading continues, as far as they are known yet.
    """

    shard_id: str
    children: tuple[str, ...]


class ShardSkipped(Event, frozen=True):
    """The records of a shard expired before the shard was read to its end. Reading continues in its child shards.

    Attributes:
        shard_id: ID of the shard.
    """

    shard_id: str


class RecordsExpired(Event, frozen=True):
    """Records expired before they were read, because the retention period has passed. This application has lost them.

    Attributes:
        shard_id: ID of the shard.
        checkpoint: The position up to which records are completed, as text.
        resumed_at: The position at which reading resumes, as text: the first record that still exists, or TRIM_HORIZON if there
            is none now. It applies to the child shards if the shard no longer exists.
        certain: True if the shard no longer exists and neither do its records. False if records may have been lost, because the
            record of the checkpoint has expired or the last record that was read is older than the retention period.
    """

    shard_id: str
    checkpoint: str
    resumed_at: str
    certain: bool


class StartShardNotFound(Event, frozen=True):
    """The stream has no shard with an ID that `start` names. The shard was deleted, does not exist yet, or never existed.

    Attributes:
        shard_id: ID of the shard.
    """

    shard_id: str


class HandlerFailed(Event, frozen=True):
    """The last attempt of a handler on a record failed.

    Attributes:
        shard_id: ID of the shard.
        sequence_number: Sequence number of the record.
        subsequence_number: Index of the record in its aggregate. None for a plain record.
        error: The exception of the handler, or of the dead letter if that failed too.
        attempts: Number of calls of the handler with the record.
        outcome: "stopped", "skipped" or "dead-lettered".
    """

    shard_id: str
    sequence_number: str
    subsequence_number: int | None
    error: BaseException
    attempts: int
    outcome: str


class MisroutedAggregateDropped(Event, frozen=True):
    """An aggregate with a record outside the shard's hash key range was dropped. Its producer retries all of its records.

    Attributes:
        shard_id: ID of the shard.
        sequence_number: Sequence number of the aggregate.
        records: Number of records in the aggregate.
    """

    shard_id: str
    sequence_number: str
    records: int


class AggregateDamaged(Event, frozen=True):
    """A record with the KPL magic bytes was not a valid aggregate and was delivered as a plain record.

    Attributes:
        shard_id: ID of the shard.
        sequence_number: Sequence number of the record.
        reason: The check that failed, as text.
    """

    shard_id: str
    sequence_number: str
    reason: str


class ShardStalled(Event, frozen=True):
    """A shard made no progress while its lag grew. It is read again from the last record that was delivered.

    Attributes:
        shard_id: ID of the shard.
        seconds: Seconds without progress.
    """

    shard_id: str
    seconds: float


class FetchFailed(Event, frozen=True):
    """A request for the records of a shard failed. It is retried after a delay.

    Attributes:
        shard_id: ID of the shard.
        error: The error of the request.
        delay: Seconds until the next attempt.
        operation: The operation that failed: "GetRecords", also for a failed GetShardIterator, or "SubscribeToShard".
    """

    shard_id: str
    error: BaseException
    delay: float
    operation: str = "GetRecords"


class ConsumerRegistered(Event, frozen=True):
    """A consumer was registered with the stream for enhanced fan-out.

    Attributes:
        consumer_name: Name of the consumer.
        consumer_arn: ARN of the consumer.
    """

    consumer_name: str
    consumer_arn: str


class Subscribed(Event, frozen=True):
    """Reading of a shard by enhanced fan-out has begun.

    Attributes:
        shard_id: ID of the shard.
    """

    shard_id: str


class Resubscribed(Event, frozen=True):
    """A subscription ended, and another one continues at its last record.

    Attributes:
        shard_id: ID of the shard.
        gap: Seconds between the end of the first and the start of the second subscription.
        error: The error that ended the first one. None if it expired after five minutes.
    """

    shard_id: str
    gap: float
    error: BaseException | None


class DiscoveryFailed(Event, frozen=True):
    """Listing the shards of the stream failed. It is retried.

    Attributes:
        error: The error of the request.
        stream_name: Name of the stream.
    """

    error: BaseException
    stream_name: str = ""


class CheckpointFailed(Event, frozen=True):
    """An operation of the lease store failed. It is retried.

    Attributes:
        shard_id: ID of the shard, or "" if the operation is not about the shard that this worker reads.
        error: The error of the store.
        operation: The operation that failed: "checkpoint" or "lease" (renewing the lease of the shard). Without a shard: "open"
            (opening or creating the table of leases), "leases" (reading it), "worker" (announcing this worker), "leader" (writing
            the lock of the leader), "assign" (creating, taking or assigning leases) or "shards" (finding shards without a lease).
    """

    shard_id: str
    error: BaseException
    operation: str = "checkpoint"


class ShardAssigned(Event, frozen=True):
    """This worker holds the lease of a shard, and begins to read it.

    Attributes:
        shard_id: ID of the shard.
        position: Its stored checkpoint or start position, as text.
    """

    shard_id: str
    position: str


class ShardRevoked(Event, frozen=True):
    """This worker is to finish a shard, so that another worker continues.

    Attributes:
        shard_id: ID of the shard.
        successor: ID of the worker that continues. None: unknown.
    """

    shard_id: str
    successor: str | None


class LeaderChanged(Event, frozen=True):
    """Another worker assigns the leases of the application from now on.

    Attributes:
        leader: ID of the worker. None: no worker leads now.
    """

    leader: str | None


class ShardReleased(Event, frozen=True):
    """This worker has finished a shard after `ShardRevoked`, and has stored its checkpoint.

    Attributes:
        shard_id: ID of the shard.
        position: The checkpoint, as text.
    """

    shard_id: str
    position: str


class ShardLeaseLost(Event, frozen=True):
    """The lease of a shard was lost: another worker reads it now, or it expired because it could not be renewed.

    Handlers of its records are cancelled, and nothing more of it is checkpointed here.

    Attributes:
        shard_id: ID of the shard.
    """

    shard_id: str


class RecordsBuffered(Event, frozen=True):
    """Records were added to the buffer of a producer.

    Attributes:
        records: Number of records since the last such event.
        size: Their size in bytes, including partition keys.
    """

    records: int
    size: int


class RecordsAggregated(Event, frozen=True):
    """Records were packed into one aggregated record.

    Attributes:
        shard_id: ID of the shard to which the aggregated record is addressed.
        records: Number of records in it.
        size: Bytes of the aggregated record.
    """

    shard_id: str
    records: int
    size: int


class ShardPaced(Event, frozen=True):
    """The rate limit of a shard is reached. Its records are queued.

    Attributes:
        shard_id: ID of the shard.
        seconds: Seconds until the rate limit permits the next record.
        share: The part of the configured rate limits that is used. Less than 1 after the shard throttled records.
    """

    shard_id: str
    seconds: float
    share: float


class ShardLimitedByRecords(Event, frozen=True):
    """A shard has been limited by its number of records, not by bytes, for 5 seconds. Aggregation would raise its throughput.

    A producer sends it once, and only if `aggregate` is None.

    Attributes:
        shard_id: ID of the shard.
        factor: Factor by which `aggregate=Aggregation()` would raise the number of records of this size that the shard accepts.
    """

    shard_id: str
    factor: float


class RequestSent(Event, frozen=True):
    """A PutRecords request is sent.

    Attributes:
        entries: Number of Kinesis records in it.
        records: Number of user records in it.
        size: Bytes of data and partition keys.
    """

    entries: int
    records: int
    size: int


class RequestCompleted(Event, frozen=True):
    """A PutRecords request has a response or has failed.

    Attributes:
        seconds: Duration of the request.
        written: Number of user records that it wrote.
        retried: Number of Kinesis records that are retried.
        failed: Number of user records that failed.
        error: The error of the request as a whole. None if the service accepted the request.
    """

    seconds: float
    written: int
    retried: int
    failed: int
    error: BaseException | None


class RecordsRetried(Event, frozen=True):
    """Kinesis records are retried.

    Attributes:
        shard_id: ID of the shard to which they were addressed. None if it was not known.
        entries: Number of Kinesis records.
        reason: "throttled", "failed", "unknown" (they may have been written) or "misrouted" (another shard has accepted them).
    """

    shard_id: str | None
    entries: int
    reason: str


class MisroutedAggregateAccepted(Event, frozen=True):
    """A shard that the shard map did not contain stored an aggregate. By the refreshed map, all of its records belong there.

    Attributes:
        shard_id: ID of the shard that accepted it.
        records: Number of its records. They are written, and no `RequestCompleted` counts them.
    """

    shard_id: str
    records: int


class RecordsFailed(Event, frozen=True):
    """Records failed and are not retried.

    Attributes:
        records: Number of records.
        awaited: Number of them that a task or thread awaits.
        error: The cause of the failure. If an earlier record with the same key failed, the cause of that failure.
        details: The cause and the remedy, as text.
    """

    records: int
    awaited: int
    error: BaseException
    details: str


class ShardMapRefreshed(Event, frozen=True):
    """The shard map was refreshed.

    Attributes:
        open_shards: Number of open shards.
        changed: True if the open shards differ from those before.
    """

    open_shards: int
    changed: bool


class AggregationDisabled(Event, frozen=True):
    """Records are not aggregated although `aggregate` is set, because the shard of a record cannot be predicted.

    Attributes:
        reason: The reason, as text.
    """

    reason: str


class FellBackToPolling(Event, frozen=True):
    """Enhanced fan-out is not available. The shards of the stream are read by polling from now on.

    Attributes:
        error: The error of the service.
        stream_name: Name of the stream if the consumer reads several. Empty: it reads one.
    """

    error: BaseException
    stream_name: str = ""
