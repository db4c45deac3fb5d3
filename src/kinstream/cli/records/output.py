"""Output of records on standard output: as JSON or text, unwrapped, filtered, up to a maximum number of lines."""

from __future__ import annotations

import argparse
import asyncio
import select
import sys
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec

from kinstream.cli.ending import write
from kinstream.cli.records.filter import filter_of
from kinstream.cli.records.line import NO_EXTRAS, Extras, json_line
from kinstream.cli.records.text import text_line
from kinstream.cli.records.unwrapped import contents
from kinstream.cli.terminal import has_colours
from kinstream.record import ReceivedRecord

BUFFERED_BYTES = 1 << 20
"""Bytes of lines after which they are written."""
PIPE_INTERVAL = 0.2
"""Seconds between two checks for a reader of the output that is gone."""


class RecordOutput:
    """Writes records to standard output.

    Args:
        args: Arguments of the command: `json`, `unwrap` and those of `options.add_filter`.
        stream: Name of the stream. None: unknown.
        count: Maximum number of lines. None: no limit.
    """

    def __init__(self, args: argparse.Namespace, stream: str | None, count: int | None = None) -> None:
        self._stream = stream
        self._left = count
        self._json = args.json
        self._unwrap = args.unwrap
        self._test = filter_of(args)
        self._colours = has_colours()

    @property
    def complete(self) -> bool:
        """True once the maximum number of lines was written."""
        return self._left == 0

    def write(self, shard_id: str | None, records: Iterable[ReceivedRecord[bytes]], extras: Extras = NO_EXTRAS) -> None:
        """Write records of one shard.

        Args:
            shard_id: The shard. None: unknown.
            records: The records.
            extras: Further members of their lines. The records are unwrapped, unless it has an error.

        Raises:
            BrokenPipeError: The reader of standard output is gone.
        """
        lines: list[bytes] = []
        size = 0
        for record in records:
            damaged = extras.error is not None
            for data, found in [(record.data, extras)] if damaged else contents(record.data, self._unwrap):
                members = found
                if extras.explicit_hash_key is not None:
                    members = msgspec.structs.replace(found, explicit_hash_key=extras.explicit_hash_key)
                if self.complete:
                    break
                if self._test is not None and not self._test(record.partition_key, data):
                    continue
                shown = record if data is record.data else msgspec.structs.replace(record, data=data)
                if self._json:
                    line = json_line(self._stream, shard_id, shown, members)
                else:
                    line = text_line(shard_id, shown, members, colours=self._colours)
                lines.append(line)
                size += len(line)
                if self._left is not None:
                    self._left -= 1
                if size > BUFFERED_BYTES:
                    write(b"".join(lines))
                    lines, size = [], 0
            if self.complete:
                break
        if lines:
            write(b"".join(lines))


async def until_reader_is_gone() -> None:
    """Wait until the reader of standard output is gone. A command that has nothing to write would not notice it.

    Raises:
        BrokenPipeError: The reader is gone.
    """
    try:
        poll = select.poll()  # not on Windows
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError, ValueError):
        await asyncio.Event().wait()
        return
    while True:
        if any(events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0)):
            raise BrokenPipeError
        await asyncio.sleep(PIPE_INTERVAL)


async def unless_reader_is_gone(work: Coroutine[Any, Any, None]) -> None:
    """Do some work, unless the reader of standard output is gone.

    Raises:
        BrokenPipeError: The reader is gone. The work was cancelled.
    """
    tasks = [asyncio.create_task(work), asyncio.create_task(until_reader_is_gone())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
