"""Writing of records in batches: the first failure is reported with the number of its record, and memory stays bounded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from kinstream.cli.records.line import KeyedData
from kinstream.errors import InvalidRecord
from kinstream.produce.delivery import Deliveries
from kinstream.produce_errors import ProduceError
from kinstream.producer import Producer

PENDING_BATCHES = 256
"""Maximum batches that are not settled. The buffer of the producer bounds their bytes."""
_PLACE = re.compile(r"^records\[[0-9]+\][.:]? ?")


class NotWritten(Exception):
    """A record was refused or not written.

    Attributes:
        number: Its number.
        problem: The reason. It does not quote the data.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number: int = number
        self.problem: str = problem


class Writer:
    """Writes numbered records through a producer.

    Args:
        producer: The producer.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._pending: set[asyncio.Task[None]] = set()
        self._space = asyncio.Semaphore(PENDING_BATCHES)
        self._failed: NotWritten | None = None

    async def put(self, records: Sequence[KeyedData], first: int) -> None:
        """Buffer records.

        Args:
            records: The records.
            first: Number of the first one.

        Raises:
            NotWritten: A record is invalid, and those before it are buffered. Or an earlier record was not written.
            KinesisError: As `Producer.put_many`.
        """
        await self._space.acquire()
        self._raise_failure()
        try:
            deliveries = await self._producer.put_many(records)
        except BaseException as error:
            buffered = getattr(error, "deliveries", None)  # also after Ctrl-C
            if isinstance(buffered, Deliveries):
                self._watch(first, buffered)
            if isinstance(error, InvalidRecord):
                raise NotWritten(first + error.index, _PLACE.sub("", error.details)) from None
            raise
        self._watch(first, deliveries)

    async def finish(self) -> None:
        """Wait until all records are settled.

        Raises:
            NotWritten: A record was not written.
        """
        await self._producer.flush()
        if self._pending:
            await asyncio.wait(
                self._pending
            )  # unlike `gather`, it does not cancel them: they observe failures after Ctrl-C
        self._raise_failure()

    def _watch(self, first: int, deliveries: Deliveries) -> None:
        task = asyncio.create_task(self._settle(first, deliveries))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _settle(self, first: int, deliveries: Deliveries) -> None:
        """Wait for records, and keep the failure with the lowest number."""
        for number, result in enumerate(await deliveries, first):
            if isinstance(result, ProduceError):
                if self._failed is None or number < self._failed.number:
                    self._failed = NotWritten(number, result.details)
                break
        self._space.release()

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed
