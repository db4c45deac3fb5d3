"""The whole error tree: what went wrong, and what a program may do about it.

    KinesisError
    ├── ConfigError (ValueError)      an option or argument is wrong; nothing was sent
    │   └── InvalidRecord             a record that cannot be put; `.index` in put_records
    ├── ClosedError                   the object was closed before
    ├── CredentialsError              no credentials, or their source failed
    ├── TransportError                no answer; `.sent` says whether the request may have gone out
    │   ├── ConnectionFailed          no connection was made
    │   ├── ConnectionLost            the connection broke
    │   └── RequestTimedOut           no progress, or no time left
    ├── ServiceError                  Kinesis answered with an error; `.code`, `.request_id`, `.operation`
    │   ├── Throttled                 too fast: a shard's or an account's quota
    │   ├── NotFound                  no such stream, shard or consumer
    │   ├── AccessDenied              signature, credentials or permissions were refused
    │   ├── ExpiredIterator           a shard iterator older than five minutes
    │   ├── InvalidArgument           Kinesis refused an argument
    │   ├── ResourceInUse             the stream is not in the right state, or exists
    │   ├── LimitExceeded             an account's limit
    │   └── ServiceUnavailable        a fault of the service (HTTP 5xx)
    ├── ConsumeError                  a shard cannot be read on; `.shard_id`
    │   └── LeaseLost                 somebody else reads the shard now
    ├── LeaseStoreFailed (OSError)    the store of checkpoints failed; it may be tried again
    ├── ProduceError                  a record was not written; `.record`, `.attempts`, `.maybe_written`
    │   ├── OrderBroken               an earlier record of its key was not
    │   └── BufferFull                there was no room for it
    ├── Undelivered                   records that failed unobserved, when a producer is closed; `.exceptions`, `.count`
    ├── FanOutRefused                 enhanced fan-out cannot be had; polling may work
    └── UnexpectedResponse            an answer that is not what Kinesis sends, or data that does not decode

A policy reads attributes (`type`, `retry_safe`, `throttled`, `maybe_written`), never a class's name or a message's text.
Foreign exceptions become these at two seams, `aws.transport` and `aws.client`.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

if TYPE_CHECKING:
    from kinstream.record import Record

T = TypeVar("T", bound=BaseException)


class ErrorType(StrEnum):
    """The three kinds of error of the reference contract."""

    LIBRARY_ERROR = "LIBRARY_ERROR"
    """Wrong construction or arguments, a closed object, missing credentials, or a fault in the library."""
    REQUEST_FAILED = "REQUEST_FAILED"
    """The request failed: Kinesis refused it, or no answer came."""
    UNEXPECTED_RESPONSE = "UNEXPECTED_RESPONSE"
    """Something answered that is not what Kinesis answers, or a record's data does not decode."""


class KinesisError(Exception):
    """The root of every error that this package raises or hands to a callback.

    Attributes:
        type: The kind, as the reference contract has it.
        details: What happened and what to do, for people. Never a secret, never a record's data.
        http_status: HTTP status of the answer; None where there was none.
        http_response: Parsed body of the answer, or its first 2 KiB as text where it was no JSON or CBOR; None where
            there was none. Kept out of `str()` and `repr()`: it may hold what Kinesis was told.
        retry_safe: True: the same call may be repeated without writing twice. False: repeating cannot help.
            None: it may help, and it may write twice (see `maybe_written`).
        throttled: True where the cause was speed.
        maybe_written: True where a put may have been written although it failed: a timeout, a lost connection or an
            HTTP 5xx after the request was sent.
        attempts: Requests that were sent for the call, retries included.
    """

    type: ClassVar[ErrorType] = ErrorType.LIBRARY_ERROR

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
        """Return the same error without its traceback."""
        same: Self = _rebuilt(type(self), self.args)
        same.__setstate__(self._state(self.__cause__))
        return same

    def _state(self, cause: BaseException | None) -> dict[str, Any]:
        """Return all attributes that a copy gets, with `cause` as its cause."""
        return {**self.__dict__, "__cause__": cause, "__suppress_context__": self.__suppress_context__}


def _rebuilt(cls: type[T], args: tuple[Any, ...]) -> T:
    """Return an error of a class without calling its constructor, which may need more than `args`."""
    error = cls.__new__(cls, *args)
    error.args = args  # an OSError leaves them to its constructor
    return error


def _picklable(cause: BaseException | None) -> BaseException | None:
    """Return a cause as it can be pickled: itself, or an error that names its class."""
    if cause is None or isinstance(cause, KinesisError):
        return cause
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a foreign exception may raise anything here
        return KinesisError(f"{type(cause).__module__}.{type(cause).__qualname__}, which cannot be pickled")
    return cause


