"""Progress in a shard: the last record of the completed prefix, which is the highest position that may be checkpointed."""

from __future__ import annotations

from collections import deque

from kinstream.consume.fetch.position import Position
from kinstream.record import ReceivedRecord


def after(record: ReceivedRecord[bytes]) -> Position:
    """Return the position after a record. A plain record has the subsequence number 0, as in the Kinesis Client Library."""
    return Position(record.sequence_number, record.subsequence_number or 0, False)


class RunningRecord:
    """A record that is being handled."""

    __slots__ = ("finished", "record")

    def __init__(self, record: ReceivedRecord[bytes]) -> None:
        self.record: ReceivedRecord[bytes] = record
        self.finished: bool = False


class Progress:
    """The completed records of one shard.

    If records are handled one after another, in the shard's order, the handling task sets `last` after each. If several are
    handled concurrently, `begin` and `finish` maintain it: `last` is the last record of the completed prefix.

    Attributes:
        last: The last record that is completed together with all before it. None before the first.
    """

    __slots__ = ("_running", "last")

    def __init__(self) -> None:
        self.last: ReceivedRecord[bytes] | None = None
        self._running: deque[RunningRecord] = deque()

    def __len__(self) -> int:
        """Return the number of records that were begun and are not part of the completed prefix yet."""
        return len(self._running)

    def begin(self, record: ReceivedRecord[bytes]) -> RunningRecord:
        """Add a record that is being handled. Records are added in the shard's order."""
        running = RunningRecord(record)
        self._running.append(running)
        return running

    def finish(self, running: RunningRecord) -> None:
        """Mark a record as completed, in any order."""
        running.finished = True
        queue = self._running
        while queue and queue[0].finished:
            self.last = queue.popleft().record

    def forget(self) -> None:
        """Discard the records that were begun."""
        self._running.clear()

    def finish_record(self, record: ReceivedRecord[bytes]) -> None:
        """Mark a record as completed that is still being handled, because the application has checkpointed it."""
        for running in self._running:
            if running.record is record or after(running.record) == after(record):  # a copy has parsed data
                self.finish(running)
                return

    @property
    def position(self) -> Position | None:
        """The position after the completed prefix. None if no record is completed."""
        return None if self.last is None else after(self.last)
