"""Positions in a shard: where reading starts, how far it came, and which of two is further."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from kinstream.errors import ConfigError
from kinstream.record import ShardIteratorType

_SENTINELS = {"AT_TIMESTAMP": -3, "TRIM_HORIZON": -2, "LATEST": -1}
"""Before every sequence number, in this order (Amazon Kinesis Client Library, `ExtendedSequenceNumber`)."""
_SHARD_END = "SHARD_END"
LATEST_MARGIN = 5.0
"""Seconds by which our clock may be ahead of the service's: what was latest at a moment is looked for from so long before."""
PROMPT = 1.0
"""Seconds that beginning at the latest record may take; after that it is begun at a time, so that what came meanwhile is read."""
START_AHEAD = 300.0
"""Seconds that a start may lie in the service's future. Up to here two clocks differ, and it means "from now on"."""
TOO_EARLY_PAUSE = 0.25
"""Seconds before a time that the service refused because it is still to come is requested again."""

# Service model, `SequenceNumber`; but servers of other makers have leading zeros.
_SEQUENCE_NUMBER = re.compile(r"[0-9]{1,129}")


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in a shard, between two records. Positions are in one order, that of the Kinesis Client Library's checkpoints.

    Use the constants `TRIM_HORIZON`, `LATEST` and `SHARD_END`, or `Position.at_time`, `Position.at`, `Position.after`.

    Attributes:
        sequence_number: A record's number, or "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END".
        subsequence_number: The user record's index in its aggregate; 0 in a plain record. None: the last, whatever its index.
        inclusive: Whether the place is before that record (its number is read) or after it (it was read).
        timestamp: Seconds since 1970 of an AT_TIMESTAMP; in a LATEST, when that was, if it was before now.
    """

    sequence_number: str
    subsequence_number: int | None = 0
    inclusive: bool = True
    timestamp: float | None = None

    @classmethod
    def at(cls, sequence_number: str, subsequence_number: int = 0) -> Position:
        """Return the place before a record: it is the next to be read.

        Raises:
            ConfigError: The numbers are none.
        """
        return cls(_checked(sequence_number, subsequence_number), subsequence_number)

    @classmethod
    def after(cls, sequence_number: str, subsequence_number: int | None = None) -> Position:
        """Return the place after a record; without a subsequence number, after all user records in it.

        Raises:
            ConfigError: The numbers are none.
        """
        return cls(_checked(sequence_number, subsequence_number), subsequence_number, False)

    @classmethod
    def at_time(cls, moment: float | datetime) -> Position:
        """Return the place before the first record that arrived at a time or later.

        Args:
            moment: Seconds since 1970, or a datetime with its time zone.

        Raises:
            ConfigError: It is neither.
        """
        return cls("AT_TIMESTAMP", timestamp=seconds_since_1970("position", moment))

    @classmethod
    def parse(cls, field: str, value: PositionLike) -> Position:
        """Return the position that `value` says: one, a sentinel's name, or a time.

        Raises:
            ConfigError: It says none; the message names the field.
        """
        if isinstance(value, cls):
            return value._sound(field)
        if isinstance(value, str) and value in ("TRIM_HORIZON", "LATEST", _SHARD_END):
            return cls(str(value))
        if isinstance(value, (int, float, datetime)):
            return cls("AT_TIMESTAMP", timestamp=seconds_since_1970(field, value))
        raise ConfigError(f"{field}={value!r}: must be 'TRIM_HORIZON', 'LATEST', a time, or a Position")

    def _sound(self, field: str) -> Position:
        """Return itself; a program can make one of anything."""
        number, moment = self.sequence_number, self.timestamp
        if number not in _SENTINELS and number != _SHARD_END:
            _checked(number, self.subsequence_number)
        if number != "LATEST" and (moment is None) is (number == "AT_TIMESTAMP"):
            raise ConfigError(f"{field}={self!r}: a time goes with AT_TIMESTAMP and LATEST, and with them alone")
        if moment is not None:
            seconds_since_1970(field, moment)
        return self

    def since(self, moment: float) -> Position:
        """Return where to go on if nothing was read from here: what is latest must not become later by itself.

        Args:
            moment: When reading began, in seconds since 1970; by our own clock, `LATEST_MARGIN` before it.
        """
        return Position("LATEST", timestamp=moment) if self == LATEST else self

    @property
    def is_number(self) -> bool:
        """Whether it is at or after a record's sequence number."""
        return self.sequence_number.isdecimal()

    @property
    def ended(self) -> bool:
        """Whether it is the end of a closed shard."""
        return self.sequence_number == _SHARD_END

    @property
    def starting(self) -> tuple[ShardIteratorType, str | None, float | None]:
        """How GetShardIterator and SubscribeToShard are told: type, sequence number, timestamp.

        After a part of an aggregate, it is read again from the start: whoever reads passes over what lies before.

        Raises:
            ConfigError: It is the shard's end, from which nothing is read.
        """
        if self.ended:
            raise ConfigError("position: nothing is read from SHARD_END")
        if self.timestamp is not None:
            return ShardIteratorType.AT_TIMESTAMP, None, self.timestamp
        if not self.is_number:
            return ShardIteratorType(self.sequence_number), None, None
        whole = not self.inclusive and self.subsequence_number is None
        kind = ShardIteratorType.AFTER_SEQUENCE_NUMBER if whole else ShardIteratorType.AT_SEQUENCE_NUMBER
        return kind, self.sequence_number, None

    @property
    def at_record(self) -> Position:
        """The same place, read from the record itself on also if it lies after the record: whether that is there is then seen."""
        whole = self.is_number and not self.inclusive and self.subsequence_number is None
        return Position(self.sequence_number, 0, False) if whole else self

    @property
    def _key(self) -> tuple[float, int, float, float]:
        # Python compares an int of any size with an infinite float exactly.
        if self.ended:
            return (math.inf, 0, 0, 0)
        if not self.is_number:
            return (_SENTINELS[self.sequence_number], 0, 0, self.timestamp or 0)
        index = math.inf if self.subsequence_number is None else 2 * self.subsequence_number + (not self.inclusive)
        return (0, int(self.sequence_number), index, 0)

    def __lt__(self, other: Position) -> bool:
        return self._key < other._key

    def __le__(self, other: Position) -> bool:
        return self._key <= other._key

    def __gt__(self, other: Position) -> bool:
        return self._key > other._key

    def __ge__(self, other: Position) -> bool:
        return self._key >= other._key

    def __str__(self) -> str:
        if self.timestamp is not None:
            return f"{self.sequence_number}({self.timestamp:.3f})"
        if not self.is_number:
            return self.sequence_number
        index = "" if self.subsequence_number is None else f"/{self.subsequence_number}"
        return f"{'at' if self.inclusive else 'after'} {self.sequence_number}{index}"


