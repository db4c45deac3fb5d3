"""Places in a stream as arguments of commands: oldest, latest, a time, or a position in a shard."""

from __future__ import annotations

import argparse
import re

import msgspec

from kinstream.cli.moment import moment_or_age
from kinstream.clock import SYSTEM_CLOCK

_SHARD = re.compile(r"(shardId-[a-zA-Z0-9_.-]+):(.+)")
_NUMBER = re.compile(r"(?:(at|after) )?([0-9]{13,129})(/[0-9]{1,19})?")
"""A sequence number, which is longer than any time."""
_WORDS = {"oldest": "TRIM_HORIZON", "latest": "LATEST"}


class Place(msgspec.Struct, frozen=True):
    """A place in a stream.

    Attributes:
        position: "TRIM_HORIZON", "LATEST", the text of a position in a shard, or None for a time.
        moment: The time, in seconds since 1970. None: not a time.
        shard_id: The shard that was named. None: none was.
    """

    position: str | None = None
    moment: float | None = None
    shard_id: str | None = None

    @property
    def in_shard(self) -> bool:
        """True if the place is a position in one shard."""
        return self.shard_id is not None or self.position not in (None, "TRIM_HORIZON", "LATEST")


def place(text: str) -> Place:
    """Return the value of an option that is a place in a stream.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    shard_id, rest = None, text
    if named := _SHARD.fullmatch(text):
        shard_id, rest = named.groups()
    word = _WORDS.get(rest, rest)
    if word in ("TRIM_HORIZON", "LATEST") or (word == "SHARD_END" and shard_id is not None):
        return Place(word, shard_id=shard_id)
    if number := _NUMBER.fullmatch(rest):
        return Place(f"{number[1] or 'at'} {number[2]}{number[3] or ''}", shard_id=shard_id)
    forms = "oldest, latest, 'at NUMBER' or 'after NUMBER' with a sequence number, SHARD:POSITION"
    return Place(moment=moment_or_age(forms, rest, SYSTEM_CLOCK.wall()), shard_id=shard_id)


def end(text: str) -> float | str:
    """Return the value of an option for the time of an end: "now", or seconds since 1970.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    return text if text == "now" else moment_or_age("now", text, SYSTEM_CLOCK.wall())


def check_places(parser: argparse.ArgumentParser, option: str, places: list[Place]) -> None:
    """Check that an option is repeated for positions in several shards only. Otherwise, end with status 2."""
    if len(places) > 1 and not all(one.in_shard for one in places):
        parser.error(f"argument {option}: must be given once, or once for the position in each of several shards")


def check_end(parser: argparse.ArgumentParser, starts: list[Place], until: float | str | None) -> None:
    """Check that the time `--until` is not before the time `--from`. Otherwise, end with status 2."""
    begins = [one.moment for one in starts if one.moment is not None]
    if isinstance(until, float) and begins and until < min(begins):
        parser.error("argument --until: must not be before --from")
