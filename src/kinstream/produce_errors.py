"""Errors of records that were put: not written, overtaken, refused by a full buffer, or unobserved. See `errors` for the tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kinstream.errors import ErrorType, KinesisError
from kinstream.record import Record


class ProduceError(KinesisError):
    """A record was not written, or may have been written although no response confirmed it. The `__cause__` is the reason.

    Attributes:
        record: The record.
        attempts: Number of requests sent with the record.
        maybe_written: True if one of the requests may have written it: it had no response, or an internal error of the service.
    """

    def __init__(
        self, details: str, record: Record | None = None, *, attempts: int = 0, maybe_written: bool = False
    ) -> None:
        super().__init__(details)
        self.record: Record = record  # type: ignore[assignment]
        self.attempts = attempts
        self.maybe_written = maybe_written
        self.retry_safe = None if maybe_written else True
        self._type: ErrorType | None = None  # of a copy: process pools replace the cause

    def _state(self, cause: BaseException | None) -> dict[str, Any]:
        known = self.type if isinstance(self.__cause__, KinesisError) else self._type
        return super()._state(cause) | {"_type": known}

    @property
    def type(self) -> ErrorType:  # type: ignore[override]
        """The error type of the cause."""
        if self._type is not None:
            return self._type
        return self.__cause__.type if isinstance(self.__cause__, KinesisError) else ErrorType.LIBRARY_ERROR


class OrderBroken(ProduceError):
    """An earlier record with the same key failed (`__cause__`). This record must not overtake it and is not written.

    It may have been written if both were sent in one aggregate. `maybe_written` is True then.
    """


class BufferFull(ProduceError):
    """The buffer is full and `BufferLimits(when_full="raise")` is set. The record was not buffered. Put it again later."""


class Undelivered(KinesisError):
    """Records failed, and no caller observed the failures before the producer was closed.

    The text has the number of records of each cause. This is not an exception group, because a hundred equal tracebacks would
    hide the cause.

    Attributes:
        exceptions: Errors of up to 100 of the records.
        count: Number of records.
    """

    def __init__(self, details: str, exceptions: Sequence[ProduceError] = (), count: int = 0) -> None:
        super().__init__(details)
        self.exceptions: tuple[ProduceError, ...] = tuple(exceptions)
        self.count: int = count or len(self.exceptions)