def from_now_on(field: str, position: Position, now: float) -> Position:
    """Return the position at which reading can begin: Kinesis refuses a time that is later than its own.

    Args:
        field: Names the position in an error.
        position: The position as it was given.
        now: The service's time, in seconds since 1970, right to `CLOCKS_DIFFER`.

    Returns:
        LATEST for a time that is still to come. A time within `LATEST_MARGIN` stays: it may be the past by the service's clock,
        and a fetcher waits until it is (`too_early`).

    Raises:
        ConfigError: The time is more than `START_AHEAD` seconds ahead.
    """
    if position.timestamp is None:
        return position
    ahead = position.timestamp - now
    if ahead > START_AHEAD:
        raise ConfigError(
            f"{field}: {time_text(position.timestamp)} is {ahead:.0f} s after the time of the service,"
            f" {time_text(now)}: a start up to {START_AHEAD:.0f} s ahead means from now on, a later one is refused;"
            " check the time and this machine's clock"
        )
    return LATEST if ahead > LATEST_MARGIN else position


def too_early(position: Position, now: float) -> bool:
    """Return whether the service may refuse a position for now, because its time is still to come."""
    return position.timestamp is not None and position.timestamp > now - LATEST_MARGIN


def time_text(seconds: float) -> str:
    """Return seconds since 1970 as text for people."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "milliseconds")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g} s since 1970"


PositionLike: TypeAlias = Position | str | float | datetime
"""What says a position: one, "TRIM_HORIZON", "LATEST", "SHARD_END", or a time."""

TRIM_HORIZON = Position("TRIM_HORIZON")
"""At the oldest record that the stream still keeps."""
LATEST = Position("LATEST")
"""Right after the newest record."""
SHARD_END = Position(_SHARD_END)
"""All of a closed shard was read."""


def seconds_since_1970(field: str, moment: float | datetime) -> float:
    """Return a time as seconds since 1970.

    Raises:
        ConfigError: It is no time, or a datetime without a time zone; the message names the field.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ConfigError(f"{field}={moment!r}: a datetime must have a time zone")
        return moment.timestamp()
    if isinstance(moment, bool) or not isinstance(moment, (int, float)) or not 0 <= moment < math.inf:
        raise ConfigError(f"{field}={moment!r}: must be seconds since 1970 or a datetime")
    return float(moment)


def _checked(sequence_number: Any, subsequence_number: Any) -> str:
    if not isinstance(sequence_number, str) or _SEQUENCE_NUMBER.fullmatch(sequence_number) is None:
        raise ConfigError(f"sequence_number={sequence_number!r}: must be decimal text of at most 129 digits")
    if subsequence_number is not None and (type(subsequence_number) is not int or subsequence_number < 0):
        raise ConfigError(f"subsequence_number={subsequence_number!r}: must be a whole number from 0")
    return sequence_number
