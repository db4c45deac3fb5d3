"""Our fan-out fetcher on the servers of other makers that have SubscribeToShard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from itertools import count

import pytest
from bench.ground import NotPossible
from tests.contract.servers.processes import running

from kinstream import Client, Credentials, EnhancedFanOut, WireFormat
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.consume.fetch.fanout import FanOutFetcher
from kinstream.consume.fetch.position import TRIM_HORIZON

NUMBERS = count()


@pytest.fixture(scope="module", params=["ministack", "kinesis-local"])
def other(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A server's name and URL."""
    try:
        with running(request.param) as server:
            yield request.param, server.url
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("wire", ["json", "cbor"])
async def test_records_are_pushed_and_a_shard_ends_with_its_children(other: tuple[str, str], wire: str) -> None:
    place, url = other
    async with Client(
        region="us-east-1", endpoint_url=url, credentials=Credentials("test", "test"), wire_format=WireFormat(wire)
    ) as client:
        name = f"orders-{next(NUMBERS)}"
        stream = {"StreamName": name}
        await client.call("CreateStream", {**stream, "ShardCount": 1})

        for _ in range(200):
            summary = (await client.call("DescribeStreamSummary", stream))["StreamDescriptionSummary"]
            if summary["StreamStatus"] == "ACTIVE":
                break
            await asyncio.sleep(0.05)
        (shard,) = await all_shards(client, Stream.parse(name))
        fetcher = FanOutFetcher(client, Stream.parse(name), EnhancedFanOut(consumer_name="billing"), lambda _: None)
        async with aclosing(fetcher.read(shard, TRIM_HORIZON)) as pages:
            seen: list[bytes] = []
            for number in range(3):
                await client.call("PutRecord", {**stream, "Data": b"%d" % number, "PartitionKey": "k"})
                while len(seen) <= number:
                    seen += [record.data for record in (await anext(pages)).records]
            assert seen == [b"0", b"1", b"2"]
            if place == "kinesis-local":
                return  # it never reports the end of a shard, but continues with empty events
            split = {**stream, "ShardToSplit": shard.shard_id, "NewStartingHashKey": str(2**127)}
            await client.call("SplitShard", split)
            while not (page := await anext(pages)).ended:
                assert page.records == []
            assert len(page.child_shards) == 2
