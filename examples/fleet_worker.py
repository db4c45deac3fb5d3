"""A worker that shares a stream with others. Start it in several terminals, and end any of them by Ctrl-C, SIGTERM or SIGKILL.

By default it reads the stream `events` of `kinstream local`, and stores leases and checkpoints in `leases.db`, which the workers
of one machine share. Set the environment variables below to read from AWS. Several machines need `DynamoDBLeaseStore()`.
"""

import asyncio
import os
from contextlib import suppress

from kinstream import Consumer, Credentials, Fleet, ReceivedRecord, SQLiteLeaseStore
from kinstream.events import Event, LeaderChanged, ShardAssigned, ShardLeaseLost, ShardReleased, ShardRevoked

REGION = os.environ.get("AWS_REGION", "us-east-1")
ENDPOINT_URL = os.environ.get("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:4567")
ACCESS_KEY_ID = os.environ.get("AWS_ACCESS_KEY_ID", "local")
SECRET_ACCESS_KEY = os.environ.get("AWS_SECRET_ACCESS_KEY", "local")
STREAM_NAME = os.environ.get("STREAM_NAME", "events")
LEASES = os.environ.get("LEASES", "leases.db")
WORKER_ID = os.environ.get("WORKER_ID")  # such as the name of a pod of a StatefulSet


def observe(event: Event) -> None:
    """Print the changes of the fleet. All other events are ignored."""
    if isinstance(event, ShardAssigned):
        print(f"{event.shard_id} assigned, from {event.position}", flush=True)
    elif isinstance(event, ShardRevoked):
        print(f"{event.shard_id} continues at {event.successor or 'another worker'}", flush=True)
    elif isinstance(event, ShardReleased):
        print(f"{event.shard_id} released", flush=True)
    elif isinstance(event, ShardLeaseLost):
        print(f"{event.shard_id} lost", flush=True)
    elif isinstance(event, LeaderChanged):
        print(f"leader: {event.leader}", flush=True)


async def handle(record: ReceivedRecord[bytes]) -> None:
    """Process one record. If this raises, the record is retried, and no later record of its shard passes it."""
    print(f"{record.shard_id} {record.partition_key}: {record.data!r}", flush=True)


async def main() -> None:
    consumer = Consumer(
        STREAM_NAME,
        application="example",
        lease_store=SQLiteLeaseStore(LEASES),
        fleet=Fleet(worker_id=WORKER_ID),
        observer=observe,
        region=REGION,
        credentials=Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
        endpoint_url=ENDPOINT_URL,
    )
    async with consumer:
        await consumer.run(
            handle
        )  # until SIGTERM. It completes the current records, and hands its shards to the others.


with suppress(KeyboardInterrupt):  # the shards are released
    asyncio.run(main())
