"""Dispatch of operations by name, after checking the arguments and applying changes that are due.

The operations, with the rules and error messages of AWS, are in one module per subject: `streams`, `shards`, `records` etc.
No operation awaits between a decision of the state and the call that passes its events to the store, so the store has the
same order as the decisions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from kinstream.clock import Clock
from kinstream.local.operations import constraints, requests
from kinstream.local.operations.account_operations import AccountOperations
from kinstream.local.operations.consumer_operations import ConsumerOperations
from kinstream.local.operations.naming import CallContext
from kinstream.local.operations.policy_operations import PolicyOperations
from kinstream.local.operations.record_operations import RecordOperations
from kinstream.local.operations.settings_operations import SettingsOperations
from kinstream.local.operations.shard_operations import ShardOperations
from kinstream.local.operations.stream_operations import StreamOperations
from kinstream.local.operations.subscriptions import Subscription, Subscriptions
from kinstream.local.operations.tag_operations import TagOperations
from kinstream.local.operations.tokens import TokenCodec
from kinstream.local.state.model import ACCOUNT
from kinstream.local.state.quotas import Quotas
from kinstream.local.state.request_error import RequestError
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import Store

_PER_SHARD = frozenset({"GetRecords", "GetShardIterator", "PutRecord", "PutRecords", "SubscribeToShard"})
"""Operations with quotas per shard, which they count themselves."""


_Response: TypeAlias = msgspec.Struct | Subscription | None


class Operations:
    """Handler of all operations.

    Args:
        state: State of the streams.
        store: Store of events and records.
        clock: Source of timestamps.
        quotas: Counters for quotas. None disables quotas.

    Attributes:
        subscriptions: The open subscriptions.
    """

    def __init__(self, state: State, store: Store, clock: Clock, quotas: Quotas | None = None) -> None:
        self._state = state
        self._store = store
        self._clock = clock
        self._quotas = quotas
        tokens = TokenCodec(store.key)
        streams = StreamOperations(state, store, tokens, quotas=quotas is not None)
        shards = ShardOperations(state, store, tokens)
        settings = SettingsOperations(state, store)
        tags = TagOperations(state, store)
        policies = PolicyOperations(state, store)
        consumers = ConsumerOperations(state, store, tokens)
        account = AccountOperations(state, store)
        records = RecordOperations(state, store, tokens, quotas)
        self.subscriptions: Subscriptions = Subscriptions(state, store, clock, quotas, self.catch_up)
        self._table: dict[str, tuple[type[Any], Callable[[Any, CallContext], Awaitable[_Response]]]] = {
            "CreateStream": (requests.CreateStream, streams.create_stream),
            "DeleteStream": (requests.DeleteStream, streams.delete_stream),
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
            "SubscribeToShard": (requests.SubscribeToShard, self.subscriptions.subscribe),
            "UpdateShardCount": (requests.UpdateShardCount, shards.update_shard_count),
            "DecreaseStreamRetentionPeriod": (requests.StreamRetentionPeriod, settings.decrease_retention),
            "DisableEnhancedMonitoring": (requests.EnhancedMonitoring, settings.disable_monitoring),
            "EnableEnhancedMonitoring": (requests.EnhancedMonitoring, settings.enable_monitoring),
            "IncreaseStreamRetentionPeriod": (requests.StreamRetentionPeriod, settings.increase_retention),
            "StartStreamEncryption": (requests.StreamEncryption, settings.start_encryption),
            "StopStreamEncryption": (requests.StreamEncryption, settings.stop_encryption),
            "UpdateMaxRecordSize": (requests.UpdateMaxRecordSize, settings.update_record_size),
            "UpdateStreamMode": (requests.UpdateStreamMode, settings.update_mode),
            "UpdateStreamRecordDistributionStrategy": (
                requests.UpdateStreamRecordDistributionStrategy,
                settings.update_distribution,
            ),
            "UpdateStreamWarmThroughput": (requests.UpdateStreamWarmThroughput, settings.update_warm_throughput),
            "AddTagsToStream": (requests.AddTagsToStream, tags.add_tags_to_stream),
            "ListTagsForResource": (requests.ResourceRequest, tags.list_tags_for_resource),
            "ListTagsForStream": (requests.ListTagsForStream, tags.list_tags_for_stream),
            "RemoveTagsFromStream": (requests.RemoveTagsFromStream, tags.remove_tags_from_stream),
            "TagResource": (requests.TagResource, tags.tag_resource),
            "UntagResource": (requests.UntagResource, tags.untag_resource),
            "DeleteResourcePolicy": (requests.ResourceRequest, policies.delete_resource_policy),
            "GetResourcePolicy": (requests.ResourceRequest, policies.get_resource_policy),
            "PutResourcePolicy": (requests.PutResourcePolicy, policies.put_resource_policy),
            "DeregisterStreamConsumer": (requests.ConsumerRequest, consumers.deregister),
            "DescribeStreamConsumer": (requests.ConsumerRequest, consumers.describe),
            "ListStreamConsumers": (requests.ListStreamConsumers, consumers.list),
            "RegisterStreamConsumer": (requests.RegisterStreamConsumer, consumers.register),
            "DescribeAccountSettings": (requests.Nothing, account.describe_settings),
            "DescribeLimits": (requests.Nothing, account.describe_limits),
            "UpdateAccountSettings": (requests.UpdateAccountSettings, account.update_settings),
        }

    def shape(self, operation: str) -> type[msgspec.Struct] | None:
        """Return the request type of an operation, or None if the operation does not exist."""
        entry = self._table.get(operation)
        return entry[0] if entry else None

    async def call(self, operation: str, request: msgspec.Struct, region: str) -> _Response:
        """Apply a request and return its response, or None for an empty body. The caller must close a subscription.

        Raises:
            RequestError: AWS would refuse the request.
            OSError: The store failed.
        """
        constraints.check(request)
        now = self._clock.wall()
        if self._quotas is not None and operation not in _PER_SHARD:
            _check_rate(self._quotas, operation, request, now)
        await self.catch_up(now)
        return await self._table[operation][1](request, CallContext(region, now))

    async def create_active(self, name: str, shards: int) -> None:
        """Create a stream that is ACTIVE immediately. This is no call: it counts toward no quota and is not intercepted.

        Raises:
            RequestError: The stream exists, or the shards exceed the limit of the account.
            OSError: The store failed.
        """
        now = self._clock.wall()
        await self.catch_up(now)
        created = self._state.create(name, shards, now)
        await self._store.write([*created, *self._state.complete(name, now)])

    async def delete_now(self, name: str) -> None:
        """Delete a stream with its consumers immediately, if it exists. This is no call, as with `create_active`.

        Raises:
            OSError: The store failed.
        """
        now = self._clock.wall()
        await self.catch_up(now)
        if name in self._state.streams:
            deleted = self._state.delete(name, now, with_consumers=True)
            await self._store.write([*deleted, *self._state.complete(name, now)])

    async def catch_up(self, now: float) -> None:
        """Apply the changes that are due by time: end transitions, and expire records.

        Raises:
            OSError: The store failed, now or earlier. The state may then have changes that are not stored, and must not be used.
        """
        await self._store.write([*self._state.advance(now), *self._state.trim(now)])


def _check_rate(quotas: Quotas, operation: str, request: Any, now: float) -> None:
    """Refuse a call that exceeds a rate limit."""
    stream = getattr(request, "stream_name", None)
    if stream is None:
        arns = [getattr(request, f"{kind}_arn", None) or "" for kind in ("stream", "consumer", "resource")]
        stream = "".join(arns).partition(":stream/")[2].partition("/")[0]
    if not quotas.may_call(operation, stream, now):
        resource = f"stream {stream} under account {ACCOUNT}" if stream else f"account {ACCOUNT}"
        raise RequestError("LimitExceededException", f"Rate exceeded for {resource}.")
