"""Lane: the queue of one shard, in order. Only its own methods change its fields."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from operator import attrgetter

from kinstream.produce.expire import NEVER, Expiry
from kinstream.produce.pace import Pace
from kinstream.produce.pending import Entry, PendingRecord

FIRST_AVERAGE = 256.0
"""Assumed bytes of a record before any record was sent."""

_COMPACT = 1024
_admitted = attrgetter("admitted")


class Plan:
    """Notes of the schedule about a lane. Only `Schedule` changes them.

    Attributes:
        alarm: When to check the lane again. NEVER if there is no need.
        due: True while the lane is listed as due.
        entries: Kinesis records of the lane that are counted for a full request.
        size: Their bytes.
    """

    __slots__ = ("alarm", "due", "entries", "size")

    def __init__(self) -> None:
        self.alarm: float = NEVER
        self.due: bool = False
        self.entries: int = 0
        self.size: float = 0.0


class Lane:
    """Queue of one shard.

    Attributes:
        shard_id: The shard. None while shards are not known.
        hash_key: The lowest hash key of the shard, in decimal. None while shards are not known.
        pace: Rate limit of the shard. None: no limit.
        plan: Notes of the schedule.
        waiting: Queued records in order, from index `head` on.
        retries: Kinesis records that failed. They are retried before any other record is sent.
        retrying: True while a request in flight has records of the lane that failed before.
        backoff_until: Nothing is sent before this time.
        in_flight: Requests with records of this lane that are not settled, and aggregates that await judgement.
        flush_count: Number of queued records, from the front, that do not linger.
        last_error: The error for which its last records were retried.
        average: Average bytes of a record that was sent.
        first_failure: No request that failed for one of its records was sent before this time. NEVER if none failed.
        unjudged: Aggregates that a shard with an unknown hash key range stored, and that are not judged yet.
        parents: Lanes of the shard's parents, until no request of them is in flight. This keeps the order across a reshard.
    """

    __slots__ = (
        "average", "backoff_until", "first_failure", "flush_count", "hash_key", "head", "in_flight", "last_error", "pace",
        "parents", "plan", "retries", "retrying", "shard_id", "unjudged", "waiting",
    )  # fmt: skip

    def __init__(self, shard_id: str | None, hash_key: str | None, pace: Pace | None) -> None:
        self.shard_id: str | None = shard_id
        self.hash_key: str | None = hash_key
        self.pace: Pace | None = pace
        self.plan: Plan = Plan()
        self.waiting: list[PendingRecord] = []
        self.head: int = 0
        self.retries: deque[Entry] = deque()
        self.backoff_until: float = 0.0
        self.retrying: bool = False
        self.in_flight: int = 0
        self.flush_count: int = 0
        self.average: float = FIRST_AVERAGE
        self.parents: list[Lane] = []
        self.last_error: str = ""
        self.first_failure: float = NEVER
        self.unjudged: int = 0

    def __len__(self) -> int:
        return len(self.waiting) - self.head

    def __bool__(self) -> bool:
        return self.head < len(self.waiting) or bool(self.retries)

    def __repr__(self) -> str:
        return f"<Lane {self.shard_id}: {len(self)} queued, {len(self.retries)} to retry, {self.in_flight} in flight>"

    @property
    def oldest(self) -> float:
        """When its oldest record was admitted. NEVER if it is empty."""
        oldest = self.waiting[self.head].admitted if self.head < len(self.waiting) else NEVER
        return min(oldest, self.retries[0].admitted) if self.retries else oldest

    @property
    def waits_for_refresh(self) -> bool:
        """True if order keeps it closed until the stream has been described again."""
        return self.unjudged > 0 or any(parent.unjudged for parent in self.parents)

    def expires(self, expiry: Expiry, stalled_since: float) -> float:
        """Return when its first record times out, or an earlier time."""
        if not self:
            self.first_failure = NEVER
            return NEVER
        return expiry.at(self.oldest, self.first_failure, stalled_since)

    # Sending.

    def closed_by_order(self) -> bool:
        """Return True if no record may be sent now, to keep the order."""
        if self.parents:
            self.parents = [parent for parent in self.parents if parent.in_flight]
        return self.in_flight > 0 or bool(self.parents)

    def follow(self, parents: list[Lane]) -> None:
        """Wait for the requests in flight of the lanes of parent shards, and of those that they wait for themselves."""
        self.parents = list(dict.fromkeys([lane for parent in parents for lane in (parent, *parent.parents)]))

    def flush_now(self) -> None:
        """Let the records that are queued now linger no longer."""
        self.flush_count = len(self)

    def back_off(self, until: float) -> None:
        """Send nothing before a time."""
        self.backoff_until = max(self.backoff_until, until)

    def note_size(self, average: float, weight: float = 0.5) -> None:
        """Update the average size of a record."""
        self.average += (average - self.average) * weight

    def request_started(self) -> None:
        """Count a request with records of the lane, or an aggregate that awaits judgement."""
        self.in_flight += 1

    def request_ended(self) -> None:
        """Count a request of the lane as ended."""
        self.in_flight -= 1
        self.retrying = False

    def judgement_started(self) -> None:
        """Count an aggregate that awaits judgement."""
        self.unjudged += 1

    def judgement_ended(self) -> None:
        """Count an aggregate as judged."""
        self.unjudged -= 1

    def failed(self, error: str) -> None:
        """Store the error for which records are retried."""
        self.last_error = error

    def accepted(self) -> None:
        """Clear the last error, because the shard accepted a record, unless records are still to be retried."""
        if not self.retries:
            self.last_error = ""

    # Taking records out.

    def drop(self, count: int) -> None:
        """Remove a number of records from the front."""
        self.head += count
        self.flush_count = max(self.flush_count - count, 0)
        if self.head == len(self.waiting):
            self.waiting.clear()
            self.head = 0
        elif self.head >= _COMPACT and 2 * self.head >= len(self.waiting):
            del self.waiting[: self.head]
            self.head = 0

    def move_queued(self, entries: list[Entry], average: float) -> None:
        """Move all queued records, of an average size, to the end of a list."""
        entries += self.waiting[self.head :] if self.head else self.waiting
        self.waiting.clear()
        self.head = self.flush_count = 0
        self.average += (average - self.average) / 2

    def take(self, chosen: list[PendingRecord]) -> None:
        """Remove queued records, which may be anywhere in the queue."""
        taken = set(chosen)
        end = self.waiting.index(chosen[-1], self.head) + 1
        self.waiting[self.head : end] = [
            delivery for delivery in self.waiting[self.head : end] if delivery not in taken
        ]
        self.flush_count = max(self.flush_count - len(chosen), 0)

    def take_retry(self) -> Entry:
        """Remove and return the first Kinesis record to retry."""
        entry = self.retries.popleft()
        self.retrying = True
        return entry

    def take_expired(self, expiry: Expiry, stalled_since: float, now: float) -> list[PendingRecord]:
        """Remove and return the records that have timed out."""

        def is_expired(record: Entry, first_failure: float) -> bool:
            return expiry.at(record.admitted, first_failure, stalled_since) <= now

        expired: list[PendingRecord] = []
        kept: deque[Entry] = deque()
        split: list[PendingRecord] = []
        for entry in self.retries:
            if not is_expired(entry, entry.first_failure):
                kept.append(entry)
            elif isinstance(entry, PendingRecord):
                expired.append(entry)
            else:
                for delivery in split_entry(entry):
                    (expired if is_expired(delivery, delivery.first_failure) else split).append(delivery)
        self.retries = kept
        waiting = self.waiting[self.head :]
        if expiry.at(NEVER, self.first_failure, NEVER) <= now:  # the records that failed may be anywhere in the queue
            left = [delivery for delivery in waiting if not is_expired(delivery, delivery.first_failure)]
            expired += [delivery for delivery in waiting if is_expired(delivery, delivery.first_failure)]
            self.flush_count = max(self.flush_count - len(waiting) + len(left), 0)
            self.waiting[:] = left
            self.head = 0
            self.first_failure = min([entry.first_failure for entry in (*left, *kept)], default=NEVER)
        else:
            count = 0
            while count < len(waiting) and is_expired(waiting[count], NEVER):
                count += 1
            expired += waiting[:count]
            self.drop(count)
        if split:
            self.put_in_front(split)
        return expired

    def take_keys(self, keys: Container[str]) -> list[PendingRecord]:
        """Remove and return all records with some partition keys."""
        taken: list[PendingRecord] = []
        kept: deque[Entry] = deque()
        split: list[PendingRecord] = []
        for entry in self.retries:
            if isinstance(entry, PendingRecord):
                (taken if entry.partition_key in keys else kept).append(entry)
            elif any(delivery.partition_key in keys for delivery in entry.members):
                split += split_entry(entry)
            else:
                kept.append(entry)
        self.retries = kept
        waiting = split + self.waiting[self.head :]
        waiting.sort(key=_admitted)
        taken += [delivery for delivery in waiting if delivery.partition_key in keys]
        self.waiting[:] = [delivery for delivery in waiting if delivery.partition_key not in keys]
        self.head = 0
        self.flush_count = min(self.flush_count + len(split), len(self.waiting))
        return taken

    def take_all(self) -> list[PendingRecord]:
        """Remove and return all records, in order."""
        everything: list[PendingRecord] = []
        for entry in self.retries:
            everything += split_entry(entry)
        everything += self.waiting[self.head :]
        self.retries.clear()
        self.waiting.clear()
        self.head = self.flush_count = 0
        self.first_failure = NEVER
        return everything

    # Adding records.

    def append(self, deliveries: list[PendingRecord]) -> None:
        """Append records to the queue. With several lanes, the router appends to `waiting` in compiled code."""
        self.waiting += deliveries

    def put_in_front(self, deliveries: list[PendingRecord]) -> None:
        """Put records before all queued records except older ones. They do not linger again."""
        waiting = self.waiting
        in_order = not deliveries or self.head == len(waiting) or deliveries[-1].admitted <= waiting[self.head].admitted
        waiting[: self.head] = deliveries
        self.head = 0
        self.flush_count += len(deliveries)
        self._note_failures(deliveries)
        if not in_order:  # requests may fail in another order than they were sent in
            waiting.sort(key=_admitted)

    def retry(self, entries: list[Entry]) -> None:
        """Put Kinesis records that failed before all others except older ones that failed too."""
        retries = self.retries
        in_order = not entries or not retries or entries[-1].admitted <= retries[0].admitted
        retries.extendleft(reversed(entries))
        self._note_failures(entries)
        if not in_order:
            self.retries = deque(sorted(retries, key=_admitted))

    def _note_failures(self, entries: Iterable[Entry]) -> None:
        self.first_failure = min([self.first_failure, *[entry.first_failure for entry in entries]])


def split_entry(entry: Entry) -> list[PendingRecord]:
    """Return the unsettled records of a Kinesis record that is not retried as a whole. Its attempts count as theirs."""
    if isinstance(entry, PendingRecord):
        return [entry] if entry.outcome is None else []
    members = [delivery for delivery in entry.members if delivery.outcome is None]
    for delivery in members:
        delivery.attempts += entry.attempts
        delivery.maybe_written = delivery.maybe_written or entry.maybe_written
        delivery.first_failure = min(delivery.first_failure, entry.first_failure)
    entry.members = []
    return members


def count_records(entries: Iterable[Entry]) -> int:
    """Return the number of user records in Kinesis records."""
    return sum([1 if isinstance(entry, PendingRecord) else len(entry.members) for entry in entries])
