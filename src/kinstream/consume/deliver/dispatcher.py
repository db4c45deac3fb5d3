"""Dispatcher: the interface to a delivery of one shard's batches."""

from __future__ import annotations

from typing import Protocol

from kinstream.consume.deaggregate import RecordList


class Dispatcher(Protocol):
    """Delivers the batches of one shard."""

    @property
    def failed(self) -> bool:
        """True if the last attempt of a record failed while others were being handled: `drain` raises its error."""

    async def deliver(self, records: RecordList) -> None:
        """Deliver a batch. Returns when its records are completed or being handled, or when the rest of it was discarded.

        Raises:
            ConsumeError: A record cannot be handled.
            Interrupted: Delivery is to stop.
        """

    async def drain(self) -> None:
        """Wait until no record is being handled. Raises as `deliver`."""

    async def abandon(self) -> None:
        """Cancel the handlers that are running."""
