"""Other people's clients read a shard to its end by SubscribeToShard: capo-kinesis, and the AWS SDK for JavaScript."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from bench.ground import ENVIRONMENTS, NotPossible, environment
from tests.contract.clients.subscriber import SHARD, register
from tests.contract.servers.processes import node_package
from tests.contract.servers.reach import Endpoint
from tests.contract.test_javascript import PACKAGE, VERSION

from kinstream.local import Server

CLIENTS = Path(__file__).parent / "clients"


def command(client: str) -> tuple[list[str], Path]:
    """Return the command of a client and its folder. Raises NotPossible."""
    if client == "javascript":
        node_package(PACKAGE, VERSION)
        return ["node", str(CLIENTS / "javascript_subscriber.mjs")], ENVIRONMENTS / PACKAGE
    python = environment("capo-kinesis", ["capo-kinesis", "uvloop"])
    return [python, str(CLIENTS / "capo_subscriber.py")], CLIENTS


@pytest.mark.parametrize("port", ["plain", "tls"])
@pytest.mark.parametrize("client", ["capo-async", "capo-sync", "javascript"])
def test_shard_is_read_to_its_end_while_it_is_written(client: str, port: str) -> None:
    try:
        start, folder = command(client)
    except NotPossible as reason:
        pytest.skip(str(reason))
    with Server(tls_port=0, transition=0, quotas=False) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        kinesis.create_stream(StreamName="events", ShardCount=1)
        consumer = register(kinesis, "events")
        kinesis.put_record(StreamName="events", Data=b"\0\xff", PartitionKey="before")
        url = server.url if port == "plain" else str(server.tls_url)
        trusted = str(server.ca_file)
        called = server.next("SubscribeToShard").watch()

        def write() -> None:
            called.wait(timeout=60)
            for number in range(50):
                kinesis.put_record(StreamName="events", Data=bytes([number]), PartitionKey=f"key-{number}")
            kinesis.split_shard(StreamName="events", ShardToSplit=SHARD, NewStartingHashKey=str(2**127))

        writing = threading.Thread(target=write)
        writing.start()
        run = subprocess.run(
            [*start, url, consumer, SHARD, client.partition("-")[2]],
            cwd=folder,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": trusted, "SSL_CERT_FILE": trusted},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        writing.join()
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["read"] == [["before", [0, 255]], *([f"key-{number}", [number]] for number in range(50))]
    assert said["children"] == ["shardId-000000000001", "shardId-000000000002"]
    assert said["events"] > 1
