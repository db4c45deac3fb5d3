"""R20: memory of 64 shards with handlers that never return, polled and pushed, in a separate process over real sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.doubles.streams import Place, until_active

from kinstream import Record, blocking
from kinstream.local import Server

SHARDS = 64
MIB = 1 << 20
RECORD_BYTES = 100_000
RECORDS = 32
"""Of each shard: 195 MiB in all."""
READ_AHEAD = 16 * MIB
"""An equal reserve serves shards that find no space."""
WINDOWS = SHARDS * MIB
"""Maximum bytes that HTTP/2 lets the server send to a client that does not read (the transport's stream window)."""
ROOM = 32 * MIB
"""Extra bytes of a response while it is parsed."""

READER = """
import asyncio, json, os, sys
from tests.doubles.memory import peak_bytes
from kinstream import Client, ConnectionOptions, Consumer, Credentials, Handling, EnhancedFanOut, Polling

async def main():
    way, url, ca_file, read_ahead = sys.argv[1:]
    client = Client(
        region="us-east-1", credentials=Credentials("local", "local"), endpoint_url=url,
        connection=ConnectionOptions(ca_bundle=ca_file), wire_format="cbor",
    )
    fetch = EnhancedFanOut(consumer_name="slow") if way == "pushed" else Polling()
    reader = Consumer(
        "events", start="TRIM_HORIZON", client=client, fetch=fetch, handling=Handling(read_ahead_bytes=int(read_ahead))
    )
    begun = 0
    async def handle(record):
        nonlocal begun
        begun += 1
        await asyncio.sleep(1e6)
    before = peak_bytes()
    running = asyncio.create_task(reader.run(handle))
    while not begun:
        await asyncio.sleep(0.05)
    await asyncio.sleep(6)
    used = reader._worker._contexts[None].budget.used_bytes
    print(json.dumps([before, peak_bytes(), used, begun]), flush=True)
    os._exit(0)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A Kinesis with far more in each shard than a consumer may hold."""
    with Server(quotas=False, tls_port=0) as server:
        place = Place(server.url)
        with blocking.Client(**place.options) as client:
            client.call("CreateStream", {"StreamName": place.stream, "ShardCount": SHARDS})
            until_active(client, place.stream)
            data = os.urandom(RECORD_BYTES)
            keys = [str((2 * shard + 1) * 2**128 // (2 * SHARDS)) for shard in range(SHARDS)]
            producer = blocking.Producer(place.stream, client=client)
            for _ in range(RECORDS):
                answer = producer.put_records(Record(data, "k", key) for key in keys)
                assert answer.failed_record_count == 0
        yield server


@pytest.mark.parametrize("way", ["polled", "pushed"])
def test_slow_handlers_on_64_shards_take_no_more_memory_than_what_may_be_read_ahead(server: Server, way: str) -> None:
    command = [sys.executable, "-c", READER, way, str(server.tls_url), str(server.ca_file), str(READ_AHEAD)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    before, after, used, begun = json.loads(told.stdout)
    print(
        f"R20 {way}: {before // MIB} MiB before, at most {after // MIB}; {used // MIB} read ahead, {begun} records being handled"
    )
    assert begun > 0
    assert after - before <= 2 * READ_AHEAD + ROOM + (WINDOWS if way == "pushed" else 0)
