"""Final tables of the demo's fleet: its workers, and the handoffs of their shards."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from kinstream.cli.demo.fleet.crew import WorkerRead
from kinstream.cli.demo.fleet.ledger import Passage
from kinstream.cli.demo.show import short_id


def worker_table(workers: Sequence[WorkerRead]) -> Table:
    """Return a table with a row for each worker and a total."""
    table = Table(
        box=box.SIMPLE_HEAD,
        expand=True,
        padding=(0, 1, 0, 0),
        show_footer=True,
        caption="first record: seconds after the start of the process",
    )
    table.add_column("worker", "all workers", no_wrap=True)
    table.add_column("first record", justify="right", no_wrap=True)
    table.add_column("records", f"{sum(worker.records for worker in workers):,}", justify="right", no_wrap=True)
    table.add_column("shards", justify="left")
    table.add_column("ended by", no_wrap=True)
    for worker in workers:
        first = "-" if worker.first_record is None else f"{worker.first_record:.2f} s"
        table.add_row(
            worker.name, first, f"{worker.records:,}", ", ".join(map(short_id, worker.shards)) or "-", worker.end
        )
    return table


def passage_lines(passages: Sequence[Passage]) -> list[str]:
    """Return a line about the handoffs, and one about the shards of killed workers."""
    lines: list[str] = []
    for killed, name, of in (
        (False, "handoffs", "from the last record to the next worker's first"),
        (True, "takeovers", "from the kill to the next worker's first record"),
    ):
        gaps = [1000 * passage.gap for passage in passages if passage.killed is killed]
        if gaps:
            span = f"{min(gaps):,.0f} ms" if len(gaps) == 1 else f"{min(gaps):,.0f} to {max(gaps):,.0f} ms"
            lines.append(f"{name}: {len(gaps)}, {span} {of}")
    return lines
