"""When reading begins and ends: clocks that differ, and streams that are not there yet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.doubles.streams import Place, create, split

from kinstream import ConfigError, EnhancedFanOut, NotFound, Polling, blocking
from kinstream.local import Server
from kinstream.testing import ManualClock

MIDDLE = str(2**127)
FETCH = pytest.mark.parametrize(
    "fetch", [Polling(), Polling(max_records=1), EnhancedFanOut(consumer_name="replay")], ids=str
)


@pytest.fixture(params=[-400.0, -1.5, 1.5, 400.0])
def skewed(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A stream on a server with a clock that differs by some seconds."""
    clock = ManualClock(time.time() + request.param, tick=True)
    with Server(transition=0, quotas=False, clock=clock) as server:
        place = Place(server.url)
        create(place, 1)
        yield place


def reshard(place: Place) -> None:
    """Split the only shard, write, merge, write, and split again."""
    with blocking.Client(**place.options) as client:
        stream = {"StreamName": place.stream}

        def put(data: bytes) -> None:
            client.call("PutRecord", {"Data": data, "PartitionKey": "a", **stream})

        put(b"0")
        split(place, "shardId-000000000000")
        put(b"1")
        client.call(
            "MergeShards",
            {"ShardToMerge": "shardId-000000000001", "AdjacentShardToMerge": "shardId-000000000002", **stream},
        )
        put(b"2")
        split(place, "shardId-000000000003")
        put(b"3")


@FETCH
def test_replay_until_now_reads_every_generation_whatever_the_clocks_say(
    skewed: Place, fetch: Polling | EnhancedFanOut
) -> None:
    reshard(skewed)
    assert replayed(skewed, until="now", fetch=fetch) == [b"0", b"1", b"2", b"3"]


@FETCH
def test_replay_until_now_reads_every_generation_on_a_server_that_was_put_forward(
    fetch: Polling | EnhancedFanOut,
) -> None:
    with Server(transition=0, quotas=False) as server:
        place = Place(server.url)
        create(place, 1)
        server.advance(3600)
        reshard(place)
        assert replayed(place, until="now", fetch=fetch) == [b"0", b"1", b"2", b"3"]


def test_replay_of_a_time_ends_though_the_stream_was_resharded_after_it_and_has_nothing_later() -> None:
    with Server(transition=0, quotas=False) as server:
        place = Place(server.url)
        create(place, 1)
        reshard(place)
        time.sleep(0.05)
        end = time.time()
        time.sleep(0.05)
        with blocking.Client(**place.options) as client:
            for shard in "shardId-000000000004", "shardId-000000000005":
                split(place, shard, str(2**126 if shard.endswith("4") else 2**127 + 2**126))
            client.call("PutRecord", {"StreamName": place.stream, "Data": b"later", "PartitionKey": "a"})
        assert replayed(place, until=end) == [b"0", b"1", b"2", b"3"]


def test_start_far_in_the_services_future_is_an_error_that_names_both_times(skewed: Place) -> None:
    with pytest.raises(ConfigError, match=r"start: 2\d{3}-.* s after the time of the service, 2\d{3}-"):
        replayed(skewed, start=time.time() + 1000, until="now")


def test_start_less_than_five_minutes_ahead_with_until_now_ends_with_nothing(skewed: Place) -> None:
    reshard(skewed)
    with blocking.Client(**skewed.options) as client:
        client.call("ListStreams", {})
        theirs = client._client.service_time()  # its clock is the service's now
    assert replayed(skewed, start=theirs + 60, until="now") == []


@FETCH
def test_stream_that_is_being_created_is_read_once_it_is_there(fetch: Polling | EnhancedFanOut) -> None:
    with Server(transition=1.5, quotas=False) as server:
        place = Place(server.url)
        with blocking.Client(**place.options) as client:
            client.call("CreateStream", {"StreamName": place.stream, "ShardCount": 1})
        assert replayed(place, until="now", fetch=fetch) == []


def test_stream_that_does_not_exist_is_an_error() -> None:
    with Server(transition=0, quotas=False) as server, pytest.raises(NotFound):
        replayed(Place(server.url), until="now")


def replayed(place: Place, **options: Any) -> list[bytes]:
    options = {"start": "TRIM_HORIZON", **options}
    with blocking.Consumer(place.stream, **options, **place.options) as consumer:
        return [record.data for record in consumer]
