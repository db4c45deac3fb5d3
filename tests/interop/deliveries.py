"""The records that all workers of an application delivered: lost ones, duplicates, their order, and the time of handoffs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from tests.interop.workers.protocol import RecordLine


@dataclass(frozen=True)
class Handoff:
    """A change of the worker that delivers the records of a shard.

    Attributes:
        shard: The shard.
        old: Worker of the last record before.
        new: Worker of the first record after.
        ended: Time of the record before, in seconds since 1970.
        seconds: Time between the two records.
    """

    shard: str
    old: str
    new: str
    ended: float
    seconds: float


@dataclass(frozen=True)
class Repeat:
    """A delivery of a user record that was delivered before.

    Attributes:
        shard: The shard.
        sequence: Its sequence number.
        subsequence: Its subsequence number.
        old: Worker of the delivery before.
        before: Time of that delivery, in seconds since 1970.
        new: Worker of this delivery.
        again: Time of this delivery, in seconds since 1970.
    """

    shard: str
    sequence: int
    subsequence: int
    old: str
    before: float
    new: str
    again: float


class Deliveries:
    """Records by worker, each worker's in the order in which it delivered them."""

    def __init__(self, records: Mapping[str, Iterable[RecordLine]]) -> None:
        lines = [(record, worker) for worker, of_worker in records.items() for record in of_worker]
        lines.sort(key=lambda line: line[0].time)  # stable: the order of a worker's lines is kept
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    @cached_property
    def ids(self) -> set[int]:
        """Ids of all delivered records."""
        return {record.id for record, _ in self._lines}

    @cached_property
    def positions(self) -> Counter[tuple[str, int, int]]:
        """Number of deliveries of each user record, by shard, sequence number and subsequence number."""
        return Counter(record.position for record, _ in self._lines)

    @property
    def duplicates(self) -> int:
        """Number of deliveries that repeat an earlier one of the same user record."""
        return len(self._lines) - len(self.positions)

    def repeated(self) -> list[Repeat]:
        """Return the deliveries that repeat an earlier one of the same user record."""
        found: list[Repeat] = []
        last: dict[tuple[str, int, int], tuple[float, str]] = {}
        for record, worker in self._lines:
            if self.positions[record.position] > 1:
                before = last.get(record.position)
                if before is not None:
                    found.append(Repeat(*record.position, before[1], before[0], worker, record.time))
                last[record.position] = record.time, worker
        return found

    @property
    def written_twice(self) -> int:
        """Number of user records that the stream has more than once: the producer retried them."""
        return len(self.positions) - len({record.id for record, _ in self._lines})

    @property
    def out_of_order(self) -> int:
        """Number of records that were first delivered after a later record with the same key."""
        highest: dict[str, int] = {}
        seen: set[int] = set()
        count = 0
        for record, _ in self._lines:
            if record.id in seen:
                continue
            seen.add(record.id)
            if record.id < highest.get(record.key, -1):
                count += 1
            highest[record.key] = max(record.id, highest.get(record.key, -1))
        return count

    @cached_property
    def handoffs(self) -> list[Handoff]:
        """All changes of the delivering worker, in order."""
        found: list[Handoff] = []
        last: dict[str, tuple[float, str]] = {}
        for record, worker in self._lines:
            before = last.get(record.shard)
            if before is not None and before[1] != worker:
                found.append(Handoff(record.shard, before[1], worker, before[0], record.time - before[0]))
            last[record.shard] = record.time, worker
        return found

    def shares(self) -> dict[str, int]:
        """Return the number of deliveries by each worker."""
        counts: defaultdict[str, int] = defaultdict(int)
        for _, worker in self._lines:
            counts[worker] += 1
        return dict(counts)
