"""Bounds of a range of one shard: their check, and the records between them. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left

from kinstream.consume.deaggregate import RecordList
from kinstream.consume.fetch.position import Position, PositionLike
from kinstream.errors import ConfigError
from kinstream.record import ReceivedRecord


class Bounds:
    """Two places between records of a shard.

    Args:
        after: The lower one.
        upto: The upper one.

    Raises:
        ConfigError: A bound is not a fixed place, or `upto` is before `after`.

    Attributes:
        after: The lower one.
        upto: The upper one.
        empty: True if both are the same place.
        last_number: Sequence number of the record at `upto`. None: it is not at a record.
    """

    def __init__(self, after: PositionLike, upto: PositionLike) -> None:
        self.after: Position = _fixed("after", after)
        self.upto: Position = _fixed("upto", upto)
        self._low, self._high = _place(self.after), _place(self.upto)
        if self._high < self._low:
            raise ConfigError(
                f"upto={str(self.upto)!r}: is before after={str(self.after)!r}: no record is between them"
            )
        self.empty: bool = self._high == self._low
        self.last_number: int | None = int(self.upto.sequence_number) if self.upto.is_number else None

    def cut(self, records: RecordList) -> tuple[RecordList, bool]:
        """Return the records of a page, not deaggregated, up to the one at `upto`. True: no later page has such records."""
        if self.last_number is None or not records or int(records[-1].sequence_number) < self.last_number:
            return records, False
        end = bisect_left(records, self.last_number + 1, key=_number)
        return records[:end], True

    def within(self, records: RecordList) -> RecordList:
        """Return the records, deaggregated, that are between the bounds. Only records at a bound are compared."""
        low, high = self._low, self._high
        if low[0] == 0 and _number(records[0]) <= low[1]:
            records = [record for record in records if _end(record) > low]
        if records and self.last_number is not None and _number(records[-1]) >= self.last_number:
            records = [record for record in records if _end(record) <= high]
        return records


def _fixed(field: str, value: PositionLike) -> Position:
    position = Position.parse(field, value)
    if position.timestamp is not None or position.sequence_number == "LATEST":
        raise ConfigError(
            f"{field}={str(position)!r}: must be a place that does not change: TRIM_HORIZON, SHARD_END, Position.at(...) or"
            " Position.after(...), as positions(stream, at=...) returns them for a time or for the newest record"
        )
    return position


def _number(record: ReceivedRecord[bytes]) -> int:
    return int(record.sequence_number)


_Place = tuple[int, int, float]
"""Order of a place: before all records, at one, or after all; its sequence number; and its user records before the place."""


def _place(position: Position) -> _Place:
    """Return the place of a position. "after 7/0" and "at 7/1" are the same place, unlike in the order of checkpoints."""
    if not position.is_number:
        return (1, 0, 0) if position.ended else (-1, 0, 0)
    index = position.subsequence_number
    before = math.inf if index is None else index + (not position.inclusive)
    return (0, int(position.sequence_number), before)


def _end(record: ReceivedRecord[bytes]) -> _Place:
    """Return the place after a record."""
    return (0, int(record.sequence_number), (record.subsequence_number or 0) + 1)
