"""Tables of text that fit a terminal: columns are aligned, and long cells are shortened in the middle. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kinstream.cli.printable import printable

GAP = "  "
SHORTEST = 12
"""Characters to which a column may be shortened."""
_DOTS = "..."


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table, its header first.

    Args:
        header: Titles of the columns.
        rows: Cells as text. Control characters are escaped.
        width: Columns of the terminal. The widest cells are shortened to fit. None: nothing is shortened.
    """
    shown = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    if width is not None:
        _shrink(widths, width - len(GAP) * (len(header) - 1))
    lines = []
    for row in shown:
        cells = [shortened(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)]
        lines.append(GAP.join(cells).rstrip())
    return lines


def shortened(text: str, width: int) -> str:
    """Return a text of at most `width` characters, with its middle replaced by dots if it is longer."""
    if len(text) <= width:
        return text
    tail = (width - len(_DOTS)) // 2
    return text[: width - len(_DOTS) - tail] + _DOTS + text[len(text) - tail :]


def _shrink(widths: list[int], available: int) -> None:
    """Reduce the widest columns, each by one character at a time, until all fit or none can be reduced."""
    while sum(widths) > available:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= SHORTEST:
            return
        widths[widest] -= 1
