"""Operations on streams: create, describe, list, delete."""

from __future__ import annotations

from kinstream import service_quotas
from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import CallContext, check_token_age, shard_index, stream_arn, stream_name
from kinstream.local.operations.settings_operations import check_warm, encryption_type, warm_throughput
from kinstream.local.operations.shard_operations import shard_response
from kinstream.local.operations.tag_operations import tags_after
from kinstream.local.operations.tokens import StreamsPage, TokenCodec
from kinstream.local.state.model import ACCOUNT, Shard, Status, Stream
from kinstream.local.state.request_error import RequestError, invalid, limit_exceeded
from kinstream.local.state.state import ON_DEMAND_SHARDS, STREAMS_CREATING_OR_DELETING, State
from kinstream.local.storage.record_store import Store

DESCRIBE_SHARDS = 100
"""Maximum shards in a DescribeStream response (API reference, `DescribeStream`)."""

LIST_STREAMS = 100
"""Maximum streams in a ListStreams response (API reference, `ListStreams`)."""


class StreamOperations:
    """The operations on streams."""

    def __init__(self, state: State, store: Store, tokens: TokenCodec, *, quotas: bool) -> None:
        self._state = state
        self._store = store
        self._tokens = tokens
        self._quotas = quotas

    async def create_stream(self, request: requests.CreateStream, call: CallContext) -> None:
        """CreateStream."""
        details = request.stream_mode_details
        on_demand = details is not None and details.stream_mode == "ON_DEMAND"
        if on_demand and request.shard_count is not None:
            raise RequestError(
                "ValidationException", "ShardCount must not be specified for a stream in ON_DEMAND mode."
            )
        if not on_demand and request.shard_count is None:
            raise RequestError("ValidationException", "ShardCount must be specified for a stream in PROVISIONED mode.")
        spread, warm = request.record_distribution_strategy == "AUTO", request.warm_mibps
        if spread and not on_demand:
            raise invalid("RecordDistributionStrategy AUTO is only supported for a stream in ON_DEMAND mode.")
        if warm is not None:
            if not on_demand:
                raise invalid("WarmThroughputMiBps can only be specified for a stream in ON_DEMAND mode.")
            check_warm(self._state, warm, call.now)
        if self._quotas and self._state.creating_or_deleting() >= STREAMS_CREATING_OR_DELETING:
            # Wording and grammar of AWS: terraform-provider-aws pull request 1339.
            raise limit_exceeded(
                "This request would have exceed the limit on the number of streams that can simultaneously be in "
                f"CREATING or DELETING for the account {ACCOUNT}. Limit: {STREAMS_CREATING_OR_DELETING}."
            )
        await self._store.write(
            self._state.create(
                request.stream_name or "",
                request.shard_count or max(ON_DEMAND_SHARDS, warm or 0),
                call.now,
                on_demand=on_demand,
                warm_mibps=warm,
                spread=spread,
                tags=tags_after(request.tags or {}, f"stream {request.stream_name}"),
                max_record_kib=request.max_record_kib or service_quotas.RECORD_DEFAULT_MAX_KIB,
            )
        )

    async def delete_stream(self, request: requests.DeleteStream, call: CallContext) -> None:
        """DeleteStream."""
        with_consumers = bool(request.enforce_consumer_deletion)
        await self._store.write(self._state.delete(stream_name(request), call.now, with_consumers=with_consumers))

    async def describe_stream(self, request: requests.DescribeStream, call: CallContext) -> responses.DescribeStream:
        """DescribeStream."""
        stream = self._state.stream(stream_name(request))
        shards = _visible(stream, call.now)
        if request.exclusive_start_shard_id is not None:
            after = shard_index(request.exclusive_start_shard_id)
            shards = [shard for shard in shards if shard.index > after]
        page = shards[: min(request.limit or DESCRIBE_SHARDS, DESCRIBE_SHARDS)]
        return responses.DescribeStream(
            responses.StreamDescription(
                stream_name=stream.name,
                stream_arn=stream_arn(stream, call),
                stream_status=stream.settings.status.value,
                stream_mode_details=_mode(stream),
                shards=[shard_response(shard) for shard in page],
                has_more_shards=len(page) < len(shards),
                retention_period_hours=stream.settings.retention_hours,
                stream_creation_timestamp=stream.settings.created / 1000,
                enhanced_monitoring=[responses.EnhancedMetrics(stream.settings.metrics)],
                encryption_type=encryption_type(stream),
                key_id=stream.settings.key_id,
            )
        )

    async def describe_stream_summary(
        self, request: requests.StreamRequest, call: CallContext
    ) -> responses.DescribeStreamSummary:
        """DescribeStreamSummary."""
        stream = self._state.stream(stream_name(request))
        return responses.DescribeStreamSummary(
            responses.StreamDescriptionSummary(
                stream_name=stream.name,
                stream_arn=stream_arn(stream, call),
                stream_status=stream.settings.status.value,
                stream_mode_details=_mode(stream),
                retention_period_hours=stream.settings.retention_hours,
                stream_creation_timestamp=stream.settings.created / 1000,
                enhanced_monitoring=[responses.EnhancedMetrics(stream.settings.metrics)],
                encryption_type=encryption_type(stream),
                key_id=stream.settings.key_id,
                open_shard_count=len([s for s in _visible(stream, call.now) if s.closed is None]),
                consumer_count=len(stream.settings.consumers),
                warm_throughput=warm_throughput(stream),
                record_distribution_strategy=_strategy(stream),
                max_record_kib=stream.settings.max_record_kib,
            )
        )

    async def list_streams(self, request: requests.ListStreams, call: CallContext) -> responses.ListStreams:
        """ListStreams."""
        after = request.exclusive_start_stream_name or ""
        if request.next_token is not None:
            if request.exclusive_start_stream_name is not None:
                raise invalid("NextToken and ExclusiveStartStreamName cannot be provided together.")
            page = self._tokens.decode(request.next_token, StreamsPage)
            if page is None:
                raise invalid("NextToken is invalid.")
            check_token_age(page.issued, call)
            after = page.after
        names = sorted(name for name in self._state.streams if name > after)
        chosen = names[: min(request.limit or LIST_STREAMS, LIST_STREAMS)]
        more = len(chosen) < len(names)
        streams = [self._state.streams[name] for name in chosen]
        return responses.ListStreams(
            stream_names=chosen,
            has_more_streams=more,
            stream_summaries=[
                responses.StreamSummary(
                    stream_name=stream.name,
                    stream_arn=stream_arn(stream, call),
                    stream_status=stream.settings.status.value,
                    stream_mode_details=_mode(stream),
                    stream_creation_timestamp=stream.settings.created / 1000,
                )
                for stream in streams
            ],
            next_token=self._tokens.encode(StreamsPage(chosen[-1], int(call.now * 1000))) if more else None,
        )


def _visible(stream: Stream, now: float) -> list[Shard]:
    """Return the shards for a description: no expired shards, and no shards at all while the stream is CREATING."""
    if stream.settings.status is Status.CREATING:
        return []
    return [shard for shard in stream.shards if not stream.expired(shard, now)]


def _strategy(stream: Stream) -> str:
    """Return the record distribution strategy, for provisioned streams too, because the KPL warns if it is missing."""
    return "AUTO" if stream.settings.spread else "USER_PARTITION_KEY"


def _mode(stream: Stream) -> responses.StreamModeDetails:
    return responses.StreamModeDetails("ON_DEMAND" if stream.settings.on_demand else "PROVISIONED")
