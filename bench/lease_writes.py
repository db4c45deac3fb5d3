"""`python -m bench.lease_writes`: CPU time of a client per conditional UpdateItem of a lease, compared with boto3.

Each client renews a lease at a server in another process, which returns canned responses. The figure is the user and system CPU
microseconds of all threads of the client's process per request, after a warm-up, as the median of several rounds. The clients
take turns. boto3 blocks, so it has one request in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
import zlib
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

CLIENTS = {"boto3": 1, "kinstream": 1, "kinstream, 8 in flight": 8}
"""Requests in flight, by client."""
TABLE, KEY = "billing", "shardId-000000000000"
BODY = b"{}"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: Server\r\nDate: Mon, 02 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\nConnection: keep-alive\r\n"
    b"x-amzn-RequestId: E4A1C7F29B7D4C5E8A351F0B6D2C9E17E4A1C7F29B7D4C5E8A35\r\nx-amz-crc32: %d\r\n\r\n%s"
) % (len(BODY), zlib.crc32(BODY), BODY)


class Canned(asyncio.Protocol):
    """A connection that responds to each request with success."""

    def __init__(self) -> None:
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            size = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self.received) < end + 4 + size:
                return
            self.received = self.received[end + 4 + size :]
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(RESPONSE)


def serve(port: Connection) -> None:
    """Run the server and send its port."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def with_boto3(url: str, requests: int) -> float:
    """Return the CPU seconds of boto3."""
    import boto3

    dynamodb = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="A",
        aws_secret_access_key="S",
    )

    def renew(counter: int) -> None:
        dynamodb.update_item(
            TableName=TABLE,
            Key={"leaseKey": {"S": KEY}},
            UpdateExpression="SET #n0 = :v0",
            ConditionExpression="#n0 = :v1 AND attribute_not_exists(#n1)",
            ExpressionAttributeNames={"#n0": "leaseCounter", "#n1": "checkpointOwner"},
            ExpressionAttributeValues={":v0": {"N": str(counter + 1)}, ":v1": {"N": str(counter)}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    for counter in range(100):
        renew(counter)
    began = time.process_time()
    for counter in range(requests):
        renew(counter)
    return time.process_time() - began


def with_kinstream(url: str, requests: int, in_flight: int) -> float:
    """Return the CPU seconds of kinstream."""
    from kinstream import Credentials
    from kinstream.aws.dynamodb import absent, equals, update_item
    from kinstream.aws.dynamodb_client import DynamoDBClient

    async def run() -> float:
        options: dict[str, Any] = {"region": "us-east-1", "endpoint_url": url, "credentials": Credentials("A", "S")}
        async with DynamoDBClient(**options) as client:

            async def renew(first: int, last: int) -> None:
                for counter in range(first, last):
                    written = await client.send(
                        update_item(
                            TABLE,
                            {"leaseKey": KEY},
                            sets={"leaseCounter": counter + 1},
                            condition=equals("leaseCounter", counter) & absent("checkpointOwner"),
                        )
                    )
                    assert written.applied

            await renew(0, 100)
            began = time.process_time()
            share = requests // in_flight
            await asyncio.gather(*(renew(n * share, (n + 1) * share) for n in range(in_flight)))
            return time.process_time() - began

    return asyncio.run(run())


def main() -> None:
    """Measure all clients, or one if `--client` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--client", choices=CLIENTS, help="measure this one against --url, and print CPU seconds")
    parser.add_argument("--url")
    given = parser.parse_args()
    if given.client == "boto3":
        print(with_boto3(given.url, given.requests))
        return
    if given.client:
        print(with_kinstream(given.url, given.requests, CLIENTS[given.client]))
        return
    ours, theirs = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    found: dict[str, list[float]] = {client: [] for client in CLIENTS}
    for _ in range(given.rounds):
        for client in CLIENTS:
            command = [sys.executable, "-m", "bench.lease_writes", "--client", client, "--url", url]
            command += ["--requests", str(given.requests)]
            seconds = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            found[client].append(seconds / given.requests * 1e6)
    server.terminate()
    for client, figures in found.items():
        middle = statistics.median(figures)
        print(f"{client:24} {middle:7.0f} us of CPU per UpdateItem (of {min(figures):.0f} to {max(figures):.0f})")


if __name__ == "__main__":
    main()
