"""Sequence numbers: 56 digits that carry their shard, its age and the record's place in it.

In hexadecimal, 47 digits from the left, as Kinesis' own numbers look: the digit 2, 9 digits of the second in which the
shard was made, a 0, 16 digits of the record's place in the shard, two zeros, 9 digits of the second in which the record
arrived, 8 digits of the shard's index, and the digit 2. So numbers grow along a shard; and because a child is made in a later
second than its parents, by its number if not by the clock, all of a child's are greater than all of its parents'.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"0|[1-9][0-9]{0,128}")
_MARK = 2
_PLACE_SHIFT = 80
_ORIGIN_SHIFT = 148
_TOP_SHIFT = 184
_SECOND_BITS = 2**36 - 1

STEP = 1 << _PLACE_SHIFT
"""What the next record's number has more than this one's, within one second."""


class Parsed(NamedTuple):
    """What a sequence number says."""

    origin: int
    """Second in which the shard was made, as its numbers have it."""
    place: int
    """The record's place in the shard, from 1; 0 in the shard's starting number."""
    second: int
    """Second in which the record arrived."""
    shard_index: int
    """The shard's index in its stream."""


def number(origin: int, place: int, second: int, shard_index: int) -> int:
    """Return the sequence number of a record."""
    return (
        _MARK << _TOP_SHIFT
        | (origin & _SECOND_BITS) << _ORIGIN_SHIFT
        | place << _PLACE_SHIFT
        | (second & _SECOND_BITS) << 36
        | shard_index << 4
        | _MARK
    )


def parse(text: str) -> Parsed | None:
    """Return what `text` says, or None where no shard of this server can have given it."""
    if _FORM.fullmatch(text) is None:
        return None
    value = int(text)
    if value >> _TOP_SHIFT != _MARK or value & 0xF != _MARK or (value >> 72) & 0xFF or (value >> 144) & 0xF:
        return None
    return Parsed(
        origin=(value >> _ORIGIN_SHIFT) & _SECOND_BITS,
        place=(value >> _PLACE_SHIFT) & (2**64 - 1),
        second=(value >> 36) & _SECOND_BITS,
        shard_index=(value >> 4) & 0xFFFFFFFF,
    )
