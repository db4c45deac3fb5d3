"""Writes events with one request in flight: in order for each key, within every shard's quota, again what failed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from kinstream import Producer, Record, Shard
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.pace import Pace, Share
from kinstream.clock import Clock
from kinstream.service_quotas import PUT_RECORDS_MAX_RECORDS
from kinstream.sharding.hashkey import hash_key

FRUITLESS_MAX = 10
"""Requests in a row that write nothing, before giving up."""

FRUITLESS_PAUSE = 0.2
"""Seconds to wait after a request that left something unwritten, times the fruitless ones so far."""


class Stuck(Exception):
    """Kinesis answers, but nothing comes of it."""


class Writer:
    """Writes events with PutRecords.

    Args:
        producer: Writes the requests.
        clock: The time to pace by.
        wrote: Told after each request how many events it wrote.

    Attributes:
        taken: How many events each shard took, by its id.
        again: How many entries failed and were sent again.
    """

    def __init__(self, producer: Producer, clock: Clock, wrote: Callable[[int], None]) -> None:
        self.taken: Counter[str] = Counter()
        self.again: int = 0
        self._producer = producer
        self._clock = clock
        self._wrote = wrote
        self._pace = Pace()

    async def write(self, events: Iterable[Event], shards: Sequence[Shard]) -> None:
        """Return when every event is written.

        Args:
            events: Those of one key are written in their order.
            shards: All open shards of the stream; they must not change meanwhile.

        Raises:
            KinesisError: A request failed as a whole.
            Stuck: Requests succeed, but nothing is taken.
        """
        waiting = deque(events)
        shard_of = ShardMap(shards)
        fruitless = 0
        while waiting:
            batch = next_batch(waiting)
            failed, problem = await self._put(batch, shard_of)
            # Before everything that waits: all of a failed event's key that was not in the batch is still there.
            waiting.extendleft(reversed(failed))
            self.again += len(failed)
            self._wrote(len(batch) - len(failed))
            fruitless = fruitless + 1 if len(failed) == len(batch) else 0
            if fruitless == FRUITLESS_MAX:
                raise Stuck(f"no record was taken in {FRUITLESS_MAX} requests in a row: {problem}")
            if failed:
                await self._clock.sleep(FRUITLESS_PAUSE * (1 + fruitless))

    async def _put(self, batch: list[Event], shard_of: ShardMap) -> tuple[list[Event], str | None]:
        """Send one request when the quotas allow it. Return the events that were not taken, and why the first was not."""
        shares = shard_of.shares(batch)
        await self._clock.sleep(self._pace.delay(shares, self._clock.monotonic()))
        sent_at = self._clock.monotonic()
        answer = await self._producer.put_records([Record(event.data, event.key) for event in batch])
        self._pace.answered(shares, sent_at, self._clock.monotonic())
        failed: list[Event] = []
        problem = None
        for event, result in zip(batch, answer.results, strict=True):
            if result.shard_id is None:
                failed.append(event)
                problem = problem or f"{result.error_code}: {result.error_message}"
            else:
                self.taken[result.shard_id] += 1
        return failed, problem


def next_batch(waiting: deque[Event]) -> list[Event]:
    """Take the events of the next request from those that wait, at most one of each key.

    PutRecords may take an entry and refuse an earlier one of the same request. With one event of a key in it, and one request
    in flight, none can overtake another of its key.
    """
    batch: list[Event] = []
    held: list[Event] = []
    keys: set[str] = set()
    while waiting and len(batch) < PUT_RECORDS_MAX_RECORDS:
        event = waiting.popleft()
        if event.key in keys:
            held.append(event)
        else:
            keys.add(event.key)
            batch.append(event)
    waiting.extendleft(reversed(held))
    return batch


class ShardMap:
    """Which open shard takes a partition key."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        ranges = sorted((int(shard.hash_key_range.ending_hash_key), shard.shard_id) for shard in shards)
        self._ends = [end for end, _ in ranges]
        self._ids = [shard_id for _, shard_id in ranges]

    def __getitem__(self, key: str) -> str:
        return self._ids[bisect_left(self._ends, hash_key(key))]

    def shares(self, batch: Iterable[Event]) -> dict[str, Share]:
        """Return what each shard gets of a request."""
        shares: dict[str, Share] = {}
        for event in batch:
            shard_id = self[event.key]
            records, size = shares.get(shard_id, (0, 0))
            shares[shard_id] = Share(records + 1, size + len(event.data) + len(event.key.encode()))
        return shares
