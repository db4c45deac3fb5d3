"""Settle: what an answer means for each record of a request: written, to be sent again, or failed.

The rules for an aggregate that another shard took than the one that was meant: if any of its records lies outside that shard's
range, all of them are sent again. A KCL that reads the shard drops such an aggregate whole
(amazon-kinesis-client, `AggregatorUtil.java`), so that the records inside the range would be lost with the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kinstream.errors import InvalidArgument, KinesisError, ResourceInUse, UnexpectedResponse
from kinstream.produce.batch import Batch, Span
from kinstream.produce.lane import Lane, taken_apart
from kinstream.produce.pending import Aggregate, Entry, PendingRecord, WrappedRecord, count_attempt
from kinstream.produce.route import all_in
from kinstream.record import PutRecordResult, PutResult
from kinstream.sharding.shardmap import ShardMap
from kinstream.speed import accelerated

THROTTLED = "ProvisionedThroughputExceededException"
"""The code of an entry that was too fast for its shard, and surely not written (API reference, `PutRecordsResultEntry`)."""


@dataclass(slots=True)
class Again:
    """Kinesis records of one lane that are to be sent again.

    Attributes:
        lane: Where they were.
        entries: They, in order.
        throttled: Whether the shard refused some of them for speed.
        reason: `RecordsRetried.reason`: "throttled", "failed" or "unknown".
        error: What is told if there is no time left.
    """

    lane: Lane
    entries: list[Entry]
    throttled: bool
    reason: str
    error: str


@dataclass(slots=True)
class Verdict:
    """What became of a request.

    Attributes:
        written: Kinesis records that are written, and where; in parts that belong together.
        accepting: The lanes whose shards accepted a record.
        again: Those that are to be sent again.
        scattered: Aggregates that cannot go again as they are: their records find their lanes anew.
        unsure: Aggregates that a shard took whose range is not known yet, and where.
        strays: How many were taken by another shard than was meant: the map is old.
    """

    written: list[tuple[list[Entry], list[PutRecordResult]]] = field(default_factory=list)
    accepting: set[Lane] = field(default_factory=set)
    again: list[Again] = field(default_factory=list)
    scattered: list[Aggregate] = field(default_factory=list)
    unsure: list[tuple[Lane, Aggregate, PutRecordResult]] = field(default_factory=list)
    strays: int = 0


def settle(batch: Batch, results: list[PutRecordResult], shard_map: ShardMap | None) -> Verdict:
    """Return what an answer means. Nothing is changed but the entries' own counts of attempts.

    Args:
        batch: What was sent.
        results: The answer, one for each entry.
        shard_map: The newest one, to judge aggregates by that another shard took.
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
        # A failed one has no shard id.
        if None not in shard_ids and (shard_id is None or shard_ids == {shard_id}):
            verdict.written.append((entries, found))
            verdict.accepting.add(lane)
        else:
            _sort_out(verdict, batch, lane, entries, found, shard_map)
    return verdict


@accelerated(may_decline=True)
def as_meant(results: list[PutRecordResult], spans: list[Span]) -> bool:
    """Return whether all are written, each in the shard that was meant. One that failed has no shard id."""
    meant: list[str | None] = []
    for lane, start, stop in spans:
        meant += [lane.shard_id] * (stop - start)
    return [result.shard_id for result in results] == meant and None not in meant


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
    again: list[Entry] = []
    error = ""
    for entry, result in zip(entries, results, strict=True):
        if result.error_code is None:
            stray = lane.shard_id is not None and result.shard_id != lane.shard_id
            verdict.strays += stray
            judged = judge(entry, result, shard_map) if stray else True
            if judged:
                written.append(entry)
                where.append(result)
            else:
                assert isinstance(entry, Aggregate)  # a single record is accepted wherever it is
                entry.first_failure = min(entry.first_failure, batch.sent_at)
                if judged is None:
                    verdict.unsure.append((lane, entry, result))
                else:
                    verdict.scattered.append(entry)
            continue
        entry.first_failure = min(entry.first_failure, batch.sent_at)
        again.append(entry)
        if result.error_code == THROTTLED:
            throttled.append(entry)
        # An InternalFailure: unknown.
        count_attempt(entry, maybe_written=result.error_code != THROTTLED)
        error = f"{result.error_code}: {result.error_message}"
    if written:
        verdict.written.append((written, where))
        verdict.accepting.add(lane)
    if again:
        reason = "throttled" if len(throttled) == len(again) else "failed"
        verdict.again.append(Again(lane, again, bool(throttled), reason, error))


def judge(entry: Entry, result: PutRecordResult, shard_map: ShardMap | None) -> bool | None:
    """Return whether an entry is well where it is: all of its records in that shard's range; None where that is not known."""
    if isinstance(entry, PendingRecord):
        return True
    found = None if shard_map is None else shard_map.range_of(str(result.shard_id))
    return None if found is None else all_in(entry.members, *found)


def scatter(aggregate: Aggregate) -> list[PendingRecord]:
    """Return the records of an aggregate that the wrong shard took: all are sent again, and a careless reader sees them twice."""
    aggregate.attempts += 1
    aggregate.maybe_written = True
    return taken_apart(aggregate)


def hopeless(error: KinesisError) -> bool:
    """Return whether sending the same again cannot help, now or in a while."""
    # A stream that is being made or changed will be ready; what was no answer of Kinesis may be one the next time.
    return error.retry_safe is False and not isinstance(error, (ResourceInUse, UnexpectedResponse))


def refused_for_one(error: KinesisError) -> bool:
    """Return whether a single record may be the reason why Kinesis refused a whole request."""
    return isinstance(error, InvalidArgument)


def settle_unanswered(batch: Batch, error: KinesisError) -> list[Again]:
    """Return what is sent again after a request failed as a whole, which may yet come to its end."""
    again = []
    doubt = error.maybe_written
    for lane, start, stop in batch.spans:
        entries = batch.entries[start:stop]
        for entry in entries:
            count_attempt(entry, 1 if error.attempts else 0, maybe_written=doubt)
            entry.first_failure = min(entry.first_failure, batch.sent_at)
        reason = "throttled" if error.throttled else "unknown" if doubt else "failed"
        again.append(Again(lane, entries, throttled=False, reason=reason, error=error.details))
    return again


@accelerated
def mark_written(entries: list[Entry], results: list[PutRecordResult]) -> tuple[int, int, list[PendingRecord]]:
    """Tell each record that it is written; return how many they were, their bytes, and those that somebody waits for.

    Records that were settled before, because their deadline came, stay as they are.
    If it raises, none is settled.
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
    """Return how many of an entry's records may have been written by an earlier attempt too."""
    if isinstance(entry, PendingRecord):
        return int(entry.maybe_written)
    return len(entry.members) if entry.maybe_written else sum(delivery.maybe_written for delivery in entry.members)
