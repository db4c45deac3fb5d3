"""Response types. A member that is None is left out, as by AWS.

Source of names and types: the service model in botocore 1.43. Blobs are bytes and timestamps are float seconds. They are
encoded by `wire`.
"""

from __future__ import annotations

import msgspec


class HashKeyRange(msgspec.Struct, rename="pascal"):
    """Range of the hash keys of a shard, both ends included."""

    starting_hash_key: str
    ending_hash_key: str


class SequenceNumberRange(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Range of the sequence numbers of a shard."""

    starting_sequence_number: str
    ending_sequence_number: str | None = None


class ShardResponse(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A shard."""

    shard_id: str
    hash_key_range: HashKeyRange
    sequence_number_range: SequenceNumberRange
    parent_shard_id: str | None = None
    adjacent_parent_shard_id: str | None = None


class ChildShard(msgspec.Struct, rename="pascal"):
    """A child shard, at which reading continues after its closed parents."""

    shard_id: str
    parent_shards: list[str]
    hash_key_range: HashKeyRange


class StreamModeDetails(msgspec.Struct, rename="pascal"):
    """Capacity mode of a stream."""

    stream_mode: str


class EnhancedMetrics(msgspec.Struct, rename="pascal"):
    """Enabled shard-level metrics."""

    shard_level_metrics: list[str]


class WarmThroughput(msgspec.Struct):
    """Warm throughput of an on-demand stream."""

    target: int = msgspec.field(name="TargetMiBps")
    current: int = msgspec.field(name="CurrentMiBps")


class StreamDescription(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A stream with its shards."""

    stream_name: str
    stream_arn: str = msgspec.field(name="StreamARN")
    stream_status: str
    stream_mode_details: StreamModeDetails
    shards: list[ShardResponse]
    has_more_shards: bool
    retention_period_hours: int
    stream_creation_timestamp: float
    enhanced_monitoring: list[EnhancedMetrics]
    encryption_type: str
    key_id: str | None = None


class DescribeStream(msgspec.Struct, rename="pascal"):
    """DescribeStream."""

    stream_description: StreamDescription


class StreamDescriptionSummary(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A stream without its shards."""

    stream_name: str
    stream_arn: str = msgspec.field(name="StreamARN")
    stream_status: str
    stream_mode_details: StreamModeDetails
    retention_period_hours: int
    stream_creation_timestamp: float
    enhanced_monitoring: list[EnhancedMetrics]
    encryption_type: str
    open_shard_count: int
    consumer_count: int
    max_record_kib: int = msgspec.field(name="MaxRecordSizeInKiB")
    record_distribution_strategy: str
    key_id: str | None = None
    warm_throughput: WarmThroughput | None = None


class DescribeStreamSummary(msgspec.Struct, rename="pascal"):
    """DescribeStreamSummary."""

    stream_description_summary: StreamDescriptionSummary


class StreamSummary(msgspec.Struct, rename="pascal"):
    """A stream in a list."""

    stream_name: str
    stream_arn: str = msgspec.field(name="StreamARN")
    stream_status: str
    stream_mode_details: StreamModeDetails
    stream_creation_timestamp: float


class ListStreams(msgspec.Struct, rename="pascal", omit_defaults=True):
    """ListStreams."""

    stream_names: list[str]
    has_more_streams: bool
    stream_summaries: list[StreamSummary]
    next_token: str | None = None


class PutRecord(msgspec.Struct, rename="pascal"):
    """PutRecord."""

    shard_id: str
    sequence_number: str
    encryption_type: str


class PutRecordsEntry(msgspec.Struct, rename="pascal", omit_defaults=True, gc=False):
    """Result of one record of PutRecords."""

    sequence_number: str | None = None
    shard_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class PutRecords(msgspec.Struct, rename="pascal"):
    """PutRecords."""

    failed_record_count: int
    records: list[PutRecordsEntry]
    encryption_type: str


class GetShardIterator(msgspec.Struct, rename="pascal"):
    """GetShardIterator."""

    shard_iterator: str


class ReadRecord(msgspec.Struct, rename="pascal", gc=False):
    """A record in the response of a read."""

    sequence_number: str
    approximate_arrival_timestamp: float
    data: bytes
    partition_key: str | msgspec.UnsetType
    encryption_type: str


class GetRecords(msgspec.Struct, rename="pascal", omit_defaults=True):
    """GetRecords."""

    records: list[ReadRecord]
    millis_behind_latest: int
    next_shard_iterator: str | None = None
    child_shards: list[ChildShard] | None = None


class SubscribeToShardEvent(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Event of a subscription. At the end of a shard it has child shards instead of a continuation sequence number."""

    records: list[ReadRecord]
    millis_behind_latest: int
    continuation_sequence_number: str | None = None
    child_shards: list[ChildShard] | None = None


class ListShards(msgspec.Struct, rename="pascal", omit_defaults=True):
    """ListShards."""

    shards: list[ShardResponse]
    next_token: str | None = None


class UpdateShardCount(msgspec.Struct, rename="pascal"):
    """UpdateShardCount."""

    stream_name: str
    current_shard_count: int
    target_shard_count: int
    stream_arn: str = msgspec.field(name="StreamARN")


class EnhancedMonitoring(msgspec.Struct, rename="pascal"):
    """EnableEnhancedMonitoring and DisableEnhancedMonitoring."""

    stream_name: str
    current_shard_level_metrics: list[str]
    desired_shard_level_metrics: list[str]
    stream_arn: str = msgspec.field(name="StreamARN")


class UpdateStreamWarmThroughput(msgspec.Struct, rename="pascal"):
    """UpdateStreamWarmThroughput."""

    stream_arn: str = msgspec.field(name="StreamARN")
    stream_name: str
    warm_throughput: WarmThroughput


class Tag(msgspec.Struct, rename="pascal"):
    """A tag."""

    key: str
    value: str


class ListTagsForStream(msgspec.Struct, rename="pascal"):
    """ListTagsForStream."""

    tags: list[Tag]
    has_more_tags: bool


class ListTagsForResource(msgspec.Struct, rename="pascal"):
    """ListTagsForResource."""

    tags: list[Tag]


class GetResourcePolicy(msgspec.Struct, rename="pascal"):
    """GetResourcePolicy."""

    policy: str


class ConsumerResponse(msgspec.Struct, rename="pascal"):
    """A registered consumer."""

    consumer_name: str
    consumer_arn: str = msgspec.field(name="ConsumerARN")
    consumer_status: str
    consumer_creation_timestamp: float


class ConsumerDescription(ConsumerResponse, rename="pascal"):
    """A registered consumer with its stream."""

    stream_arn: str = msgspec.field(name="StreamARN")


class RegisterStreamConsumer(msgspec.Struct, rename="pascal"):
    """RegisterStreamConsumer."""

    consumer: ConsumerResponse


class DescribeStreamConsumer(msgspec.Struct, rename="pascal"):
    """DescribeStreamConsumer."""

    consumer_description: ConsumerDescription


class ListStreamConsumers(msgspec.Struct, rename="pascal", omit_defaults=True):
    """ListStreamConsumers."""

    consumers: list[ConsumerResponse]
    next_token: str | None = None


class DescribeLimits(msgspec.Struct, rename="pascal"):
    """DescribeLimits."""

    shard_limit: int
    open_shard_count: int
    on_demand_stream_count: int
    on_demand_stream_count_limit: int


class MinimumThroughputBillingCommitment(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Minimum throughput billing commitment of the account."""

    status: str
    started_at: float | None = None
    ended_at: float | None = None
    earliest_allowed_end_at: float | None = None


class AccountSettings(msgspec.Struct, rename="pascal"):
    """DescribeAccountSettings and UpdateAccountSettings."""

    minimum_throughput_billing_commitment: MinimumThroughputBillingCommitment
