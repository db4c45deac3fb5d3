"""Settles each record of a request by the response: it was written, is retried, or has failed.

The rule for a misrouted aggregate, which another shard stored than the expected one: if any of its records is outside of that
shard's range, all of them are retried. A KCL that reads the shard drops such an aggregate as a whole (amazon-kinesis-client,
`AggregatorUtil.java`), so that the records inside the range would be lost with the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kinstream.errors import InvalidArgument, KinesisError, ResourceInUse, UnexpectedResponse
from kinstream.produce.batch import Batch, Span
from kinstream.produce.lane import Lane, split_entry
from kinstream.produce.pending import Aggregate, Entry, PendingRecord, WrappedRecord, count_attempt
from kinstream.produce.route import all_in
from kinstream.record import PutRecordResult, PutResult
from kinstream.sharding.shardmap import ShardMap
from kinstream.speed import accelerated

THROTTLED = "ProvisionedThroughputExceededException"
"""Error code of a record that its shard refused for its rate, and did not write (API reference, `PutRecordsResultEntry`)."""


@dataclass(slots=True)
class Retry:
    """Kinesis records of one lane that are to be retried.

    Attributes:
        lane: The lane that they were sent from.
        entries: The Kinesis records, in order.
        throttled: True if the shard refused some of them for its rate.
        reason: `RecordsRetried.reason`: "throttled", "failed" or "unknown".
        error: The last error, which is reported if they time out.
    """

    lane: Lane
    entries: list[Entry]
    throttled: bool
    reason: str
    error: str


@dataclass(slots=True)
class Verdict:
    """Outcome of a request.

    Attributes:
        written: Kinesis records that were written, with their results, in groups.
        accepting: Lanes of the shards that accepted a record.
        retries: Kinesis records to retry.
        to_split: Aggregates that are not retried as a whole. Their records are routed again.
        unsure: Aggregates that a shard with an unknown hash key range stored, with their lanes and results.
        misrouted: Number of Kinesis records that another shard stored than the expected one. The shard map is outdated.
    """

    written: list[tuple[list[Entry], list[PutRecordResult]]] = field(default_factory=list)
    accepting: set[Lane] = field(default_factory=set)
    retries: list[Retry] = field(default_factory=list)
    to_split: list[Aggregate] = field(default_factory=list)
    unsure: list[tuple[Lane, Aggregate, PutRecordResult]] = field(default_factory=list)
    misrouted: int = 0


def settle(batch: Batch, results: list[PutRecordResult], shard_map: ShardMap | None) -> Verdict:
    """Return the outcome of a request with a response. Only the counts of attempts of its entries are changed.

    Args:
        batch: The request.
        results: The response: one result for each entry.
        shard_map: The current shard map, for judging misrouted aggregates.
    """
    verdict = Verdict()
    if as_meant(results, batch.spans):  # nearly always
        verdict.written.append((batch.entries, results))
        verdict.accepting = batch.lanes
        return verdict
    for lane, start, stop in batch.spans:
        entries, found = batch.entries[start:stop], results[start:stop]
        shard_id = lane.shard_id
        shard_ids = {result.shard_id for result in found}
        # A record that failed has no shard ID.
        if None not in shard_ids and (shard_id is None or shard_ids == {shard_id}):
            verdict.written.append((entries, found))
            verdict.accepting.add(lane)
        else:
            _sort_out(verdict, batch, lane, entries, found, shard_map)
    return verdict


@accelerated(may_decline=True)
def as_meant(results: list[PutRecordResult], spans: list[Span]) -> bool:
    """Return True if all records were written, each in the expected shard. A record that failed has no shard ID."""
    expected: list[str | None] = []
    for lane, start, stop in spans:
        expected += [lane.shard_id] * (stop - start)
    return [result.shard_id for result in results] == expected and None not in expected


def _sort_out(
    verdict: Verdict,
    batch: Batch,
    lane: Lane,
    entries: list[Entry],
    results: list[PutRecordResult],
    shard_map: ShardMap | None,
) -> None:
    written: list[Entry] = []
    where: list[PutRecordResult] = []
    throttled: list[Entry] = []
    failed: list[Entry] = []
    error = ""
    for entry, result in zip(entries, results, strict=True):
        if result.error_code is None:
            misrouted = lane.shard_id is not None and result.shard_id != lane.shard_id
            verdict.misrouted += misrouted
            judged = judge(entry, result, shard_map) if misrouted else True
            if judged:
                written.append(entry)
                where.append(result)
            else:
                assert isinstance(entry, Aggregate)  # a single record is accepted in any shard
                entry.first_failure = min(entry.first_failure, batch.sent_at)
                if judged is None:
                    verdict.unsure.append((lane, entry, result))
                else:
                    verdict.to_split.append(entry)
            continue
        entry.first_failure = min(entry.first_failure, batch.sent_at)
        failed.append(entry)
        if result.error_code == THROTTLED:
            throttled.append(entry)
        # After an InternalFailure, the record may be written.
        count_attempt(entry, maybe_written=result.error_code != THROTTLED)
        error = f"{result.error_code}: {result.error_message}"
    if written:
        verdict.written.append((written, where))
        verdict.accepting.add(lane)
    if failed:
        reason = "throttled" if len(throttled) == len(failed) else "failed"
        verdict.retries.append(Retry(lane, failed, bool(throttled), reason, error))


def judge(entry: Entry, result: PutRecordResult, shard_map: ShardMap | None) -> bool | None:
    """Return True if the shard that stored an entry owns all of its records. Return None if its range is unknown."""
    if isinstance(entry, PendingRecord):
        return True
    found = None if shard_map is None else shard_map.range_of(str(result.shard_id))
    return None if found is None else all_in(entry.members, *found)


def split_misrouted(aggregate: Aggregate) -> list[PendingRecord]:
    """Return the records of an aggregate that the wrong shard stored. All are retried, so readers may see them twice."""
    aggregate.attempts += 1
    aggregate.maybe_written = True
    return split_entry(aggregate)


def is_final(error: KinesisError) -> bool:
    """Return True if a retry cannot succeed, now or later."""
    # A stream that is being created or updated will be ready. The next response may be one of Kinesis.
    return error.retry_safe is False and not isinstance(error, (ResourceInUse, UnexpectedResponse))


def refused_for_one(error: KinesisError) -> bool:
    """Return True if Kinesis may have refused a request because of a single record."""
    return isinstance(error, InvalidArgument)


def settle_failed_request(batch: Batch, error: KinesisError) -> list[Retry]:
    """Return the records to retry after a request failed as a whole. Kinesis may still execute it."""
    retries = []
    doubt = error.maybe_written
    for lane, start, stop in batch.spans:
        entries = batch.entries[start:stop]
        for entry in entries:
            count_attempt(entry, 1 if error.attempts else 0, maybe_written=doubt)
            entry.first_failure = min(entry.first_failure, batch.sent_at)
        reason = "throttled" if error.throttled else "unknown" if doubt else "failed"
        retries.append(Retry(lane, entries, throttled=False, reason=reason, error=error.details))
    return retries


@accelerated
def mark_written(entries: list[Entry], results: list[PutRecordResult]) -> tuple[int, int, list[PendingRecord]]:
    """Settle records as written. Return their number, their bytes, and those with a waiter.

    Records that were settled before, because they timed out, stay as they are. If this raises, no record is settled.
    """
    settled: list[tuple[PendingRecord, PutResult]] = []
    for entry, result in zip(entries, results, strict=True):
        shard_id, number = str(result.shard_id), str(result.sequence_number)
        whole = None if isinstance(entry, PendingRecord) else entry
        for index, delivery in enumerate([entry] if isinstance(entry, PendingRecord) else entry.members):
            if delivery.outcome is not None:
                continue
            if whole is None:
                place = 0 if isinstance(delivery, WrappedRecord) else None
                attempts, doubt = delivery.attempts, delivery.maybe_written
            else:
                place, attempts = index, delivery.attempts + whole.attempts
                doubt = delivery.maybe_written or whole.maybe_written
            settled.append((delivery, PutResult(shard_id, number, place, attempts + 1, doubt)))
    size = sum([delivery.size for delivery, _ in settled])
    awaited = [delivery for delivery, _ in settled if delivery.waiter is not None]
    for delivery, outcome in settled:
        delivery.outcome = outcome
        delivery.data = b""
    for entry in entries:
        if not isinstance(entry, PendingRecord):
            entry.members = []
            entry.data = b""
    return len(settled), size, awaited


def in_doubt(entry: Entry) -> int:
    """Return the number of records of an entry that an earlier attempt may have written too."""
    if isinstance(entry, PendingRecord):
        return int(entry.maybe_written)
    return len(entry.members) if entry.maybe_written else sum(delivery.maybe_written for delivery in entry.members)
