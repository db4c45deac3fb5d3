"""Reads a shard by capo-kinesis: arguments are the endpoint, the consumer's ARN, the shard, and "sync" or "async"."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from capo_kinesis import AsyncKinesisClient, Credentials, KinesisClient  # type: ignore[import-not-found]

url, consumer, shard, face = sys.argv[1:]
options = {
    "region": "us-east-1",
    "endpoint": url,
    "credentials": Credentials(access_key="local", secret_key="local"),
}
wanted = {"consumer_arn": consumer, "shard_id": shard, "starting_position": {"type": "TRIM_HORIZON"}}
said: dict[str, Any] = {"read": [], "children": [], "events": 0}


def see(event: Any) -> None:
    """Record the contents of an event."""
    if "SubscribeToShardEvent" not in event:
        return
    event = event["SubscribeToShardEvent"]
    said["events"] += 1
    said["read"] += [[record["partition_key"], list(record["data"])] for record in event["records"]]
    said["children"] += [child["shard_id"] for child in event.get("child_shards") or []]


async def main() -> None:
    async with AsyncKinesisClient(**options) as kinesis:
        async for event in (await kinesis.subscribe_to_shard(**wanted))["event_stream"]:
            see(event)


if face == "async":
    asyncio.run(main())
else:
    with KinesisClient(**options) as kinesis:
        for event in kinesis.subscribe_to_shard(**wanted)["event_stream"]:
            see(event)
print(json.dumps(said))
