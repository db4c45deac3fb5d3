"""Detection of damage to a SQLite write-ahead log (WAL) that SQLite itself does not report.

SQLite recovers a WAL up to its first frame with a wrong checksum and drops the frames behind it, because a crash in the middle
of a write leaves such frames. It ignores the whole file if the header is wrong. Both also follow from damage to the file, and
then commits are lost that were acknowledged. A later commit distinguishes the two:

1. Each frame stores a checksum that continues the one stored in the frame before it.
2. A commit frame that continues the checksum of the frame before it, as stored or as computed, was written after that frame.
3. So a broken frame before it was complete once and has changed since.

Without such a commit nothing is reported: the last transaction may have been incomplete.

Source: https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import struct
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""First word of a header, and the byte order in which checksums read the words of a page."""


class _Frame(NamedTuple):
    """The header of one frame."""

    commits: bool
    """True for the last frame of a transaction."""
    salts: tuple[int, int]
    """The header's own, unless the frame is left over from before the last checkpoint."""
    checksum: tuple[int, int]


class WriteAheadLog:
    """The frames of a WAL, read before SQLite opens it. Close it afterwards.

    Args:
        path: Its file, which may be missing.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb") if path.exists() else BytesIO()
        self._size = self._file.seek(0, SEEK_END)
        self._order = ""
        self._salts = self._seed = (0, 0)
        self._page_bytes = 0
        self._frames: list[_Frame] = []
        if self._size > _HEADER.size:
            self._read()

    def damage(self, recovered: int) -> str | None:
        """Return a description of the damage, or None if no damage is certain.

        Args:
            recovered: Number of frames that SQLite recovered. Nothing may have been written since.
        """
        if self._size <= _HEADER.size:
            return None
        if not self._order:
            return f"its header is invalid, and none of its {self._size} bytes were recovered"
        commits = [
            number
            for number, frame in enumerate(self._frames)
            if number >= recovered and frame.commits and frame.salts == self._salts
        ]
        if not any(self._continues(number) for number in commits if number > recovered):
            return None
        return (
            f"a frame is broken, {recovered} of {len(self._frames)} were recovered, and {len(commits)} commits were not"
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        header = self._file.read(_HEADER.size)
        magic, _, page_bytes, _, salt, other_salt, first, second = _HEADER.unpack(header)
        order = _MAGIC.get(magic)
        if order is None or _checksum((0, 0), header[:24], order) != (first, second):
            return
        self._order, self._page_bytes, self._salts, self._seed = order, page_bytes, (salt, other_salt), (first, second)
        for number in range((self._size - _HEADER.size) // (_FRAME.size + page_bytes)):
            self._file.seek(self._offset(number))
            _, database_pages, salt, other_salt, first, second = _FRAME.unpack(self._file.read(_FRAME.size))
            self._frames.append(_Frame(database_pages > 0, (salt, other_salt), (first, second)))

    def _offset(self, number: int) -> int:
        return _HEADER.size + number * (_FRAME.size + self._page_bytes)

    def _continues(self, number: int) -> bool:
        """Return whether a frame is complete and was written after the frame before it."""
        stored = self._frames[number - 1].checksum
        computed = self._compute(number - 1, self._frames[number - 2].checksum if number > 1 else self._seed)
        return self._frames[number].checksum in {self._compute(number, seed) for seed in (stored, computed)}

    def _compute(self, number: int, seed: tuple[int, int]) -> tuple[int, int]:
        """Return the checksum of a frame that continues another checksum."""
        self._file.seek(self._offset(number))
        header = self._file.read(_FRAME.size)
        return _checksum(_checksum(seed, header[:8], self._order), self._file.read(self._page_bytes), self._order)


def _checksum(seed: tuple[int, int], data: bytes, order: str) -> tuple[int, int]:
    """Return the checksum of data that continues another checksum."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    first, second = seed
    for index in range(0, len(words), 2):
        first = (first + words[index] + second) & 0xFFFFFFFF
        second = (second + words[index + 1] + first) & 0xFFFFFFFF
    return first, second
