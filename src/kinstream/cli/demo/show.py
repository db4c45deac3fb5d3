"""What the demo shows: live bars on a terminal, a few plain lines in a pipe, and a table of the shards at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

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
"""Columns of everything, on wider terminals too: a bar across a whole screen is hard to read."""


NAME_WIDTH = len("read shardId-000000000000")
"""Columns of a work's name, so that bars do not shrink when a longer one comes."""

LINE_EVERY = 10_000
"""Records after which a pipe gets a line."""


class Show(Protocol):
    """Shows how work goes on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """Show a line."""

    def begin(self, work: str, total: int) -> None:
        """Show that `work` has begun, which is done when `total` records are."""

    def advance(self, work: str, count: int) -> None:
        """Show that `count` more records are done."""


def standard_output() -> Console:
    """Return the console on standard output."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH)
    return console


def show_on(console: Console) -> Show:
    """Return what suits the console: bars that move, or lines."""
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class Bars:
    """A moving bar for each work, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(min_width=NAME_WIDTH)),
            BarColumn(bar_width=None, complete_style="cyan"),
            TextColumn("{task.completed:>6,.0f} / {task.total:>6,.0f}"),
            _Rate(),
            console=console,
            expand=True,
        )
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
        """Move a bar."""
        self._progress.advance(self._tasks[work], count)


class Lines:
    """A line for every so many records, and at the end of each work, for a pipe or a log."""

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
        """Remember a work; it is worth a line once some of it is done."""
        self._works[work] = 0, total

    def advance(self, work: str, count: int) -> None:
        """Print a line where enough was done."""
        before, total = self._works[work]
        done = before + count
        self._works[work] = done, total
        if done // self._every > before // self._every or (done == total and count):
            self.say(f"{work}: {done:,} of {total:,} records")


def shard_table(found: Sequence[ShardRead]) -> Table:
    """Return a table with a row for each shard and a sum."""
    table = Table(
        box=box.SIMPLE_HEAD,
        expand=True,
        padding=(0, 1, 0, 0),
        show_footer=True,
        caption="keys: share of all hash keys; first, last: day and time of the departure",
    )
    records = sum(shard.records for shard in found)
    size = sum(shard.size for shard in found)
    table.add_column("shard", "all shards", no_wrap=True)
    table.add_column("state")
    table.add_column("from", justify="right")
    table.add_column("keys", justify="right")
    table.add_column("records", f"{records:,}", justify="right")
    table.add_column("KiB", f"{size / KIB:,.0f}", justify="right")
    table.add_column("first", justify="right")
    table.add_column("last", justify="right")
    for each in found:
        shard = each.shard
        low, high = (int(shard.hash_key_range.starting_hash_key), int(shard.hash_key_range.ending_hash_key))
        table.add_row(
            Text(printable(shard.shard_id)),
            "closed" if shard.closed else "open",
            Text("" if shard.parent_shard_id is None else printable(_short(shard.parent_shard_id))),
            f"{100 * (high - low + 1) / (MAX_HASH_KEY + 1):.1f}%",
            f"{each.records:,}",
            f"{each.size / KIB:,.0f}",
            _departure(each.first),
            _departure(each.last),
            style="dim" if shard.closed else None,
        )
    return table


def verdict_line(verdict: Verdict) -> Text:
    """Return the demo's last line."""
    return Text(f"demo: {verdict}", style="bold green" if verdict.good else "bold red")


class _Rate(ProgressColumn):
    """Records a second, of the last moments, or of all the work once it is done."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s".rjust(8), style="cyan")


def _short(shard_id: str) -> str:
    """Return a shard's number without its leading zeros, which a narrow column has no room for."""
    return shard_id.removeprefix("shardId-").lstrip("0") or "0"


def _departure(event: Event | None) -> str:
    """Return when an event's flight was to leave, such as "31 23:59", for as far as the record still says so."""
    if event is None:
        return "-"
    try:
        flight = json.loads(event.data)
        return f"{flight['day']:2d} {flight['hour']:02d}:{flight['minute']:02d}"
    except (ValueError, KeyError, TypeError):
        return "?"
