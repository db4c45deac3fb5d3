"""Listings of shards, and the map that is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, Step, answer, refusal

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter
from kinstream.aws.list_shards import ShardMapSource, all_shards
from kinstream.aws.transport import Response
from kinstream.config import RetryPolicy
from kinstream.credentials import Credentials
from kinstream.errors import NotFound, UnexpectedResponse
from kinstream.sharding.shardmap import ShardMap

STREAM = Stream("orders")
HALF, TOP = 2**127, 2**128 - 1
NO_STREAM = refusal("ResourceNotFoundException")


def listing(*bounds: int, token: str | None = None, first: int = 0) -> Response:
    """Return a page with open shards that begin at `bounds` and reach to the next one."""
    ends = [*(bound - 1 for bound in bounds[1:]), TOP]
    shards = [
        {
            "ShardId": f"shardId-{first + i:012}",
            "HashKeyRange": {"StartingHashKey": str(low), "EndingHashKey": str(high)},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"},
        }
        for i, (low, high) in enumerate(zip(bounds, ends, strict=True))
    ]
    return answer({"Shards": shards} | ({} if token is None else {"NextToken": token}))


def client_of(*script: Step) -> tuple[Client, ScriptedTransport, VirtualClock]:
    transport, clock = ScriptedTransport(*script), VirtualClock()
    client = Client(
        region="us-east-1",
        credentials=Credentials("AKID", "secret"),
        endpoint_url="http://127.0.0.1:4567",
        retry=RetryPolicy(max_attempts=1),
        clock=clock,
        transport=transport,
    )
    return client, transport, clock


def source_of(*script: Step) -> tuple[ShardMapSource, ScriptedTransport, VirtualClock]:
    client, transport, clock = client_of(*script)
    return ShardMapSource(client, STREAM), transport, clock


# Listings


async def test_all_pages_of_a_listing_are_requested_with_the_filter_on_the_first() -> None:
    client, transport, _ = client_of(listing(0, token="a"), listing(1, token="b"), listing(2))
    shards = await all_shards(client, STREAM, ShardFilter("AT_TRIM_HORIZON"))
    assert [shard.hash_key_range.starting_hash_key for shard in shards] == ["0", "1", "2"]
    assert [sent.json for sent in transport.sent] == [
        {"StreamName": "orders", "ShardFilter": {"Type": "AT_TRIM_HORIZON"}},
        {"NextToken": "a"},
        {"NextToken": "b"},
    ]


@pytest.mark.parametrize("tokens", [["a", "a"], ["a", "b", "a"]])
async def test_listing_that_goes_in_circles_is_an_error(tokens: list[str]) -> None:
    client, transport, _ = client_of(*(listing(0, token=token) for token in tokens))
    with pytest.raises(UnexpectedResponse, match="NextToken"):
        await all_shards(client, STREAM)
    assert len(transport.sent) == len(tokens)


# The map


async def test_map_is_of_the_shards_that_are_open_now() -> None:
    source, transport, _ = source_of(listing(0, HALF))
    shard_map = await source.refresh()
    assert shard_map is source.latest
    assert [shard.shard_id for shard in shard_map.open] == ["shardId-000000000000", "shardId-000000000001"]
    assert transport.sent[0].json == {"StreamName": "orders", "ShardFilter": {"Type": "AT_LATEST"}}


async def test_map_knows_the_ranges_of_the_shards_before() -> None:
    source, _, _ = source_of(listing(0), listing(0, HALF, first=1))
    await source.refresh()
    new = await source.refresh()
    assert [shard.shard_id for shard in new.open] == ["shardId-000000000001", "shardId-000000000002"]
    assert new.range_of("shardId-000000000000") == (bytes(16), b"\xff" * 16)


async def test_listing_that_shows_nothing_new_is_repeated_a_second_later_at_the_earliest() -> None:
    source, _, clock = source_of(listing(0), listing(0), listing(0), listing(0, HALF), listing(0, 5))
    shard_map = await source.refresh()
    for slept in ([], [1.0], [1.0, 1.0], [1.0, 1.0]):
        shard_map = await source.refresh()
        assert clock.slept == slept
    assert len(shard_map.open) == 2


# Failures


async def test_failures_are_raised_and_the_next_listing_waits_longer_each_time() -> None:
    source, transport, clock = source_of(*[NO_STREAM] * 12, listing(0), NO_STREAM, listing(0, HALF))
    for _ in range(12):
        with pytest.raises(NotFound):
            await source.refresh()
    shard_map = await source.refresh()
    assert clock.slept == pytest.approx(
        [1, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625, 17.0859375, 25.62890625, 30, 30, 30]
    )
    assert len(transport.sent) == 13
    clock.slept.clear()
    with pytest.raises(NotFound):
        await source.refresh()
    assert source.latest is shard_map  # better an old one than none
    assert await source.refresh() is not shard_map
    assert clock.slept == [1.0]  # failures before a success are forgotten


async def test_time_that_passed_since_a_failure_is_not_waited_for_again() -> None:
    source, _, clock = source_of(NO_STREAM, listing(0))
    with pytest.raises(NotFound):
        await source.refresh()
    clock.move(0.75)
    await source.refresh()
    assert clock.slept == [0.25]


@pytest.mark.parametrize("wrong", ["x", "-1", str(2**128)])
async def test_invalid_range_is_an_unexpected_response(wrong: str) -> None:
    shard: dict[str, Any] = {
        "ShardId": "shardId-000000000000",
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": wrong},
        "SequenceNumberRange": {"StartingSequenceNumber": "1"},
    }
    source, _, clock = source_of(answer({"Shards": [shard]}), listing(0))
    with pytest.raises(UnexpectedResponse, match="HashKeyRange"):
        await source.refresh()
    assert isinstance(await source.refresh(), ShardMap)
    assert clock.slept == [1.0]


def test_repr_of_the_source_names_its_stream() -> None:
    source, _, _ = source_of(listing(0))
    assert repr(source) == "ShardMapSource('orders', None)"
