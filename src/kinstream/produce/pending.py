"""PendingRecord: a record in the pipeline, and its outcome.

One small object carries a record through all stages. A future is created only if a caller awaits a record that is not settled
yet, and an error only if a caller observes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from kinstream.kpl.builder import container_of_one
from kinstream.kpl.message import DIGEST_BYTES
from kinstream.produce.delivery import Delivery
from kinstream.produce.expire import NEVER
from kinstream.produce_errors import ProduceError
from kinstream.record import NO_KEY, PutResult, Record
from kinstream.sharding.hashkey import MAX_HASH_KEY

if TYPE_CHECKING:
    from kinstream.produce.unobserved import UnobservedFailures

KEYLESS = NO_KEY
"""Partition key of records that were put without one, compared by identity. An equal key from the user is refused."""

Waiter: TypeAlias = "asyncio.Future[None]"


class Aggregate:
    """Several records in one Kinesis record.

    Attributes:
        members: The records, in order. Empty once it is settled.
        data: The bytes of the Kinesis record. Empty once it is settled.
        partition_key: Partition key of the Kinesis record.
        explicit_hash_key: The hash key of its first record, in decimal.
        size: Bytes of data and partition key.
        attempts: Requests that were sent with it and did not settle it.
        maybe_written: True if one of them may have written it.
        admitted: When its first record was admitted.
        first_failure: When the first request was sent that failed for one of its records. NEVER if none failed.
    """

    __slots__ = (
        "admitted", "attempts", "data", "explicit_hash_key", "first_failure", "maybe_written", "members", "partition_key", "size",
    )  # fmt: skip

    def __init__(self, members: list[PendingRecord], data: bytes, partition_key: str, explicit_hash_key: str) -> None:
        self.members: list[PendingRecord] = members
        self.data: bytes = data
        self.partition_key: str = partition_key
        self.explicit_hash_key: str | None = explicit_hash_key
        self.size: int = len(data) + len(partition_key)
        self.attempts: int = 0
        self.maybe_written: bool = False
        self.admitted: float = members[0].admitted
        self.first_failure: float = NEVER


class FailedRecord(Protocol):
    """A record from which an error is created."""

    @property
    def attempts(self) -> int:
        """Number of requests that were sent with it."""

    @property
    def maybe_written(self) -> bool:
        """True if one of them may have written it."""

    def record(self) -> Record:
        """Return the record."""


class Failure:
    """Why records failed. Records that failed together share one. The error of each is created when a caller observes it.

    A delivery must not lead to its own error: a raised error's traceback holds frames that hold the delivery, and the garbage
    collector does not see such a cycle (`PendingRecord`).

    Attributes:
        details: The error's text.
        cause: The error's `__cause__`. None if it has none.
        kind: The error's class.
    """

    __slots__ = ("cause", "details", "kind")

    def __init__(self, details: str, cause: BaseException | None, kind: type[ProduceError] = ProduceError) -> None:
        self.details: str = details
        self.cause: BaseException | None = cause
        self.kind: type[ProduceError] = kind

    @property
    def name(self) -> str:
        """The cause, as an error's name."""
        return type(self.cause or self).__name__ if self.kind is ProduceError else self.kind.__name__

    def error(self, delivery: FailedRecord) -> ProduceError:
        """Return a new error for one of the records."""
        error = self.kind(
            self.details, delivery.record(), attempts=delivery.attempts, maybe_written=delivery.maybe_written
        )
        error.__cause__ = self.cause
        error.throttled = getattr(self.cause, "throttled", False)
        return error


class Unobserved:
    """A failure that no caller has observed.

    Attributes:
        failure: The failure.
        unobserved: The producer's account of unobserved failures.
    """

    __slots__ = ("failure", "unobserved")

    def __init__(self, failure: Failure, unobserved: UnobservedFailures) -> None:
        self.failure: Failure = failure
        self.unobserved: UnobservedFailures = unobserved


