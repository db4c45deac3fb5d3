"""Writes the demo's events at a steady rate, so that records arrive while the fleet changes, however long a change takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from math import ceil
from types import TracebackType
from typing import Self

from kinstream import Aggregation, Client, Deliveries, DeliveryPolicy, ProduceError, Producer
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.reshard import STREAM
from kinstream.cli.demo.show import Show
from kinstream.cli.demo.write import DEADLINE, discard, put

TICK = 0.05
"""Seconds between two groups of records."""


class Flow:
    """Producer at a steady rate, in the order of each key. It writes from the beginning of its block.

    Args:
        client: Client of the stream.
        events: Events to write, ordered.
        steps: Number of steps in which they are written.
        step_seconds: Usual seconds of a step. If a step takes longer, the rate falls, so that records are left for later ones.
        show: Progress display, which has the task "write".
    """

    def __init__(self, client: Client, events: Sequence[Event], steps: int, step_seconds: float, show: Show) -> None:
        self._clock = client.clock
        self._events = events
        self._steps_left = steps
        self._step_seconds = step_seconds
        self._show = show
        self._producer = Producer(
            STREAM, order="key", aggregate=Aggregation(), delivery=DeliveryPolicy(timeout=DEADLINE), client=client
        )
        self._pending: list[Deliveries] = []
        self._step_began = self._clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        await discard(self._producer, self._pending)  # nothing is pending after `written`

    async def step_done(self) -> None:
        """Begin the next step, after the usual seconds of a step."""
        await self._clock.sleep(max(self._step_began + self._step_seconds - self._clock.monotonic(), 0))
        self._steps_left -= 1
        self._step_began = self._clock.monotonic()

    async def written(self) -> Counter[str]:
        """Wait until all records are written. Returns their number by shard ID.

        Raises:
            ProduceError: A record was not written.
        """
        assert self._task is not None
        await self._task
        taken: Counter[str] = Counter()
        for deliveries in self._pending:
            for result in await deliveries:
                if isinstance(result, ProduceError):
                    raise result
                taken[result.shard_id] += 1
        return taken

    async def _write(self) -> None:
        rest = iter(self._events)
        left = len(self._events)
        while left:
            elapsed = min(self._clock.monotonic() - self._step_began, self._step_seconds)
            seconds = max(self._steps_left * self._step_seconds - elapsed, TICK)
            group = list(islice(rest, ceil(left * TICK / seconds)))
            left -= len(group)
            await put(self._producer, group, self._pending)
            self._show.advance("write", len(group))
            await self._clock.sleep(TICK)
