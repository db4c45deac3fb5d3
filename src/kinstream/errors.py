"""Error tree: all exceptions of this package, with the attributes that a retry policy needs.

    KinesisError
    ├── ConfigError (ValueError)      an option or argument is invalid; nothing was sent
    │   └── InvalidRecord             a record that cannot be put; `.index` in put_records
    ├── UsageError (RuntimeError)     a call that the object's state, event loop or process does not allow
    ├── ClosedError                   the object is closed
    ├── CredentialsError              no credentials were found, or their source failed
    ├── TransportError                no complete response; `.sent` says whether the request may have been sent
    │   ├── ConnectionFailed          no connection could be established
    │   ├── ConnectionLost            the connection broke
    │   └── RequestTimedOut           no progress, or the time limit was reached
    ├── ServiceError                  the service responded with an error; `.code`, `.request_id`, `.operation`
    │   ├── Throttled                 a quota of a shard or an account was exceeded
    │   ├── NotFound                  the stream, shard, consumer or table does not exist
    │   ├── AccessDenied              signature, credentials or permissions were rejected
    │   ├── ExpiredIterator           a shard iterator older than five minutes
    │   ├── InvalidArgument           the service rejected an argument
    │   ├── ResourceInUse             the stream or table exists, or is not in the required state
    │   ├── LimitExceeded             an account limit was reached
    │   └── ServiceUnavailable        an internal error of the service (HTTP 5xx)
    ├── ConsumeError                  a shard cannot be read any further; `.shard_id`
    │   ├── LeaseLost                 another consumer reads the shard now
    │   └── DataExpired               the record at the start of a range has expired
    ├── LeaseStoreFailed (OSError)    the lease store failed; the operation can be retried
    ├── ProduceError                  a record was not written; `.record`, `.attempts`, `.maybe_written`
    │   ├── OrderBroken               an earlier record with the same key failed
    │   └── BufferFull                the buffer had no space for it
    ├── Undelivered                   unobserved failures when a producer is closed; `.exceptions`, `.count`
    ├── FanOutRefused                 enhanced fan-out is not available; polling may work
    ├── UnexpectedResponse            a response that the service does not send, or data that does not decode
    └── UnwrapError (ValueError)      data that `kinstream.unwrap` was called with is not in the format

`ProduceError`, its subclasses and `Undelivered` are in `produce_errors`, because they refer to records.
A policy reads attributes (`type`, `retry_safe`, `throttled`, `maybe_written`), never a class name or a message.
Exceptions of other libraries are converted to these in two modules, `aws.transport` and `aws.service_client`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

if TYPE_CHECKING:
    from kinstream import blocking
    from kinstream.produce.delivery import Deliveries

T = TypeVar("T", bound=BaseException)


class ErrorType(StrEnum):
    """The three error types of the reference API."""

    LIBRARY_ERROR = "LIBRARY_ERROR"
    """Invalid options, arguments or use, a closed object, missing credentials, or a bug in the library."""
    REQUEST_FAILED = "REQUEST_FAILED"
    """The request failed: Kinesis rejected it, or no response arrived."""
    UNEXPECTED_RESPONSE = "UNEXPECTED_RESPONSE"
    """A response that Kinesis does not send, or record data that does not decode."""


class KinesisError(Exception):
    """Base class of all errors that this package raises or passes to a callback.

    Attributes:
        type: The error type of the reference API.
        details: The cause, the effect and the remedy, as text. Never contains a secret or a record's data.
        http_status: HTTP status of the response. None without a response.
        http_response: Parsed body of the response, or its first 2 KiB as text if it is not JSON or CBOR. None without a
            response. Not part of `str()` and `repr()`, because it may repeat parts of the request.
        retry_safe: True if repeating the call cannot write a record twice. False if repeating it cannot succeed.
            None if repeating it may succeed and may write a record twice (see `maybe_written`).
        throttled: True if the cause is throttling.
        maybe_written: True if a put failed and may have been written nevertheless, after a timeout, a lost connection or an
            HTTP 5xx response.
        attempts: Number of requests sent for the call, including retries.
        deliveries: The records that `put_many` had buffered before it raised this error. They are written nevertheless. None for
            all other errors, and after pickling.
    """

    type: ClassVar[ErrorType] = ErrorType.LIBRARY_ERROR
    deliveries: Deliveries | blocking.Deliveries | None = None

    def __init__(
        self,
        details: str,
        *,
        http_status: int | None = None,
        http_response: dict[str, Any] | str | None = None,
    ) -> None:
        super().__init__(details)
        self.details = details
        self.http_status = http_status
        self.http_response = http_response
        self.retry_safe: bool | None = False
        self.throttled = False
        self.maybe_written = False
        self.attempts = 0

    def __repr__(self) -> str:
        status = f", http_status={self.http_status}" if self.http_status is not None else ""
        return f"{type(self).__name__}({self.details!r}{status})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args), self._state(_picklable(self.__cause__))

    def __copy__(self) -> Self:
        """Return a copy without the traceback."""
        same: Self = _rebuilt(type(self), self.args)
        same.__setstate__(self._state(self.__cause__))
        return same

    def _state(self, cause: BaseException | None) -> dict[str, Any]:
        """Return the attributes of a copy whose cause is `cause`."""
        return {**self.__dict__, "__cause__": cause, "__suppress_context__": self.__suppress_context__}


def _rebuilt(cls: type[T], args: tuple[Any, ...]) -> T:
    """Return an error of a class without calling its constructor, which may require more than `args`."""
    error = cls.__new__(cls, *args)
    error.args = args  # OSError sets them in its constructor only
    return error


def _picklable(cause: BaseException | None) -> BaseException | None:
    """Return `cause` if it can be pickled, else a `KinesisError` that names its class."""
    if cause is None or isinstance(cause, KinesisError):
        return cause
    import pickle

    try:
        pickle.loads(pickle.dumps(cause))  # noqa: S301 - bytes from this process
    except Exception:  # noqa: BLE001 - an exception of another library may raise anything here
        return KinesisError(f"{type(cause).__module__}.{type(cause).__qualname__}, which cannot be pickled")
    return cause


class ConfigError(KinesisError, ValueError):
    """An option or an argument is invalid. Raised before any I/O. The text names the field, the value and the valid values."""


class UsageError(KinesisError, RuntimeError):
    """A call that the object does not allow now, whatever its arguments are.

    The object belongs to another event loop, was used before this process was forked, is being read by another reader, or is
    not running. The call had no effect.
    """


class InvalidRecord(ConfigError):
    """A record that cannot be put.

    Attributes:
        index: Index of the record in the list given to `put_records`. 0 in `put_record`.
    """

    def __init__(self, details: str, *, index: int = 0) -> None:
        super().__init__(details)
        self.index = index


class ClosedError(KinesisError):
    """The producer, consumer or client is closed."""


class CredentialsError(KinesisError):
    """No credentials were found, or their source failed."""


class TransportError(KinesisError):
    """No complete response arrived.

    Attributes:
        sent: False if Kinesis cannot have received the request. True if the whole request was sent. None if unknown.
    """

    type = ErrorType.REQUEST_FAILED

    def __init__(self, details: str, *, sent: bool | None = None) -> None:
        super().__init__(details)
        self.sent = sent
        self.retry_safe = True if sent is False else None


class ConnectionFailed(TransportError):
    """No connection could be established: unknown host, connection refused, untrusted certificate, unreachable proxy."""


class ConnectionLost(TransportError):
    """The connection broke before the response was complete."""


class RequestTimedOut(TransportError):
    """An attempt made no progress, or the call exceeded its time limit (`Timeouts`)."""


class ServiceError(KinesisError):
    """The service, Kinesis or DynamoDB, responded with an error.

    Attributes:
        code: Error code of the service, such as "ResourceNotFoundException".
        message: Message of the service.
        operation: Name of the operation, such as "PutRecords".
        request_id: The `x-amzn-RequestId` for AWS support. None if the response has no request ID.
    """

    type = ErrorType.REQUEST_FAILED

    def __init__(
        self,
        details: str,
        *,
        code: str = "",
        message: str = "",
        operation: str = "",
        request_id: str | None = None,
        http_status: int | None = None,
        http_response: dict[str, Any] | str | None = None,
    ) -> None:
        super().__init__(details, http_status=http_status, http_response=http_response)
        self.code = code
        self.message = message
        self.operation = operation
        self.request_id = request_id


class Throttled(ServiceError):
    """A throughput or rate quota of a shard, a stream or the account was exceeded. The request was not executed."""


class NotFound(ServiceError):
    """The stream, shard, consumer or table does not exist in this region and account."""


class AccessDenied(ServiceError):
    """The service rejected the signature, the credentials or the permissions."""


class ExpiredIterator(ServiceError):
    """The shard iterator is older than five minutes. Request a new one."""


class InvalidArgument(ServiceError):
    """The service rejected an argument."""


class ResourceInUse(ServiceError):
    """The resource exists already, or is not in the state that the operation requires."""


class LimitExceeded(ServiceError):
    """An account limit or the rate limit of a control operation was reached."""


class ServiceUnavailable(ServiceError):
    """An internal error of the service (HTTP 5xx). A put may have been written."""


class ConsumeError(KinesisError):
    """A shard cannot be read any further. The `__cause__` is the reason. Completed records remain checkpointed.

    Attributes:
        shard_id: ID of the shard.
    """

    def __init__(self, details: str, *, shard_id: str) -> None:
        super().__init__(details)
        self.shard_id = shard_id


class DataExpired(ConsumeError):
    """Records of a range have expired before they were read: the record at its start, or later ones, no longer exist."""


class LeaseLost(ConsumeError):
    """Another consumer reads the shard now, or may: the lease has expired. The stored checkpoint is unchanged."""


class LeaseStoreFailed(KinesisError, OSError):
    """The lease store failed: locked for too long, a full disk, a missing file. The `__cause__` is the reason.

    The operation can be retried. After a restart, records since the last stored checkpoint are delivered again.
    """

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.retry_safe: bool | None = True


class FanOutRefused(KinesisError):
    """Enhanced fan-out is not available: no permission, the stream's consumer limit is reached, or the service has none.

    Polling may work. The `__cause__` is the error of the service.
    """

    type = ErrorType.REQUEST_FAILED


class UnexpectedResponse(KinesisError):
    """A response with an invalid format, or a record whose data cannot be decoded."""

    type = ErrorType.UNEXPECTED_RESPONSE


class UnwrapError(KinesisError, ValueError):
    """Data that a function of `kinstream.unwrap` was called with is not in its format. The text does not quote the data."""

    type = ErrorType.UNEXPECTED_RESPONSE


THROTTLE_CODES = frozenset({
    "BandwidthLimitExceeded", "EC2ThrottledException", "KMSThrottlingException", "LimitExceededException",
    "PriorRequestNotComplete", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled",
    "RequestThrottledException", "SlowDown", "ThrottledException", "Throttling", "ThrottlingException",
    "TooManyRequestsException", "TransactionInProgressException",
})  # fmt: skip
"""Codes of throttling (botocore `retries/standard.py`; its `_retry.json` adds LimitExceededException for Kinesis)."""

TRANSIENT_CODES = frozenset({"RequestTimeout", "RequestTimeoutException"})
"""Codes of transient errors, whatever the status (botocore `retries/standard.py`): the request did not arrive in time."""

CONFLICT_CODES = frozenset({"ReplicatedWriteConflictException"})
"""Codes of writes that were rejected and can be retried (DynamoDB's service model, `retryable`)."""

CLOCK_SKEW_CODES = frozenset({
    "InvalidSignatureException", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
})  # fmt: skip
"""Codes that a wrong clock causes. Kinesis returns InvalidSignatureException both for a wrong secret and for an old date."""

EXPIRED_CREDENTIALS_CODES = frozenset({"ExpiredToken", "ExpiredTokenException"})
"""Codes after which credentials are refreshed and the request is signed again."""

_CLASSES: dict[str, type[ServiceError]] = {
    "LimitExceededException": LimitExceeded,
    "ResourceNotFoundException": NotFound,
    "ResourceInUseException": ResourceInUse,
    "ExpiredIteratorException": ExpiredIterator,
    "InvalidArgumentException": InvalidArgument,
    "ValidationException": InvalidArgument,
    "SerializationException": InvalidArgument,
    "AccessDeniedException": AccessDenied,
    "AccessDenied": AccessDenied,
    "ExpiredToken": AccessDenied,
    "ExpiredTokenException": AccessDenied,
    "IncompleteSignature": AccessDenied,
    "IncompleteSignatureException": AccessDenied,
    "InvalidClientTokenId": AccessDenied,
    "InvalidSignatureException": AccessDenied,
    "MissingAuthenticationToken": AccessDenied,
    "MissingAuthenticationTokenException": AccessDenied,
    "OptInRequired": AccessDenied,
    "KMSAccessDeniedException": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "UnrecognizedClientException": AccessDenied,
    "ItemCollectionSizeLimitExceededException": LimitExceeded,
    "ReplicatedWriteConflictException": ResourceInUse,
    "TableAlreadyExistsException": ResourceInUse,
    "TableInUseException": ResourceInUse,
    "TableNotFoundException": NotFound,
    "TransactionConflictException": ResourceInUse,
}

STREAM_ADVICE: dict[str, str] = {
    "UnrecognizedClientException": "check the access key id, and the session token if there is one",
    "InvalidSignatureException": "check the secret access key and this machine's clock",
    "ExpiredTokenException": "fetch new credentials",
    "AccessDeniedException": "grant the caller this action on the stream",
    "ExpiredIteratorException": "request a new iterator with AFTER_SEQUENCE_NUMBER; an iterator is valid for 5 minutes",
    "ResourceNotFoundException": "check the stream's name, region and account",
    "UnknownOperationException": "check the name of the operation, which begins with a capital letter, such as ListStreams",
    "ProvisionedThroughputExceededException": "reduce the rate, or add shards",
    "KMSAccessDeniedException": "grant the caller the use of the stream's KMS key",
}
"""Remedies for the errors of Kinesis, by code."""

TABLE_ADVICE: dict[str, str] = {
    **STREAM_ADVICE,
    "AccessDeniedException": "grant the caller this action on the table and its indexes",
    "ResourceNotFoundException": "check the table's name, region and account",
    "ProvisionedThroughputExceededException": "reduce the rate, or raise the table's capacity",
    "KMSAccessDeniedException": "grant the caller the use of the table's KMS key",
}
"""Remedies for the errors of DynamoDB, by code."""


def service_error(
    operation: str,
    status: int,
    code: str,
    message: str,
    *,
    request_id: str | None = None,
    http_response: dict[str, Any] | str | None = None,
    title: str | None = None,
    advice: Mapping[str, str] = STREAM_ADVICE,
) -> ServiceError:
    """Return the error for an error response, with the class of its code and all attributes for a policy.

    Args:
        operation: Name of the operation, such as "PutRecords".
        status: HTTP status.
        code: Error code of the service, without a namespace.
        message: Message of the service.
        request_id: `x-amzn-RequestId`.
        http_response: Parsed body.
        title: The operation in the error's text. None: its name.
        advice: Remedies by code.
    """
    throttled = code in THROTTLE_CODES or status == 429
    server_error = (status >= 500 or code in TRANSIENT_CODES) and not throttled
    cls = _CLASSES.get(code) or (
        Throttled
        if throttled
        else ServiceUnavailable
        if server_error
        else AccessDenied
        if status in (401, 403)
        else ServiceError
    )
    remedy = advice.get(code)
    details = f"{title or operation}: {code or 'HTTP ' + str(status)}"
    if message:
        details += f": {message}"
    if remedy:
        details += f" ({remedy})"
    error = cls(
        details,
        code=code,
        message=message,
        operation=operation,
        request_id=request_id,
        http_status=status,
        http_response=http_response,
    )
    error.throttled = throttled
    error.retry_safe = True if throttled or code in CONFLICT_CODES else None if server_error else False
    error.maybe_written = server_error
    return error
