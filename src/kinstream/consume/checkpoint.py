"""Checkpoints: the finished prefix of what was delivered, and never more."""

from __future__ import annotations

from collections import deque

from kinstream.consume.fetch.position import Position
from kinstream.record import ReceivedRecord


def after(record: ReceivedRecord[bytes]) -> Position:
    """Return the place after a record; a plain one has the subsequence number 0, as in the Kinesis Client Library."""
    return Position(record.sequence_number, record.subsequence_number or 0, False)


class InWork:
    """A record that is being handled."""

    __slots__ = ("finished", "record")

    def __init__(self, record: ReceivedRecord[bytes]) -> None:
        self.record: ReceivedRecord[bytes] = record
        self.finished: bool = False


class Progress:
    """How far the records of one shard are done.

    Where they are handled one after another, in the order of the shard, whoever handles them sets `last` after each. Where
    several are in work at once, `begin` and `finish` keep it: it is then the last record of the finished prefix.

    Attributes:
        last: The last record that is done, with all before it; None: none yet.
    """

    __slots__ = ("_in_work", "last")

    def __init__(self) -> None:
        self.last: ReceivedRecord[bytes] | None = None
        self._in_work: deque[InWork] = deque()

    def __len__(self) -> int:
        """Return how many records were begun and do not belong to the prefix yet."""
        return len(self._in_work)

    def begin(self, record: ReceivedRecord[bytes]) -> InWork:
        """Take a record into work; records come in the order of the shard."""
        work = InWork(record)
        self._in_work.append(work)
        return work

    def finish(self, work: InWork) -> None:
        """Say that a record is done; in any order."""
        work.finished = True
        waiting = self._in_work
        while waiting and waiting[0].finished:
            self.last = waiting.popleft().record

    def forget(self) -> None:
        """Forget what was begun: it is not wanted any more."""
        self._in_work.clear()

    def vouch(self, record: ReceivedRecord[bytes]) -> None:
        """Take the program's word that a record is done that is still in work."""
        for work in self._in_work:
            if work.record is record or after(work.record) == after(record):  # it may be a copy, with its data parsed
                self.finish(work)
                return

    @property
    def position(self) -> Position | None:
        """The place after the finished prefix; None: nothing is done yet."""
        return None if self.last is None else after(self.last)
