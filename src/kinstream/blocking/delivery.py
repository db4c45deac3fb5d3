"""Delivery, for threads: a record on its way, whose result any thread may wait for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import msgspec

import kinstream.produce.delivery
from kinstream.errors import ProduceError
from kinstream.produce.delivery import RESULT_FIELDS
from kinstream.produce.door import Door
from kinstream.record import PutResult
from kinstream.usage import has_not, not_a_list, wrong_style


class Delivery(msgspec.Struct, eq=False, gc=False):
    """A record that was put, on its way to Kinesis. Ask for its result as often as you like, from any thread, or never.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Producer("events") as producer:
        ...     delivery = producer.put(b"hello", "key")
        ...     delivery.result().shard_id
        'shardId-000000000000'
    """

    # Not for users. What they lead to does not lead back here.
    inner: kinstream.produce.delivery.Delivery
    door: Door

    @property
    def done(self) -> bool:
        """Whether it is settled: written or failed."""
        return self.inner.done

    def result(self, timeout: float | None = None) -> PutResult:
        """Wait until the record is settled, and return where it is.

        Being interrupted, or out of time, does not cancel the record.

        Args:
            timeout: Seconds to wait; None: until the record is written or has failed.

        Raises:
            ProduceError: It was not written, or nobody knows. It holds the record.
            TimeoutError: It is not settled yet.
            ClosedError: The producer's event loop has ended before.
        """
        return self.door.result(self.inner, timeout)

    if not TYPE_CHECKING:

        def __await__(self) -> NoReturn:
            raise wrong_style(self, "await")

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return self.inner.__rich_repr__()

    def __repr__(self) -> str:
        return repr(self.inner)


class Deliveries:
    """Records that were put together. Any thread may wait for their results.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Producer("events") as producer:
        ...     deliveries = producer.put_many([(b"good", "a"), (b"morning", "b")])
        ...     len(deliveries.results())
        2
    """

    __slots__ = ("_door", "_inner")

    def __init__(self, inner: list[kinstream.produce.delivery.Delivery], door: Door) -> None:
        self._inner = kinstream.produce.delivery.Deliveries(inner, door.unseen)
        self._door = door

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Delivery]:
        return (Delivery(delivery, self._door) for delivery in self._inner)

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def done(self) -> bool:
        """Whether all of them are settled."""
        return self._inner.done

    def results(self, timeout: float | None = None) -> list[PutResult | ProduceError]:
        """Wait until all are settled, and return their results, in the records' order.

        A record that failed stands there as its `ProduceError`; none is raised.

        Args:
            timeout: Seconds to wait; None: until all records are written or have failed.

        Raises:
            TimeoutError: Some are not settled yet.
            ClosedError: The producer's event loop has ended before.
        """
        return self._door.results(self._inner, timeout)

    if not TYPE_CHECKING:

        def __getitem__(self, _: object) -> NoReturn:
            raise not_a_list(self, "deliveries.results()")

        def __await__(self) -> NoReturn:
            raise wrong_style(self, "await")


has_not(Delivery, RESULT_FIELDS, "it belongs to the result, delivery.result().{name}")
has_not(Deliveries, (*RESULT_FIELDS, "result"), "call results() for the list of results")
