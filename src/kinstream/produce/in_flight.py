"""Register of the records that are neither in the inbox nor in a lane.

These are the records of requests in flight, of parts of refused requests, of requests that await confirmation, and of aggregates
that await judgement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kinstream.errors import NotFound
from kinstream.produce.batch import Batch
from kinstream.produce.bisection import Refusal
from kinstream.produce.deadlines import Deadlines
from kinstream.produce.expire import NEVER
from kinstream.produce.lane import Lane, split_entry
from kinstream.produce.pending import Aggregate, PendingRecord
from kinstream.produce.settle import Retry, split_misrouted
from kinstream.record import PutRecordResult


class Misrouted(NamedTuple):
    """An aggregate that a shard with an unknown hash key range stored. It awaits judgement.

    Attributes:
        lane: The lane that it was sent from.
        aggregate: The aggregate.
        result: The shard and the sequence number.
        description: Number of the last description of the stream before.
    """

    lane: Lane
    aggregate: Aggregate
    result: PutRecordResult
    description: int


class Unconfirmed(NamedTuple):
    """A request that was refused because the stream was not found, which its description has not confirmed yet.

    Attributes:
        batch: The request.
        error: The refusal.
        retries: Its Kinesis records by lane, to be retried if the stream is there.
        description: Number of the last description of the stream before.
    """

    batch: Batch
    error: NotFound
    retries: list[Retry]
    description: int


class Expired(NamedTuple):
    """Records that have timed out in flight or awaiting judgement.

    Attributes:
        records: The records.
        lane: Their lane.
        last_error: Why they were not settled. Empty if no request failed.
        maybe_written: True if they count as timed out in flight.
    """

    records: list[PendingRecord]
    lane: Lane
    last_error: str
    maybe_written: bool


class InFlight:
    """Registers records that were sent, or that a response has put aside.

    Args:
        deadlines: When records time out.

    Attributes:
        parts: Parts of refused requests that wait to be sent.
        unconfirmed: Requests that were refused because the stream was not found.
        misrouted: Aggregates that await judgement.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self.parts: deque[Batch] = deque()
        self.unconfirmed: list[Unconfirmed] = []
        self.misrouted: list[Misrouted] = []
        self._deadlines = deadlines
        self._requests: dict[Batch, None] = {}
        self._cancelled: list[Batch] = []

    # Requests.

    @property
    def requests(self) -> int:
        """Number of requests in flight."""
        return len(self._requests)

    def sent(self, batch: Batch) -> None:
        """Register a request."""
        self._requests[batch] = None

    def ended(self, batch: Batch) -> None:
        """Remove a request after its response or failure was handled."""
        self._requests.pop(batch, None)

    def has_other_request(self, batch: Batch, lane: Lane) -> bool:
        """Return True if another request in flight has records of a lane."""
        return any(lane in other.lanes for other in self._requests if other is not batch)

    def cancelled(self, batch: Batch) -> None:
        """Register a request with a task that was cancelled from outside."""
        self._cancelled.append(batch)

    def take_cancelled(self) -> list[Batch]:
        """Remove and return the requests with tasks that were cancelled from outside."""
        cancelled, self._cancelled = self._cancelled, []
        return cancelled

    # Parts of refused requests.

    def wait_to_send(self, part: Batch) -> None:
        """Register a part of a refused request."""
        self.parts.append(part)

    def take_parts(self, maximum: int) -> list[Batch]:
        """Remove and return the next parts to send."""
        return [self.parts.popleft() for _ in range(min(maximum, len(self.parts)))]

    def take_parts_of(self, refusal: Refusal | None) -> list[Batch]:
        """Remove and return the other parts of a refused request."""
        parts = [part for part in self.parts if part.refusal is refusal]
        self.parts = deque(part for part in self.parts if part.refusal is not refusal)
        return parts

    def take_settled_part(self, batch: Batch) -> bool:
        """Remove a part of which a record has timed out, so that it is not sent as it is. Return True if it was removed."""
        if batch not in self.parts or not batch.has_settled:
            return False
        self.parts.remove(batch)
        return True

    # Requests and aggregates that wait for a description of the stream.

    def confirm_later(self, batch: Batch, error: NotFound, retries: list[Retry], description: int) -> None:
        """Register a request that was refused because the stream was not found."""
        self.unconfirmed.append(Unconfirmed(batch, error, retries, description))

    def take_confirmed(self, description: int) -> list[Unconfirmed]:
        """Remove and return the requests that were refused before a description of the stream began."""
        found = [one for one in self.unconfirmed if one.description < description]
        self.unconfirmed = [one for one in self.unconfirmed if one.description >= description]
        return found

    def judge_later(self, lane: Lane, aggregate: Aggregate, result: PutRecordResult, description: int) -> None:
        """Register an aggregate until the hash key range of the shard that stored it is known."""
        lane.judgement_started()
        self.misrouted.append(Misrouted(lane, aggregate, result, description))

    def take_misrouted(self) -> list[Misrouted]:
        """Remove and return all aggregates that await judgement. `judged` or `judge_again` must follow for each."""
        misrouted, self.misrouted = self.misrouted, []
        return misrouted

    def judge_again(self, misrouted: Misrouted) -> None:
        """Register an aggregate again that cannot be judged yet."""
        self.misrouted.append(misrouted)

    def judged(self, misrouted: Misrouted) -> None:
        """Note that an aggregate was judged."""
        misrouted.lane.judgement_ended()

    def drop(self, misrouted: Misrouted) -> None:
        """Remove an aggregate after all of its records were settled."""
        self.misrouted.remove(misrouted)
        misrouted.lane.judgement_ended()

    # Deadlines.

    def next_deadline(self) -> float:
        """Return when the next record times out, or an earlier time. NEVER if there is none."""
        deadline = NEVER
        for batch in self._batches():
            deadline = min(deadline, batch.expires)
        for one in self.misrouted:
            deadline = min(deadline, self._deadlines.of_aggregate(one.aggregate, one.lane))
        return deadline

    def expired_batches(self, now: float) -> list[Batch]:
        """Return the requests with records that may have timed out."""
        return [batch for batch in self._batches() if batch.expires <= now]

    def expire_batch(self, batch: Batch, now: float) -> list[Expired]:
        """Return the records of a request that have timed out, and update its deadline."""
        in_flight = batch in self._requests
        found = []
        batch.expires = NEVER
        for lane, start, stop in batch.spans:
            records, deadline = self._deadlines.expired(batch.entries[start:stop], lane, now, maybe_written=in_flight)
            batch.expires = min(batch.expires, deadline)
            last_error = "a request with it has no response yet" if in_flight else lane.last_error
            found.append(Expired(records, lane, last_error, in_flight))
        return found

    def expired_misrouted(self, now: float) -> list[Misrouted]:
        """Return the aggregates with records that have timed out."""
        return [one for one in self.misrouted if self._deadlines.of_aggregate(one.aggregate, one.lane) <= now]

    def expire_misrouted(self, misrouted: Misrouted, now: float, stream_error: str) -> Expired:
        """Return the records of an aggregate that have timed out before its shard's range was known."""
        records, _ = self._deadlines.expired([misrouted.aggregate], misrouted.lane, now, maybe_written=True)
        unknown = f"{misrouted.result.shard_id} stored it, and its hash key range is unknown: {stream_error}"
        return Expired(records, misrouted.lane, unknown, maybe_written=True)

    def _batches(self) -> Iterator[Batch]:
        yield from self._requests
        yield from self.parts
        for one in self.unconfirmed:
            yield one.batch

    # The end.

    def abort(self) -> None:
        """Remove all records, and count their attempts. Those of requests in flight may be written.

        The requests stay registered until their tasks end.
        """
        for batch in [*self._requests, *self._cancelled]:
            for record in _split_all([batch]):
                record.attempts += 1
                record.maybe_written = True
        _split_all([*self.parts, *(one.batch for one in self.unconfirmed)])
        self.parts.clear()
        self._cancelled.clear()
        for one in self.misrouted:
            split_misrouted(one.aggregate)
        self.misrouted.clear()
        self.unconfirmed.clear()


def _split_all(batches: Iterable[Batch]) -> list[PendingRecord]:
    return [record for batch in batches for entry in batch.entries for record in split_entry(entry)]
