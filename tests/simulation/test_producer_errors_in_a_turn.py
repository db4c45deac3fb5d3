"""An unexpected error strikes within a producer's turn, at any line: every record is settled, and no task waits forever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.doubles.network import Faults
from tests.doubles.striking import Strike
from tests.doubles.virtual_loop import VirtualLoop, simulate
from tests.simulation.test_producer_storms import Ground

from kinstream import Aggregation, Batching, BufferLimits, ClosedError, KinesisError, ProduceError, Producer, PutResult
from kinstream.produce.delivery import Delivery
from kinstream.produce_errors import Undelivered

POINTS = 100
"""At how many lines of each program the error strikes."""
WAYS: list[dict[str, Any]] = [
    {"order": None, "aggregate": None},
    {"order": None, "aggregate": Aggregation(max_records=3)},
    {"order": "key", "aggregate": Aggregation(max_records=3)},
]


class Program:
    """Puts records in every way, and awaits them in every way."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.deliveries: list[Delivery] = []
        self.refused: list[ClosedError] = []
        self.producer: Producer | None = None

    async def put(self, first: int) -> None:
        assert self.producer is not None
        try:
            for number in range(first, first + 8):
                self.deliveries.append(await self.producer.put(b"%d" % number, f"k{number % 5}"))
                await asyncio.sleep(0.003)
            self.deliveries += await self.producer.put_many([(b"x", None), (b"y", "k1"), (b"z", "k2")])
            await self.producer.flush()
            with suppress(ProduceError):
                await self.deliveries[-1]
        except ClosedError as refused:
            self.refused.append(refused)

    async def run(self) -> None:
        weather = Faults(partial=0.4, entry=0.5, cut_after=0.1, latency=(0.001, 0.02))
        ground = Ground(weather, shards=3)
        self.producer = ground.producer(
            batch=Batching(linger=0.005), buffer=BufferLimits(max_records=6), **self.options
        )
        await asyncio.gather(*(self.put(first) for first in (0, 10, 20)))
        with suppress(Undelivered):
            await self.producer.close()
        await self.producer.client.close()

    def check(self, strike: Strike) -> None:
        assert self.deliveries, strike.place
        assert all(delivery.done for delivery in self.deliveries), strike.place
        for delivery in self.deliveries:
            with suppress(ProduceError):
                assert isinstance(delivery.result(), PutResult)
        for refused in self.refused:
            assert isinstance(refused.__cause__, MemoryError | KinesisError), strike.place


def strike_at(k: int, error: Callable[[], BaseException]) -> Strike:
    return Strike(k, error, folder="kinstream/produce/", below="_guarded")


def lines_of(options: dict[str, Any]) -> int:
    strike = strike_at(0, MemoryError)
    program = Program(options)
    with strike.armed():
        simulate(program.run)
    assert all(isinstance(delivery.result(), PutResult) for delivery in program.deliveries)
    return strike.lines


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # the error came before its task
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_every_record_is_settled_at_whatever_line_of_a_turn_memory_runs_out(options: dict[str, Any]) -> None:
    lines = lines_of(options)
    places = set()
    for k in range(1, lines, max(lines // POINTS, 1)):
        strike, program = strike_at(k, MemoryError), Program(options)
        with strike.armed():
            simulate(program.run)
        program.check(strike)
        assert strike.struck
        assert program.refused or all(delivery.done for delivery in program.deliveries)
        places.add(strike.place)
    print(f"{lines} lines; struck in {len(places)} functions")
    assert len(places) > 20


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # the error came before its task
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_signal_handlers_exception_within_a_turn_leaves_no_record_unsettled(options: dict[str, Any]) -> None:
    """It ends the loop's run. When the loop runs again, every record is settled."""
    lines = lines_of(options)
    for k in range(7, lines, max(lines // (POINTS // 4), 1)):
        strike, program = strike_at(k, KeyboardInterrupt), Program(options)
        loop = VirtualLoop()
        task = loop.create_task(program.run())
        with strike.armed(), pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
        program.check(strike)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
