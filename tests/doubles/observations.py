"""Observations of lease tables, for tests of reports and plans."""

from __future__ import annotations

from collections.abc import Iterable

from kinstream import HashKeyRange, SequenceNumberRange, Shard
from kinstream.cli.leases.survey import Observation, observed
from kinstream.consume.lease.lease import EXTRAS, INSTANCE, Lease, columns_of
from kinstream.consume.lease.row import Listing, Row, RowKind, Value

HALF = 2**127
LOW = HashKeyRange("0", str(HALF - 1))
HIGH = HashKeyRange(str(HALF), str(2**128 - 1))
WHOLE = HashKeyRange("0", str(2**128 - 1))
NOW = 1_800_000_000.0


def lease_row(lease: Lease) -> Row:
    return Row(RowKind.LEASE, lease.key, columns_of(lease))


def worker_row(worker: str, *, ours: bool = True, lut: float = NOW, **extras: Value) -> Row:
    values: dict[str, Value] = {"lut": lut, "sts": {}, "opr": {}}
    if ours:
        values |= {EXTRAS: {"v": 1, **extras}, INSTANCE: "one"}
    return Row(RowKind.WORKER, worker, values)


def leader_row(worker: str, version: str = "1", **values: Value) -> Row:
    columns: dict[str, Value] = {"ownerName": worker, "leaseDuration": "10000", "recordVersionNumber": version}
    return Row(RowKind.LEADER, "Leader", {**columns, **values})


def watched(
    *listings: Iterable[Row],
    seconds: float = 4.0,
    failover: float = 10.0,
    separate_tables: bool = False,
    dead: frozenset[str] = frozenset(),
) -> Observation:
    """Return the observation of listings that were `seconds` apart."""
    observation: Observation | None = None
    for i, rows in enumerate(listings):
        now = 100.0 + i * seconds
        observation = observed(
            observation, Listing(list(rows), separate_tables), now, NOW + i * seconds, failover, dead
        )
    assert observation is not None
    return observation


def shard(
    number: int,
    hash_keys: HashKeyRange = WHOLE,
    *,
    parents: tuple[int, ...] = (),
    closed: bool = False,
    first: int = 100,
) -> Shard:
    """Return a shard with sequence numbers of 3 digits."""
    ids = [shard_id(parent) for parent in parents]
    return Shard(
        shard_id(number),
        hash_keys,
        SequenceNumberRange(str(first), str(first + 99) if closed else None),
        *ids,
    )


def shard_id(number: int) -> str:
    return f"shardId-{number:012}"
