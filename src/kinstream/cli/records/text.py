"""Records as lines of text for people: time, shard, key and data, with control characters escaped. Pure."""

from __future__ import annotations

import binascii

from kinstream.cli.printable import printable
from kinstream.cli.records.line import Extras
from kinstream.cli.terminal import Colour, coloured
from kinstream.consume.fetch.position import time_text
from kinstream.record import ReceivedRecord


def text_line(shard_id: str | None, record: ReceivedRecord[bytes], extras: Extras, *, colours: bool) -> bytes:
    """Return a record as a line of text in UTF-8, with its line feed.

    Args:
        shard_id: The shard. None: unknown.
        record: The record. An empty sequence number stands for an unknown one, and its arrival time is then unknown too.
        extras: Further members of its line.
        colours: True for colours.
    """
    words = []
    moment = extras.log_timestamp if extras.log_timestamp is not None else record.arrival_time
    if record.sequence_number or extras.log_timestamp is not None:
        words.append(coloured(time_text(moment)[:23] + "Z", Colour.DIM, colours))
    if shard_id is not None:
        words.append(coloured(printable(shard_id), Colour.CYAN, colours))
    key = "-" if record.partition_key is None else printable(record.partition_key)
    words.append(coloured(key, Colour.YELLOW, colours))
    if extras.log_group is not None:
        words.append(coloured(printable(f"{extras.log_group}/{extras.log_stream}"), Colour.GREEN, colours))
    if extras.error is not None:
        words.append(coloured(f"[{printable(extras.error)}]", Colour.RED, colours))
    try:
        words.append(printable(record.data.decode()))
    except UnicodeDecodeError:
        encoded = binascii.b2a_base64(record.data, newline=False).decode()
        words.append(coloured("base64:", Colour.DIM, colours) + encoded)
    return " ".join(words).encode(errors="backslashreplace") + b"\n"
