"""Every option once: small frozen values that check themselves when they are made."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from kinstream.errors import ConfigError, without_frames
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
    """How requests and answers are written on the wire."""

    JSON = "json"
    """`application/x-amz-json-1.1`, which every Kinesis speaks. Best for small records."""
    CBOR = "cbor"
    """`application/x-amz-cbor-1.1`, the Java SDK's default: bytes stay bytes. Best from about 500 bytes a record."""
    AUTO = "auto"
    """CBOR for puts of large records, aggregated ones among them; JSON for everything else."""


def number(field: str, value: Any, low: float, high: float, unit: str = "") -> None:
    """Check that `value` is a number from `low` to `high`.

    Raises:
        ConfigError: It is not; the message names field, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{field}={value!r}: must be a number from {low:g} to {high:g}{unit and ' ' + unit}")


def whole_number(field: str, value: Any, low: int, high: int, source: str = "") -> None:
    """Check that `value` is an int from `low` to `high`.

    Raises:
        ConfigError: It is not; the message names field, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        where = f" ({source})" if source else ""
        raise ConfigError(f"{field}={value!r}: must be a whole number from {low} to {high}{where}")


def text(field: str, value: Any) -> str:
    """Return `value`, checked to be text that is not empty.

    Raises:
        ConfigError: It is not. The message has the value's type, not the value: it may be a secret.
    """
    if not isinstance(value, str) or not value:
        given = "it is empty" if value == "" else f"it is {type(value).__name__}"
        raise ConfigError(f"{field}: must be text of at least one character; {given}")
    return value


def choice(field: str, value: Any, allowed: type[StrEnum]) -> Any:
    """Return `value` as a member of `allowed`.

    Raises:
        ConfigError: It is none; the message lists what is allowed.
    """
    try:
        return allowed(value)
    except ValueError:
        raise ConfigError(f"{field}={value!r}: must be one of {', '.join(m.value for m in allowed)}") from None


