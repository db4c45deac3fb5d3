"""Output of the demo: progress bars on a terminal, plain lines in a pipe, and a final table of the shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.read import ShardRead
from kinstream.cli.demo.verdict import Verdict
from kinstream.cli.printable import printable
from kinstream.service_quotas import KIB
from kinstream.sharding.hashkey import MAX_HASH_KEY

WIDTH = 80
"""Maximum columns of the output, because a bar across a wide screen is hard to read."""


NAME_WIDTH = len("read shardId-000000000000")
"""Columns of a task's name, so that bars do not shrink when a longer name is added."""

COUNT_WIDTH = len("27,004 / 27,004")
"""Columns of a task's count, which must not be truncated."""

RATE_WIDTH = 64
"""Minimum columns of a terminal for bars with a rate."""

LINE_EVERY = 10_000
"""Number of records per progress line in a pipe."""


class Show(Protocol):
    """Progress display."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """Print a line."""

    def begin(self, work: str, total: int) -> None:
        """Start a task, `work`, of `total` records."""

    def advance(self, work: str, count: int) -> None:
        """Add `count` completed records to a task."""

    def label(self, work: str, text: str) -> None:
        """Show a text as the name of a task."""


class _Console(Console):
    """Console that reports a reader of its output that is gone, instead of ending the process."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise BrokenPipeError


def standard_output() -> Console:
    """Return the console on standard output."""
    console = _Console(highlight=False)
    console.width = min(console.width, WIDTH)
    return console


def show_on(console: Console) -> Show:
    """Return the display for a console: bars on a terminal that can move its cursor, otherwise lines."""
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class Bars:
    """Progress bars, one per task, on a terminal."""

    def __init__(self, console: Console) -> None:
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False, table_column=Column(min_width=NAME_WIDTH, no_wrap=True)),
            BarColumn(bar_width=None, complete_style="cyan"),
            TextColumn(
                "{task.completed:>6,.0f} / {task.total:>6,.0f}",
                table_column=Column(min_width=COUNT_WIDTH, no_wrap=True),
            ),
        ]
        if console.width >= RATE_WIDTH:
            columns.append(_Rate())
        self._progress = Progress(*columns, console=console, expand=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(Text(printable(text)))

    def begin(self, work: str, total: int) -> None:
        """Add a bar."""
        self._tasks[work] = self._progress.add_task(printable(work), total=total)

    def advance(self, work: str, count: int) -> None:
        """Advance a bar."""
        self._progress.advance(self._tasks[work], count)

    def label(self, work: str, text: str) -> None:
        """Change the name next to a bar."""
        self._progress.update(self._tasks[work], description=printable(text))


class Lines:
    """Progress lines for a pipe or a log: one per `every` records, and one at the end of each task."""

    def __init__(self, console: Console, every: int = LINE_EVERY) -> None:
        self._console = console
        self._every = every
        self._works: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(printable(text)))

    def begin(self, work: str, total: int) -> None:
        """Start a task. Its first line is printed when records are completed."""
        self._works[work] = 0, total

    def advance(self, work: str, count: int) -> None:
        """Print a line if enough records were completed."""
        before, total = self._works[work]
        done = before + count
        self._works[work] = done, total
        if done // self._every > before // self._every or (done == total and count):
            self.say(f"{work}: {done:,} of {total:,} records")

    def label(self, work: str, text: str) -> None:
        """Do nothing: lines have the first name of a task."""


COLUMNS = (
    ("shard", "state", "from", "keys", "records", "KiB", "first", "last"),
    ("shard", "state", "from", "keys", "records", "KiB"),
    ("shard", "state", "records", "KiB"),
    ("shard", "records"),
)
"""Columns of the table, for wide to narrow terminals."""

CAPTIONS = {
    "from": "from: parent shard",
    "keys": "keys: share of the hash keys",
    "first": "first, last: day and time",
}
"""Explanation of columns, shown below the table if it has them."""


def shard_table(found: Sequence[ShardRead], console: Console) -> Table:
    """Return a table with a row for each shard and a total, with the columns that fit the console."""
    unlimited = console.options.update_width(1000)  # a measurement never exceeds the width of its options
    *wider, narrowest = COLUMNS
    for columns in wider:
        table = _table(found, columns)
        if console.measure(table, options=unlimited).maximum <= console.width:
            return table
    return _table(found, narrowest)


def _table(found: Sequence[ShardRead], columns: Sequence[str]) -> Table:
    caption = ". ".join(text for column, text in CAPTIONS.items() if column in columns)
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0), show_footer=True, caption=caption or None)
    totals = {
        "shard": "all shards",
        "records": f"{sum(shard.records for shard in found):,}",
        "KiB": f"{sum(shard.size for shard in found) / KIB:,.0f}",
    }
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in ("shard", "state") else "right"
        table.add_column(column, totals.get(column, ""), justify=justify, no_wrap=True)
    for each in found:
        shard = each.shard
        low, high = (int(shard.hash_key_range.starting_hash_key), int(shard.hash_key_range.ending_hash_key))
        cells = {
            "shard": Text(printable(shard.shard_id)),
            "state": "closed" if shard.closed else "open",
            "from": Text("" if shard.parent_shard_id is None else printable(short_id(shard.parent_shard_id))),
            "keys": f"{100 * (high - low + 1) / (MAX_HASH_KEY + 1):.1f}%",
            "records": f"{each.records:,}",
            "KiB": f"{each.size / KIB:,.0f}",
            "first": _departure(each.first),
            "last": _departure(each.last),
        }
        table.add_row(*(cells[column] for column in columns), style="dim" if shard.closed else None)
    return table


def verdict_line(verdict: Verdict) -> Text:
    """Return the last line of the output."""
    return Text(f"demo: {verdict}", style="bold green" if verdict.good else "bold red")


class _Rate(ProgressColumn):
    """Records per second: the current rate, or the average once the task is completed."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s".rjust(8), style="cyan")


def short_id(shard_id: str) -> str:
    """Return a shard's number without leading zeros, for a narrow column."""
    return shard_id.removeprefix("shardId-").lstrip("0") or "0"


def _departure(event: Event | None) -> str:
    """Return the scheduled departure in an event, such as "31 23:59". "?" if the record does not contain one."""
    if event is None:
        return "-"
    try:
        flight = json.loads(event.data)
        return f"{flight['day']:2d} {flight['hour']:02d}:{flight['minute']:02d}"
    except (ValueError, KeyError, TypeError):
        return "?"
