"""Ranges on a local Kinesis: however the records are packed and the shard is cut, the ranges together are the whole shard."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doubles.streams import Place, create

from kinstream import TRIM_HORIZON, Client, Position, blocking, positions, read_range
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC
from kinstream.local import Server

SHARD = "shardId-000000000000"
NO_AGGREGATE = MAGIC + b"\x0a\x01a" + hashlib.md5(b"something else").digest()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server:
        yield server


PACKED = st.lists(st.binary(max_size=5), min_size=1, max_size=6)
"""The data of one aggregate."""
RECORDS = st.lists(PACKED | st.binary(max_size=5) | st.just(NO_AGGREGATE), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RECORDS, st.data())
def test_ranges_that_follow_each_other_have_each_record_exactly_once(
    server: Server, contents: list[list[bytes] | bytes], draw: st.DataObject
) -> None:
    place = Place(server.url, stream=f"stream-{uuid.uuid4().hex[:12]}")
    create(place, 1)
    expected: list[tuple[str, int | None, bytes]] = []
    places: list[Position] = [TRIM_HORIZON]
    with blocking.Client(**place.options) as client:
        for content in contents:
            data = content if isinstance(content, bytes) else packed(content)
            number = client.call("PutRecord", {"StreamName": place.stream, "Data": data, "PartitionKey": "k"})[
                "SequenceNumber"
            ]
            user_records = [(None, content)] if isinstance(content, bytes) else list(enumerate(content))
            for index, each in user_records:
                places.append(Position.at(number, index or 0))
                expected.append((number, index, each))
                places.append(Position.after(number, index or 0))
            places.append(Position.after(number))
    cuts = sorted(draw.draw(st.lists(st.sampled_from(places), max_size=6)))
    limit = draw.draw(st.integers(1, 10_000))
    with server.every("GetRecords", stream=place.stream).change({"Limit": limit}):
        found, again = asyncio.run(read(place, cuts))
    assert found == expected
    assert again == expected


def packed(contents: list[bytes]) -> bytes:
    builder = Builder(1 << 20, 100)
    for i, content in enumerate(contents):
        assert builder.add(f"key-{i % 2}", None, content)
    return builder.finish()


async def read(
    place: Place, cuts: list[Position]
) -> tuple[list[tuple[str, int | None, bytes]], list[tuple[str, int | None, bytes]]]:
    """Read the ranges between the cuts, and the whole shard at once."""
    async with Client(**place.options) as client:
        end = (await positions(place.stream, client=client))[SHARD]

        async def between(after: Position, upto: Position) -> list[tuple[str, int | None, bytes]]:
            return [
                (record.sequence_number, record.subsequence_number, record.data)
                async for batch in read_range(place.stream, SHARD, after=str(after), upto=upto, client=client)
                for record in batch
            ]

        bounds = [TRIM_HORIZON, *cuts, end]
        ranges = [await between(*each) for each in pairwise(bounds)]
        return [record for each in ranges for record in each], await between(TRIM_HORIZON, end)
