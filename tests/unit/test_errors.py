import pickle
from typing import Any

import pytest

import kinstream.errors as errors
from kinstream.errors import (
    AccessDenied,
    ClosedError,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    CredentialsError,
    DeadlineExceeded,
    ErrorType,
    InvalidRecord,
    KinesisError,
    LimitExceeded,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
    UnexpectedResponse,
    service_error,
)


def every_class(root: type[KinesisError] = KinesisError) -> list[type[KinesisError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in every_class(child))]


def test_docstring_draws_every_class_of_the_tree() -> None:
    drawn = [line.split()[1:] for line in (errors.__doc__ or "").splitlines() if "─ " in line]
    drawn_names = {next(word for word in words if word[0].isupper()) for words in drawn}
    assert drawn_names | {"KinesisError"} == {
        cls.__name__ for cls in every_class() if cls.__module__ == "kinstream.errors"
    }


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (ConfigError, ErrorType.LIBRARY_ERROR),
        (InvalidRecord, ErrorType.LIBRARY_ERROR),
        (ClosedError, ErrorType.LIBRARY_ERROR),
        (CredentialsError, ErrorType.LIBRARY_ERROR),
        (ConnectFailed, ErrorType.REQUEST_FAILED),
        (ConnectionLost, ErrorType.REQUEST_FAILED),
        (DeadlineExceeded, ErrorType.REQUEST_FAILED),
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


def test_body_of_the_answer_is_not_in_repr_or_str() -> None:
    error = UnexpectedResponse("odd", http_status=200, http_response="<html>canary</html>")
    assert repr(error) == "UnexpectedResponse('odd', http_status=200)"
    assert "canary" not in str(error)


def full(error: KinesisError) -> dict[str, Any]:
    return {"args": error.args, "class": type(error), **vars(error)}


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("a"),
        InvalidRecord("a", index=3),
        ClosedError("a"),
        CredentialsError("a"),
        ConnectFailed("a", sent=False),
        DeadlineExceeded("a", sent=True),
        service_error("PutRecords", 500, "InternalFailure", "m", request_id="r", http_response={"__type": "x"}),
        UnexpectedResponse("a", http_status=200, http_response="<html>"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel_between_processes_whole(error: KinesisError) -> None:
    error.attempts = 2
    error.maybe_written = True
    assert full(pickle.loads(pickle.dumps(error))) == full(error)
