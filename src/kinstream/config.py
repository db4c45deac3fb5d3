"""Option classes: frozen values that validate themselves on construction. Each option is defined here and only here."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

from kinstream.clock import Clock
from kinstream.errors import ConfigError
from kinstream.frames import without_frames
from kinstream.functions import function
from kinstream.record import PutRecordResult, ReceivedRecord, Record
from kinstream.service_quotas import (
    CONSUMER_NAME_PATTERN,
    GET_RECORDS_MAX_RECORDS,
    MIB,
    PUT_RECORDS_MAX_BYTES,
    PUT_RECORDS_MAX_RECORDS,
    RECORD_MAX_BYTES,
    SHARD_READ_BYTES_PER_SECOND,
    SHARD_READ_CALLS_PER_SECOND,
    SHARD_WRITE_BYTES_PER_SECOND,
    SHARD_WRITE_RECORDS_PER_SECOND,
)
from kinstream.usage import checks_options

T = TypeVar("T")

MAX_ATTEMPTS = 100
"""Maximum of `RetryPolicy.max_attempts`."""


class WireFormat(StrEnum):
    """Encoding of requests and responses."""

    JSON = "json"
    """`application/x-amz-json-1.1`, which every Kinesis endpoint supports. Fastest for small records."""
    CBOR = "cbor"
    """`application/x-amz-cbor-1.1`, as in the AWS SDK for Java. Without base64. Fastest from about 500 bytes per record."""
    AUTO = "auto"
    """CBOR for puts of large or aggregated records, JSON for all other requests."""


WireFormatName: TypeAlias = Literal["json", "cbor", "auto"]
"""Names of the wire formats, for type checkers."""


def number(field: str, value: Any, low: float, high: float, unit: str = "") -> None:
    """Check that `value` is a number from `low` to `high`.

    Raises:
        ConfigError: It is not. The message names field, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        # Not `:g` alone, which writes a million as 1e+06.
        raise ConfigError(f"{field}={value!r}: must be a number from {low:.15g} to {high:.15g}{unit and ' ' + unit}")


def whole_number(field: str, value: Any, low: int, high: int, source: str = "") -> None:
    """Check that `value` is an int from `low` to `high`.

    Raises:
        ConfigError: It is not. The message names field, value, range and the source of the limit.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        limit = f" ({source})" if source else ""
        raise ConfigError(f"{field}={value!r}: must be a whole number from {low} to {high}{limit}")


def flag(field: str, value: Any) -> bool:
    """Return `value`, checked to be True or False.

    Raises:
        ConfigError: It is neither. The message names field and value.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{field}={value!r}: must be True or False")
    return value


def time_source(field: str, value: Clock) -> Clock:
    """Return `value`, checked to have the methods of a clock.

    Raises:
        ConfigError: It has not. The message names field and type.
    """
    if not all(callable(getattr(value, method, None)) for method in ("wall", "monotonic", "sleep", "timeout")):
        given = "None" if value is None else type(value).__name__
        raise ConfigError(f"{field}: must be a kinstream.clock.Clock, not {given}")
    return value


def text(field: str, value: Any) -> str:
    """Return `value`, checked to be a string that is not empty.

    Raises:
        ConfigError: It is not. The message names the type, never the value, which may be a secret.
    """
    if not isinstance(value, str) or not value:
        given = "an empty string" if value == "" else type(value).__name__
        raise ConfigError(f"{field}: must be a string of at least one character, not {given}")
    return value


def choice(field: str, value: Any, allowed: type[StrEnum]) -> Any:
    """Return `value` as a member of `allowed`.

    Raises:
        ConfigError: It is not a member. The message lists the members.
    """
    try:
        return allowed(value)
    except ValueError:
        raise ConfigError(f"{field}={value!r}: must be one of {', '.join(m.value for m in allowed)}") from None


