"""Positions in a shard: start positions and checkpoints, and their order."""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from kinstream.errors import ConfigError
from kinstream.record import ShardIteratorType

_SENTINELS = {"AT_TIMESTAMP": -3, "TRIM_HORIZON": -2, "LATEST": -1}
"""Positions before every sequence number, in this order (Amazon Kinesis Client Library, `ExtendedSequenceNumber`)."""
_SHARD_END = "SHARD_END"
LATEST_MARGIN = 5.0
"""Maximum seconds by which the local clock may be ahead of the service's. A time that stands for LATEST is this much earlier."""
PROMPT_START = 1.0
"""Seconds within which reading at LATEST must begin. A slower start begins at a time instead, so that records written since are
read."""
START_AHEAD = 300.0
"""Seconds by which a start time may be in the service's future. Up to here it means LATEST, since clocks differ."""
TOO_EARLY_DELAY = 0.25
"""Seconds before a time is requested again that the service refused because it is in the future."""

LARGEST_SUBSEQUENCE_NUMBER = 2**63 - 1
"""Largest subsequence number in a checkpoint (Amazon Kinesis Client Library: a `long`)."""

# Service model, `SequenceNumber`; other servers use leading zeros.
_SEQUENCE_NUMBER = re.compile(r"[0-9]{1,129}")
_TEXT = re.compile(r"(at|after) ([0-9]{1,129})(?:/([0-9]{1,19}))?|(AT_TIMESTAMP|LATEST)\(([0-9.e+-]+)\)")
_FORMS = (
    "'TRIM_HORIZON', 'LATEST', 'SHARD_END', 'at SEQUENCE_NUMBER', 'at SEQUENCE_NUMBER/SUBSEQUENCE_NUMBER',"
    " 'after SEQUENCE_NUMBER', 'after SEQUENCE_NUMBER/SUBSEQUENCE_NUMBER' or 'AT_TIMESTAMP(SECONDS_SINCE_1970)'"
)


