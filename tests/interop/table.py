"""The lease table of a KCL application, read as rows, and made with fresh leases for workers that would wait on an empty one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SENTINELS = {"TRIM_HORIZON": -2, "LATEST": -1, "AT_TIMESTAMP": -3, "SHARD_END": 1 << 200}
"""Order of the checkpoints that are not sequence numbers (KCL, ExtendedSequenceNumber)."""


@dataclass(frozen=True)
class LeaseRow:
    """One lease. The attributes are those of the table.

    Attributes:
        shard: The key, a shard id.
        owner: `leaseOwner`, or None.
        old_owner: `checkpointOwner` of a graceful handoff in progress, or None.
        counter: `leaseCounter`.
        checkpoint: A sequence number or a sentinel.
        subsequence: `checkpointSubSequenceNumber`.
        parents: `parentShardId`.
        children: `childShardIds`.
    """

    shard: str
    owner: str | None
    old_owner: str | None
    counter: int
    checkpoint: str
    subsequence: int
    parents: frozenset[str]
    children: frozenset[str]

    @property
    def finished(self) -> bool:
        return self.checkpoint == "SHARD_END"

    @property
    def position(self) -> tuple[int, int]:
        """The checkpoint, to compare it with others of the shard."""
        number = SENTINELS.get(self.checkpoint)
        return (int(self.checkpoint) if number is None else number), self.subsequence

    @property
    def text(self) -> str:
        """The checkpoint as workers log it: "sequence number/subsequence number"."""
        return f"{self.checkpoint}/{self.subsequence}"


class LeaseTable:
    """The table of one application.

    Args:
        dynamodb: A boto3 client.
        name: Name of the table, which is the name of the application.

    Attributes:
        regressions: Shards whose checkpoint was seen going back, with both positions.
    """

    def __init__(self, dynamodb: Any, name: str) -> None:
        self._dynamodb = dynamodb
        self.name = name
        self.regressions: list[tuple[str, str, str]] = []
        self._last: dict[str, LeaseRow] = {}

    def create(self, shards: Iterable[Any]) -> None:
        """Create the table with a fresh lease for each shard of a `ListShards` response, as a KCL of version 2 does."""
        self._dynamodb.create_table(
            TableName=self.name,
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for shard in shards:
            hashes = shard["HashKeyRange"]
            item = {
                "leaseKey": {"S": shard["ShardId"]},
                "leaseCounter": {"N": "0"},
                "checkpoint": {"S": "TRIM_HORIZON"},
                "checkpointSubSequenceNumber": {"N": "0"},
                "ownerSwitchesSinceCheckpoint": {"N": "0"},
                "startingHashKey": {"S": hashes["StartingHashKey"]},
                "endingHashKey": {"S": hashes["EndingHashKey"]},
            }
            self._dynamodb.put_item(TableName=self.name, Item=item)

    def items(self) -> list[dict[str, Any]]:
        """Return all items, also those that are not leases, in DynamoDB's JSON."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self.name, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def rows(self) -> dict[str, LeaseRow]:
        """Return the leases by shard id, and note each checkpoint that is before the one seen last."""
        rows = {row.shard: row for row in map(_row, filter(_is_lease, self.items()))}
        for shard, row in rows.items():
            before = self._last.get(shard)
            if before is not None and row.position < before.position:
                self.regressions.append((shard, before.text, row.text))
        self._last = rows
        return dict(sorted(rows.items()))

    def leader(self) -> str | None:
        """Return the worker that holds the leader's lock, or None."""
        for name in (self.name, f"{self.name}-CoordinatorState"):
            try:
                found = self._dynamodb.scan(TableName=name, ConsistentRead=True)["Items"]
            except self._dynamodb.exceptions.ResourceNotFoundException:
                continue
            for item in found:
                if "ownerName" in item:
                    return str(item["ownerName"]["S"])
        return None

    def free(self, shard: str) -> None:
        """Remove the owner of a lease, as a worker does that releases it."""
        self._dynamodb.update_item(
            TableName=self.name,
            Key={"leaseKey": {"S": shard}},
            UpdateExpression="REMOVE leaseOwner ADD leaseCounter :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )

    def vacate(self) -> None:
        """Free all leases that have an owner, and delete the rows of all workers, as if they had ended long ago."""
        for shard, row in self.rows().items():
            if row.owner is not None:
                self.free(shard)
        for item in self.items():
            if item.get("entityType") == {"S": "WORKER_METRIC_STATS"}:
                self._dynamodb.delete_item(TableName=self.name, Key={"leaseKey": item["leaseKey"]})


def _is_lease(item: dict[str, Any]) -> bool:
    return item.get("entityType", {"S": "LEASE"}) == {"S": "LEASE"} and "checkpoint" in item


def _row(item: dict[str, Any]) -> LeaseRow:
    return LeaseRow(
        shard=item["leaseKey"]["S"],
        owner=item.get("leaseOwner", {}).get("S"),
        old_owner=item.get("checkpointOwner", {}).get("S"),
        counter=int(item["leaseCounter"]["N"]),
        checkpoint=item["checkpoint"]["S"],
        subsequence=int(item["checkpointSubSequenceNumber"]["N"]),
        parents=frozenset(item.get("parentShardId", {}).get("SS", ())),
        children=frozenset(item.get("childShardIds", {}).get("SS", ())),
    )
