"""Bisection of a refused request, to find the record that Kinesis refuses, or to find that it refuses every record.

Kinesis validates a request as a whole: one wrong record fails all of them. A large request is first sampled. If all samples are
refused for the same reason, so are the others, without a request for each. Otherwise the request is halved until a refused
request has one record.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinstream.produce.batch import Batch

SAMPLES = 4
"""Records of a refused request that are retried alone before the others."""


class Refusal:
    """Findings about a refused request. All of its parts share them.

    Args:
        count: Number of Kinesis records in the request.

    Attributes:
        mixed: True if a part was accepted, or was refused for another reason.
    """

    __slots__ = ("_alike", "_count", "_reason", "mixed")

    def __init__(self, count: int) -> None:
        self.mixed: bool = False
        self._count = count
        self._alike = 0
        self._reason = ""

    def of_one(self, reason: str) -> None:
        """Note that a record was refused that was sent alone."""
        self.mixed = self.mixed or (self._alike > 0 and reason != self._reason)
        self._reason = reason
        self._alike += 1

    def of_all(self, reason: str) -> bool:
        """Return True if all samples were refused for this reason, so that every record would be."""
        return self._alike >= SAMPLES and not self.mixed and reason == self._reason

    def accepted(self) -> None:
        """Note that a part was accepted."""
        self.mixed = True

    def __str__(self) -> str:
        return f"{self._alike} of {self._count} records of one request were refused alone; the others were not retried alone"


def refused(batch: Batch, reason: str) -> bool:
    """Note that a request was refused. Return True if every record of the original request would be."""
    refusal = batch.refusal
    if refusal is None:
        return False
    if len(batch.entries) == 1:
        refusal.of_one(reason)
    return refusal.of_all(reason)


def parts_to_retry(batch: Batch) -> list[Batch]:
    """Return the requests in which to retry a refused request. None if it has a single record, which is refused then."""
    count = len(batch.entries)
    if count == 1:
        return []
    if batch.refusal is None and count > 2 * SAMPLES:
        batch.refusal = Refusal(count)
        return samples_and_others(batch)
    middle = count // 2
    return [batch.part(0, middle), batch.part(middle, count)]


def samples_and_others(batch: Batch) -> list[Batch]:
    """Return four records of a request alone, and after them the runs of records between these.

    The samples are the first record, the middle one, the last one, and the smallest of the others. Records that are refused for
    their size, or that are adjacent, are not all of the samples.
    """
    entries = batch.entries
    alone = {0, len(entries) // 2, len(entries) - 1}
    alone.add(min(set(range(len(entries))) - alone, key=lambda index: entries[index].size))
    samples = [batch.part(index, index + 1) for index in sorted(alone)]
    bounds = [*sorted(alone), len(entries)]
    return samples + [batch.part(low + 1, high) for low, high in pairwise(bounds) if low + 1 < high]