class ConfigError(KinesisError, ValueError):
    """An option or an argument is wrong. Raised before any I/O; names the field, the value and what is allowed."""


def without_frames(error: T) -> T:
    """Return an error without its traceback and those of its causes: their frames hold data. Not for users.

    Error trackers show the variables of every frame, and a frame keeps alive all that its variables hold.
    """
    left: BaseException | None = error
    while left is not None:
        left.__traceback__ = None
        left = left.__cause__ or left.__context__
    return error


def forked(what: str) -> ConfigError:
    """Return the error for something that was used before this process was forked. Not for users."""
    return ConfigError(
        f"{what} was used before this process was forked and cannot be used in it: create the objects of each process after "
        "the fork, or start processes with the 'spawn' or 'forkserver' method of multiprocessing"
    )


class InvalidRecord(ConfigError):
    """A record that cannot be put.

    Attributes:
        index: Its place in the list given to `put_records`; 0 in `put_record`.
    """

    def __init__(self, details: str, *, index: int = 0) -> None:
        super().__init__(details)
        self.index = index


class ClosedError(KinesisError):
    """The producer, consumer or client was closed."""


class CredentialsError(KinesisError):
    """No credentials were found, or their source failed."""


class TransportError(KinesisError):
    """No whole answer came.

    Attributes:
        sent: False: Kinesis cannot have seen the request. True: it was sent whole. None: unknown.
    """

    type = ErrorType.REQUEST_FAILED

    def __init__(self, details: str, *, sent: bool | None = None) -> None:
        super().__init__(details)
        self.sent = sent
        self.retry_safe = True if sent is False else None


class ConnectionFailed(TransportError):
    """No connection was made: name not found, refused, certificate not trusted, proxy out of reach."""


class ConnectionLost(TransportError):
    """The connection broke before the whole answer was there."""


class RequestTimedOut(TransportError):
    """An attempt made no progress, or the call ran out of time (`Timeouts`)."""


