"""Holders of the shards, records handled, handoffs and their gaps, from the messages of the demo's workers. Pure."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from kinstream.cli.demo.fleet.message import Assigned, Completed, Handled, Message
from kinstream.cli.demo.flights import Event


@dataclass(order=True, slots=True)
class Tenure:
    """One uninterrupted ownership of a shard.

    Attributes:
        since: Time of the assignment, in seconds of the monotonic clock.
        shard_id: ID of the shard.
        worker: Name of the worker.
        first: Time of the first record that was handled. None: there is none yet.
        last: Time of the last one.
        over: True if the worker has released or completed the shard, or has ended.
        killed: True if the worker was killed while it held the shard.
        passed: True if the passage to this tenure is known.
    """

    since: float
    shard_id: str = field(compare=False)
    worker: str = field(compare=False)
    first: float | None = field(default=None, compare=False)
    last: float | None = field(default=None, compare=False)
    over: bool = field(default=False, compare=False)
    killed: bool = field(default=False, compare=False)
    passed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """A shard that one worker continued after another.

    Attributes:
        shard_id: ID of the shard.
        giver: Name of the worker before.
        taker: Name of the worker after it.
        gap: Seconds from the last record that the giver handled to the first one of the taker. If the giver was killed: from
            the kill.
        killed: True if the giver was killed.
    """

    shard_id: str
    giver: str
    taker: str
    gap: float
    killed: bool


class Ledger:
    """Holders of the shards and records handled.

    Attributes:
        handled: Number of records handled by each worker, including duplicates.
        completed: IDs of the shards that were read to their end.
        killed: Times at which workers were killed, by name.
        passages: All passages so far, in the order in which they became known.
    """

    def __init__(self) -> None:
        self.handled: Counter[str] = Counter()
        self.completed: set[str] = set()
        self.killed: dict[str, float] = {}
        self.passages: list[Passage] = []
        self._records: list[tuple[float, int, str, str, Event]] = []
        self._distinct: set[Event] = set()
        self._tenures: dict[str, list[Tenure]] = {}

    def receive(self, worker: str, message: Message) -> list[Passage]:
        """Record a message of a worker. Returns the passages that it completes."""
        if isinstance(message, Assigned):
            tenures = self._tenures.setdefault(message.shard_id, [])
            insort(tenures, Tenure(message.time, message.shard_id, worker))
        elif (tenure := self._current(worker, message.shard_id)) is None:
            return []
        elif isinstance(message, Handled):
            event = Event(message.key, message.data)
            self._records.append((message.time, len(self._records), worker, message.shard_id, event))
            self._distinct.add(event)
            self.handled[worker] += 1
            tenure.first = message.time if tenure.first is None else tenure.first
            tenure.last = message.time
        else:
            tenure.over = True
            if isinstance(message, Completed):
                self.completed.add(message.shard_id)
        return self._new_passages(message.shard_id)

    def kill(self, worker: str, time: float) -> None:
        """Note that a worker is killed at a time. `end` follows once all its messages were received."""
        self.killed[worker] = time

    def end(self, worker: str) -> list[Passage]:
        """Note that a worker has ended, and all its messages were received. Returns the passages that become known."""
        for tenure in self._all():
            if tenure.worker == worker and not tenure.over:
                tenure.over, tenure.killed = True, worker in self.killed
        return [passage for shard_id in list(self._tenures) for passage in self._new_passages(shard_id)]

    @property
    def distinct(self) -> int:
        """Number of records handled, without duplicates."""
        return len(self._distinct)

    def holders(self) -> dict[str, list[str]]:
        """Return the IDs of the shards that each worker holds, sorted. Workers without a shard are left out."""
        holders: dict[str, list[str]] = {}
        for shard_id in sorted(self._tenures):
            tenure = self._tenures[shard_id][-1]
            if not tenure.over:
                holders.setdefault(tenure.worker, []).append(shard_id)
        return holders

    def read_by(self, worker: str) -> set[str]:
        """Return the IDs of the shards of which a worker has handled records since it last got them, and which it holds."""
        return {
            tenure.shard_id
            for tenure in self._all()
            if tenure.worker == worker and tenure.first is not None and not tenure.over
        }

    def first_record(self, worker: str) -> float | None:
        """Return the time of the first record that a worker handled."""
        return min((t.first for t in self._all() if t.worker == worker and t.first is not None), default=None)

    def records(self) -> list[Event]:
        """Return all records in the order in which they were handled, duplicates included."""
        return [event for *_, event in sorted(self._records)]

    def records_of(self, worker: str) -> set[Event]:
        """Return the records that a worker handled."""
        return {event for _, _, by, _, event in self._records if by == worker}

    def by_shard(self) -> dict[str, list[tuple[str, Event]]]:
        """Return the records of each shard with the worker that handled them, in the order in which they were handled."""
        found: dict[str, list[tuple[str, Event]]] = {}
        for _, _, worker, shard_id, event in sorted(self._records):
            found.setdefault(shard_id, []).append((worker, event))
        return found

    def _all(self) -> Iterator[Tenure]:
        for tenures in self._tenures.values():
            yield from tenures

    def _current(self, worker: str, shard_id: str) -> Tenure | None:
        return next((t for t in reversed(self._tenures.get(shard_id, [])) if t.worker == worker), None)

    def _new_passages(self, shard_id: str) -> list[Passage]:
        """Return the passages of a shard that are complete: the giver's last record and the taker's first one are known."""
        found: list[Passage] = []
        read = [tenure for tenure in self._tenures[shard_id] if tenure.first is not None or not tenure.over]
        for giver, taker in pairwise(read):
            if giver.over and giver.last is not None and taker.first is not None and not taker.passed:
                taker.passed = True
                since = self.killed[giver.worker] if giver.killed else giver.last
                found.append(Passage(shard_id, giver.worker, taker.worker, taker.first - since, giver.killed))
        self.passages += found
        return found
