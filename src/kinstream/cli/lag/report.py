"""Lag of an application: how far each shard is behind, and when its unread records expire. Pure.

The fields of these classes are the members of the JSON document, and only ever get more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from kinstream.cli.leases.survey import DamagedRow
from kinstream.cli.printable import printable
from kinstream.cli.text_table import table
from kinstream.cli.time_span import time_span
from kinstream.consume.fetch.position import Position
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.row import RowKind
from kinstream.kpl.container import BadIndex, Damaged, unpack
from kinstream.record import GetRecordsResult, ReceivedRecord

EXPIRED = "records may have expired unread"


class ShardLag(msgspec.Struct, frozen=True):
    """Lag of one shard.

    Attributes:
        shard_id: The shard.
        owner: The worker that reads it. None: no worker.
        has_lease: False if no worker has created its lease yet. It is then measured from its oldest record.
        waits_for_parents: True if its parents are not completed, so that it is not read yet.
        begun: False if a worker of the KCL has not stored its first checkpoint yet, so that the lag is unknown.
        lag: Age of the oldest record that is not completed, in seconds. 0 without one. None: unknown, see `problem`.
        millis_behind_latest: Milliseconds between that record and the newest one, as Kinesis reports it. None: unknown.
        expires_in: Seconds until that record expires. None: no record is unread, or unknown.
        records_expired: True if the record of the checkpoint has expired, and records after it may have expired unread.
        problem: Reason why the lag is unknown. None: it is known.
    """

    shard_id: str
    owner: str | None
    has_lease: bool
    waits_for_parents: bool
    begun: bool = True
    lag: float | None = None
    millis_behind_latest: int | None = None
    expires_in: float | None = None
    records_expired: bool = False
    problem: str | None = None


class LagReport(msgspec.Struct, frozen=True):
    """Lag of an application on one stream.

    Attributes:
        application: Name of the application.
        stream: Name of the stream.
        retention: Seconds for which the stream keeps records.
        max_lag: The largest lag of a shard, in seconds. 0 without shards. Shards with an unknown lag do not count.
        max_lag_shard: The shard with the largest lag. None: there is none.
        expires_in: Seconds until the first unread record of any shard expires. None: no record is unread.
        behind: Number of shards with unread records.
        without_owner: Number of shards that no worker reads, and that do not wait for their parents.
        unknown: Number of shards with an unknown lag.
        shards: All shards with an unfinished lease, and shards without a lease, in the order of their ids.
    """

    application: str
    stream: str
    retention: float
    max_lag: float
    max_lag_shard: str | None
    expires_in: float | None
    behind: int
    without_owner: int
    unknown: int
    shards: list[ShardLag]


def report(application: str, stream: str, retention: float, shards: Sequence[ShardLag]) -> LagReport:
    """Return the report with its totals."""
    known = [shard for shard in shards if shard.lag is not None]
    last = max(known, key=_lag, default=None)
    return LagReport(
        application=application,
        stream=stream,
        retention=retention,
        max_lag=0.0 if last is None else _lag(last),
        max_lag_shard=None if last is None or not last.lag else last.shard_id,
        expires_in=min((shard.expires_in for shard in shards if shard.expires_in is not None), default=None),
        behind=sum(bool(shard.lag) for shard in shards),
        without_owner=sum(shard.owner is None and not shard.waits_for_parents for shard in shards),
        unknown=len(shards) - len(known),
        shards=list(shards),
    )


def measured(
    shard: ShardLag,
    position: Position,
    page: GetRecordsResult[bytes],
    *,
    now: float,
    retention: float,
    idle_until: float | None = None,
) -> ShardLag:
    """Return the lag of a shard after one page was read at its checkpoint.

    Args:
        shard: The shard.
        position: The checkpoint.
        page: The page. It begins at the record of the checkpoint, unless this has expired.
        now: Time of the service, in seconds since 1970.
        retention: Seconds for which the stream keeps records.
        idle_until: All records before this time are completed (`Lease.idle_until`).
    """
    records = page.records
    expired = False
    if position.is_number:
        present = bool(records) and records[0].sequence_number == position.sequence_number
        expired = not present and bool(records) and (idle_until is None or idle_until < now - retention)
        if present and not position.inclusive and _completed(records[0], position):
            records = records[1:]
    behind = page.millis_behind_latest
    expires_in: float | None
    if records:
        lag = max(0.0, now - records[0].arrival_time)
        expires_in = retention - lag
    else:
        # The page has no unread record. Kinesis reports how far its end is from the newest record.
        lag = behind / 1000
        expires_in = retention - lag if behind else None
    return msgspec.structs.replace(
        shard,
        lag=round(lag, 3),
        millis_behind_latest=behind,
        expires_in=None if expires_in is None else round(max(0.0, expires_in), 3),
        records_expired=expired,
    )


def waits(lease: Lease, unfinished: Sequence[str]) -> ShardLag:
    """Return a shard whose lag is to be measured.

    Args:
        lease: Its lease.
        unfinished: Keys of the unfinished leases of its parents.
    """
    return ShardLag(lease.shard_id, lease.checkpoint_owner or lease.owner, True, bool(unfinished))


def unreadable(damaged: list[DamagedRow]) -> list[ShardLag]:
    """Return the shards whose leases cannot be read. Their lag is unknown."""
    return [
        ShardLag(row.key, None, True, False, problem="the row of its lease is damaged")
        for row in damaged
        if row.kind == RowKind.LEASE
    ]


def alarms(lag: LagReport, most: float) -> list[str]:
    """Return the reasons for an alarm: a lag above a limit, expired records, and shards that cannot be measured.

    Args:
        lag: The report.
        most: The limit in seconds.
    """
    found = []
    if lag.max_lag > most:
        found.append(f"{lag.max_lag_shard}: its lag of {time_span(lag.max_lag)} is above {time_span(most)}")
    for shard in lag.shards:
        if shard.records_expired:
            found.append(f"{shard.shard_id}: {shard.problem or EXPIRED}")
        elif shard.problem is not None and shard.begun:
            found.append(f"{shard.shard_id}: {shard.problem}")
    return found


def lines(lag: LagReport, width: int | None) -> Iterator[str]:
    """Return the lines of a report.

    Args:
        lag: The report.
        width: Columns of the terminal. None: nothing is shortened.
    """
    yield printable(f"{lag.application} on stream {lag.stream}, which keeps records for {time_span(lag.retention)}")
    if lag.shards:
        yield ""
        header = ("SHARD", "OWNER", "LAG", "BEHIND LATEST", "EXPIRES IN")
        first, *rows = table(header, [_row(shard) for shard in lag.shards], width)
        yield first
        for shard, row in zip(lag.shards, rows, strict=True):
            yield row
            yield from (f"    {printable(note)}" for note in _notes(shard))
    yield ""
    largest = f"Largest lag: {time_span(lag.max_lag)}"
    if lag.max_lag_shard is not None:
        largest += f" ({lag.max_lag_shard})"
    yield printable(f"{largest}. {lag.behind:,} of {len(lag.shards):,} shards have unread records.")
    if lag.expires_in is not None:
        yield f"The first unread record expires in {time_span(lag.expires_in)}."
    if lag.without_owner:
        yield f"{lag.without_owner:,} shards have no owner."
    if lag.unknown:
        yield f"The lag of {lag.unknown:,} shards is unknown."


def _notes(shard: ShardLag) -> Iterator[str]:
    if not shard.has_lease:
        yield "it has no lease yet"
    if shard.waits_for_parents:
        yield "it waits for its parents"
    if shard.records_expired:
        yield EXPIRED
    if shard.problem is not None:
        yield shard.problem


def _row(shard: ShardLag) -> tuple[str, ...]:
    return (
        shard.shard_id,
        shard.owner or "-",
        "?" if shard.lag is None else time_span(shard.lag),
        "?" if shard.millis_behind_latest is None else f"{shard.millis_behind_latest:,} ms",
        "-" if shard.expires_in is None else time_span(shard.expires_in),
    )


def _lag(shard: ShardLag) -> float:
    return shard.lag or 0.0


def _completed(record: ReceivedRecord[Any], position: Position) -> bool:
    """Return True if a checkpoint is after all user records of its record."""
    if position.subsequence_number is None:
        return True
    try:
        found = unpack(record.data)
    except (Damaged, BadIndex):
        found = None
    return found is None or position.subsequence_number >= sum(1 for _ in found) - 1
