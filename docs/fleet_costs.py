"""Writes the costs of a fleet in DynamoDB into docs/fleet.md. Run it after a change of a price or an interval."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import NamedTuple

from kinstream.config import Checkpoints, Fleet
from kinstream.consume.fleet.held_lease import RENEWAL_MARGIN
from kinstream.consume.fleet.leader import announce_interval, heartbeat_interval
from kinstream.consume.lease.dynamodb_lease_store import POLL_INTERVAL

PAGE = Path(__file__).parent / "fleet.md"
BEGIN, END = "<!-- costs of a fleet -->\n", "<!-- end of costs of a fleet -->"


class Prices(NamedTuple):
    """Prices of a table with on-demand capacity, in dollars.

    Attributes:
        write: Price of a write unit: one write of up to 1 KiB.
        read: Price of a read unit: one strongly consistent read of up to 4 KiB. An eventually consistent read costs half of it.
    """

    write: float
    read: float


PRICES = Prices(write=0.625e-6, read=0.125e-6)
"""us-east-1, from memory of 2026. Check the price list of your region."""

CASES = ((10, 3), (100, 10), (1_000, 50))
"""Numbers of shards and workers in the table."""

ROW_BYTES = 450
"""Bytes of a row: about those of a lease with a checkpoint, or of a worker."""

SCANS_PER_FAILOVER = 6
"""Scans of the leader, and of its standby, in the time of a failover."""

FAILOVERS_PER_SCAN = 2
"""Failovers between two scans of each other worker."""

DAY = 86_400.0


class Costs(NamedTuple):
    """Costs of a fleet in dollars a day.

    Attributes:
        renewals: Renewals of all leases, without records. They need one write each.
        busy: Renewals and checkpoints, if all shards have records all the time.
        workers: Announcements of the workers, and the leader's lock.
        polls: Queries of all workers for their leases, and the leader's checks of its row.
        scans: Complete scans, mainly of the leader and the standby.
    """

    renewals: float
    busy: float
    workers: float
    polls: float
    scans: float

    @property
    def idle_total(self) -> float:
        """All costs, if no records arrive."""
        return self.renewals + self.workers + self.polls + self.scans

    @property
    def busy_total(self) -> float:
        """All costs, if all shards have records all the time."""
        return self.busy + self.workers + self.polls + self.scans


def costs(shards: int, workers: int, *, failover: float, checkpoint_every: float, prices: Prices = PRICES) -> Costs:
    """Return the costs of a fleet at rest in mode 3x in one table, without the records, handoffs and reshards.

    Args:
        shards: Number of leases.
        workers: Number of workers.
        failover: `Fleet.failover`.
        checkpoint_every: `Checkpoints.interval`.
        prices: Prices.
    """
    renewal = failover / 3 - RENEWAL_MARGIN
    # A checkpoint renews the lease too: between two of them, only the remaining renewals are written.
    busy_writes = ceil(checkpoint_every / renewal) / checkpoint_every
    polls = workers / POLL_INTERVAL * 0.5 + 1 / POLL_INTERVAL
    scans = (2 * SCANS_PER_FAILOVER + max(workers - 2, 0) / FAILOVERS_PER_SCAN) / failover
    scan = ceil((shards + workers + 1) * ROW_BYTES / 4096) * 0.5
    return Costs(
        DAY * prices.write * shards / renewal,
        DAY * prices.write * shards * max(busy_writes, 1 / renewal),
        DAY * prices.write * (workers / announce_interval(failover) + 1 / heartbeat_interval(failover)),
        DAY * prices.read * polls,
        DAY * prices.read * scan * scans,
    )


def table() -> str:
    """Return the table: a line for each case."""
    lines = [
        "| shards | workers | renewals | announcements, lock | polls | scans | total a day, idle | total a day, busy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shards, workers in CASES:
        found = costs(shards, workers, failover=Fleet().failover, checkpoint_every=Checkpoints().interval)
        cells = (found.renewals, found.workers, found.polls, found.scans, found.idle_total, found.busy_total)
        lines.append(f"| {shards:,} | {workers} | " + " | ".join(f"${cell:,.2f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """Return the page with the table as it is now."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
