"""Lease as a value: one row of the lease table, including the checkpoint, with the columns of the Kinesis Client Library."""

from __future__ import annotations

import msgspec

from kinstream.consume.fetch.position import TRIM_HORIZON, Position
from kinstream.record import HashKeyRange


class Lease(msgspec.Struct, frozen=True):
    """The owner of a shard and its checkpoint. The names of the columns in the KCL's table are in parentheses.

    Attributes:
        key: The shard's id (leaseKey).
        owner: The worker that reads the shard. None: no worker (leaseOwner).
        counter: Incremented by each write. A write based on an older counter is refused (leaseCounter).
        checkpoint: Position after the completed records (checkpoint, checkpointSubSequenceNumber).
        parents: Shards that must be completed first (parentShardId).
        children: Shards that follow this one after a reshard (childShardIds).
        hash_key_range: Range of its hash keys (startingHashKey, endingHashKey).
        owner_switches: Number of changes of the owner since the last checkpoint (ownerSwitchesSinceCheckpoint).
        idle_until: All records before this time are completed, though the record of the checkpoint is much older. None:
            unknown. In seconds since 1970. The KCL has no such column.
    """

    key: str
    owner: str | None = None
    counter: int = 0
    checkpoint: Position = TRIM_HORIZON
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    hash_key_range: HashKeyRange | None = None
    owner_switches: int = 0
    idle_until: float | None = None

    def renewed(self) -> Lease:
        """Return the row with an incremented counter, which shows that its owner is alive."""
        return msgspec.structs.replace(self, counter=self.counter + 1)

    def taken(self, owner: str) -> Lease:
        """Return the row with a new owner."""
        switched = self.owner is not None and self.owner != owner
        return msgspec.structs.replace(
            self, owner=owner, counter=self.counter + 1, owner_switches=self.owner_switches + switched
        )

    def released(self) -> Lease:
        """Return the row without an owner, after its owner has stopped reading."""
        return msgspec.structs.replace(self, owner=None, counter=self.counter + 1)

    def checkpointed(self, position: Position, children: tuple[str, ...] | None = None) -> Lease:
        """Return the row with a new checkpoint."""
        return msgspec.structs.replace(
            self,
            counter=self.counter + 1,
            checkpoint=position,
            children=self.children if children is None else children,
            owner_switches=0,
            idle_until=None,
        )

    def idle(self, until: float) -> Lease:
        """Return the row with a new `idle_until`: no record arrived after the checkpoint until that time."""
        return msgspec.structs.replace(self, counter=self.counter + 1, idle_until=until)

    def succeeds(self, stored: Lease | None) -> bool:
        """Return True if this row may replace `stored`: it was derived from exactly that row."""
        return stored is not None and self.counter == stored.counter + 1
