"""Lines of standard input: read by a thread, so that reading ends with the command even if no line arrives."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator

READ_BYTES = 1 << 18
"""Maximum bytes of one read."""
LONGEST_LINE = 96 << 20
"""Maximum bytes of a line. The JSON of a record of 10 MiB has at most six bytes for each of its bytes."""


class LongLine(Exception):
    """A line has more than `LONGEST_LINE` bytes."""


async def line_batches(descriptor: int) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a file as they arrive, without their line feeds. The last line may have none.

    Args:
        descriptor: File descriptor.

    Raises:
        OSError: It cannot be read.
        LongLine: A line is too long. The lines before it were returned.
    """
    rest: list[bytes] = []
    size = 0
    async for piece in _pieces(descriptor):
        first, *others = piece.split(b"\n")
        rest.append(first)
        size += len(first)
        if others:
            lines = [b"".join(rest), *others]
            last = lines.pop()
            rest, size = [last] if last else [], len(last)
            yield lines
        if size > LONGEST_LINE:
            raise LongLine
    if rest and (last := b"".join(rest)):
        yield [last]


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    """Yield the content of a file. One piece is read ahead."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    wanted = threading.Semaphore(2)

    def read() -> None:
        while True:
            wanted.acquire()
            try:
                piece: bytes | OSError = os.read(descriptor, READ_BYTES)
            except OSError as error:
                piece = error
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:  # the event loop is closed
                return
            if not piece or isinstance(piece, OSError):
                return

    # A daemon, because nothing can end a read of a terminal or a pipe.
    threading.Thread(target=read, name="kinstream-stdin", daemon=True).start()
    while True:
        piece = await pieces.get()
        if isinstance(piece, OSError):
            raise piece
        if not piece:
            return
        yield piece
        wanted.release()