# gc=False: the garbage collector need not visit each of a million records. A cycle through one (a waiter, the members of an
# aggregate) is cut when it is settled, and every record is settled.
class PendingRecord(Delivery, eq=False, gc=False):
    """A record in the pipeline. Callers see it as a `Delivery`.

    Attributes:
        data: The bytes to write.
        partition_key: The record's key, or `KEYLESS`.
        explicit_hash_key: Chooses the shard in place of the partition key.
        size: Bytes of data and partition key.
        admitted: When the record was put, by the monotonic clock.
        outcome: The result or the failure. None while the record is pending.
        attempts: Requests that were sent with it.
        maybe_written: True if one of them may have written it.
        waiter: The future or futures that wait for the outcome.
        first_failure: When the first request was sent that failed for this record. NEVER if none failed.
    """

    # The codecs read the first three. The compiled hot path knows the first five by their order.
    data: bytes
    partition_key: str
    explicit_hash_key: str | None
    size: int
    admitted: float
    outcome: PutResult | Failure | Unobserved | None = None
    attempts: int = 0
    maybe_written: bool = False
    waiter: Waiter | list[Waiter] | None = None
    first_failure: float = NEVER

    @property
    def done(self) -> bool:
        """True once the record has been written or has failed."""
        return self.outcome is not None

    @property
    def failed(self) -> bool:
        """True if it is settled and was not written."""
        return self.outcome is not None and self.outcome.__class__ is not PutResult

    @property
    def unobserved(self) -> bool:
        """True if it failed and no caller has observed it."""
        return self.outcome.__class__ is Unobserved

    def result(self) -> PutResult:
        """Return the result, or raise the error."""
        outcome: Any = self.outcome
        if outcome.__class__ is PutResult:
            return outcome
        raise self._observed()

    def value(self) -> PutResult | ProduceError:
        """Return the result, or a new error as a value."""
        outcome: Any = self.outcome
        return outcome if outcome.__class__ is PutResult else self._observed()

    def _observed(self) -> ProduceError:
        outcome = self.outcome
        if outcome is None:
            raise asyncio.InvalidStateError("the record is not settled yet: await the delivery")
        if isinstance(outcome, Unobserved):
            outcome.unobserved.saw(outcome)
            self.outcome = outcome.failure
        return self.error()

    def error(self) -> ProduceError:
        """Return a new error for a record that failed. It stays unobserved."""
        failure: Any = self.outcome
        return (failure.failure if failure.__class__ is Unobserved else failure).error(self)

    def __await__(self) -> Generator[Any, None, PutResult]:
        while self.outcome is None:
            yield from self.wait()
        outcome = self.outcome
        if outcome.__class__ is PutResult:  # nearly always. More checks would double the cost of an `await`
            return outcome
        raise self._observed()

    def wait(self) -> Generator[Any, None, None]:
        """Wait until it is settled."""
        waiter = asyncio.get_running_loop().create_future()
        others: Any = self.waiter
        if others is None:
            self.waiter = waiter
        elif others.__class__ is list:
            others.append(waiter)
        else:
            self.waiter = [others, waiter]
        try:
            yield from waiter
        finally:
            if self.waiter is waiter:
                self.waiter = None
            elif isinstance(self.waiter, list) and waiter in self.waiter:
                self.waiter.remove(waiter)

    def wake(self) -> None:
        """Wake all waiters."""
        waiters = self.waiter
        for waiter in waiters if isinstance(waiters, list) else [waiters]:
            if waiter is not None and not waiter.done():
                settle_waiter(waiter)
        self.waiter = None

    def record(self) -> Record:
        """Return it as a record."""
        key = "" if self.partition_key is KEYLESS else self.partition_key
        return Record(self.payload, key, None if self.partition_key is KEYLESS else self.explicit_hash_key)

    @property
    def payload(self) -> bytes:
        """The record's own data."""
        return self.data

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        state = "failed" if self.failed else "written" if self.done else "waiting"
        return [("state", state), ("size", self.size)]

    def __repr__(self) -> str:
        return f"Delivery({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class WrappedRecord(PendingRecord, eq=False, gc=False):
    """A delivery with a payload that is itself an aggregated record.

    Readers would deaggregate it if it came alone. So its `data` is a container of one record, which readers deaggregate to the
    payload. Inside an aggregate the payload needs no container.
    """

    payload_start: int = 0  # in `data`; the compiled hot path knows the class by this field

    @classmethod
    def of(cls, payload: bytes, partition_key: str, explicit_hash_key: str | None) -> WrappedRecord:
        """Return the delivery of a payload. Its size has space for the hash key that a record without a key gets later."""
        delivery = cls(b"", partition_key, explicit_hash_key, 0, 0.0)
        if partition_key is KEYLESS and explicit_hash_key is None:
            delivery.explicit_hash_key = str(MAX_HASH_KEY)
            delivery.wrap(payload)
            delivery.explicit_hash_key = None
        else:
            delivery.wrap(payload)
        delivery.size = len(delivery.data) + len(partition_key.encode())
        return delivery

    def wrap(self, payload: bytes) -> None:
        """Set `data` to a container of the payload with the record's own keys."""
        self.data: bytes = container_of_one(self.partition_key, self.explicit_hash_key, payload)
        self.payload_start: int = len(self.data) - DIGEST_BYTES - len(payload)

    @property
    def payload(self) -> bytes:
        """The record's own data."""
        return self.data[self.payload_start : -DIGEST_BYTES]


Entry: TypeAlias = PendingRecord | Aggregate
"""A future Kinesis record: one record, or several."""


def count_attempt(entry: Entry, requests: int = 1, *, maybe_written: bool = False) -> None:
    """Count requests that did not settle an entry. A record that timed out keeps its counts for its error."""
    if entry.__class__ is Aggregate or entry.outcome is None:  # type: ignore[union-attr]
        entry.attempts += requests
        entry.maybe_written = entry.maybe_written or maybe_written


def settle_waiter(waiter: Waiter) -> None:
    """Wake a waiter, unless its event loop is closed: then it can never run again."""
    try:  # noqa: SIM105 - `suppress` costs more than everything else here
        waiter.set_result(None)
    except RuntimeError:
        pass
