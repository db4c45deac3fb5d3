"""A reader of enhanced fan-out is cancelled at each of its awaits: nothing that it held stays behind."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from tests.doubles.cancelling import cancelled_at
from tests.doubles.clock import VirtualClock

from kinstream import Client, ConnectionOptions, Credentials
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.aws.transport import HttpTransport
from kinstream.clock import SYSTEM_CLOCK
from kinstream.config import EnhancedFanOut
from kinstream.consume.fetch.fanout import FanOutFetcher
from kinstream.consume.fetch.position import TRIM_HORIZON
from kinstream.local import Server

AWAITS = 20
"""More awaits than a run has. A stream has at most 20 consumers."""


@pytest.mark.parametrize("scheme", ["plain", "tls"])
async def test_cancellation_at_any_await_leaves_no_stream_and_no_lock(scheme: str) -> None:
    with Server(transition=0, quotas=False, tls_port=0 if scheme == "tls" else None) as server:
        async with Client(
            region=server.region,
            endpoint_url=server.tls_url or server.url,
            credentials=Credentials(server.access_key_id, server.secret_access_key),
            connection=ConnectionOptions(ca_bundle=server.ca_file),
            clock=VirtualClock(SYSTEM_CLOCK.wall()),
        ) as client:
            await client.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
            for _ in range(3):
                await client.call("PutRecord", {"StreamName": "orders", "Data": b"x", "PartitionKey": "k"})
            (shard,) = await all_shards(client, Stream.parse("orders"))

            async def read(name: str) -> int:
                """Register a consumer of this name, and read three records."""
                fetcher = FanOutFetcher(client, Stream.parse("orders"), EnhancedFanOut(consumer_name=name), print)
                seen = 0
                async with aclosing(fetcher.read(shard, TRIM_HORIZON)) as pages:
                    async for page in pages:
                        seen += len(page.records)
                        if seen == 3:
                            break
                return seen

            for k in range(1, AWAITS):
                waits = await cancelled_at(read(f"consumer-{k}"), k)
                transport = client._transport
                assert isinstance(transport, HttpTransport)
                assert not [lane for lane in transport._lanes if lane.opening or lane.streams]
                if waits < k:
                    break
            else:
                raise AssertionError("a run has more awaits")
            assert k > 5
            server.advance(5)  # the service takes another subscription
            assert await read("consumer-5") == 3