def secretive(cls: type[T]) -> type[T]:
    """Keep secrets out of tracebacks: a class decorator that removes frames with arguments from errors of the constructor."""
    construct = cls.__init__

    @wraps(construct)
    def constructor(self: T, *args: Any, **options: Any) -> None:
        try:
            construct(self, *args, **options)
        except ConfigError as error:
            del args, options  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise

    cls.__init__ = constructor  # type: ignore[assignment]
    return cls


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Timeouts of requests, in seconds.

    Attributes:
        progress: Seconds without progress after which an attempt fails: no connection, no response, or no further bytes
            of the response. A large request body gets extra time, at 128 KiB per second. Covers boto3's `connect_timeout`
            and `read_timeout`. Range: 0.05 to 300.
        call: Seconds after which the whole call fails, including retries and backoff. boto3 has no such limit. Range:
            0.05 to 3600.
    """

    progress: float = 6.0
    call: float = 60.0

    def __post_init__(self) -> None:
        number("Timeouts.progress", self.progress, 0.05, 300, "seconds")
        number("Timeouts.call", self.call, 0.05, 3600, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Retries of failed requests, by the standard retry mode of the AWS SDKs with its 2026 values.

    Attributes:
        max_attempts: Maximum requests per call, including the first. 1 disables retries. The default is that of the SDKs.
            A client without `retry` uses `AWS_MAX_ATTEMPTS` or the profile's `max_attempts`, if set. Range: 1 to 100.
        initial_delay: Maximum seconds of backoff before the first retry, doubled for each further retry. After throttling
            it is at least 1. The default is that of the SDKs. Range: 0 to 300.
        max_delay: Maximum seconds of backoff before any retry. The default is that of the SDKs. Range: 0 to 300.
    """

    max_attempts: int = 3
    initial_delay: float = 0.05
    max_delay: float = 20.0

    def __post_init__(self) -> None:
        whole_number("RetryPolicy.max_attempts", self.max_attempts, 1, MAX_ATTEMPTS)
        number("RetryPolicy.initial_delay", self.initial_delay, 0, 300, "seconds")
        number("RetryPolicy.max_delay", self.max_delay, 0, 300, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Aggregation:
    """Packing of small records into aggregated records, in the format of the Kinesis Producer Library (KPL). Off by default.

    Attributes:
        max_bytes: Maximum bytes of one aggregated record, at most the stream's `MaxRecordSizeInKiB`. The default is that
            of the KPL: small aggregates fit into a shard's remaining quota sooner. Range: 1 KiB to 10 MiB (API reference,
            `UpdateMaxRecordSize`).
        max_records: Maximum user records in one aggregated record. Range: 1 to 1,000,000.
    """

    max_bytes: int = 51_200
    max_records: int = 10_000

    def __post_init__(self) -> None:
        whole_number(
            "Aggregation.max_bytes", self.max_bytes, 1024, RECORD_MAX_BYTES, "API reference, UpdateMaxRecordSize"
        )
        whole_number("Aggregation.max_records", self.max_records, 1, 1_000_000)


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """Batching of records into `PutRecords` requests.

    Attributes:
        linger: Seconds to wait for more records before sending a partial batch. 0 sends immediately. Range: 0 to 60.
        max_records: Maximum Kinesis records in one request. An aggregated record counts once. Range: 1 to 500 (API
            reference, `PutRecords`).
        max_bytes: Maximum bytes of data and partition keys in one request. A larger record is sent in a request of its
            own. Larger requests do not reduce the cost per byte, and a retry repeats all of the request. Range: 1 KiB to
            10 MiB (quotas).
        max_in_flight: Maximum requests in flight. Range: 1 to 1000.
    """

    linger: float = 0.1
    max_records: int = PUT_RECORDS_MAX_RECORDS
    max_bytes: int = MIB
    max_in_flight: int = 16

    def __post_init__(self) -> None:
        number("Batching.linger", self.linger, 0, 60, "seconds")
        whole_number("Batching.max_records", self.max_records, 1, PUT_RECORDS_MAX_RECORDS, "API reference, PutRecords")
        whole_number(
            "Batching.max_bytes", self.max_bytes, 1024, PUT_RECORDS_MAX_BYTES, "quotas of Kinesis Data Streams"
        )
        whole_number("Batching.max_in_flight", self.max_in_flight, 1, 1000)


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimits:
    """Maximum write rate per shard. The rate falls when the shard throttles and rises again up to these limits.

    `rate_limits=None` disables them. Records are then sent as fast as possible, and retried if the shard throttles.

    Attributes:
        records_per_second: Maximum Kinesis records per second. An aggregated record counts once. The default is the
            shard's quota. Range: 1 to 1,000,000.
        bytes_per_second: Maximum bytes of data and partition keys per second. The default is the shard's quota. Range: 1
            KiB to 1 GiB.
    """

    records_per_second: float = SHARD_WRITE_RECORDS_PER_SECOND
    bytes_per_second: float = SHARD_WRITE_BYTES_PER_SECOND

    def __post_init__(self) -> None:
        number("RateLimits.records_per_second", self.records_per_second, 1, 1_000_000)
        number("RateLimits.bytes_per_second", self.bytes_per_second, 1024, 1024 * MIB)


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class BufferLimits:
    """Limits of the buffer for records that are not yet written, and behavior of `put` when it is full.

    Each record counts with its data, its partition key and 256 bytes of overhead. The bodies of requests in flight are not
    counted. The process keeps the memory of up to 16 of them, 24 MiB in total, for later requests.

    Attributes:
        max_records: Maximum buffered records. Range: 1 to 100,000,000.
        max_bytes: Maximum buffered bytes. A record larger than the buffer is refused. Range: 1 KiB to 1 TiB.
        when_full: "wait": `put` waits for space. "raise": `put` raises `BufferFull`.
        max_wait: Maximum seconds that `put` waits for space before it raises `BufferFull`. None: no limit. Range: 0 to
            86,400.
    """

    max_records: int = 500_000
    max_bytes: int = 64 * MIB
    when_full: Literal["wait", "raise"] = "wait"
    max_wait: float | None = None

    def __post_init__(self) -> None:
        whole_number("BufferLimits.max_records", self.max_records, 1, 100_000_000)
        whole_number("BufferLimits.max_bytes", self.max_bytes, 1024, 1024 * 1024 * MIB)
        if self.when_full not in ("wait", "raise"):
            raise ConfigError(f"BufferLimits.when_full={self.when_full!r}: must be 'wait' or 'raise'")
        if self.max_wait is not None:
            number("BufferLimits.max_wait", self.max_wait, 0, 86_400, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryPolicy:
    """Timeout and retries of each record, from `put` to the response.

    Attributes:
        timeout: Seconds without progress after which a record fails. A record makes no progress if its shard accepts no
            records or the service does not respond. It also fails this long after the first failed request of its own.
            Waiting for the rate limit of a shard that accepts records does not count, unlike in Kafka's
            `delivery.timeout.ms`. Range: 0.05 to 86,400.
        initial_delay: Maximum seconds of backoff before the first retry of a record, doubled for each further retry.
            Range: 0 to 300.
        max_delay: Maximum seconds of backoff before any retry of a record. Range: 0 to 300.
        max_age: Maximum seconds from `put` until a record is written. An older record is dropped, whatever the reason for
            the delay. For data that is worthless when stale. None: no limit. Range: 0.05 to 31,536,000.
    """

    timeout: float = 30.0
    initial_delay: float = 0.05
    max_delay: float = 5.0
    max_age: float | None = None

    def __post_init__(self) -> None:
        number("DeliveryPolicy.timeout", self.timeout, 0.05, 86_400, "seconds")
        number("DeliveryPolicy.initial_delay", self.initial_delay, 0, 300, "seconds")
        number("DeliveryPolicy.max_delay", self.max_delay, 0, 300, "seconds")
        if self.max_age is not None:
            number("DeliveryPolicy.max_age", self.max_age, 0.05, 31_536_000, "seconds")


@checks_options
@secretive
@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionOptions:
    """Connections to Kinesis: certificates, proxy, connection pool.

    Attributes:
        ca_bundle: PEM file of certificate authorities to trust in addition to the built-in ones. None: `AWS_CA_BUNDLE` or
            the profile's `ca_bundle`, if set. Certificates are always verified.
        proxy: URL of an HTTP proxy, such as "http://proxy:3128". "": no proxy, even if the environment names one. None:
            the environment variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
        max_idle: Maximum idle connections kept in the pool. Range: 0 to 1000.
        idle_timeout: Seconds after which an idle connection is closed. Range: 1 to 3600.
        allow_http: Whether to allow http, without TLS, to hosts other than this machine. `KINSTREAM_ALLOW_HTTP=1` has the
            same effect. Records and signatures are then readable in transit.
    """

    ca_bundle: str | Path | None = None
    proxy: str | None = None
    max_idle: int = 64
    idle_timeout: float = 20.0
    allow_http: bool = False

    def __post_init__(self) -> None:
        whole_number("ConnectionOptions.max_idle", self.max_idle, 0, 1000)
        number("ConnectionOptions.idle_timeout", self.idle_timeout, 1, 3600, "seconds")
        if self.ca_bundle is not None:
            read_ca_bundle("ConnectionOptions.ca_bundle", self.ca_bundle)
        flag("ConnectionOptions.allow_http", self.allow_http)
        proxy = self.proxy
        if proxy not in (None, "") and not (isinstance(proxy, str) and is_proxy_url(proxy)):
            raise ConfigError(
                "ConnectionOptions.proxy: must be a URL such as http://proxy:3128, '' for no proxy, or None for the proxy of the"
                " environment variables"
            )

    def __repr__(self) -> str:
        # The URL of a proxy may contain a password.
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name != "proxy")
        return f"ConnectionOptions({shown}, proxy={'...' if self.proxy else self.proxy!r})"


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Polling:
    """Reading by polling (`GetRecords`): at the shard's quota if it lags, less often if it is idle.

    All consumers that poll a shard share its quotas. Lower the limits to leave capacity to other applications.

    Attributes:
        idle_interval: Maximum seconds between two requests on a shard without new records. The delay starts at 0.1 and
            doubles up to this value. From 0.5 on, idle shards are read together, four times a second. Range: 0.05 to 60.
        reads_per_second: Maximum requests per second on one shard. The default is the shard's quota. Range: 0.01 to 1000.
        bytes_per_second: Maximum bytes of data per second from one shard. The default is the shard's quota. Range: 1 KiB
            to 1 GiB.
        max_records: Maximum records in one response. Range: 1 to 10,000 (API reference, `GetRecords`).
    """

    idle_interval: float = 1.0
    reads_per_second: float = float(SHARD_READ_CALLS_PER_SECOND)
    bytes_per_second: int = SHARD_READ_BYTES_PER_SECOND
    max_records: int = GET_RECORDS_MAX_RECORDS

    def __post_init__(self) -> None:
        number("Polling.idle_interval", self.idle_interval, 0.05, 60, "seconds")
        number("Polling.reads_per_second", self.reads_per_second, 0.01, 1000)
        whole_number("Polling.bytes_per_second", self.bytes_per_second, 1024, 1 << 30)
        whole_number("Polling.max_records", self.max_records, 1, GET_RECORDS_MAX_RECORDS, "API reference, GetRecords")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class EnhancedFanOut:
    """Reading by enhanced fan-out (`SubscribeToShard`): each shard pushes up to 2 MiB per second to this consumer alone.

    AWS bills enhanced fan-out separately: for the data that is read and, on a provisioned stream, for each shard and hour while
    the consumer is registered. A stream can have 20 registered consumers, or 50 with On-demand Advantage (quotas).

    Attributes:
        consumer_name: Name of the consumer to register with the stream. An existing registration is reused.
            `close()` does not deregister the consumer: call `DeregisterStreamConsumer` once no application needs it. None: the
            application's name. Range: 1 to 128 letters, digits, ".", "_" and "-" (API
            reference, `RegisterStreamConsumer`).
        idle_timeout: Idle timeout in seconds. A subscription that delivers no event for this long, while the reader is
            waiting, is considered dead. A healthy subscription delivers an event every few seconds, even if the shard is
            idle. Range: 1 to 60.
    """

    consumer_name: str | None = None
    idle_timeout: float = 35.0

    def __post_init__(self) -> None:
        name = self.consumer_name
        if name is not None and not (isinstance(name, str) and re.fullmatch(CONSUMER_NAME_PATTERN, name)):
            raise ConfigError(
                f"EnhancedFanOut.consumer_name={name!r}: must be 1 to 128 letters, digits, '.', '_' and '-' "
                "(API reference, RegisterStreamConsumer)"
            )
        number("EnhancedFanOut.idle_timeout", self.idle_timeout, 1, 60, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class PreferFanOut:
    """Reading by enhanced fan-out, with fallback to polling if it is refused (event `FellBackToPolling`).

    Attributes:
        fan_out: Options of enhanced fan-out.
        polling: Options of polling.
    """

    fan_out: EnhancedFanOut = EnhancedFanOut()
    polling: Polling = Polling()

    def __post_init__(self) -> None:
        for field, value, kind in (("fan_out", self.fan_out, EnhancedFanOut), ("polling", self.polling, Polling)):
            if not isinstance(value, kind):
                given = "None" if value is None else type(value).__name__
                raise ConfigError(f"PreferFanOut.{field}: must be a kinstream.{kind.__name__}, not {given}")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Handling:
    """Delivery of records to the application: concurrency, batch size, read-ahead, stall detection.

    Attributes:
        concurrency: Maximum records of one shard that `run` handles at the same time, each with a different partition
            key. Range: 1 to 10,000.
        max_batch_records: Maximum records in one batch. Range: 1 to 10,000.
        read_ahead_bytes: Maximum bytes buffered ahead of the application, across all shards. Each shard may exceed it by
            one response in flight. An equal reserve keeps other shards reading when slow handlers fill the buffer. Range:
            64 KiB to 16 GiB.
        threads: Maximum threads for handlers that are plain functions. Range: 1 to 1000.
        stall_timeout: Seconds after which a shard that makes no progress while its lag grows is read again, from the last
            delivered record (event `ShardStalled`). Range: 1 to 86,400.
    """

    concurrency: int = 1
    max_batch_records: int = 10_000
    read_ahead_bytes: int = 64 << 20
    threads: int = 16
    stall_timeout: float = 60.0

    def __post_init__(self) -> None:
        whole_number("Handling.concurrency", self.concurrency, 1, 10_000)
        whole_number("Handling.max_batch_records", self.max_batch_records, 1, 10_000)
        whole_number("Handling.read_ahead_bytes", self.read_ahead_bytes, 64 << 10, 16 << 30)
        whole_number("Handling.threads", self.threads, 1, 1000)
        number("Handling.stall_timeout", self.stall_timeout, 1, 86_400, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoints:
    """Automatic checkpoints: completed records are checkpointed at intervals and when the consumer closes.

    Attributes:
        interval: Seconds between two checkpoints of a shard, if records were completed in between. After a crash, up to
            this many seconds of records are delivered again. Range: 0.05 to 3600.
    """

    interval: float = 5.0

    def __post_init__(self) -> None:
        number("Checkpoints.interval", self.interval, 0.05, 3600, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """Workers that share a stream, in applications of several processes.

    All workers of an application should have the same `failover`. The defaults are those of the Kinesis Client Library (KCL).

    Attributes:
        failover: Seconds without a renewal after which other workers take a lease over. A worker renews its leases three times in
            this interval. Range: 1 to 3600 (the KCL's `failoverTimeMillis`).
        handoff_timeout: Maximum seconds for which a worker finishes the records being handled before it releases a shard to
            another worker. After this time the shard is released without them, and they are delivered again. Range: 0 to 3600
            (the KCL's `gracefulLeaseHandoffTimeoutMillis`).
        weight: Share of the shards that this worker takes, relative to the other workers. Applies if a kinstream worker assigns
            the leases. Range: above 0, up to 1000.
        max_leases: Maximum number of shards that this worker takes. None: no limit. Range: 1 to 1,000,000.
        worker_id: ID of this worker, unique in the application and the same after a restart, such as the name of a pod of a
            StatefulSet: after a restart, the worker continues its shards at once. None: a new ID for each worker. Range: 1 to 256
            characters.
        compatible: "2x" if workers of the KCL 1.x or 2.x may join: leases are then shared by their protocol, in a table with no
            other rows. None: the protocol that the table shows. A new application uses the protocol of the KCL 3.x.
    """

    failover: float = 10.0
    handoff_timeout: float = 30.0
    weight: float = 1.0
    max_leases: int | None = None
    worker_id: str | None = None
    compatible: Literal["2x"] | None = None

    def __post_init__(self) -> None:
        number("Fleet.failover", self.failover, 1, 3600, "seconds")
        number("Fleet.handoff_timeout", self.handoff_timeout, 0, 3600, "seconds")
        number("Fleet.weight", self.weight, 0, 1000)
        if self.weight == 0:
            raise ConfigError("Fleet.weight=0: must be above 0: a worker that takes no shard has no use for a consumer")
        if self.max_leases is not None:
            whole_number("Fleet.max_leases", self.max_leases, 1, 1_000_000)
        name = self.worker_id
        if name is not None and not (isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable()):
            raise ConfigError(f"Fleet.worker_id={name!r}: must be text of 1 to 256 printable characters")
        if self.compatible not in (None, "2x"):
            raise ConfigError(f"Fleet.compatible={self.compatible!r}: must be '2x' or None")


DeadLetterHandler: TypeAlias = Callable[[ReceivedRecord[Any], Exception], object]
"""A function, plain or async, that receives each record that could not be handled, and the handler's error."""


class DeadLetterProducer(Protocol):
    """A producer of the stream that receives dead letters: a `kinstream.Producer`, or a `blocking.Producer`."""

    def put_record(self, record: Record, /) -> Awaitable[PutRecordResult] | PutRecordResult:
        """Write one record in a request of its own."""


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorPolicy:
    """Retries of a record whose handler fails, and the action after the last attempt. By default no record is ever skipped.

    Attributes:
        max_attempts: Maximum attempts per record, including the first. Range: 1 to 1000.
        initial_delay: Seconds of backoff before the first retry, doubled for each further retry. Range: 0 to 3600.
        max_delay: Maximum seconds of backoff before any retry. Range: 0 to 3600.
        then: Action after the last attempt. "stop" stops the shard, and `run` raises `ConsumeError`. "skip" continues
            with the next record. A function, plain or async, is called with the record and the error, and reading continues
            with the next record. A `Producer` of another stream writes a dead letter, a JSON object (docs/dead-letters.md),
            and reading continues with the next record. `kinstream.Consumer` and `callbacks.Consumer` take a
            `kinstream.Producer`, `blocking.Consumer` takes a `blocking.Producer`. In each case the event `HandlerFailed` is
            sent.
    """

    max_attempts: int = 3
    initial_delay: float = 0.5
    max_delay: float = 30.0
    then: Literal["stop", "skip"] | DeadLetterHandler | DeadLetterProducer = "stop"

    def __post_init__(self) -> None:
        whole_number("ErrorPolicy.max_attempts", self.max_attempts, 1, 1000)
        number("ErrorPolicy.initial_delay", self.initial_delay, 0, 3600, "seconds")
        number("ErrorPolicy.max_delay", self.max_delay, 0, 3600, "seconds")
        if self.then not in ("stop", "skip") and not callable(self.then) and not hasattr(self.then, "put_record"):
            raise ConfigError(f"ErrorPolicy.then={self.then!r}: must be 'stop', 'skip', a function or a Producer")
        if callable(self.then):
            function("ErrorPolicy.then", self.then, "'stop', 'skip', a function or a Producer", may_be_async=True)


def is_proxy_url(url: str) -> bool:
    """Return whether `url` is the URL of an HTTP proxy: scheme, host, optional port."""
    try:
        parts = urlsplit(url)
        has_address = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        return url.startswith(("http://", "https://")) and has_address
    except ValueError:
        return False


def read_ca_bundle(field: str, path: str | Path) -> bytes:
    """Return the PEM certificates in a file.

    Raises:
        ConfigError: The file cannot be read, or contains no certificate.
    """
    try:
        pem = Path(path).read_bytes()
        ssl.create_default_context().load_verify_locations(cadata=pem.decode("ascii"))
    except (OSError, TypeError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or "the file has no PEM certificate"
        raise ConfigError(f"{field}={str(path)!r}: must be a readable PEM file of certificates ({reason})") from error
    return pem
