"""Discovery: the shards that are read, their order, and their positions, by the start and by the checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, answer

from kinstream import ChildShard, Client, Credentials, HashKeyRange
from kinstream.aws.endpoint import Stream
from kinstream.aws.transport import Response
from kinstream.consume.discover import Discoverer, StreamShards
from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.report import Reporter
from kinstream.consume.start import Start

# 0 was split into 1 and 2; 1 and 2 were merged into 3; 4 stands alone.
FAMILY = {"0": (), "1": ("0",), "2": ("0",), "3": ("1", "2"), "4": ()}
CLOSED = {"0", "1", "2"}


def listing(*shards: str) -> Response:
    def shard(name: str) -> dict[str, Any]:
        parents = [*FAMILY[name], None, None]
        numbers = {"StartingSequenceNumber": "1"} | ({"EndingSequenceNumber": "9"} if name in CLOSED else {})
        named = {"ParentShardId": parents[0], "AdjacentParentShardId": parents[1]}
        return {
            "ShardId": name,
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
            "SequenceNumberRange": numbers,
            **{key: parent for key, parent in named.items() if parent is not None},
        }

    return answer({"Shards": [shard(name) for name in shards]})


def discoverer(*script: Response) -> tuple[Discoverer, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    client = Client(
        region="us-east-1",
        credentials=Credentials("key", "secret"),
        endpoint_url="http://127.0.0.1:1",
        transport=transport,
        clock=VirtualClock(),
    )
    announce = Reporter("events", client.clock, None)
    return Discoverer(StreamShards(client, Stream.parse("events"), announce, asyncio.Event())), transport


async def readable(start: Start, known: Mapping[str, Position], *script: Response) -> dict[str, Position]:
    """Return the shards that may be read first, with their positions."""
    discovery, _ = discoverer(*script)
    await discovery.begin(start, known)
    return {shard.shard_id: position for shard, position in discovery.ready()}


ALL = listing(*FAMILY)


async def test_from_the_trim_horizon_the_oldest_shards_are_read_first() -> None:
    assert await readable(Start(), {}, ALL) == {"0": TRIM_HORIZON, "4": TRIM_HORIZON}


async def test_from_latest_only_open_shards_are_read() -> None:
    assert await readable(Start(LATEST), {}, ALL) == {"3": LATEST, "4": LATEST}


async def test_from_a_time_shards_that_ended_before_it_are_not_read() -> None:
    start = Start(Position.at_time(5))
    discovery, transport = discoverer(ALL, listing("2", "3", "4"))
    await discovery.begin(start, {})
    assert [shard.shard_id for shard, _ in discovery.ready()] == ["2", "4"]
    assert transport.sent[1].json["ShardFilter"] == {"Type": "FROM_TIMESTAMP", "Timestamp": 5}


async def test_ancestors_of_the_shards_in_the_start_are_not_read() -> None:
    start = Start(of_shards={"1": Position.after("5")})
    assert await readable(start, {}, ALL) == {
        "1": Position.after("5"), "2": TRIM_HORIZON, "4": TRIM_HORIZON,
    }  # fmt: skip


async def test_shard_that_the_start_marks_as_completed_is_not_read_at_a_restart() -> None:
    start = Start(of_shards={"4": SHARD_END, "3": TRIM_HORIZON})
    assert await readable(start, {}, ALL) == {"3": TRIM_HORIZON}
    assert await readable(start, {"3": Position.after("5")}, ALL) == {"3": TRIM_HORIZON}


async def test_checkpoints_take_precedence_over_the_start() -> None:
    known = {"1": Position.after("5"), "2": SHARD_END}
    assert await readable(Start(LATEST), known, ALL) == {"1": TRIM_HORIZON, "4": TRIM_HORIZON}
    # The keeper has the position of shard 1. Shard 0 is an ancestor of shards that were read.


async def test_children_of_completed_shards_are_read_from_their_first_record() -> None:
    known = {"1": SHARD_END, "2": SHARD_END, "4": Position.after("5")}
    assert await readable(Start(LATEST), known, ALL) == {"3": TRIM_HORIZON, "4": TRIM_HORIZON}


async def test_children_wait_for_both_parents() -> None:
    discovery, _ = discoverer(ALL)
    await discovery.begin(Start(), {})
    assert [shard.shard_id for shard, _ in discovery.ready()] == ["0", "4"]
    discovery.ended("0")
    assert [shard.shard_id for shard, _ in discovery.ready()] == ["1", "2"]
    discovery.ended("2")
    assert discovery.ready() == []
    discovery.ended("1")
    assert [shard.shard_id for shard, _ in discovery.ready()] == ["3"]


async def test_announced_child_of_a_latest_start_is_read_from_its_first_record() -> None:
    discovery, _ = discoverer(listing("4"))
    await discovery.begin(Start(LATEST), {})
    assert [(shard.shard_id, position) for shard, position in discovery.ready()] == [("4", LATEST)]
    discovery.ended("4", [ChildShard("5", ["4"], HashKeyRange("0", "1"))])
    assert [(shard.shard_id, position) for shard, position in discovery.ready()] == [("5", TRIM_HORIZON)]


async def test_expired_parents_do_not_block_their_children() -> None:
    assert await readable(Start(), {}, listing("3", "4")) == {"3": TRIM_HORIZON, "4": TRIM_HORIZON}


async def test_parent_that_expires_before_it_is_read_does_not_block_its_children() -> None:
    discovery, _ = discoverer(ALL, listing("3", "4"))
    await discovery.begin(Start(), {})
    discovery.ready()
    discovery.ended("0")
    assert await discovery.refresh() == ["1", "2"]
    assert [shard.shard_id for shard, _ in discovery.ready()] == ["3"]


@pytest.mark.parametrize("known", [{}, {"4": Position.after("5")}])
async def test_outdated_listing_does_not_lose_an_announced_shard(known: dict[str, Position]) -> None:
    discovery, _ = discoverer(listing("4"))
    await discovery.begin(Start(), known)
    discovery.ready()
    discovery.ended("4", [ChildShard("5", ["4"], HashKeyRange("0", "1"))])
    assert await discovery.refresh() == []
    assert [shard.shard_id for shard, _ in discovery.ready()] == ["5"]


async def test_each_shard_is_returned_once() -> None:
    discovery, _ = discoverer(ALL)
    await discovery.begin(Start(), {})
    assert len(discovery.ready()) == 2
    assert discovery.ready() == []
    await discovery.refresh()
    assert discovery.ready() == []


async def test_shard_without_its_first_lease_begins_as_the_shards_with_leases() -> None:
    began = LATEST.since(1000.0)
    late = await readable(Start(LATEST), {"3": began}, ALL)
    assert late == {"3": TRIM_HORIZON, "4": began}  # of the first, its lease says more
    began = Position.at_time(500.0)
    late = await readable(Start(Position.at_time(500.0)), {"0": began}, ALL)
    assert late == {"0": TRIM_HORIZON, "4": began}
    late = await readable(Start(of_shards={"3": Position.at("7"), "4": LATEST}), {"3": Position.at("7")}, ALL)
    assert late == {"3": TRIM_HORIZON, "4": LATEST}


async def test_child_of_a_known_parent_is_read_from_its_oldest_record_although_none_was_completed() -> None:
    discovery, _ = discoverer(ALL)
    await discovery.begin(Start(LATEST), {"0": LATEST.since(1000.0), "4": LATEST.since(1000.0)})
    assert [shard.shard_id for shard, _ in discovery.ready()] == ["0", "4"]
    discovery.ended("0")
    assert {shard.shard_id: position for shard, position in discovery.ready()} == {"1": TRIM_HORIZON, "2": TRIM_HORIZON}


async def test_shard_created_after_a_record_was_completed_is_read_from_its_oldest_record() -> None:
    assert (await readable(Start(LATEST), {"3": Position.after("7")}, ALL))["4"] == TRIM_HORIZON
