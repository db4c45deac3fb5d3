"""Deadlines of records by their state: in the inbox, queued in a lane, in flight, or awaiting judgement."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

from kinstream.produce.expire import ABSENT, NEVER, REFRESH, SERVICE, Cause, Expiry, StallClocks
from kinstream.produce.lane import Lane
from kinstream.produce.pending import Aggregate, Entry, PendingRecord


class Expired(NamedTuple):
    """Records of a request that have timed out.

    Attributes:
        records: The records. Attempts of their aggregates count as theirs.
        next_deadline: When the next record of the request times out.
    """

    records: list[PendingRecord]
    next_deadline: float


class Deadlines:
    """Applies the timeout rule (`Expiry`) with the stall clocks that apply to a record in its state.

    Args:
        expiry: The timeout rule.
        clocks: Stall clocks of the service, the stream and the lanes.
        keep_order: True if lanes may wait for a description of the stream to keep the order.
    """

    def __init__(self, expiry: Expiry, clocks: StallClocks, *, keep_order: bool) -> None:
        self._expiry = expiry
        self._clocks = clocks
        self._keep_order = keep_order

    @property
    def longest_linger(self) -> float:
        """Maximum seconds to linger, so that a request follows before the record times out."""
        return min(self._expiry.timeout, self._expiry.max_age) / 2

    def stalled_since(self, lane: Lane) -> float:
        """Return when the first of the clocks that apply to the records of a lane was started."""
        since = self._clocks.since
        stalled_since = min(since(lane), since(SERVICE), since(ABSENT))
        return min(stalled_since, since(REFRESH)) if self._keep_order and lane.waits_for_refresh else stalled_since

    # In a lane.

    def of_lane(self, lane: Lane) -> float:
        """Return when the first record of a lane times out, or an earlier time. NEVER while no clock has run out."""
        if lane.first_failure == NEVER and self._expiry.max_age == NEVER and not self._clocks.any_run_out:
            return NEVER  # nearly always. When a clock runs out, the pipeline touches its lanes
        return lane.expires(self._expiry, self.stalled_since(lane))

    def take_expired(self, lane: Lane, now: float) -> list[PendingRecord]:
        """Remove and return the records of a lane that have timed out."""
        return lane.take_expired(self._expiry, self.stalled_since(lane), now)

    # In the inbox, until the shards are known.

    def of_inbox(self, inbox: list[PendingRecord]) -> float:
        """Return when the first record of the inbox times out."""
        return self._of_unrouted(inbox[0]) if inbox else NEVER

    def split_inbox(self, inbox: list[PendingRecord], now: float) -> tuple[list[PendingRecord], list[PendingRecord]]:
        """Return the records of the inbox that have timed out, and the others."""
        expired = [record for record in inbox if self._of_unrouted(record) <= now]
        return expired, [record for record in inbox if self._of_unrouted(record) > now]

    def _of_unrouted(self, record: PendingRecord) -> float:
        stalled_since = min(self._clocks.since(SERVICE), self._clocks.since(REFRESH))
        return self._expiry.at(record.admitted, NEVER, stalled_since)

    # In flight, or awaiting judgement.

    def of_request(self, oldest: float, first_failure: float, lanes: Iterable[Hashable], now: float) -> float:
        """Start the clocks of a request that is sent now. Return when its first record times out."""
        stalled_since = self._clocks.start_all((SERVICE, *lanes), now)
        return self._expiry.at(oldest, first_failure, stalled_since)

    def of_aggregate(self, aggregate: Aggregate, lane: Lane) -> float:
        """Return when the first record of an aggregate times out."""
        stalled_since = self.stalled_since(lane)
        return min(
            [
                self._expiry.at(record.admitted, min(record.first_failure, aggregate.first_failure), stalled_since)
                for record in aggregate.members
                if not record.done
            ],
            default=NEVER,
        )

    def expired(self, entries: Iterable[Entry], lane: Lane, now: float, *, maybe_written: bool) -> Expired:
        """Return the records of Kinesis records that have timed out.

        Args:
            entries: Kinesis records of a request.
            lane: Their lane.
            now: Seconds.
            maybe_written: True if the request is in flight, or stored them in a shard that may be wrong.
        """
        expired: list[PendingRecord] = []
        following = NEVER
        stalled_since = min(self.stalled_since(lane), now)  # a clock that is clear may be started from now on
        for entry in entries:
            for record in entry.members if isinstance(entry, Aggregate) else [entry]:
                if record.done:
                    continue
                first_failure = min(record.first_failure, entry.first_failure)
                expires = self._expiry.at(record.admitted, first_failure, stalled_since)
                if expires > now:
                    following = min(following, expires)
                    continue
                record.first_failure = first_failure
                if isinstance(entry, Aggregate):
                    record.attempts += entry.attempts
                    record.maybe_written = record.maybe_written or entry.maybe_written
                if maybe_written:
                    record.attempts += 1
                    record.maybe_written = True
                expired.append(record)
        return Expired(expired, following)

    # Reasons.

    def causes(self, records: Iterable[PendingRecord], now: float) -> dict[Cause, list[PendingRecord]]:
        """Return records that have timed out by the cause."""
        groups: dict[Cause, list[PendingRecord]] = {}
        for record in records:
            groups.setdefault(self._expiry.cause(record.admitted, record.first_failure, now), []).append(record)
        return groups

    def reason(self, cause: Cause, lane: Lane | None, now: float, *, absent: bool, stream_error: str) -> str:
        """Return why records have timed out, and what to do.

        Args:
            cause: Why they timed out.
            lane: Their lane. None if they were not routed yet.
            now: Seconds.
            absent: True if the stream is being created or deleted.
            stream_error: Why the last description of the stream failed. Empty if it succeeded.
        """
        timeout, since = self._expiry.timeout, self._clocks.since
        if cause is Cause.AGE:
            return f"dropped: not written within {self._expiry.max_age:g} s of its put (DeliveryPolicy.max_age)"
        if cause is Cause.FAILED:
            return f"not written within {timeout:g} s of the first request that failed for it (DeliveryPolicy.timeout)"
        if lane is not None and since(lane) + timeout <= now:
            stalled = f"{lane.shard_id or 'the stream'} has accepted no record for {now - since(lane):.0f} s"
        elif since(SERVICE) + timeout <= now:
            stalled = f"no PutRecords request has succeeded for {now - since(SERVICE):.0f} s"
        elif (unready := min(since(REFRESH), since(ABSENT))) + timeout <= now:
            missing = "the stream was not ready" if absent else "the stream could not be described"
            stalled = f"{missing} for {now - unready:.0f} s"
            stalled += f" ({stream_error})" if lane is not None and stream_error else ""
        else:  # a response came in the moment in which it timed out
            stalled = f"it had waited for {timeout:g} s without a response"
        return (
            f"not written: {stalled} (DeliveryPolicy.timeout={timeout:g}); check the endpoint, the network and the stream, or"
            " raise DeliveryPolicy.timeout to outlast longer outages"
        )
