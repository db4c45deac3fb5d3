"""Load of one client on a local server, in its own process, started by servers.py, which measures the server.

    python -m bench.server_load '{"client": "kinstream", "operation": "put", "url": ..., "stream": ..., "seconds": 3}'

Prints how many records went through and how long it took, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass

from tests.contract.servers.processes import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY

from kinstream import Client, Consumer, Credentials, Producer, Record

SIZE, BATCH, BATCHES, IN_FLIGHT = 100, 500, 8, 4


@dataclass(frozen=True)
class Load:
    """Parameters of the load.

    Attributes:
        client: "kinstream" (JSON, 4 calls in flight) or "boto3" (one).
        operation: "put" (batches of 500 records of 100 bytes) or "get" (each shard from its beginning, again and again).
        url: The server.
        stream: The stream, which is ACTIVE; for "get" it has records.
        seconds: For how long.
    """

    client: str
    operation: str
    url: str
    stream: str
    seconds: float


def batches() -> list[list[tuple[bytes, str]]]:
    """Return data and partition keys to put, the same in each process."""
    source = random.Random(SIZE)
    return [
        [(source.randbytes(SIZE), f"user-{source.randrange(100_000):05}") for _ in range(BATCH)] for _ in range(BATCHES)
    ]


async def with_kinstream(load: Load) -> tuple[int, float]:
    ready = [[Record(data, key) for data, key in batch] for batch in batches()]
    credentials = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    async with Client(region=REGION, credentials=credentials, endpoint_url=load.url) as client:
        producer, consumer = Producer(load.stream, client=client), Consumer(load.stream, client=client)
        shards = [shard.shard_id for shard in await consumer.get_shards()]
        started = time.perf_counter()
        end = started + load.seconds

        async def put(lane: int) -> int:
            done = 0
            while time.perf_counter() < end:
                answer = await producer.put_records(ready[(lane + done) % BATCHES])
                if answer.failed_record_count:
                    raise SystemExit(f"{answer.failed_record_count} records were refused")
                done += 1
            return done * BATCH

        async def get(lane: int) -> int:
            done = 0
            while time.perf_counter() < end:
                iterator: str | None = await consumer.get_shard_iterator(shards[lane % len(shards)], "TRIM_HORIZON")
                while iterator and time.perf_counter() < end:
                    answer = await consumer.get_records(iterator)
                    done += len(answer.records)
                    iterator = answer.next_shard_iterator if answer.millis_behind_latest and answer.records else None
            return done

        work = put if load.operation == "put" else get
        records = sum(await asyncio.gather(*(work(lane) for lane in range(IN_FLIGHT))))
        return records, time.perf_counter() - started


def with_boto3(load: Load) -> tuple[int, float]:
    import boto3

    kinesis = boto3.client(
        "kinesis",
        endpoint_url=load.url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    )
    ready = [[{"Data": data, "PartitionKey": key} for data, key in batch] for batch in batches()]
    shards = [shard["ShardId"] for shard in kinesis.list_shards(StreamName=load.stream)["Shards"]]
    started = time.perf_counter()
    end = started + load.seconds
    turn = records = 0
    while time.perf_counter() < end:
        turn += 1
        if load.operation == "put":
            answer = kinesis.put_records(StreamName=load.stream, Records=ready[turn % BATCHES])
            records += BATCH - answer["FailedRecordCount"]
            continue
        where = {"ShardId": shards[turn % len(shards)], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = kinesis.get_shard_iterator(StreamName=load.stream, **where)["ShardIterator"]
        while iterator and time.perf_counter() < end:
            answer = kinesis.get_records(ShardIterator=iterator)
            records += len(answer["Records"])
            more = answer["MillisBehindLatest"] and answer["Records"]
            iterator = answer.get("NextShardIterator") if more else None
    return records, time.perf_counter() - started


def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    if load.client == "boto3":
        records, wall = with_boto3(load)
    else:
        try:
            import uvloop
        except ModuleNotFoundError:
            records, wall = asyncio.run(with_kinstream(load))
        else:
            records, wall = uvloop.run(with_kinstream(load))
    print(json.dumps({"records": records, "wall": wall}))


if __name__ == "__main__":
    main()
