"""Limits and quotas of Kinesis Data Streams, each with its source.

"API reference" is the Amazon Kinesis Data Streams API Reference, "quotas" is the page "Quotas and limits" of the developer
guide, both as of November 2026.
"""

KIB = 1024
MIB = 1024 * KIB

PUT_RECORDS_MAX_RECORDS = 500
"""Maximum records in a PutRecords request (API reference, `PutRecords`)."""

PUT_RECORDS_MAX_BYTES = 10 * MIB
"""Maximum bytes of data and partition keys in a PutRecords request (quotas; 5 MiB until 2025)."""

RECORD_MAX_BYTES = 10 * MIB
"""Bytes of data and partition key of a record, at the maximum MaxRecordSizeInKiB (API reference, `UpdateMaxRecordSize`)."""

RECORD_DEFAULT_MAX_KIB = 1024
"""Default of a stream's MaxRecordSizeInKiB (API reference, `CreateStream`)."""

RECORD_MAX_KIB = 10240
"""Maximum of a stream's MaxRecordSizeInKiB (API reference, `CreateStream`)."""

PARTITION_KEY_MAX_CHARACTERS = 256
"""Maximum Unicode characters, not bytes, of a partition key (API reference, `PutRecord`)."""

SEQUENCE_NUMBER_PATTERN = r"0|([1-9]\d{0,128})"
"""Pattern of a sequence number (API reference, `SequenceNumber`)."""

GET_RECORDS_MAX_RECORDS = 10_000
"""Maximum records in a GetRecords response, and maximum Limit (API reference, `GetRecords`)."""

GET_RECORDS_MAX_BYTES = 10 * MIB
"""Maximum bytes of data in a GetRecords response (API reference, `GetRecords`)."""

SHARD_ITERATOR_LIFETIME = 300.0
"""Seconds after which a shard iterator expires (API reference, `GetShardIterator`)."""

SHARD_ITERATOR_MAX_CHARACTERS = 512
"""Maximum length of a shard iterator (API reference, `ShardIterator`)."""

SHARD_WRITE_RECORDS_PER_SECOND = 1000
"""Records per second that a shard accepts (quotas)."""

SHARD_WRITE_BYTES_PER_SECOND = MIB
"""Bytes of data and partition keys per second that a shard accepts (quotas)."""

SHARD_WRITE_BURST_BYTES = RECORD_MAX_BYTES
"""Bytes of data and partition keys that an idle shard accepts at once. The quota is a token bucket that refills at the steady
rate and holds the largest record (developer guide, "Handle large records"; the size of the bucket is our interpretation)."""

SHARD_READ_CALLS_PER_SECOND = 5
"""GetRecords calls per second on a shard, by all of its readers together (quotas)."""

SHARD_READ_BYTES_PER_SECOND = 2 * MIB
"""Bytes per second that GetRecords reads from a shard, by all of its readers together (quotas)."""

SHARD_ITERATOR_CALLS_PER_SECOND = 5
"""GetShardIterator calls per second on a shard (API reference, `GetShardIterator`)."""

SUBSCRIPTION_SECONDS = 300.0
"""Seconds after which a subscription to a shard ends (API reference, `SubscribeToShard`)."""

SUBSCRIPTION_BYTES_PER_SECOND = 2 * MIB
"""Bytes per second that a shard pushes to one consumer (quotas)."""

SUBSCRIBE_AGAIN_SECONDS = 5.0
"""Seconds after a successful SubscribeToShard call during which another one for the same consumer and shard is refused. A later
one replaces the subscription (API reference, `SubscribeToShard`)."""

SUBSCRIBE_CALLS_PER_SECOND = 1
"""SubscribeToShard calls per second for one consumer and shard (API reference, `SubscribeToShard`)."""

STREAM_CALLS_PER_SECOND = {
    "DeregisterStreamConsumer": 5,
    "DescribeStreamConsumer": 20,
    "ListShards": 1000,
    "ListStreamConsumers": 5,
    "UpdateShardCount": 10,
}
"""Calls per second on one stream (API reference, page of each operation)."""

ACCOUNT_CALLS_PER_SECOND = {"DescribeLimits": 1, "DescribeStream": 10, "DescribeStreamSummary": 20}
"""Calls per second of one account, for all streams together (API reference, page of each operation)."""

OTHER_CALLS_PER_SECOND = 5
"""Calls per second of one account for any other stream operation (quotas; API reference, such as `CreateStream`)."""

LIST_SHARDS_MAX_RESULTS = 1000
"""Maximum shards in a ListShards response (API reference, `ListShards`: a larger MaxResults is accepted, but returns no more)."""

RETENTION_DEFAULT_HOURS = 24
"""Default retention of a stream in hours (quotas)."""

RETENTION_MAX_HOURS = 8760
"""Maximum retention in hours, 365 days (quotas)."""

STREAM_NAME_PATTERN = r"[a-zA-Z0-9_.-]{1,128}"
"""Pattern of a stream name (API reference, `StreamName`)."""

CONSUMER_NAME_PATTERN = r"[a-zA-Z0-9_.-]{1,128}"
"""Pattern of a consumer name (API reference, `ConsumerName`)."""

STREAM_ARN_PATTERN = r"arn:(aws[a-z-]*):kinesis:([a-z0-9-]+):(\d{12}):stream/([a-zA-Z0-9_.-]{1,128})"
"""Pattern of a stream ARN: partition, region, account, name (API reference, `StreamARN`)."""

SHARD_ID_PATTERN = r"[a-zA-Z0-9_.-]{1,128}"
"""Pattern of a shard id (API reference, `ShardId`)."""
