"""Lane: what waits for one shard, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

from kinstream.produce.expire import NEVER, Expiry
from kinstream.produce.pace import Pace
from kinstream.produce.pending import Entry, PendingRecord

if TYPE_CHECKING:
    import asyncio

FIRST_AVERAGE = 256.0
"""Bytes that a record is taken to have before any was seen."""

_COMPACT = 1024
_admitted = attrgetter("admitted")


class Lane:
    """What waits for one shard.

    Attributes:
        shard_id: The shard; None where it cannot be told which shard takes a record.
        hash_key: The shard's lowest hash key, in decimal; None as above.
        pace: How fast it may be written to; None: there is no limit.
        waiting: Records in their order, from index `head` on.
        again: Kinesis records that failed, to be sent before anything else.
        retrying: Whether one of its requests on their way has such as failed before.
        rest: Nothing is sent before this time.
        on_their_way: Requests with records of this lane that are not settled, and aggregates of which it is not known yet
            whether they are in the right shard.
        hurry: So many of the waiting records do not wait for company.
        last_error: Why the last of its records were sent again.
        queue: Calls of `put` that wait because too much waits here already.
        average: Bytes that a record takes, as far as was seen.
        first_failure: No request that failed for one of the records in it was sent before; NEVER if none failed.
        unjudged: Aggregates that a shard with an unknown hash key range stored, and that are not judged yet.
        elders: Lanes of this shard's parents, until they have nothing on its way any more: order is kept across a reshard.
    """

    __slots__ = (
        "again", "alarm", "average", "elders", "entries", "first_failure", "hash_key", "head", "hurry", "last_error", "listed",
        "on_their_way", "pace", "queue", "rest", "retrying", "shard_id", "size", "unjudged", "waiting",
    )  # fmt: skip

    def __init__(self, shard_id: str | None, hash_key: str | None, pace: Pace | None) -> None:
        self.shard_id: str | None = shard_id
        self.hash_key: str | None = hash_key
        self.pace: Pace | None = pace
        self.waiting: list[PendingRecord] = []
        self.head: int = 0
        self.again: deque[Entry] = deque()
        self.rest: float = 0.0
        self.retrying: bool = False
        self.on_their_way: int = 0
        self.hurry: int = 0
        self.average: float = FIRST_AVERAGE
        self.elders: list[Lane] = []
        self.last_error: str = ""
        self.first_failure: float = NEVER
        self.unjudged: int = 0
        self.queue: deque[asyncio.Future[None]] = deque()
        # The batcher's notes.
        self.alarm: float = NEVER
        self.listed: bool = False
        self.entries: int = 0
        self.size: float = 0.0

    def __len__(self) -> int:
        return len(self.waiting) - self.head

    def __bool__(self) -> bool:
        return self.head < len(self.waiting) or bool(self.again)

    def __repr__(self) -> str:
        return f"<Lane {self.shard_id}: {len(self)} waiting, {len(self.again)} again, {self.on_their_way} on their way>"

    @property
    def oldest(self) -> float:
        """When its oldest record was admitted; NEVER if it has none."""
        oldest = self.waiting[self.head].admitted if self.head < len(self.waiting) else NEVER
        return min(oldest, self.again[0].admitted) if self.again else oldest

    @property
    def waits_for_refresh(self) -> bool:
        """True if order keeps it closed until the stream has been described again."""
        return self.unjudged > 0 or any(elder.unjudged for elder in self.elders)

    def expires(self, expiry: Expiry, stalled_since: float) -> float:
        """Return when its first record times out, or an earlier time."""
        if not self:
            self.first_failure = NEVER
            return NEVER
        return expiry.at(self.oldest, self.first_failure, stalled_since)

    def closed_by_order(self) -> bool:
        """Return whether nothing may be sent now, so that order is kept."""
        if self.elders:
            self.elders = [elder for elder in self.elders if elder.on_their_way]
        return self.on_their_way > 0 or bool(self.elders)

    def drop(self, count: int) -> None:
        """Take so many off the front."""
        self.head += count
        self.hurry = max(self.hurry - count, 0)
        if self.head == len(self.waiting):
            self.waiting.clear()
            self.head = 0
        elif self.head >= _COMPACT and 2 * self.head >= len(self.waiting):
            del self.waiting[: self.head]
            self.head = 0

    def put_in_front(self, deliveries: list[PendingRecord]) -> None:
        """Put records before all that wait, but for those that are older. They do not wait for company again."""
        waiting = self.waiting
        in_order = not deliveries or self.head == len(waiting) or deliveries[-1].admitted <= waiting[self.head].admitted
        waiting[: self.head] = deliveries
        self.head = 0
        self.hurry += len(deliveries)
        self._note_failures(deliveries)
        if not in_order:  # requests may fail in another order than they were sent in
            waiting.sort(key=_admitted)

    def send_again(self, entries: list[Entry]) -> None:
        """Put Kinesis records that failed before anything else, but for older ones that failed too."""
        again = self.again
        in_order = not entries or not again or entries[-1].admitted <= again[0].admitted
        again.extendleft(reversed(entries))
        self._note_failures(entries)
        if not in_order:
            self.again = deque(sorted(again, key=_admitted))

    def _note_failures(self, entries: Iterable[Entry]) -> None:
        self.first_failure = min([self.first_failure, *[entry.first_failure for entry in entries]])

    def expired(self, expiry: Expiry, stalled_since: float, now: float) -> list[PendingRecord]:
        """Take out and return the records that have timed out."""

        def is_late(record: Entry, first_failure: float) -> bool:
            return expiry.at(record.admitted, first_failure, stalled_since) <= now

        late: list[PendingRecord] = []
        left: deque[Entry] = deque()
        loose: list[PendingRecord] = []
        for entry in self.again:
            if not is_late(entry, entry.first_failure):
                left.append(entry)
            elif isinstance(entry, PendingRecord):
                late.append(entry)
            else:
                for delivery in taken_apart(entry):
                    (late if is_late(delivery, delivery.first_failure) else loose).append(delivery)
        self.again = left
        waiting = self.waiting[self.head :]
        if expiry.at(NEVER, self.first_failure, NEVER) <= now:  # those that failed stand anywhere in it
            kept = [delivery for delivery in waiting if not is_late(delivery, delivery.first_failure)]
            late += [delivery for delivery in waiting if is_late(delivery, delivery.first_failure)]
            self.hurry = max(self.hurry - len(waiting) + len(kept), 0)
            self.waiting[:] = kept
            self.head = 0
            self.first_failure = min([entry.first_failure for entry in (*kept, *left)], default=NEVER)
        else:
            count = 0
            while count < len(waiting) and is_late(waiting[count], NEVER):
                count += 1
            late += waiting[:count]
            self.drop(count)
        if loose:
            self.put_in_front(loose)
        return late

    def without(self, keys: Container[str]) -> list[PendingRecord]:
        """Take out and return all records of some partition keys."""
        behind: list[PendingRecord] = []
        kept: deque[Entry] = deque()
        loose: list[PendingRecord] = []
        for entry in self.again:
            if isinstance(entry, PendingRecord):
                (behind if entry.partition_key in keys else kept).append(entry)
            elif any(delivery.partition_key in keys for delivery in entry.members):
                loose += taken_apart(entry)
            else:
                kept.append(entry)
        self.again = kept
        waiting = loose + self.waiting[self.head :]
        waiting.sort(key=_admitted)
        behind += [delivery for delivery in waiting if delivery.partition_key in keys]
        self.waiting[:] = [delivery for delivery in waiting if delivery.partition_key not in keys]
        self.head = 0
        self.hurry = min(self.hurry + len(loose), len(self.waiting))
        return behind

    def emptied(self) -> list[PendingRecord]:
        """Take out and return all records, in order."""
        everything: list[PendingRecord] = []
        for entry in self.again:
            everything += taken_apart(entry)
        everything += self.waiting[self.head :]
        self.again.clear()
        self.waiting.clear()
        self.head = self.hurry = 0
        self.first_failure = NEVER
        return everything


def taken_apart(entry: Entry) -> list[PendingRecord]:
    """Return the unsettled records in a Kinesis record that is not sent again as it is, with its attempts counted to them."""
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
    """Return how many records are in Kinesis records."""
    return sum([1 if isinstance(entry, PendingRecord) else len(entry.members) for entry in entries])