class ServiceError(KinesisError):
    """Kinesis answered with an error.

    Attributes:
        code: The service's error code, such as "ResourceNotFoundException".
        message: The service's message.
        operation: The operation, such as "PutRecords".
        request_id: The `x-amzn-RequestId` to name to AWS support; None where the answer had none.
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
    """Too fast for a shard, a stream or the account. Kinesis did not act on the request."""


class NotFound(ServiceError):
    """The stream, shard or consumer does not exist, or not in this region and account."""


class AccessDenied(ServiceError):
    """The signature, the credentials or the permissions were refused."""


class ExpiredIterator(ServiceError):
    """The shard iterator is older than five minutes: get a new one."""


class InvalidArgument(ServiceError):
    """Kinesis refused an argument."""


class ResourceInUse(ServiceError):
    """The resource exists already, or is not in a state for the operation."""


class LimitExceeded(ServiceError):
    """A limit of the account or a rate of a control operation was reached."""


class ServiceUnavailable(ServiceError):
    """A fault of the service (HTTP 5xx). A put may have been written."""


class ConsumeError(KinesisError):
    """A shard cannot be read on. What went wrong is its `__cause__`; what was done before is kept.

    Attributes:
        shard_id: The shard.
    """

    def __init__(self, details: str, *, shard_id: str) -> None:
        super().__init__(details)
        self.shard_id = shard_id


class LeaseLost(ConsumeError):
    """Somebody else reads the shard now: the checkpoint was refused, and nothing was changed."""


class LeaseStoreFailed(KinesisError, OSError):
    """The store of checkpoints failed: locked for too long, a full disk, a file that is gone. The `__cause__` says why.

    The write can be retried. After a restart, records since the last stored checkpoint are delivered again.
    """

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.retry_safe: bool | None = True


class ProduceError(KinesisError):
    """A record that was put was not written, or it is not known whether it was: `__cause__` says why.

    Attributes:
        record: The record, as it was to be written.
        attempts: Requests that were sent with it.
        maybe_written: True where one of them may have been written: its answer never came, or was a fault of the service.
    """

    def __init__(
        self, details: str, record: Record | None = None, *, attempts: int = 0, maybe_written: bool = False
    ) -> None:
        super().__init__(details)
        self.record: Record = record  # type: ignore[assignment]
        self.attempts = attempts
        self.maybe_written = maybe_written
        self.retry_safe = None if maybe_written else True
        self._type: ErrorType | None = None  # of a copy, whose cause may be replaced, as process pools do

    def _state(self, cause: BaseException | None) -> dict[str, Any]:
        known = self.type if isinstance(self.__cause__, KinesisError) else self._type
        return super()._state(cause) | {"_type": known}

    @property
    def type(self) -> ErrorType:  # type: ignore[override]
        """The kind of what caused it."""
        if self._type is not None:
            return self._type
        return self.__cause__.type if isinstance(self.__cause__, KinesisError) else ErrorType.LIBRARY_ERROR


class OrderBroken(ProduceError):
    """An earlier record of the same key failed for good (`__cause__`), and this one must not pass it: it is given up.

    It may have been written where it was sent in one aggregate with that one: `maybe_written` tells.
    """


class BufferFull(ProduceError):
    """There is no room in the buffer, and `BufferLimits(when_full="raise")` says not to wait. The record was not taken."""


class Undelivered(KinesisError):
    """Records that failed, if no caller observed the failure before the producer was closed.

    Its text counts the records by cause. It is not an exception group: a hundred equal tracebacks would hide the cause.

    Attributes:
        exceptions: The errors of the first of them, up to 100.
        count: Number of records.
    """

    def __init__(self, details: str, exceptions: Sequence[ProduceError] = (), count: int = 0) -> None:
        super().__init__(details)
        self.exceptions: tuple[ProduceError, ...] = tuple(exceptions)
        self.count: int = count or len(self.exceptions)


class FanOutRefused(KinesisError):
    """Enhanced fan-out cannot be had: no permission, no consumer left of the stream's limit, or a service without it.

    Reading by polling may work all the same. What was answered is the `__cause__`.
    """

    type = ErrorType.REQUEST_FAILED


class UnexpectedResponse(KinesisError):
    """An answer that Kinesis does not send, or a record whose data does not decode."""

    type = ErrorType.UNEXPECTED_RESPONSE


THROTTLE_CODES = frozenset({
    "BandwidthLimitExceeded", "EC2ThrottledException", "KMSThrottlingException", "LimitExceededException",
    "PriorRequestNotComplete", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled",
    "RequestThrottledException", "SlowDown", "ThrottledException", "Throttling", "ThrottlingException",
    "TooManyRequestsException", "TransactionInProgressException",
})  # fmt: skip
"""Codes that mean "slower" (botocore `retries/standard.py`; its `_retry.json` adds LimitExceededException for Kinesis)."""

TRANSIENT_CODES = frozenset({"RequestTimeout", "RequestTimeoutException"})
"""Codes of a passing fault, whatever the status (botocore `retries/standard.py`): the service waited in vain for the request."""

CLOCK_SKEW_CODES = frozenset({
    "InvalidSignatureException", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
})  # fmt: skip
"""Codes that a wrong clock causes. Kinesis gives InvalidSignatureException for a wrong secret and for a stale date alike."""

EXPIRED_CREDENTIALS_CODES = frozenset({"ExpiredToken", "ExpiredTokenException"})
"""Codes after which fresh credentials are fetched and the request is signed again."""

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
}

_ADVICE: dict[str, str] = {
    "UnrecognizedClientException": "check the access key id, and the session token if there is one",
    "InvalidSignatureException": "check the secret access key and this machine's clock",
    "ExpiredTokenException": "fetch new credentials",
    "AccessDeniedException": "grant this action on the stream to the caller",
    "ExpiredIteratorException": "get a new iterator with AFTER_SEQUENCE_NUMBER; one lives 5 minutes",
    "ResourceNotFoundException": "check the stream's name, region and account",
    "ProvisionedThroughputExceededException": "slow down, or give the stream more shards",
    "KMSAccessDeniedException": "grant the use of the stream's KMS key to the caller",
}


def service_error(
    operation: str,
    status: int,
    code: str,
    message: str,
    *,
    request_id: str | None = None,
    http_response: dict[str, Any] | str | None = None,
) -> ServiceError:
    """Return the error for an answer of Kinesis: its class by the code, its policy attributes set.

    Args:
        operation: The operation's name, such as "PutRecords".
        status: HTTP status.
        code: The service's code, without a namespace.
        message: The service's message.
        request_id: `x-amzn-RequestId`.
        http_response: The parsed body.
    """
    throttled = code in THROTTLE_CODES or status == 429
    fault = (status >= 500 or code in TRANSIENT_CODES) and not throttled
    cls = _CLASSES.get(code) or (
        Throttled
        if throttled
        else ServiceUnavailable
        if fault
        else AccessDenied
        if status in (401, 403)
        else ServiceError
    )
    advice = _ADVICE.get(code)
    details = f"{operation}: {code or 'HTTP ' + str(status)}"
    if message:
        details += f": {message}"
    if advice:
        details += f" ({advice})"
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
    error.retry_safe = True if throttled else None if fault else False
    error.maybe_written = fault
    return error
