import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import kinstream
import kinstream.errors as errors
from kinstream.errors import (
    AccessDenied,
    ClosedError,
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    ConsumeError,
    CredentialsError,
    ErrorType,
    InvalidRecord,
    KinesisError,
    LimitExceeded,
    RequestTimedOut,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
    UnexpectedResponse,
    UsageError,
    service_error,
)
from kinstream.produce_errors import OrderBroken, ProduceError, Undelivered
from kinstream.record import Record

ERROR_MODULES = ("kinstream.errors", "kinstream.produce_errors")


def every_class(root: type[KinesisError] = KinesisError) -> list[type[KinesisError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in every_class(child))]


def test_docstring_draws_every_class_of_the_tree() -> None:
    drawn = [line.split()[1:] for line in (errors.__doc__ or "").splitlines() if "─ " in line]
    drawn_names = {next(word for word in words if word[0].isupper()) for words in drawn}
    assert drawn_names | {"KinesisError"} == {cls.__name__ for cls in every_class() if cls.__module__ in ERROR_MODULES}


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (ConfigError, ErrorType.LIBRARY_ERROR),
        (UsageError, ErrorType.LIBRARY_ERROR),
        (InvalidRecord, ErrorType.LIBRARY_ERROR),
        (ClosedError, ErrorType.LIBRARY_ERROR),
        (CredentialsError, ErrorType.LIBRARY_ERROR),
        (ConnectionFailed, ErrorType.REQUEST_FAILED),
        (ConnectionLost, ErrorType.REQUEST_FAILED),
        (RequestTimedOut, ErrorType.REQUEST_FAILED),
        (ServiceError, ErrorType.REQUEST_FAILED),
        (UnexpectedResponse, ErrorType.UNEXPECTED_RESPONSE),
    ],
)
def test_each_kind_of_error_has_its_type(cls: type[KinesisError], kind: ErrorType) -> None:
    error = cls("what happened")
    assert error.type is kind
    assert str(error) == error.details == "what happened"
    assert error.http_status is None
    assert error.http_response is None


@pytest.mark.parametrize(("sent", "retry_safe"), [(False, True), (True, None), (None, None)])
def test_only_a_request_that_was_not_sent_is_surely_safe_to_repeat(sent: bool | None, retry_safe: bool | None) -> None:
    assert TransportError("lost", sent=sent).retry_safe is retry_safe


@pytest.mark.parametrize(
    ("status", "code", "cls", "throttled", "retry_safe", "maybe_written"),
    [
        (400, "ProvisionedThroughputExceededException", Throttled, True, True, False),
        (400, "LimitExceededException", LimitExceeded, True, True, False),
        (400, "KMSThrottlingException", Throttled, True, True, False),
        (429, "", Throttled, True, True, False),
        (503, "SlowDown", Throttled, True, True, False),
        (500, "InternalFailure", ServiceUnavailable, False, None, True),
        (503, "", ServiceUnavailable, False, None, True),
        (504, "", ServiceUnavailable, False, None, True),
        (400, "SomethingNew", ServiceError, False, False, False),
        (401, "", AccessDenied, False, False, False),
        (403, "", AccessDenied, False, False, False),
        (404, "", ServiceError, False, False, False),
        (307, "", ServiceError, False, False, False),
    ],
)
def test_status_and_code_say_what_a_policy_needs(
    status: int, code: str, cls: type[ServiceError], throttled: bool, retry_safe: bool | None, maybe_written: bool
) -> None:
    error = service_error("PutRecords", status, code, "m")
    assert type(error) is cls
    assert (error.throttled, error.retry_safe, error.maybe_written) == (throttled, retry_safe, maybe_written)
    assert (error.operation, error.http_status, error.message) == ("PutRecords", status, "m")


def test_details_say_what_to_do() -> None:
    error = service_error("PutRecords", 400, "ResourceNotFoundException", "Stream a not found")
    assert error.details == (
        "PutRecords: ResourceNotFoundException: Stream a not found (check the stream's name, region and account)"
    )
    assert service_error("PutRecords", 502, "", "").details == "PutRecords: HTTP 502"
    unknown = service_error("list_streams", 400, "UnknownOperationException", "")
    assert "check the name of the operation, which begins with a capital letter" in unknown.details


def test_body_of_the_response_is_not_in_repr_or_str() -> None:
    error = UnexpectedResponse("odd", http_status=200, http_response="<html>canary</html>")
    assert repr(error) == "UnexpectedResponse('odd', http_status=200)"
    assert "canary" not in str(error)


POLICY = ("type", "details", "http_status", "http_response", "throttled", "retry_safe", "maybe_written", "attempts")


def whole(error: BaseException | None) -> Any:
    """Return all that an error says, its causes included, as something that can be compared."""
    if not isinstance(error, KinesisError):
        return repr(error)
    members = [whole(member) for member in error.exceptions] if isinstance(error, Undelivered) else []
    own = {name: value for name, value in vars(error).items() if not name.startswith("_") and name != "exceptions"}
    policy = {name: getattr(error, name) for name in POLICY}
    return type(error), str(error), own, policy, members, whole(error.__cause__), error.__suppress_context__


