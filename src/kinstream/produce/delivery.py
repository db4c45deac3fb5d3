"""Handles of records that were put, on which a caller waits for the results."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Self

import msgspec

from kinstream.produce_errors import ProduceError, Undelivered
from kinstream.record import PutResult
from kinstream.speed import accelerated
from kinstream.usage import has_not, not_a_list, not_picklable

if TYPE_CHECKING:
    from kinstream.produce.pending import PendingRecord
    from kinstream.produce.unobserved import UnobservedFailures

MAX_EXCEPTIONS = 100
"""Maximum length of `Undelivered.exceptions`."""


class Delivery(msgspec.Struct, eq=False, gc=False):
    """A record that was put. Await it for its `PutResult`, any number of times or never.

    Cancelling a task that awaits it does not cancel the record.

    Raises:
        ProduceError: By `await` and `result()`, if the record was not written or it is not known whether it was. The error
            contains the record.

    Example:
        >>> import asyncio
        >>> from kinstream import Producer
        >>> async def greet():
        ...     async with Producer("events") as producer:
        ...         delivery = await producer.put(b"hello", "key")
        ...         return (await delivery).shard_id
        >>> asyncio.run(greet())
        'shardId-000000000000'
    """

    @property
    def done(self) -> bool:
        """True once the record has been written or has failed."""
        raise NotImplementedError

    def result(self) -> PutResult:
        """Return the result without waiting.

        Raises:
            ProduceError: The record failed.
            asyncio.InvalidStateError: The record is still pending.
        """
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, PutResult]:
        raise NotImplementedError

    def __copy__(self) -> Self:
        # A copy would never be settled.
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise not_picklable(self)


class Deliveries:
    """Records that were put together. Await it for the list of their results, in the order of the records.

    A record that failed is in the list as its `ProduceError`. Awaiting does not raise these errors. `raise_for_failures` does.

    Example:
        >>> import asyncio
        >>> from kinstream import Producer
        >>> async def greet():
        ...     async with Producer("events") as producer:
        ...         deliveries = await producer.put_many([(b"good", "a"), (b"morning", "b")])
        ...         return len(await deliveries.raise_for_failures())
        >>> asyncio.run(greet())
        2
    """

    __slots__ = ("_deliveries", "_settled", "_unseen")

    def __init__(self, deliveries: list[PendingRecord], unobserved: UnobservedFailures | None = None) -> None:
        self._deliveries = deliveries
        self._settled = 0
        self._unseen = unobserved  # notified of awaits, or None if they are not awaited

    def __len__(self) -> int:
        return len(self._deliveries)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._deliveries)

    if not TYPE_CHECKING:

        def __getitem__(self, _: object) -> NoReturn:
            raise not_a_list(self, "(await deliveries)")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # Records in flight belong to this process. An error that has them as an attribute is pickled without them.
        return type(None), ()

    def __repr__(self) -> str:
        return f"<Deliveries of {len(self)} records{', done' if self.done else ''}>"

    @property
    def done(self) -> bool:
        """True once every record has been written or has failed."""
        return self._first_unsettled() is None

    async def results(self) -> list[PutResult | ProduceError]:
        """Wait for all records and return their results, in the order of the records. The same as `await`."""
        return await self

    async def raise_for_failures(self) -> list[PutResult]:
        """Wait for all records and return their results, in the order of the records.

        Raises:
            Undelivered: Records failed. The error has their number and the errors of the first 100.
        """
        return written(await self)

    def __await__(self) -> Generator[Any, None, list[PutResult | ProduceError]]:
        unobserved = self._unseen
        together = None if unobserved is None or self.done else unobserved.expect(self._deliveries)
        try:
            while (record := self._first_unsettled()) is not None:
                yield from record.wait()
        finally:
            if unobserved is not None and together is not None:
                unobserved.expected(together)
        return values(self._deliveries)

    def _first_unsettled(self) -> PendingRecord | None:
        self._settled = first_unsettled(self._deliveries, self._settled)
        return self._deliveries[self._settled] if self._settled < len(self._deliveries) else None


def attach(error: BaseException, deliveries: object) -> None:
    """Add to an error, as its attribute `deliveries`, the records that `put_many` had buffered before it was raised."""
    with suppress(AttributeError):  # a user's exception has a property of this name
        object.__setattr__(error, "deliveries", deliveries)  # the class of a user's exception may refuse attributes


def written(results: list[PutResult | ProduceError]) -> list[PutResult]:
    """Return the results if all records were written.

    Raises:
        Undelivered: One or more records failed.
    """
    failures = [result for result in results if isinstance(result, ProduceError)]
    if not failures:
        return results  # type: ignore[return-value]  # they contain no error
    first = failures[0]
    raise Undelivered(
        f"{len(failures):,} of {len(results):,} records failed, the first with {type(first.__cause__ or first).__name__}:"
        f" {first.details}",
        failures[:MAX_EXCEPTIONS],
        len(failures),
    ) from first.__cause__


@accelerated
def values(deliveries: list[PendingRecord]) -> list[PutResult | ProduceError]:
    """Return the results of records that are all settled."""
    return [delivery.value() for delivery in deliveries]


@accelerated
def first_unsettled(deliveries: list[PendingRecord], start: int) -> int:
    """Return the index of the first record, from `start` on, that is not settled. Return the number of records if all are."""
    for index in range(start, len(deliveries)):
        if deliveries[index].outcome is None:
            return index
    return len(deliveries)


RESULT_FIELDS = PutResult.__struct_fields__

has_not(Delivery, RESULT_FIELDS, "it belongs to the result, (await delivery).{name}")
has_not(Deliveries, (*RESULT_FIELDS, "result"), "await the deliveries for the list of their results")
