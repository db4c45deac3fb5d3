"""A lease table with a fresh lease for each shard, for consumers that wait for a minute if the table is empty."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.request import Request, urlopen

HASH_KEYS = 2**128


def fresh_leases(url: str, shards: int) -> str:
    """Create a table on a DynamoDB that checks no signatures, and return its name, which is that of the application."""
    table = f"bench-{time.time_ns()}"
    _call(
        url,
        "CreateTable",
        TableName=table,
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for shard in range(shards):
        item = {
            "leaseKey": {"S": f"shardId-{shard:012}"},
            "leaseCounter": {"N": "0"},
            "checkpoint": {"S": "TRIM_HORIZON"},
            "checkpointSubSequenceNumber": {"N": "0"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
            "startingHashKey": {"S": str(-(-shard * HASH_KEYS // shards))},
            "endingHashKey": {"S": str(-(-(shard + 1) * HASH_KEYS // shards) - 1)},
        }
        _call(url, "PutItem", TableName=table, Item=item)
    return table


def _call(url: str, operation: str, **members: Any) -> None:
    headers = {
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261102/us-east-1/dynamodb/aws4_request",
    }
    with urlopen(Request(url, json.dumps(members).encode(), headers)) as response:
        response.read()