class Position(msgspec.Struct, frozen=True, gc=False):
    """A position between two records of a shard. Positions are ordered as the checkpoints of the Kinesis Client Library.

    Use the constants `TRIM_HORIZON`, `LATEST` and `SHARD_END`, or `Position.at_time`, `Position.at`, `Position.after`. A position
    can be pickled, and `str` returns it as text, which `Position.from_text` reads.

    Attributes:
        sequence_number: A record's sequence number, or "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END".
        subsequence_number: Index of a user record in its aggregate, 0 in a plain record. None: the last user record, regardless
            of its index.
        inclusive: True if the position is before the record (it is read next), False if after it (it was read).
        timestamp: Seconds since 1970. Required with AT_TIMESTAMP. With LATEST, the time that LATEST refers to, if it is in the
            past.

    Example:
        >>> from kinstream import Position
        >>> str(Position.after("4959", 3))
        'after 4959/3'
        >>> Position.from_text("after 4959/3") == Position.after("4959", 3)
        True
    """

    sequence_number: str
    subsequence_number: int | None = 0
    inclusive: bool = True
    timestamp: float | None = None

    @classmethod
    def at(cls, sequence_number: str, subsequence_number: int = 0) -> Position:
        """Return the position before a record: it is read next.

        Raises:
            ConfigError: A number is invalid.
        """
        if subsequence_number is None:
            raise ConfigError(
                "subsequence_number=None: must be a whole number, because only a position after a record has none"
            )
        return cls(_checked(sequence_number, subsequence_number), subsequence_number)

    @classmethod
    def after(cls, sequence_number: str, subsequence_number: int | None = None) -> Position:
        """Return the position after a record. Without a subsequence number, after all user records in it.

        Raises:
            ConfigError: A number is invalid.
        """
        return cls(_checked(sequence_number, subsequence_number), subsequence_number, False)

    @classmethod
    def at_time(cls, moment: float | datetime) -> Position:
        """Return the position before the first record that arrived at a time or later.

        Args:
            moment: Seconds since 1970, or a datetime with its time zone.

        Raises:
            ConfigError: The time is invalid.
        """
        return cls("AT_TIMESTAMP", timestamp=seconds_since_1970("position", moment))

    @classmethod
    def from_text(cls, text: str) -> Position:
        """Return the position that `str` returned as text.

        Args:
            text: "TRIM_HORIZON", "LATEST", "SHARD_END", "at 4959", "at 4959/3", "after 4959", "after 4959/3",
                "AT_TIMESTAMP(1700000000.5)" or "LATEST(1700000000.5)". "at 4959" is "at 4959/0".

        Raises:
            ConfigError: The text is invalid.
        """
        return cls._of_text("text", text)

    @classmethod
    def parse(cls, field: str, value: PositionLike) -> Position:
        """Return a position for `value`: a position, its text as in `from_text`, or a time.

        Raises:
            ConfigError: `value` is invalid. The message names the field.
        """
        if isinstance(value, cls):
            return value._validated(field)
        if isinstance(value, str):
            return cls._of_text(field, value)
        if isinstance(value, (int, float, datetime)):
            return cls("AT_TIMESTAMP", timestamp=seconds_since_1970(field, value))
        raise ConfigError(f"{field}={value!r}: must be a Position, a time, or the text of a position: {_FORMS}")

    @classmethod
    def _of_text(cls, field: str, text: str) -> Position:
        if isinstance(text, str):
            if text in ("TRIM_HORIZON", "LATEST", _SHARD_END):
                return cls(str.__str__(text))  # of a subclass, such as an enumeration's member
            if found := _TEXT.fullmatch(text):
                side, number, index, name, moment = found.groups()
                try:
                    if name is not None:
                        return cls(name, timestamp=seconds_since_1970(field, float(moment)))
                    if side == "at":
                        return cls.at(number, int(index or 0))
                    return cls.after(number, None if index is None else int(index))
                except ValueError:  # of `float`, or a ConfigError
                    pass
        raise ConfigError(f"{field}={text!r}: must be the text of a position: {_FORMS}")

    def _validated(self, field: str) -> Position:
        """Return this position after checking its fields, since an application can construct it with any values."""
        number, moment = self.sequence_number, self.timestamp
        if number not in _SENTINELS and number != _SHARD_END:
            _checked(number, self.subsequence_number)
        if number != "LATEST" and (moment is None) is (number == "AT_TIMESTAMP"):
            raise ConfigError(
                f"{field}={self!r}: AT_TIMESTAMP requires a timestamp, LATEST allows one, other positions have none"
            )
        if moment is not None:
            seconds_since_1970(field, moment)
        if self != Position.from_text(str(self)):
            raise ConfigError(
                f"{field}={self!r}: a position before a record requires a subsequence number, and one without a sequence number"
                " has subsequence_number=0 and inclusive=True"
            )
        return self

    def since(self, moment: float) -> Position:
        """Return the position for a later resume if no record was read: LATEST as of the original start, all others unchanged.

        Args:
            moment: Time at which reading began, in seconds since 1970. By the local clock, `LATEST_MARGIN` earlier.
        """
        return Position("LATEST", timestamp=moment) if self == LATEST else self

    @property
    def is_number(self) -> bool:
        """True if the position is before or after a record's sequence number."""
        return self.sequence_number.isdecimal()

    @property
    def ended(self) -> bool:
        """True if this is the end of a closed shard."""
        return self.sequence_number == _SHARD_END

    @property
    def iterator_arguments(self) -> tuple[ShardIteratorType, str | None, float | None]:
        """Arguments of GetShardIterator and SubscribeToShard: type, sequence number, timestamp.

        A position inside an aggregate reads the aggregate from its start. The reader skips the user records before the
        position.

        Raises:
            ConfigError: The position is SHARD_END.
        """
        if self.ended:
            raise ConfigError("position='SHARD_END': is the end of a shard, after which there is nothing to read")
        if self.timestamp is not None:
            return ShardIteratorType.AT_TIMESTAMP, None, self.timestamp
        if not self.is_number:
            return ShardIteratorType(self.sequence_number), None, None
        whole = not self.inclusive and self.subsequence_number is None
        kind = ShardIteratorType.AFTER_SEQUENCE_NUMBER if whole else ShardIteratorType.AT_SEQUENCE_NUMBER
        return kind, self.sequence_number, None

    @property
    def at_record(self) -> Position:
        """The same position, but read from the record itself if it is after the record.

        The reader then finds out if the record has expired.
        """
        whole = self.is_number and not self.inclusive and self.subsequence_number is None
        return Position(self.sequence_number, 0, False) if whole else self

    @property
    def _key(self) -> tuple[float, int, float, float]:
        # Python compares an int of any size with infinity exactly.
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
        """Return the position as text, which `from_text` reads."""
        if self.timestamp is not None:
            return f"{self.sequence_number}({self.timestamp!r})"
        if not self.is_number:
            return self.sequence_number
        index = "" if self.subsequence_number is None else f"/{self.subsequence_number}"
        return f"{'at' if self.inclusive else 'after'} {self.sequence_number}{index}"


