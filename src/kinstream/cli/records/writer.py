"""Writing of records in batches: each failure is reported with the number of its record, and memory stays bounded."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from kinstream.cli.records.line import KeyedData
from kinstream.errors import InvalidRecord
from kinstream.produce.delivery import Deliveries
from kinstream.produce_errors import ProduceError
from kinstream.producer import Producer

PENDING_BATCHES = 256
"""Maximum batches that are not settled. The buffer of the producer bounds their bytes."""
_PLACE = re.compile(r"^records\[[0-9]+\]\.?")


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
        self._pending: deque[tuple[int, Deliveries]] = deque()

    async def put(self, records: Sequence[KeyedData], first: int) -> None:
        """Buffer records.

        Args:
            records: The records.
            first: Number of the first one.

        Raises:
            NotWritten: A record is invalid, and those before it are buffered. Or an earlier record was not written.
            KinesisError: As `Producer.put_many`.
        """
        try:
            deliveries = await self._producer.put_many(records)
        except InvalidRecord as error:
            if isinstance(error.deliveries, Deliveries):
                self._pending.append((first, error.deliveries))
            raise NotWritten(first + error.index, _PLACE.sub("", error.details)) from None
        self._pending.append((first, deliveries))
        await self._settle(PENDING_BATCHES)

    async def finish(self) -> None:
        """Wait until all records are settled.

        Raises:
            NotWritten: A record was not written.
        """
        await self._producer.flush()
        await self._settle(0)

    async def _settle(self, most: int) -> None:
        """Remove batches that are settled, and wait until at most `most` are left."""
        while self._pending and (len(self._pending) > most or self._pending[0][1].done):
            first, deliveries = self._pending.popleft()
            for number, result in enumerate(await deliveries, first):
                if isinstance(result, ProduceError):
                    raise NotWritten(number, result.details)
