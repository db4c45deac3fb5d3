"""kinstream: Amazon Kinesis Data Streams for Python.

Three faces of the same classes: this package for asyncio, `kinstream.blocking` for threads, `kinstream.callbacks` for
callbacks. `kinstream.local` is a Kinesis on your own machine.
"""

from kinstream.aws.client import Client
from kinstream.aws.credentials import Credentials
from kinstream.config import Connection, Retrying, Timeouts, Wire
from kinstream.consumer import Consumer
from kinstream.errors import (
    AccessDenied,
    ClosedError,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    CredentialsError,
    DeadlineExceeded,
    ErrorType,
    ExpiredIterator,
    InvalidArgument,
    InvalidRecord,
    KinesisError,
    LimitExceeded,
    NotFound,
    ResourceInUse,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
    UnexpectedResponse,
)
from kinstream.producer import Producer
from kinstream.record import (
    ChildShard,
    EncryptionType,
    GetRecordsResult,
    HashKeyRange,
    PutRecordResult,
    PutRecordsResult,
    ReceivedRecord,
    Record,
    SequenceNumberRange,
    Shard,
    ShardIteratorType,
)

__all__ = [
    "AccessDenied",
    "ChildShard",
    "Client",
    "ClosedError",
    "ConfigError",
    "ConnectFailed",
    "Connection",
    "ConnectionLost",
    "Consumer",
    "Credentials",
    "CredentialsError",
    "DeadlineExceeded",
    "EncryptionType",
    "ErrorType",
    "ExpiredIterator",
    "GetRecordsResult",
    "HashKeyRange",
    "InvalidArgument",
    "InvalidRecord",
    "KinesisError",
    "LimitExceeded",
    "NotFound",
    "Producer",
    "PutRecordResult",
    "PutRecordsResult",
    "ReceivedRecord",
    "Record",
    "ResourceInUse",
    "Retrying",
    "SequenceNumberRange",
    "ServiceError",
    "ServiceUnavailable",
    "Shard",
    "ShardIteratorType",
    "Throttled",
    "Timeouts",
    "TransportError",
    "UnexpectedResponse",
    "Wire",
]