def secretive(cls: type[T]) -> type[T]:
    """Make a class with secrets among its arguments: errors of its constructor hold no frame with the arguments."""
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
    """How long to wait, in seconds.

    Attributes:
        progress: An attempt ends after this long without progress: no connection, no answer, or no further bytes of
            it. A large request is given more, as if the line carried 128 KiB a second. 0.05 to 300.
        call: The whole call ends after this long, retries and their pauses included. 0.05 to 3600.
    """

    progress: float = 6.0
    call: float = 60.0

    def __post_init__(self) -> None:
        number("Timeouts.progress", self.progress, 0.05, 300, "seconds")
        number("Timeouts.call", self.call, 0.05, 3600, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When a failed request is sent again: the AWS SDKs' standard mode, with its 2026 numbers.

    Attributes:
        max_attempts: Requests for one call, the first included; 1 never repeats. 1 to 100. The SDKs' default is 3. A client
            without `retry` takes `AWS_MAX_ATTEMPTS`, or the profile's `max_attempts`, if one of them is set.
        initial_delay: Maximum seconds of backoff before the first retry. It doubles with each attempt. After throttling it is at
            least 1. 0 to 300. The default is that of the SDKs.
        max_delay: Maximum seconds of backoff before any retry. 0 to 300. The default is that of the SDKs.
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
    """How records are packed into aggregated records, in the format of the Kinesis Producer Library (KPL). Off by default.

    Attributes:
        max_bytes: Bytes of one aggregated record. 1024 to 10485760, and never more than the stream's MaxRecordSizeInKiB
            allows. The KPL's default, and its reason: the smaller, the sooner a shard's quota takes it.
        max_records: User records in one aggregated record. 1 to 1000000.
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
    """How records are gathered into requests.

    Attributes:
        linger: Seconds that a record waits for company; 0: it is sent at once, with whatever is there. 0 to 60.
        max_records: Kinesis records in one request. 1 to 500.
        max_bytes: Data and partition keys in one request; a larger record goes alone. 1024 to 10485760. A request much
            larger than the default is no cheaper a byte, and all of it is sent again where no answer came.
        max_in_flight: Requests on their way at a time. 1 to 1000.
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
    """How fast one shard is written to. What the shard refuses lowers the pace, quiet raises it again, up to these bounds.

    Attributes:
        records_per_second: Kinesis records a second; an aggregated one counts once. 1 to 1000000.
        bytes_per_second: Bytes a second, partition keys included. 1024 to 1073741824.
    """

    records_per_second: float = SHARD_WRITE_RECORDS_PER_SECOND
    bytes_per_second: float = SHARD_WRITE_BYTES_PER_SECOND

    def __post_init__(self) -> None:
        number("RateLimits.records_per_second", self.records_per_second, 1, 1_000_000)
        number("RateLimits.bytes_per_second", self.bytes_per_second, 1024, 1024 * MIB)


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class BufferLimits:
    """How much is held of what was put and is not written yet.

    Each record counts with its data, its partition key and 256 bytes for its keeping.

    Attributes:
        max_records: Records. 1 to 100000000.
        max_bytes: Bytes. 1024 to 1099511627776. A record that does not fit at all is refused.
        when_full: "wait": `put` waits for room. "raise": it raises `BufferFull`.
        max_wait: Seconds that `put` waits for space before it raises `BufferFull`; None: as long as it takes. 0 to 86400.
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
    """When a record that was put is given up, and how it is retried until then.

    Attributes:
        timeout: The timeout: seconds without progress after which a record fails. Waiting behind the rate of a shard that
            accepts records is not failure, however long it takes. A record fails once this long has passed since its `put` and
            since its shard last accepted a record or the service last responded; or since the first request that failed for the
            record itself. 0.05 to 86400.
        initial_delay: Maximum seconds of backoff before the first retry of a record. It doubles with each attempt. 0 to 300.
        max_delay: Maximum seconds of backoff before any retry of a record. 0 to 300.
        max_age: Seconds from its `put` after which a record that is not written is dropped, whatever the reason; for callers to
            whom stale data is worthless. None: no limit. 0.05 to 31536000.
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
    """How Kinesis is reached.

    Attributes:
        ca_bundle: A PEM file of certificate authorities to trust besides the usual ones; None: `AWS_CA_BUNDLE`, if
            that is set. Certificates are always checked.
        proxy: URL of an HTTP proxy, such as "http://proxy:3128"; None: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
            `NO_PROXY` as they are set; "" means none whatever they say.
        max_idle: Open connections that are kept for further calls. 0 to 1000.
        idle_timeout: Seconds after which an unused connection is closed. 1 to 3600.
        allow_http: Permit plain http to other hosts than this machine, as `KINSTREAM_ALLOW_HTTP=1` in the environment does.
            Records and signatures are then readable in transit.
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
        if self.allow_http not in (True, False):
            raise ConfigError(f"ConnectionOptions.allow_http={self.allow_http!r}: must be True or False")
        proxy = self.proxy
        if proxy not in (None, "") and not (isinstance(proxy, str) and is_proxy_url(proxy)):
            raise ConfigError("ConnectionOptions.proxy: must be a URL such as http://proxy:3128, or '' for none")

    def __repr__(self) -> str:
        # A proxy's URL may hold a password.
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name != "proxy")
        return f"Connection({shown}, proxy={'...' if self.proxy else self.proxy!r})"


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Polling:
    """Read by polling (`GetRecords`): each shard is asked as often as its quotas allow while it lags, and seldom while it idles.

    The quotas belong to all readers of a shard together: lower them here to leave more to the others.

    Attributes:
        idle_interval: Seconds between two looks at a shard that had nothing new; a shard in which something happens is looked at
            sooner. 0.05 to 60.
        reads_per_second: Requests a second on one shard. 0.01 to 1000. The service gives 5 (quotas).
        bytes_per_second: Bytes of data a second from one shard. 1024 to 1 GiB. The service gives 2 MiB (quotas).
        max_records: The most records in one answer. 1 to 10,000 (API reference, `GetRecords`).
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
    """Read by enhanced fan-out (`SubscribeToShard`): records are pushed, 2 MiB a second of each shard to this consumer alone.

    AWS bills it apart from the stream. The stream's consumers are counted: 20, or 50 with On-demand Advantage (quotas).

    Attributes:
        consumer_name: The consumer to register with the stream, or to find; it stays registered. 1 to 128 of letters, digits,
            ".", "_" and "-" (API reference, `RegisterStreamConsumer`). None: the application's name.
        idle_timeout: Seconds. A subscription that delivers no event for this long, while the reader is waiting, is considered
            dead. The subscription of an idle shard delivers an event every few seconds. 1 to 60.
    """

    consumer_name: str | None = None
    idle_timeout: float = 35.0

    def __post_init__(self) -> None:
        name = self.consumer_name
        if name is not None and not (isinstance(name, str) and re.fullmatch(CONSUMER_NAME_PATTERN, name)):
            raise ConfigError(
                f"EnhancedFanOut.consumer_name={name!r}: must have 1 to 128 letters, digits, '.', '_' and '-' "
                "(API reference, RegisterStreamConsumer)"
            )
        number("EnhancedFanOut.idle_timeout", self.idle_timeout, 1, 60, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class PreferFanOut:
    """Read by enhanced fan-out; where that cannot be had, by polling, and an event says so.

    Attributes:
        fan_out: How to read by enhanced fan-out.
        polling: How to poll.
    """

    fan_out: EnhancedFanOut = EnhancedFanOut()
    polling: Polling = Polling()

    def __post_init__(self) -> None:
        if not isinstance(self.fan_out, EnhancedFanOut):
            raise ConfigError(
                f"PreferFanOut.fan_out: must be a kinstream.EnhancedFanOut, not {type(self.fan_out).__name__}"
            )
        if not isinstance(self.polling, Polling):
            raise ConfigError(f"PreferFanOut.polling: must be a kinstream.Polling, not {type(self.polling).__name__}")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Handling:
    """How records reach the program.

    Attributes:
        concurrency: Records of one shard that `run` may have in work at once, always of different partition keys. 1 to 10,000.
        max_batch_records: The most records in one batch. 1 to 10,000.
        read_ahead_bytes: So much is read ahead of the program, of all shards together; one answer more may be under way for
            each, and as much again is kept for shards that others, whose handlers hang, leave no room. 64 KiB to 16 GiB.
        threads: Threads for handlers that are plain functions. 1 to 1000.
        stall_timeout: Seconds after which a shard that makes no progress while its lag grows is read anew. 1 to 86,400.
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
    """Automatic checkpoints: what is done is written down now and then, and at the end.

    Attributes:
        interval: Seconds between two checkpoints of a shard in which something was done. 0.05 to 3600.
    """

    interval: float = 5.0

    def __post_init__(self) -> None:
        number("Checkpoints.interval", self.interval, 0.05, 3600, "seconds")


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorPolicy:
    """What becomes of a record whose handler fails. No record is passed over unless `then` says so.

    Attributes:
        max_attempts: How often the handler gets it, the first time included. 1 to 1000.
        initial_delay: Seconds before the second time; each further pause is twice as long. 0 to 3600.
        max_delay: The longest pause, in seconds. 0 to 3600.
        then: When all tries have failed: "stop" ends the shard, and `run` raises `ConsumeError`; "skip" continues with the next
            record, and an event says so; a dead letter takes the record, and the next one follows. A dead letter is a function,
            plain or async, of the record and the error; or a `Producer` of another stream, which gets a JSON object
            (docs/dead-letters.md): a `kinstream.Producer` for `kinstream.Consumer` and `callbacks.Consumer`, a
            `blocking.Producer` for `blocking.Consumer`.
    """

    max_attempts: int = 3
    initial_delay: float = 0.5
    max_delay: float = 30.0
    then: Any = "stop"

    def __post_init__(self) -> None:
        whole_number("ErrorPolicy.max_attempts", self.max_attempts, 1, 1000)
        number("ErrorPolicy.initial_delay", self.initial_delay, 0, 3600, "seconds")
        number("ErrorPolicy.max_delay", self.max_delay, 0, 3600, "seconds")
        if self.then not in ("stop", "skip") and not callable(self.then) and not hasattr(self.then, "put_record"):
            raise ConfigError(f"ErrorPolicy.then={self.then!r}: must be 'stop', 'skip', a function or a Producer")


def is_proxy_url(url: str) -> bool:
    """Return whether `url` names an HTTP proxy: its scheme, a host, and perhaps a port."""
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        return url.startswith(("http://", "https://")) and has_place
    except ValueError:
        return False


def read_ca_bundle(field: str, path: str | Path) -> bytes:
    """Return the PEM certificates in a file.

    Raises:
        ConfigError: It cannot be read, or holds no certificate.
    """
    try:
        pem = Path(path).read_bytes()
        ssl.create_default_context().load_verify_locations(cadata=pem.decode("ascii"))
    except (OSError, TypeError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or "no PEM certificates"
        raise ConfigError(f"{field}={str(path)!r}: must be a readable PEM file of certificates ({reason})") from error
    return pem
