"""The operations by name: arguments checked, time let pass, then done.

AWS's rules and texts stand with the operations, in `streams`, `shards` and `records`. Between the state's decision and the
handing of its events to the store nothing is awaited, so the order in the store is the order of the decisions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from kinstream.clock import Clock
from kinstream.local import constraints, requests
from kinstream.local.naming import Call
from kinstream.local.records import Records
from kinstream.local.shards import Shards
from kinstream.local.state import State
from kinstream.local.store import Store
from kinstream.local.streams import Streams
from kinstream.local.tokens import Sealer


class Operations:
    """Answers requests.

    Args:
        state: The streams.
        store: Where events and records are kept.
        clock: Dates all that happens.
    """

    def __init__(self, state: State, store: Store, clock: Clock) -> None:
        self._state = state
        self._store = store
        self._clock = clock
        sealer = Sealer(store.key)
        streams = Streams(state, store, sealer)
        shards = Shards(state, store, sealer)
        records = Records(state, store, sealer)
        self._table: dict[str, tuple[type[Any], Callable[[Any, Call], Awaitable[msgspec.Struct | None]]]] = {
            "CreateStream": (requests.CreateStream, streams.create_stream),
            "DeleteStream": (requests.StreamRequest, streams.delete_stream),
            "DescribeStream": (requests.DescribeStream, streams.describe_stream),
            "DescribeStreamSummary": (requests.StreamRequest, streams.describe_stream_summary),
            "GetRecords": (requests.GetRecords, records.get_records),
            "GetShardIterator": (requests.GetShardIterator, records.get_shard_iterator),
            "ListShards": (requests.ListShards, shards.list_shards),
            "ListStreams": (requests.ListStreams, streams.list_streams),
            "MergeShards": (requests.MergeShards, shards.merge_shards),
            "PutRecord": (requests.PutRecord, records.put_record),
            "PutRecords": (requests.PutRecords, records.put_records),
            "SplitShard": (requests.SplitShard, shards.split_shard),
        }

    def shape(self, operation: str) -> type[msgspec.Struct] | None:
        """Return the type of an operation's request, or None where there is no such operation."""
        entry = self._table.get(operation)
        return entry[0] if entry else None

    async def call(self, operation: str, request: msgspec.Struct, region: str) -> msgspec.Struct | None:
        """Answer a request; None is an answer without a body.

        Raises:
            Refused: AWS would refuse it.
            OSError: The store failed.
        """
        constraints.check(request)
        now = self._clock.wall()
        events = self._state.advance(now)
        if events:
            await self._store.write(events)
        return await self._table[operation][1](request, Call(region, now))