def from_now_on(field: str, position: Position, now: float) -> Position:
    """Return the position at which reading can begin, since Kinesis refuses a time later than its own.

    Args:
        field: Name of the position in an error.
        position: The position as it was given.
        now: The service's time, in seconds since 1970, exact to `CLOCKS_DIFFER`.

    Returns:
        LATEST for a time in the future. A time within `LATEST_MARGIN` is unchanged: it may be in the past by the service's
        clock, and a fetcher waits until it is (`too_early`).

    Raises:
        ConfigError: The time is more than `START_AHEAD` seconds in the future.
    """
    if position.timestamp is None:
        return position
    ahead = position.timestamp - now
    if ahead > START_AHEAD:
        raise ConfigError(
            f"{field}: {time_text(position.timestamp)} is {ahead:.0f} s after the time of the service,"
            f" {time_text(now)}: a start up to {START_AHEAD:.0f} s ahead means LATEST, a later one is refused;"
            " check the time and this machine's clock"
        )
    return LATEST if ahead > LATEST_MARGIN else position


def too_early(position: Position, now: float) -> bool:
    """Return True if the service may refuse a position for now, because its time is in the future."""
    return position.timestamp is not None and position.timestamp > now - LATEST_MARGIN


def time_text(seconds: float) -> str:
    """Return seconds since 1970 as readable text."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "milliseconds")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g} s since 1970"


PositionLike: TypeAlias = Position | str | float | datetime
"""A position: a `Position`, its text, seconds since 1970, or a datetime with its time zone."""

TRIM_HORIZON = Position("TRIM_HORIZON")
"""At the oldest record that has not expired."""
LATEST = Position("LATEST")
"""After the newest record."""
SHARD_END = Position(_SHARD_END)
"""At the end of a closed shard: all of its records were read."""


def seconds_since_1970(field: str, moment: float | datetime) -> float:
    """Return a time as seconds since 1970.

    Raises:
        ConfigError: It is not a time, or a datetime without a time zone. The message names the field.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ConfigError(f"{field}={moment!r}: a datetime must have a time zone")
        if moment.timestamp() < 0:
            raise ConfigError(f"{field}={moment!r}: must not be before 1970")
        return moment.timestamp()
    if isinstance(moment, bool) or not isinstance(moment, (int, float)) or not 0 <= moment <= sys.float_info.max:
        raise ConfigError(f"{field}={moment!r}: must be seconds since 1970 or a datetime")
    return float(moment)


def _checked(sequence_number: Any, subsequence_number: Any) -> str:
    if not isinstance(sequence_number, str) or _SEQUENCE_NUMBER.fullmatch(sequence_number) is None:
        raise ConfigError(f"sequence_number={sequence_number!r}: must be decimal text of at most 129 digits")
    if subsequence_number is not None and (
        type(subsequence_number) is not int or not 0 <= subsequence_number <= LARGEST_SUBSEQUENCE_NUMBER
    ):
        raise ConfigError(f"subsequence_number={subsequence_number!r}: must be a whole number from 0 to 2**63 - 1")
    return sequence_number
