"""Request types, with the constraints of each member.

Source of names, types and constraints: the service model in botocore 1.43. Unknown members are ignored, as by AWS.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from kinstream import service_quotas
from kinstream.local.operations.constraints import (
    Each,
    EachKey,
    EachMember,
    EachValue,
    Length,
    OneOf,
    Pattern,
    Range,
    Required,
)

_NAME = r"[a-zA-Z0-9_.-]+"
_HASH_KEY = r"0|([1-9]\d{0,38})"
_ARN = r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+"

Arn = Annotated[str | None, Length(1, 2048), Pattern(_ARN)]
Name = Annotated[str | None, Length(1, 128), Pattern(_NAME)]
Page = Annotated[int | None, Range(1, 10_000)]
PageToken = Annotated[str | None, Length(1, 1_048_576)]
_CONSUMER_ARN = r"^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+"
_RESOURCE_ARN = r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+"
# Any ARN that matches also matches from its first ":kinesis:" and the first account id after it. Without atomic groups, a
# crafted string would backtrack for most of a second.
_HEAD = r"arn:aws(?>.*?:kinesis:)(?>.*?:\d{12}:)"

RequiredArn = Annotated[str | None, Required(), Length(1, 2048), Pattern(_ARN)]
ConsumerArn = Annotated[
    str | None,
    Length(1, 2048),
    Pattern(_CONSUMER_ARN, _HEAD + r".*stream/[a-zA-Z0-9_.-]+/consumer/[a-zA-Z0-9_.-]+:[0-9]+"),
]
ResourceArn = Annotated[
    str | None, Required(), Length(1, 2048), Pattern(_RESOURCE_ARN, _HEAD + r".*(stream|channel|queue)/\S+")
]
Tags = Annotated[dict[str, str] | None, Length(1, 200), EachKey(Length(1, 128)), EachValue(Length(0, 256))]
RequiredTags = Annotated[
    dict[str, str] | None, Required(), Length(1, 200), EachKey(Length(1, 128)), EachValue(Length(0, 256))
]
RequiredTagKeys = Annotated[list[str] | None, Required(), Length(1, 50), EachMember(Length(1, 128))]
RecordSize = Annotated[int | None, Range(service_quotas.RECORD_DEFAULT_MAX_KIB, service_quotas.RECORD_MAX_KIB)]
WarmThroughput = Annotated[int | None, Range(0)]
RequiredName = Annotated[str | None, Required(), Length(1, 128), Pattern(_NAME)]


class StreamRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """A request that addresses one stream by name or ARN."""

    stream_name: Name = None
    stream_arn: Arn = msgspec.field(default=None, name="StreamARN")


class DataRequest(StreamRequest, rename="pascal", kw_only=True):
    """A data plane request, which may be a dry run."""

    dry_run: bool | None = None


class StreamModeDetails(msgspec.Struct, rename="pascal"):
    """Capacity mode of a stream."""

    stream_mode: Annotated[str | None, Required(), OneOf("PROVISIONED", "ON_DEMAND")] = None


class ResourceRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """A request that addresses a stream or a consumer by ARN."""

    resource_arn: ResourceArn = msgspec.field(default=None, name="ResourceARN")


class Nothing(msgspec.Struct):
    """A request without members."""


class CreateStream(msgspec.Struct, rename="pascal", kw_only=True):
    """CreateStream."""

    stream_name: RequiredName = None
    shard_count: Annotated[int | None, Range(1)] = None
    stream_mode_details: Annotated[StreamModeDetails | None, Each()] = None
    tags: Tags = None
    warm_mibps: WarmThroughput = msgspec.field(default=None, name="WarmThroughputMiBps")
    max_record_kib: RecordSize = msgspec.field(default=None, name="MaxRecordSizeInKiB")
    record_distribution_strategy: Annotated[str | None, OneOf("AUTO", "USER_PARTITION_KEY")] = None


class DeleteStream(StreamRequest, rename="pascal", kw_only=True):
    """DeleteStream."""

    enforce_consumer_deletion: bool | None = None


class DescribeStream(StreamRequest, rename="pascal", kw_only=True):
    """DescribeStream."""

    limit: Page = None
    exclusive_start_shard_id: Name = None


class ListStreams(msgspec.Struct, rename="pascal", kw_only=True):
    """ListStreams."""

    limit: Page = None
    exclusive_start_stream_name: Name = None
    next_token: PageToken = None


class PutRecord(DataRequest, rename="pascal", kw_only=True):
    """PutRecord."""

    data: Annotated[bytes | None, Required(), Length(0, service_quotas.RECORD_MAX_BYTES)] = None
    partition_key: Annotated[str | None, Length(1, service_quotas.PARTITION_KEY_MAX_CHARACTERS)] = None
    explicit_hash_key: Annotated[str | None, Pattern(_HASH_KEY)] = None
    sequence_number_for_ordering: Annotated[str | None, Pattern(service_quotas.SEQUENCE_NUMBER_PATTERN)] = None


class PutRecordsEntry(msgspec.Struct, rename="pascal", kw_only=True, gc=False):
    """One record of PutRecords. It is checked without a table of constraints, because that would dominate the cost of a put."""

    data: bytes | None = None
    partition_key: str | None = None
    explicit_hash_key: str | None = None


class PutRecords(DataRequest, rename="pascal", kw_only=True):
    """PutRecords."""

    records: Annotated[list[PutRecordsEntry] | None, Required(), Length(1, service_quotas.PUT_RECORDS_MAX_RECORDS)] = (
        None
    )


class GetShardIterator(DataRequest, rename="pascal", kw_only=True):
    """GetShardIterator."""

    shard_id: RequiredName = None
    shard_iterator_type: Annotated[
        str | None,
        Required(),
        OneOf("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"),
    ] = None
    starting_sequence_number: Annotated[str | None, Pattern(service_quotas.SEQUENCE_NUMBER_PATTERN)] = None
    timestamp: float | None = None


class StartingPosition(msgspec.Struct, rename="pascal", kw_only=True):
    """Starting position of a subscription."""

    type: Annotated[
        str | None,
        Required(),
        OneOf("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"),
    ] = None
    sequence_number: Annotated[str | None, Pattern(service_quotas.SEQUENCE_NUMBER_PATTERN)] = None
    timestamp: float | None = None


class SubscribeToShard(msgspec.Struct, rename="pascal", kw_only=True):
    """SubscribeToShard."""

    consumer_arn: Annotated[ConsumerArn, Required()] = msgspec.field(default=None, name="ConsumerARN")
    shard_id: RequiredName = None
    starting_position: Annotated[StartingPosition | None, Required(), Each()] = None
    dry_run: bool | None = None


class GetRecords(msgspec.Struct, rename="pascal", kw_only=True):
    """GetRecords."""

    stream_arn: Arn = msgspec.field(default=None, name="StreamARN")
    dry_run: bool | None = None

    shard_iterator: Annotated[str | None, Required(), Length(1, service_quotas.SHARD_ITERATOR_MAX_CHARACTERS)] = None
    limit: Annotated[int | None, Range(1, service_quotas.GET_RECORDS_MAX_RECORDS)] = None


class ShardFilter(msgspec.Struct, rename="pascal", kw_only=True):
    """Filter for the shards to list."""

    type: Annotated[
        str | None,
        Required(),
        OneOf("AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"),
    ] = None
    shard_id: Name = None
    timestamp: float | None = None


class ListShards(StreamRequest, rename="pascal", kw_only=True):
    """ListShards."""

    next_token: PageToken = None
    exclusive_start_shard_id: Name = None
    max_results: Page = None
    stream_creation_timestamp: float | None = None
    shard_filter: Annotated[ShardFilter | None, Each()] = None


class SplitShard(StreamRequest, rename="pascal", kw_only=True):
    """SplitShard."""

    shard_to_split: RequiredName = None
    new_starting_hash_key: Annotated[str | None, Required(), Pattern(_HASH_KEY)] = None


class MergeShards(StreamRequest, rename="pascal", kw_only=True):
    """MergeShards."""

    shard_to_merge: RequiredName = None
    adjacent_shard_to_merge: RequiredName = None


class UpdateShardCount(StreamRequest, rename="pascal", kw_only=True):
    """UpdateShardCount."""

    target_shard_count: Annotated[int | None, Required(), Range(1)] = None
    scaling_type: Annotated[str | None, Required(), OneOf("UNIFORM_SCALING")] = None


class UpdateStreamMode(msgspec.Struct, rename="pascal", kw_only=True):
    """UpdateStreamMode."""

    stream_arn: RequiredArn = msgspec.field(default=None, name="StreamARN")
    stream_mode_details: Annotated[StreamModeDetails | None, Required(), Each()] = None
    warm_mibps: WarmThroughput = msgspec.field(default=None, name="WarmThroughputMiBps")


class StreamRetentionPeriod(StreamRequest, rename="pascal", kw_only=True):
    """IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod."""

    retention_period_hours: Annotated[int | None, Required()] = None


class StreamEncryption(StreamRequest, rename="pascal", kw_only=True):
    """StartStreamEncryption and StopStreamEncryption."""

    encryption_type: Annotated[str | None, Required(), OneOf("NONE", "KMS")] = None
    key_id: Annotated[str | None, Required(), Length(1, 2048)] = None


METRICS = (
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
)
"""The metrics of a shard."""


class EnhancedMonitoring(StreamRequest, rename="pascal", kw_only=True):
    """EnableEnhancedMonitoring and DisableEnhancedMonitoring."""

    shard_level_metrics: Annotated[list[str] | None, Required(), Length(1, 7), EachMember(OneOf(*METRICS, "ALL"))] = (
        None
    )


class UpdateMaxRecordSize(msgspec.Struct, rename="pascal", kw_only=True):
    """UpdateMaxRecordSize."""

    stream_arn: Arn = msgspec.field(default=None, name="StreamARN")
    max_record_kib: Annotated[RecordSize, Required()] = msgspec.field(default=None, name="MaxRecordSizeInKiB")


class UpdateStreamWarmThroughput(StreamRequest, rename="pascal", kw_only=True):
    """UpdateStreamWarmThroughput."""

    warm_mibps: Annotated[WarmThroughput, Required()] = msgspec.field(default=None, name="WarmThroughputMiBps")


class UpdateStreamRecordDistributionStrategy(msgspec.Struct, rename="pascal", kw_only=True):
    """UpdateStreamRecordDistributionStrategy."""

    stream_arn: RequiredArn = msgspec.field(default=None, name="StreamARN")
    record_distribution_strategy: Annotated[str | None, Required(), OneOf("AUTO", "USER_PARTITION_KEY")] = None


class AddTagsToStream(StreamRequest, rename="pascal", kw_only=True):
    """AddTagsToStream."""

    tags: RequiredTags = None


class ListTagsForStream(StreamRequest, rename="pascal", kw_only=True):
    """ListTagsForStream."""

    exclusive_start_tag_key: Annotated[str | None, Length(1, 128)] = None
    limit: Annotated[int | None, Range(1, 50)] = None


class RemoveTagsFromStream(StreamRequest, rename="pascal", kw_only=True):
    """RemoveTagsFromStream."""

    tag_keys: RequiredTagKeys = None


class TagResource(ResourceRequest, rename="pascal", kw_only=True):
    """TagResource."""

    tags: RequiredTags = None


class UntagResource(ResourceRequest, rename="pascal", kw_only=True):
    """UntagResource."""

    tag_keys: RequiredTagKeys = None


class PutResourcePolicy(ResourceRequest, rename="pascal", kw_only=True):
    """PutResourcePolicy."""

    policy: Annotated[str | None, Required()] = None


class RegisterStreamConsumer(msgspec.Struct, rename="pascal", kw_only=True):
    """RegisterStreamConsumer."""

    stream_arn: RequiredArn = msgspec.field(default=None, name="StreamARN")
    consumer_name: RequiredName = None
    tags: Tags = None


class ConsumerRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """A request that addresses one consumer, by its ARN or by the ARN of its stream and its name."""

    stream_arn: Arn = msgspec.field(default=None, name="StreamARN")
    consumer_name: Name = None
    consumer_arn: ConsumerArn = msgspec.field(default=None, name="ConsumerARN")


class ListStreamConsumers(msgspec.Struct, rename="pascal", kw_only=True):
    """ListStreamConsumers."""

    stream_arn: RequiredArn = msgspec.field(default=None, name="StreamARN")
    next_token: PageToken = None
    max_results: Page = None
    stream_creation_timestamp: float | None = None


class MinimumThroughputBillingCommitment(msgspec.Struct, rename="pascal"):
    """Requested status of the minimum throughput billing commitment."""

    status: Annotated[str | None, Required(), OneOf("ENABLED", "DISABLED")] = None


class UpdateAccountSettings(msgspec.Struct, rename="pascal", kw_only=True):
    """UpdateAccountSettings."""

    minimum_throughput_billing_commitment: Annotated[MinimumThroughputBillingCommitment | None, Required(), Each()] = (
        None
    )
