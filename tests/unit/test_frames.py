"""Removal of traceback frames and record data from exceptions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kinstream import (
    BufferFull,
    DiscoveryFailed,
    KinesisError,
    OrderBroken,
    ProduceError,
    Record,
    ServiceError,
    ShardEnded,
    Undelivered,
)
from kinstream.frames import MAX_LINKS, without_data, without_frames


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return an exception after it was raised, so that it has a traceback."""
    try:
        raise error from cause  # noqa: TRY301
    except BaseException as caught:
        return caught


def shown(error: BaseException) -> Any:
    """Return the error of an event as an observer sees it."""
    seen = without_data(DiscoveryFailed(error))
    assert isinstance(seen, DiscoveryFailed)
    return seen.error


class OwnConstructor(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")
        self.name = name


class OwnOSError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "missing", path)
        self.path = path


class CannotBeCopied(Exception):
    def __new__(cls, *_: object) -> CannotBeCopied:
        if _:
            raise TypeError("no")
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__("text")


EXCEPTIONS: list[BaseException] = [
    ValueError("x"),
    KeyError("k"),
    OSError(2, "missing", "a"),
    OwnConstructor("b"),
    OwnOSError("p"),
    UnicodeDecodeError("utf-8", b"ab", 0, 1, "bad"),
    StopIteration(3),
    SystemExit(4),
    json.JSONDecodeError("bad", "doc", 1),
    ServiceError("refused", code="Foo", operation="PutRecords", http_status=400),
    ImportError("no", name="n"),
]


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_error_of_an_event_is_a_copy_without_the_traceback(error: BaseException) -> None:
    with_traceback = raised(error, raised(RuntimeError("cause")))
    seen = shown(with_traceback)
    assert type(seen) is type(error)
    assert (str(seen), repr(seen), seen.args) == (str(error), repr(error), error.args)
    assert seen.__traceback__ is None
    assert isinstance(seen.__cause__, RuntimeError)
    assert seen.__cause__.__traceback__ is None
    assert with_traceback.__traceback__ is not None
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is not None


def test_event_without_anything_to_remove_is_passed_as_it_is() -> None:
    for event in ShardEnded("s", ()), DiscoveryFailed(KinesisError("no")):
        assert without_data(event) is event


def test_produce_error_is_replaced_by_its_cause() -> None:
    record = Record(b"secret", "key")
    cause = KinesisError("no")
    earlier = ProduceError("not written", record)
    earlier.__cause__ = cause
    later = OrderBroken("given up", record)
    later.__cause__ = earlier
    assert repr(shown(later)) == repr(cause)
    outer = RuntimeError("outer")
    outer.__cause__ = later
    assert repr(shown(outer).__cause__) == repr(cause)


def test_produce_error_without_a_cause_keeps_its_text_alone() -> None:
    seen = shown(BufferFull("the buffer is full", Record(b"secret", "key")))
    assert type(seen) is KinesisError
    assert seen.details == "the buffer is full"
    assert not hasattr(seen, "record")


def test_errors_of_undelivered_records_are_removed_and_their_number_is_kept() -> None:
    seen = shown(Undelivered("close", [ProduceError("no", Record(b"secret", "key"))], 7))
    assert (seen.exceptions, seen.count) == ((), 7)


def test_members_of_a_group_have_no_traceback_either() -> None:
    group = raised(BaseExceptionGroup("two", [raised(ValueError("a")), raised(ProduceError("b"), KinesisError("c"))]))
    seen = shown(group)
    assert [repr(member) for member in seen.exceptions] == ["ValueError('a')", "KinesisError('c')"]
    assert [member.__traceback__ for member in seen.exceptions] == [None, None]


def test_body_of_a_response_is_removed() -> None:
    error = KinesisError("refused", http_status=400, http_response={"Data": "secret"})
    assert shown(error).http_response is None
    assert error.http_response == {"Data": "secret"}


def test_class_that_cannot_be_copied_is_named() -> None:
    seen = shown(raised(CannotBeCopied()))
    assert str(seen) == f"{__name__}.CannotBeCopied, which cannot be copied"


def test_cycles_and_long_chains_of_causes_end() -> None:
    first, second = raised(ValueError("a")), raised(ValueError("b"))
    first.__context__, second.__cause__ = second, first
    assert shown(first).__context__.__cause__.args == ("a",)
    error: BaseException = raised(ValueError("0"))
    for n in range(5000):
        error = raised(ValueError(str(n)), error)
    seen, links = shown(error), 0
    while seen is not None:
        seen, links = seen.__cause__, links + 1
    assert links == MAX_LINKS


def test_tracebacks_of_causes_and_contexts_are_removed_in_place() -> None:
    context, cause = raised(ValueError("context")), raised(ValueError("cause"))
    error = raised(ValueError("error"), cause)
    error.__context__ = context
    assert without_frames(error) is error
    assert error.__traceback__ is cause.__traceback__ is context.__traceback__ is None
