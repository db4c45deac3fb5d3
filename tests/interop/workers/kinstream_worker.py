"""A worker of kinstream that logs its records and events by the line protocol.

Options: stream, application, worker_id, region, kinesis, dynamodb, access_key_id, secret_access_key, checkpoint_every,
record_micros, failover_seconds, idle_millis. Several streams are separated by commas, each with account, name and second of
creation, as they are in leases.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from typing import Any

from tests.interop.workers.protocol import Log, on_stop, options

import kinstream
from kinstream import Credentials, Event, KinesisError, LeaseLost, Polling, ReceivedRecord


class Listener:
    """Logs the assignments of shards."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def assigned(self, shard: Any) -> None:
        self._log.event("initialized", shard.shard_id, _as_the_kcl_logs(shard.position))

    def revoked(self, shard: Any) -> None:
        self._log.event("shutdown-requested", shard.shard_id)

    def lost(self, shard: Any) -> None:
        self._log.event("lease-lost", shard.shard_id)


def _as_the_kcl_logs(position: str) -> str:
    """Return a position such as "after 4956/12" or "TRIM_HORIZON" as sequence number or sentinel, and subsequence number."""
    sequence, _, subsequence = position.removeprefix("after ").partition("/")
    return f"{sequence}/{subsequence or 0}"


async def run(given: dict[str, str], log: Log) -> None:
    """Run the worker until it is stopped."""
    every, pause = int(given.get("checkpoint_every", "7")), int(given.get("record_micros", "0")) / 1e6
    handled: Counter[str] = Counter()
    client: dict[str, Any] = {
        "region": given["region"],
        "credentials": Credentials(given["access_key_id"], given["secret_access_key"]),
    }

    async def handle(record: ReceivedRecord[bytes]) -> None:
        shard, subsequence = record.shard_id, record.subsequence_number or 0
        log.record(shard, record.sequence_number, subsequence, record.partition_key or "", record.data)
        handled[shard] += 1
        if pause:
            await asyncio.sleep(pause)
        if handled[shard] % every == 0:
            try:
                await record.checkpoint()
            except LeaseLost as error:
                log.event("checkpoint-refused", shard, type(error).__name__)
            except KinesisError as error:  # it must not fail the record, which would be handled again
                log.event("checkpoint-failed", shard, type(error).__name__)
            else:
                log.event("checkpointed", shard, f"{record.sequence_number}/{subsequence}")

    def observe(event: Event) -> None:
        if isinstance(event, kinstream.ShardEnded):
            log.event("shard-ended", event.shard_id)

    names: Any = kinstream  # the fleet's names, which older versions do not have
    streams = [each.split(":")[1] for each in given["stream"].split(",")] if ":" in given["stream"] else given["stream"]
    consumer = names.Consumer(
        streams,
        application=given["application"],
        lease_store=names.DynamoDBLeaseStore(endpoint_url=given["dynamodb"], **client),
        fleet=names.Fleet(worker_id=given["worker_id"], failover=float(given.get("failover_seconds", "3"))),
        listener=Listener(log),
        fetch=Polling(idle_interval=int(given.get("idle_millis", "250")) / 1000),
        observer=observe,
        endpoint_url=given["kinesis"],
        **client,
    )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        log.event("stopping")
        asyncio.run_coroutine_threadsafe(consumer.close(), loop).result()

    on_stop(stop)
    log.event("started")
    await consumer.run(handle)
    await consumer.close()
    log.event("stopped")


def main() -> int:
    """Run the worker."""
    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(options(), Log()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
