"""Writes the demo's events at a steady rate, part by part, so that records arrive while the fleet changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from kinstream import Aggregation, Client, Deliveries, DeliveryPolicy, ProduceError, Producer, Undelivered
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.reshard import STREAM
from kinstream.cli.demo.show import Show
from kinstream.cli.demo.write import DEADLINE

TICK = 0.05
"""Seconds between two groups of records."""


class Flow:
    """Producer at a steady rate, in the order of each key.

    Args:
        client: Client of the stream.
        show: Progress display, which has the task "write".
    """

    def __init__(self, client: Client, show: Show) -> None:
        self._clock = client.clock
        self._show = show
        self._producer = Producer(
            STREAM, order="key", aggregate=Aggregation(), delivery=DeliveryPolicy(timeout=DEADLINE), client=client
        )
        self._pending: list[Deliveries] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(Undelivered):
            await self._producer.close(timeout=0)  # nothing is pending after `written`

    async def write(self, events: Sequence[Event], seconds: float) -> None:
        """Write a part of the events within a number of seconds."""
        started, ticks = self._clock.monotonic(), max(int(seconds / TICK), 1)
        for tick in range(ticks):
            await self._clock.sleep(max(started + tick * TICK - self._clock.monotonic(), 0))
            group = events[len(events) * tick // ticks : len(events) * (tick + 1) // ticks]
            if group:
                self._pending.append(await self._producer.put_many((event.data, event.key) for event in group))
                self._show.advance("write", len(group))

    async def written(self) -> Counter[str]:
        """Wait until all records are written. Returns their number by shard ID.

        Raises:
            ProduceError: A record was not written.
        """
        taken: Counter[str] = Counter()
        for deliveries in self._pending:
            for result in await deliveries:
                if isinstance(result, ProduceError):
                    raise result
                taken[result.shard_id] += 1
        return taken
