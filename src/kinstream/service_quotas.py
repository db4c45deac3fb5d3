"""The limits of Kinesis Data Streams, each with its source.

"API reference" is the Amazon Kinesis Data Streams API Reference; "quotas" is the page "Quotas and limits" of the
developer guide; both as of November 2026.
"""

KIB = 1024
MIB = 1024 * KIB

PUT_RECORDS_MAX_RECORDS = 500
"""Records in one PutRecords request (API reference, `PutRecords`)."""

PUT_RECORDS_MAX_BYTES = 10 * MIB
"""Data and partition keys of one PutRecords request, together (quotas; it was 5 MiB until 2025)."""

RECORD_MAX_BYTES = 10 * MIB
"""Data and partition key of one record, where MaxRecordSizeInKiB is at its maximum (API reference, `UpdateMaxRecordSize`)."""

RECORD_DEFAULT_MAX_KIB = 1024
"""MaxRecordSizeInKiB of a stream that was not told otherwise (API reference, `CreateStream`)."""

RECORD_MAX_KIB = 10240
"""The largest MaxRecordSizeInKiB (API reference, `CreateStream`)."""

PARTITION_KEY_MAX_CHARACTERS = 256
"""Unicode characters, not bytes, of a partition key (API reference, `PutRecord`)."""

SEQUENCE_NUMBER_PATTERN = r"0|([1-9]\d{0,128})"
"""The form of a sequence number (API reference, `SequenceNumber`)."""

GET_RECORDS_MAX_RECORDS = 10_000
"""Records in one GetRecords answer, and the largest Limit (API reference, `GetRecords`)."""

GET_RECORDS_MAX_BYTES = 10 * MIB
"""Data in one GetRecords answer (API reference, `GetRecords`)."""

SHARD_ITERATOR_LIFETIME = 300.0
"""Seconds for which a shard iterator is good (API reference, `GetShardIterator`)."""

SHARD_ITERATOR_MAX_CHARACTERS = 512
"""Length of a shard iterator (API reference, `ShardIterator`)."""

SHARD_WRITE_RECORDS_PER_SECOND = 1000
"""Records a second that a shard takes (quotas)."""

SHARD_WRITE_BYTES_PER_SECOND = MIB
"""Data and partition keys a second that a shard takes (quotas)."""

SHARD_WRITE_BURST_BYTES = RECORD_MAX_BYTES
"""Data and partition keys that a rested shard takes at once: capacity is a tank that refills at the steady rate and has room
for the largest record (developer guide, "Handle large records"; the tank's size is our reading)."""

SHARD_READ_CALLS_PER_SECOND = 5
"""GetRecords calls a second on a shard, of all its readers together (quotas)."""

SHARD_READ_BYTES_PER_SECOND = 2 * MIB
"""Bytes a second that GetRecords reads from a shard, by all its readers together (quotas)."""

SHARD_ITERATOR_CALLS_PER_SECOND = 5
"""GetShardIterator calls a second on a shard (API reference, `GetShardIterator`)."""

SUBSCRIPTION_SECONDS = 300.0
"""Seconds after which a subscription to a shard ends (API reference, `SubscribeToShard`)."""

SUBSCRIPTION_BYTES_PER_SECOND = 2 * MIB
"""Bytes a second that a shard pushes to one consumer (quotas)."""

SUBSCRIBE_AGAIN_SECONDS = 5.0
"""Seconds after a successful SubscribeToShard call in which another one for the same consumer and shard is refused; later
it takes over (API reference, `SubscribeToShard`)."""

SUBSCRIBE_CALLS_PER_SECOND = 1
"""SubscribeToShard calls a second for one consumer and shard (API reference, `SubscribeToShard`)."""

STREAM_CALLS_PER_SECOND = {
    "DeregisterStreamConsumer": 5,
    "DescribeStreamConsumer": 20,
    "ListShards": 1000,
    "ListStreamConsumers": 5,
    "UpdateShardCount": 10,
}
"""Calls a second on one stream (API reference, each operation's page)."""

ACCOUNT_CALLS_PER_SECOND = {"DescribeLimits": 1, "DescribeStream": 10, "DescribeStreamSummary": 20}
"""Calls a second of one account, all streams together (API reference, each operation's page)."""

OTHER_CALLS_PER_SECOND = 5
"""Calls a second of one account for any other operation on streams (quotas; API reference, such as `CreateStream`)."""

LIST_SHARDS_MAX_RESULTS = 1000
"""Shards in one ListShards answer (API reference, `ListShards`: more may be asked for, no more are given)."""

RETENTION_DEFAULT_HOURS = 24
"""Hours for which a stream keeps records (quotas)."""

RETENTION_MAX_HOURS = 8760
"""The longest retention, 365 days (quotas)."""

STREAM_NAME_PATTERN = r"[a-zA-Z0-9_.-]{1,128}"
"""The form of a stream name (API reference, `StreamName`)."""

CONSUMER_NAME_PATTERN = r"[a-zA-Z0-9_.-]{1,128}"
"""The form of a stream consumer's name (API reference, `ConsumerName`)."""

STREAM_ARN_PATTERN = r"arn:(aws[a-z-]*):kinesis:([a-z0-9-]+):(\d{12}):stream/([a-zA-Z0-9_.-]{1,128})"
"""The form of a stream ARN: partition, region, account, name (API reference, `StreamARN`)."""

SHARD_ID_PATTERN = r"[a-zA-Z0-9_.-]{1,128}"
"""The form of a shard id (API reference, `ShardId`)."""
