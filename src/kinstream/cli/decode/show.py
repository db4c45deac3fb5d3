"""User records in data without a stream: of one record, or of lines in base64. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from kinstream.cli.records.line import NO_EXTRAS, BadLine, Extras, decoded
from kinstream.kpl.container import BadIndex, Damaged, is_container, unpack
from kinstream.kpl.message import MAGIC
from kinstream.record import NO_KEY, ReceivedRecord

Decoded: TypeAlias = tuple[Iterable[ReceivedRecord[bytes]], Extras]
"""Records, and the members that their lines have in addition."""

LONGEST_JOINED = 16 << 20
"""Maximum bytes of an aggregate in several lines of base64. A record has at most 10 MiB (API reference, `PutRecord`)."""


def data_records(data: bytes) -> Iterator[Decoded]:
    """Yield the user records in the data of one record: those of an aggregate, or the data itself."""
    try:
        found = unpack(data)
    except (Damaged, BadIndex) as error:
        yield (_record(data),), Extras(error=f"aggregate: {error}")
        return
    if found is None:
        yield (_record(data),), NO_EXTRAS
        return
    for index, (key, hash_key, inner) in enumerate(found):
        # The hash key of a record that was put without a key only selected the shard of its aggregate.
        known = hash_key is not None and key != NO_KEY
        yield (_record(inner, key, index),), Extras(explicit_hash_key=hash_key) if known else NO_EXTRAS


def base64_records(lines: Iterable[bytes]) -> Iterator[Decoded]:
    """Yield the user records in lines of base64.

    Each line is a record. An aggregate may have several lines, as `base64` writes it: its checksum shows its last line.
    """
    joined = b""
    pending: list[bytes] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        try:
            data = decoded(text, f"line {number}")
        except BadLine as error:
            yield from _each(pending)
            joined, pending = b"", []
            yield (_record(text),), Extras(error=str(error))
            continue
        starts = data.startswith(MAGIC)
        if starts or not pending:
            yield from _each(pending)
            joined, pending = b"", []
            if not starts or is_container(data):
                yield from data_records(data)
                continue
        joined += data
        pending.append(data)
        shorter = len(data) < len(pending[0]) or text.endswith(b"=")
        if (shorter and is_container(joined)) or len(joined) > LONGEST_JOINED:
            yield from data_records(joined) if is_container(joined) else _each(pending)
            joined, pending = b"", []
    yield from data_records(joined) if is_container(joined) else _each(pending)


def _each(pending: list[bytes]) -> Iterator[Decoded]:
    for data in pending:
        yield from data_records(data)


def _record(data: bytes, key: str | None = None, index: int | None = None) -> ReceivedRecord[bytes]:
    return ReceivedRecord(data, "", 0.0, None if key == NO_KEY else key, subsequence_number=index)
