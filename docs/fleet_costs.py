"""Writes the costs of a fleet in DynamoDB into docs/fleet.md. Run it after a change of a price or an interval."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import NamedTuple

from kinstream.config import Checkpoints, Fleet
from kinstream.consume.fleet.held_lease import RENEWAL_MARGIN
from kinstream.consume.fleet.leader import announce_interval, heartbeat_interval, others_scan_interval
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

CASES = ((10, 3), (100, 10), (1_000, 50), (10_000, 1_000))
"""Numbers of shards and workers in the table."""

ROW_BYTES = 450
"""Bytes of a row: about those of a lease with a checkpoint, or of a worker."""

SCANS_PER_FAILOVER = 6
"""Scans of the leader, and of its standby, in the time of a failover."""

DAY = 86_400.0


class Rates(NamedTuple):
    """Calls of all workers of a fleet at rest, per second.

    Attributes:
        renewals: Renewals of the leases, without records.
        busy_renewals: Renewals and checkpoints, if all shards have records all the time.
        workers: Announcements of the workers, and renewals of the leader's lock.
        polls: Queries for the leases of a worker.
        checks: Strongly consistent reads of the leader's row: by the leader, and by all workers except the standby.
        scans: Complete scans, mainly of the leader and the standby.
    """

    renewals: float
    busy_renewals: float
    workers: float
    polls: float
    checks: float
    scans: float


def rates(shards: int, workers: int, *, failover: float, checkpoint_every: float) -> Rates:
    """Return the calls of a fleet in mode 3x in one table, without handoffs and reshards.

    Args:
        shards: Number of leases.
        workers: Number of workers, 2 or more.
        failover: `Fleet.failover`.
        checkpoint_every: `Checkpoints.interval`.
    """
    renewal = failover / 3 - RENEWAL_MARGIN
    # A checkpoint renews the lease too: between two of them, only the remaining renewals are written.
    busy = max(ceil(checkpoint_every / renewal) / checkpoint_every, 1 / renewal)
    return Rates(
        shards / renewal,
        shards * busy,
        workers / announce_interval(failover) + 1 / heartbeat_interval(failover),
        workers / POLL_INTERVAL,
        1 / POLL_INTERVAL + (workers - 2) / heartbeat_interval(failover),
        2 * SCANS_PER_FAILOVER / failover + (workers - 2) / others_scan_interval(workers, failover),
    )


class Costs(NamedTuple):
    """Costs of a fleet in dollars a day. The names are those of `Rates`."""

    renewals: float
    busy_renewals: float
    workers: float
    polls: float
    checks: float
    scans: float

    @property
    def idle_total(self) -> float:
        """All costs, if no records arrive."""
        return sum(self) - self.busy_renewals

    @property
    def busy_total(self) -> float:
        """All costs, if all shards have records all the time."""
        return sum(self) - self.renewals


def costs(shards: int, workers: int, *, failover: float, checkpoint_every: float, prices: Prices = PRICES) -> Costs:
    """Return the costs of a fleet. The arguments are those of `rates`."""
    called = rates(shards, workers, failover=failover, checkpoint_every=checkpoint_every)
    scan = ceil((shards + workers + 1) * ROW_BYTES / 4096) * prices.read / 2
    # Queries of an index and scans are eventually consistent.
    each = Costs(prices.write, prices.write, prices.write, prices.read / 2, prices.read, scan)
    return Costs(*(DAY * rate * price for rate, price in zip(called, each, strict=True)))


def table() -> str:
    """Return the table: a line for each case."""
    lines = [
        "| shards | workers | renewals | announcements, lock | polls | scans | total a day, idle | total a day, busy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shards, workers in CASES:
        found = costs(shards, workers, failover=Fleet().failover, checkpoint_every=Checkpoints().interval)
        polls = found.polls + found.checks
        cells = (found.renewals, found.workers, polls, found.scans, found.idle_total, found.busy_total)
        lines.append(f"| {shards:,} | {workers:,} | " + " | ".join(f"${cell:,.2f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """Return the page with the table as it is now."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
