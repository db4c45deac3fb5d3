"""Handles, for threads, of records that were put, on which any thread waits for the results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn, Self

import msgspec

from kinstream.produce.delivery import RESULT_FIELDS, first_unsettled, written
from kinstream.produce.pending import PendingRecord
from kinstream.produce.thread_gate import ThreadGate
from kinstream.produce_errors import ProduceError
from kinstream.producer import check_timeout
from kinstream.record import PutResult
from kinstream.usage import has_not, not_a_list, not_picklable, wrong_style


class Delivery(msgspec.Struct, eq=False, gc=False):
    """A record that was put. Any thread may call `result`, any number of times or never.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Producer("events") as producer:
        ...     delivery = producer.put(b"hello", "key")
        ...     delivery.result().shard_id
        'shardId-000000000000'
    """

    # The garbage collector does not track deliveries. Neither field may refer back to this object.
    _record: PendingRecord
    _gate: ThreadGate

    @property
    def done(self) -> bool:
        """True once the record has been written or has failed."""
        return self._record.done

    def result(self, timeout: float | None = None) -> PutResult:
        """Wait for the record and return its result.

        An interrupt or a timeout does not cancel the record.

        Args:
            timeout: Seconds to wait. None: until the record has been written or has failed.

        Raises:
            ProduceError: The record was not written, or it is not known whether it was. The error contains the record.
            TimeoutError: The record is still pending.
            ConfigError: `timeout` is not a number of seconds.
            ClosedError: The producer's event loop stopped before the record was settled.
        """
        check_timeout(timeout)
        return self._gate.result(self._record, timeout)

    if not TYPE_CHECKING:

        def __await__(self) -> NoReturn:
            raise wrong_style(self, "await")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise not_picklable(self)

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return self._record.__rich_repr__()

    def __repr__(self) -> str:
        return repr(self._record)


class Deliveries:
    """Records that were put together. Any thread may wait for their results.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Producer("events") as producer:
        ...     deliveries = producer.put_many([(b"good", "a"), (b"morning", "b")])
        ...     len(deliveries.raise_for_failures())
        2
    """

    __slots__ = ("_gate", "_records", "_settled")

    def __init__(self, records: list[PendingRecord], gate: ThreadGate) -> None:
        self._records = records
        self._gate = gate
        self._settled = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Delivery]:
        return (Delivery(record, self._gate) for record in self._records)

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
        self._settled = first_unsettled(self._records, self._settled)
        return self._settled == len(self._records)

    def results(self, timeout: float | None = None) -> list[PutResult | ProduceError]:
        """Wait for all records and return their results, in the order of the records.

        A record that failed is in the list as its `ProduceError`. This method does not raise these errors.
        `raise_for_failures` does.

        Args:
            timeout: Seconds to wait. None: until all records have been written or have failed.

        Raises:
            TimeoutError: Records are still pending.
            ConfigError: `timeout` is not a number of seconds.
            ClosedError: The producer's event loop stopped before the records were settled.
        """
        check_timeout(timeout)
        return self._gate.results(self._records, timeout)

    def raise_for_failures(self, timeout: float | None = None) -> list[PutResult]:
        """Wait for all records and return their results, in the order of the records.

        Args:
            timeout: Seconds to wait. None: until all records have been written or have failed.

        Raises:
            Undelivered: Records failed. The error has their number and the errors of the first 100.
            TimeoutError: Records are still pending.
            ClosedError: The producer's event loop stopped before the records were settled.
        """
        return written(self.results(timeout))

    if not TYPE_CHECKING:

        def __getitem__(self, _: object) -> NoReturn:
            raise not_a_list(self, "deliveries.results()")

        def __await__(self) -> NoReturn:
            raise wrong_style(self, "await")


has_not(Delivery, RESULT_FIELDS, "it belongs to the result, delivery.result().{name}")
has_not(Deliveries, (*RESULT_FIELDS, "result"), "call results() for the list of results")