def one_of_each() -> list[KinesisError]:
    """Return an error of every class that is exported, with no attribute at its default."""
    made = []
    for cls in every_class():
        if cls.__module__ not in ERROR_MODULES:
            continue
        if issubclass(cls, Undelivered):
            error: KinesisError = cls("close", [ProduceError("a", Record(b"1", "k")), OrderBroken("b")], 7)
        elif issubclass(cls, ProduceError):
            error = cls("a", Record(b"payload", "key"), attempts=3, maybe_written=True)
        elif issubclass(cls, ConsumeError):
            error = cls("a", shard_id="shardId-000000000003")
        elif issubclass(cls, InvalidRecord):
            error = cls("a", index=4)
        elif issubclass(cls, ServiceError):
            error = cls("a", code="Code", message="m", operation="PutRecords", request_id="r", http_status=400)
        elif issubclass(cls, TransportError):
            error = cls("a", sent=True)
        else:
            error = cls("a", http_status=500) if cls in (KinesisError, UnexpectedResponse) else cls("a")
        error.http_response = {"__type": "x"}
        error.throttled, error.retry_safe, error.maybe_written, error.attempts = True, None, True, 5
        error.add_note("a note")
        made.append(error)
    return made


CAUSES: list[BaseException | None] = [
    None,
    ValueError("why"),
    service_error("PutRecords", 500, "InternalFailure", "m"),
    UnexpectedResponse("odd"),
]


def test_every_exported_error_is_tried() -> None:
    exported = {value for value in vars(kinstream).values() if isinstance(value, type)}
    assert {cls for cls in exported if issubclass(cls, KinesisError)} <= {type(error) for error in one_of_each()}


@pytest.mark.parametrize("travel", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize("error", one_of_each(), ids=lambda error: type(error).__name__)
def test_every_error_survives_pickle_and_copy(
    error: KinesisError, cause: BaseException | None, travel: Callable[[KinesisError], KinesisError]
) -> None:
    error.__cause__ = cause
    again = travel(error)
    assert whole(again) == whole(error)
    assert again is not error
    assert again.__traceback__ is None
    assert whole(travel(again)) == whole(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_takes_errors(protocol: int) -> None:
    for error in one_of_each():
        assert whole(pickle.loads(pickle.dumps(error, protocol))) == whole(error)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize("error", one_of_each(), ids=lambda error: type(error).__name__)
def test_cause_that_a_process_pool_puts_in_changes_no_policy(error: KinesisError, cause: BaseException | None) -> None:
    error.__cause__ = cause
    again = pickle.loads(pickle.dumps(error))
    again.__cause__ = RuntimeError("a remote traceback, as text")
    assert [getattr(again, name) for name in POLICY] == [getattr(error, name) for name in POLICY]
    assert whole(pickle.loads(pickle.dumps(again)))[:5] == whole(error)[:5]


def test_errors_come_back_from_a_process_pool() -> None:
    error = ProduceError("not written", Record(b"x", "k"), attempts=2, maybe_written=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        again = pool.submit(raise_caused, error).exception(50)
    assert isinstance(again, ProduceError)
    assert again.type is ErrorType.REQUEST_FAILED
    assert (again.details, again.attempts, again.maybe_written) == ("not written", 2, True)


def raise_caused(error: KinesisError) -> None:
    raise error from service_error("PutRecords", 500, "InternalFailure", "m")


class Unpicklable(Exception):
    def __init__(self, needed: int, *, more: object) -> None:
        super().__init__("secret")
        self.more = lambda: needed


def test_cause_that_cannot_be_pickled_is_named() -> None:
    error = ConsumeError("a", shard_id="s")
    error.__cause__ = Unpicklable(1, more=2)
    cause = pickle.loads(pickle.dumps(error)).__cause__
    assert repr(cause) == "KinesisError('test_errors.Unpicklable, which cannot be pickled')".replace(
        "test_errors.", f"{Unpicklable.__module__}."
    )
    assert copy.copy(error).__cause__ is error.__cause__


def test_subclass_of_a_user_survives_pickle() -> None:
    again = pickle.loads(pickle.dumps(OfAUser(3, needed="x")))
    assert (type(again), str(again), again.number) == (OfAUser, "3 x", 3)


class OfAUser(ConsumeError):
    def __init__(self, number: int, *, needed: str) -> None:
        super().__init__(f"{number} {needed}", shard_id=needed)
        self.number = number


def test_misuse_is_a_runtime_error_and_not_an_error_of_options() -> None:
    error = UsageError("not being read")
    assert isinstance(error, RuntimeError)
    assert isinstance(error, KinesisError)
    assert not isinstance(error, ValueError)
    assert error.retry_safe is False
