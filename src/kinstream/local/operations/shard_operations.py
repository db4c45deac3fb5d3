"""Operations on shards (list, split, merge), and their form in responses."""

from __future__ import annotations

import msgspec

from kinstream import service_quotas
from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import CallContext, check_token_age, millis, shard_index, stream_arn, stream_name
from kinstream.local.operations.tokens import ShardsPage, TokenCodec
from kinstream.local.state.model import ACCOUNT, Shard, Status, Stream, shard_id
from kinstream.local.state.request_error import in_use, invalid, not_found
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import Store


class ShardOperations:
    """The operations on shards."""

    def __init__(self, state: State, store: Store, tokens: TokenCodec) -> None:
        self._state = state
        self._store = store
        self._tokens = tokens

    async def list_shards(self, request: requests.ListShards, call: CallContext) -> responses.ListShards:
        """ListShards."""
        page = self._shards_page(request, call)
        stream = self._state.stream(page.stream)
        if stream.settings.created != page.created:
            raise not_found(f"Stream {page.stream} under account {ACCOUNT} not found.")
        if stream.settings.status is Status.CREATING:
            raise in_use(f"Stream {stream.name} under account {ACCOUNT} not ACTIVE, instead in state CREATING")
        shards = [s for s in _filtered(stream, page, call.now) if s.index > page.after]
        limit = min(
            request.max_results or service_quotas.LIST_SHARDS_MAX_RESULTS, service_quotas.LIST_SHARDS_MAX_RESULTS
        )
        chosen = shards[:limit]
        more = len(chosen) < len(shards)
        token = msgspec.structs.replace(page, after=chosen[-1].index, issued=int(call.now * 1000)) if more else None
        return responses.ListShards(
            shards=[shard_response(shard) for shard in chosen],
            next_token=self._tokens.encode(token) if token else None,
        )

    async def split_shard(self, request: requests.SplitShard, call: CallContext) -> None:
        """SplitShard."""
        name, shard = stream_name(request), request.shard_to_split or ""
        await self._store.write(self._state.split(name, shard, request.new_starting_hash_key or "", call.now))

    async def update_shard_count(
        self, request: requests.UpdateShardCount, call: CallContext
    ) -> responses.UpdateShardCount:
        """UpdateShardCount."""
        stream = self._state.stream(stream_name(request))
        current, target = len(stream.open), request.target_shard_count or 0
        await self._store.write(self._state.scale(stream.name, target, call.now))
        return responses.UpdateShardCount(stream.name, current, target, stream_arn(stream, call))

    async def merge_shards(self, request: requests.MergeShards, call: CallContext) -> None:
        """MergeShards."""
        first, second = request.shard_to_merge or "", request.adjacent_shard_to_merge or ""
        await self._store.write(self._state.merge(stream_name(request), first, second, call.now))

    def _shards_page(self, request: requests.ListShards, call: CallContext) -> ShardsPage:
        """Return the page to list, from the token or from the other arguments."""
        if request.next_token is not None:
            for name, value in (
                ("StreamName", request.stream_name),
                ("StreamARN", request.stream_arn),
                ("StreamCreationTimestamp", request.stream_creation_timestamp),
                ("ExclusiveStartShardId", request.exclusive_start_shard_id),
                ("ShardFilter", request.shard_filter),
            ):
                if value is not None:
                    raise invalid(f"NextToken and {name} cannot be provided together.")
            page = self._tokens.decode(request.next_token, ShardsPage)
            if page is None:
                raise invalid("NextToken is invalid.")
            check_token_age(page.issued, call)
            return page
        if request.stream_name is None and request.stream_arn is None:
            raise invalid("Either NextToken or StreamName should be provided.")
        stream = self._state.stream(stream_name(request))
        created = request.stream_creation_timestamp
        if created is not None and millis(created) // 1000 != stream.settings.created // 1000:
            raise not_found(f"Stream {stream.name} under account {ACCOUNT} not found.")
        after = -1 if request.exclusive_start_shard_id is None else shard_index(request.exclusive_start_shard_id)
        kind, timestamp = None, None
        wanted = request.shard_filter
        if wanted is not None:
            kind, timestamp = wanted.type, wanted.timestamp
            if (kind == "AFTER_SHARD_ID") != (wanted.shard_id is not None):
                raise invalid("ShardFilter: ShardId must be specified with type AFTER_SHARD_ID, and with no other.")
            if (kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP")) != (timestamp is not None):
                raise invalid(
                    "ShardFilter: Timestamp must be specified with types AT_TIMESTAMP and FROM_TIMESTAMP, and with no other."
                )
            if wanted.shard_id is not None:
                after = max(after, shard_index(wanted.shard_id))
        return ShardsPage(stream.name, stream.settings.created, after, kind, timestamp, 0)


def shard_response(shard: Shard) -> responses.ShardResponse:
    """Return a shard in the form of descriptions and lists."""
    return responses.ShardResponse(
        shard_id=shard.id,
        hash_key_range=_range(shard),
        sequence_number_range=responses.SequenceNumberRange(shard.starting_number, shard.ending_number),
        parent_shard_id=None if shard.parent is None else shard_id(shard.parent),
        adjacent_parent_shard_id=None if shard.adjacent is None else shard_id(shard.adjacent),
    )


def child_response(shard: Shard) -> responses.ChildShard:
    """Return a shard in the form of a child at the end of its parents."""
    parents = [shard_id(index) for index in (shard.parent, shard.adjacent) if index is not None]
    return responses.ChildShard(shard.id, parents, _range(shard))


def _range(shard: Shard) -> responses.HashKeyRange:
    return responses.HashKeyRange(str(int.from_bytes(shard.start, "big")), str(int.from_bytes(shard.end, "big")))


def _filtered(stream: Stream, page: ShardsPage, now: float) -> list[Shard]:
    """Return the shards that match a filter."""
    horizon = stream.horizon(now)
    kept = [s for s in stream.shards if not stream.expired(s, now)]
    kind = page.filter_type
    if kind in (None, "AFTER_SHARD_ID", "FROM_TRIM_HORIZON"):
        return kept
    if kind == "AT_LATEST":
        return [s for s in kept if s.closed is None]
    moment = horizon if page.timestamp is None else max(horizon, millis(page.timestamp))
    if kind == "FROM_TIMESTAMP":
        return [s for s in kept if s.closed is None or s.closed >= moment]
    return [s for s in kept if s.created <= moment and (s.closed is None or s.closed >= moment)]
