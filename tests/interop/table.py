"""The lease table of a KCL application, read as rows, and made with fresh leases for workers that would wait on an empty one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

SENTINELS = {"TRIM_HORIZON": -2, "LATEST": -1, "AT_TIMESTAMP": -3, "SHARD_END": 1 << 200}
"""Order of the checkpoints that are not sequence numbers (KCL, ExtendedSequenceNumber)."""


@dataclass(frozen=True)
class LeaseRow:
    """One lease. The attributes are those of the table.

    Attributes:
        shard: A shard id, or "stream:shard id" if the application has several streams.
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
    def text(self) -> str:
        """The checkpoint as workers log it: "sequence number/subsequence number"."""
        return f"{self.checkpoint}/{self.subsequence}"


class LeaseTable:
    """The table of one application.

    Args:
        dynamodb: A boto3 client.
        name: Name of the table, which is the name of the application.
        record: File with the writes to all tables, as moto_process.py records them, or None.
    """

    def __init__(self, dynamodb: Any, name: str, record: Path | None = None) -> None:
        self._dynamodb = dynamodb
        self._record = record
        self.name = name

    def create(self, shards: Mapping[str | None, Iterable[Any]]) -> None:
        """Create the table with a fresh lease for each shard, as a KCL of version 2 does.

        Args:
            shards: The shards of each stream, as `ListShards` returns them. The keys are the names of the streams in leases,
                or None for the only stream.
        """
        self._dynamodb.create_table(
            TableName=self.name,
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for stream, of_stream in shards.items():
            for shard in of_stream:
                self._put_lease(stream, shard)

    def _put_lease(self, stream: str | None, shard: Any) -> None:
        shard_id, hashes = shard["ShardId"], shard["HashKeyRange"]
        item = {
            "leaseKey": {"S": shard_id if stream is None else f"{stream}:{shard_id}"},
            "leaseCounter": {"N": "0"},
            "checkpoint": {"S": "TRIM_HORIZON"},
            "checkpointSubSequenceNumber": {"N": "0"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
            "startingHashKey": {"S": hashes["StartingHashKey"]},
            "endingHashKey": {"S": hashes["EndingHashKey"]},
        }
        if stream is not None:
            item |= {"streamName": {"S": stream}, "shardId": {"S": shard_id}}
        self._dynamodb.put_item(TableName=self.name, Item=item)

    def items(self) -> list[dict[str, Any]]:
        """Return all items, also those that are not leases, in DynamoDB's JSON."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self.name, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def rows(self) -> dict[str, LeaseRow]:
        """Return the leases by shard id."""
        return {row.shard: row for row in sorted(map(_row, filter(_is_lease, self.items())), key=lambda row: row.shard)}

    def regressions(self) -> list[str]:
        """Return each checkpoint that was written over a later one: the shard, both positions, and the writes to its row."""
        found: list[str] = []
        rows: dict[str, tuple[tuple[int, int], str]] = {}
        for write in self._recorded():
            shard, values = _shard(_key(write["request"])), _values(write["request"])
            if write["status"] != "200":
                continue
            if write["operation"] == "DeleteItem":
                rows.pop(shard, None)
            if "checkpoint" not in values or "checkpointSubSequenceNumber" not in values:
                continue
            number, subsequence = values["checkpoint"], values["checkpointSubSequenceNumber"]
            position, text = _position(number, int(subsequence)), f"{number}/{subsequence}"
            if shard in rows and position < rows[shard][0]:
                before = [line for line in self.writes(shard) if float(line.split()[0]) <= write["time"] + 0.001]
                went_back = f"{shard} went back from {rows[shard][1]} to {text}. The last writes until then:"
                found.append("\n  ".join([went_back, *before[-8:]]))
            rows[shard] = position, text
        return found

    def writes(self, shard: str) -> list[str]:
        """Return the writes to the row of a shard, in the order in which they were applied: time, client, status and content."""
        return [
            "{time:.3f} {operation} by {client}: {status} ".format(**write) + _content(write["request"])
            for write in self._recorded()
            if _shard(_key(write["request"])) == shard
        ]

    def silences(self, shard: str, seconds: float) -> list[tuple[float, float]]:
        """Return the times between two applied writes to the row of a shard, if they are longer than some seconds."""
        writes = [write for write in self._recorded() if _shard(_key(write["request"])) == shard]
        times = [write["time"] for write in writes if write["status"] == "200"]
        return [(before, after) for before, after in pairwise(times) if after - before > seconds]

    def _recorded(self) -> list[dict[str, Any]]:
        if self._record is None:
            return []
        with self._record.open(encoding="utf-8") as lines:
            writes = [json.loads(line) for line in lines if self.name in line]
        return [write for write in writes if write["request"].get("TableName") == self.name]

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


def _position(checkpoint: str, subsequence: int) -> tuple[int, int]:
    """Return a checkpoint, to compare it with others of the shard."""
    number = SENTINELS.get(checkpoint)
    return (int(checkpoint) if number is None else number), subsequence


def _key(request: dict[str, Any]) -> str:
    """Return the lease key of a write, or an empty text."""
    return str(request.get("Key", request.get("Item", {})).get("leaseKey", {"S": ""})["S"])


def _values(request: dict[str, Any]) -> dict[str, str]:
    """Return the attributes that a write sets, as text."""
    values = dict(request.get("Item", {}))
    values |= {
        name: update["Value"] for name, update in request.get("AttributeUpdates", {}).items() if "Value" in update
    }
    names = request.get("ExpressionAttributeNames", {})
    for name, value in re.findall(r"([#\w]+) *= *(:\w+)", request.get("UpdateExpression", "")):
        values[names.get(name, name)] = request["ExpressionAttributeValues"][value]
    return {name: str(next(iter(value.values()))) for name, value in values.items()}


def _content(request: dict[str, Any]) -> str:
    """Return the changes and conditions of a write, with the names and values in the place of their placeholders."""
    names, values = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})
    filled = names | {name: next(iter(value.values())) for name, value in values.items()}
    expressions = [request[name] for name in ("UpdateExpression", "ConditionExpression") if name in request]
    if expressions:
        return re.sub(r"[#:]\w+", lambda found: str(filled[found[0]]), " IF ".join(expressions))
    return json.dumps({name: value for name, value in request.items() if name not in ("TableName", "Key")})


def _shard(key: str) -> str:
    """Return the shard of a lease key: a shard id, or account, stream, second of its creation and shard id."""
    parts = key.split(":")
    return f"{parts[1]}:{parts[3]}" if len(parts) == 4 else key


def _row(item: dict[str, Any]) -> LeaseRow:
    return LeaseRow(
        shard=_shard(item["leaseKey"]["S"]),
        owner=item.get("leaseOwner", {}).get("S"),
        old_owner=item.get("checkpointOwner", {}).get("S"),
        counter=int(item["leaseCounter"]["N"]),
        checkpoint=item["checkpoint"]["S"],
        subsequence=int(item["checkpointSubSequenceNumber"]["N"]),
        parents=frozenset(item.get("parentShardId", {}).get("SS", ())),
        children=frozenset(item.get("childShardIds", {}).get("SS", ())),
    )
