"""A lease as a value: one row of the lease table, checkpoint included, in the Kinesis Client Library's columns."""

from __future__ import annotations

import msgspec

from kinstream.consume.fetch.position import TRIM_HORIZON, Position
from kinstream.record import HashKeyRange


class Lease(msgspec.Struct, frozen=True):
    """Who reads a shard, and how far its records are done. The columns' names in the KCL's table stand in brackets.

    Attributes:
        key: The shard's id (leaseKey).
        owner: The worker that reads it; None: nobody (leaseOwner).
        counter: Grows with each write; a writer who knows an older one is refused (leaseCounter).
        checkpoint: After what was done (checkpoint, checkpointSubSequenceNumber).
        parents: The shards that must be done before (parentShardId).
        children: The shards in which reading goes on (childShardIds).
        hash_key_range: The hash keys that it takes (startingHashKey, endingHashKey).
        owner_switches: How often its owner changed since the last checkpoint (ownerSwitchesSinceCheckpoint).
        idle_until: All records before this time are completed, though the record of the checkpoint is much older; None: unknown.
            In seconds since 1970; the KCL has no such column.
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
        """Return the row after its owner said that it is still there."""
        return msgspec.structs.replace(self, counter=self.counter + 1)

    def taken(self, owner: str) -> Lease:
        """Return the row after `owner` took it."""
        switched = self.owner is not None and self.owner != owner
        return msgspec.structs.replace(
            self, owner=owner, counter=self.counter + 1, owner_switches=self.owner_switches + switched
        )

    def released(self) -> Lease:
        """Return the row after its owner stopped reading in good order."""
        return msgspec.structs.replace(self, owner=None, counter=self.counter + 1)

    def checkpointed(self, position: Position, children: tuple[str, ...] | None = None) -> Lease:
        """Return the row after its owner wrote down how far it came."""
        return msgspec.structs.replace(
            self,
            counter=self.counter + 1,
            checkpoint=position,
            children=self.children if children is None else children,
            owner_switches=0,
            idle_until=None,
        )

    def idle(self, until: float) -> Lease:
        """Return the row after its owner wrote down until when nothing came after the checkpoint."""
        return msgspec.structs.replace(self, counter=self.counter + 1, idle_until=until)

    def succeeds(self, stored: Lease | None) -> bool:
        """Return whether this row may be written in the place of `stored`: its writer knew that one, and nothing newer."""
        return stored is not None and self.counter == stored.counter + 1
