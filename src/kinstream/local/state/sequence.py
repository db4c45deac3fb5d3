"""Sequence numbers: 56 digits that encode the shard, its creation time and the position of the record.

In hexadecimal they have 47 digits with the layout of the numbers of Kinesis. From the left: the digit 2, 9 digits of the second
in which the shard was created, a 0, 16 digits of the position of the record in the shard, two zeros, 9 digits of the second in
which the record arrived, 8 digits of the index of the shard, and the digit 2. Numbers therefore increase within a shard. A child
shard encodes a later second than its parents, if necessary a later one than the clock shows, so all of its numbers are greater
than those of its parents.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"0|[1-9][0-9]{0,128}")
_MARK = 2
_POSITION_SHIFT = 80
_ORIGIN_SHIFT = 148
_TOP_SHIFT = 184
_SECOND_BITS = 2**36 - 1

STEP = 1 << _POSITION_SHIFT
"""Difference of the sequence numbers of two successive records in the same second."""


class Parsed(NamedTuple):
    """The parts of a sequence number."""

    origin: int
    """Encoded second in which the shard was created."""
    position: int
    """Position of the record in the shard, from 1. It is 0 in the starting sequence number of the shard."""
    second: int
    """Second in which the record arrived."""
    shard_index: int
    """Index of the shard in its stream."""


def number(origin: int, position: int, second: int, shard_index: int) -> int:
    """Return the sequence number of a record."""
    return (
        _MARK << _TOP_SHIFT
        | (origin & _SECOND_BITS) << _ORIGIN_SHIFT
        | position << _POSITION_SHIFT
        | (second & _SECOND_BITS) << 36
        | shard_index << 4
        | _MARK
    )


def parse(text: str) -> Parsed | None:
    """Return the parts of a sequence number, or None if no shard of this server can have issued it."""
    if _FORM.fullmatch(text) is None:
        return None
    value = int(text)
    if value >> _TOP_SHIFT != _MARK or value & 0xF != _MARK or (value >> 72) & 0xFF or (value >> 144) & 0xF:
        return None
    return Parsed(
        origin=(value >> _ORIGIN_SHIFT) & _SECOND_BITS,
        position=(value >> _POSITION_SHIFT) & (2**64 - 1),
        second=(value >> 36) & _SECOND_BITS,
        shard_index=(value >> 4) & 0xFFFFFFFF,
    )
