"""The worker processes of the demo: starts and ends them, and shows which worker reads which shard."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from kinstream.cli.demo.fleet.ledger import Ledger, Passage
from kinstream.cli.demo.fleet.message import Message
from kinstream.cli.demo.fleet.process import Place, WorkerProcess
from kinstream.cli.demo.reshard import Stuck
from kinstream.cli.demo.show import Show, short_id
from kinstream.clock import Clock

PATIENCE = 60.0
"""Seconds within which the fleet must reach an expected state, many times the usual duration."""


class WorkerRead(NamedTuple):
    """Row of the table of workers.

    Attributes:
        name: Its worker ID.
        first_record: Seconds from the start of its process to its first record. None: it had none.
        records: Number of records that it handled.
        shards: IDs of the shards that it read, sorted.
        end: Its end, for people.
    """

    name: str
    first_record: float | None
    records: int
    shards: list[str]
    end: str


class Crew:
    """The workers.

    Args:
        clock: The time.
        place: Address of the Kinesis that they read.
        total: Number of records in the stream at the end.
        show: Progress display.

    Attributes:
        ledger: Their records and shards.
    """

    def __init__(self, clock: Clock, place: Place, total: int, show: Show) -> None:
        self.ledger: Ledger = Ledger()
        self._clock = clock
        self._place = place
        self._total = total
        self._show = show
        self._began = clock.monotonic()
        self._workers: dict[str, WorkerProcess] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            await worker.discard()

    @property
    def running(self) -> list[str]:
        """Names of the workers that were started and not ended."""
        return [name for name, worker in self._workers.items() if worker.ended_by is None]

    def started(self, name: str) -> float:
        """Return the time at which a worker's process was started, in seconds of the monotonic clock."""
        return self._workers[name].started

    def say(self, text: str) -> None:
        """Print a line with the seconds since the beginning."""
        self._show.say(f"{self._clock.monotonic() - self._began:5.1f} s  {text}")

    async def start(self, name: str) -> None:
        """Start a worker."""
        self.say(f"{name} starts")
        self._show.begin(name, self._total)
        self._workers[name] = await WorkerProcess.start(name, self._place, partial(self._receive, name))

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a worker."""
        self.say(f"{number.name} to {name}, which reads {_ids(self.ledger.holders().get(name, []))}")
        if number is signal.SIGKILL:
            self.ledger.kill(name, self._clock.monotonic())
        self._workers[name].send(number)

    async def ended(self, name: str) -> None:
        """Wait until a worker has ended.

        Raises:
            Stuck: It does not end, or with an error.
        """
        try:
            async with self._clock.timeout(PATIENCE):
                await self._workers[name].wait()
        except TimeoutError:
            raise Stuck(f"{name} has not ended within {PATIENCE:g} s") from None
        self._report(self.ledger.end(name))
        self._show_holders()
        self._check()

    async def until(self, condition: Callable[[], object], expected: str) -> None:
        """Wait for a state of the ledger, and print the holders of the shards.

        Args:
            condition: Returns True if the state is reached.
            expected: The state, for people.

        Raises:
            Stuck: The state is not reached in time, or a worker ended with an error.
        """
        try:
            async with self._clock.timeout(PATIENCE):
                while not condition():
                    self._check()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Stuck(f"waited {PATIENCE:g} s for {expected}") from None

    def say_holders(self) -> None:
        """Print which worker reads which shards."""
        holders = sorted(self.ledger.holders().items())
        self.say("    " + "   ".join(f"{name}: {_ids(shards)}" for name, shards in holders))

    def reads(self, shard_ids: Collection[str]) -> bool:
        """Return True if running workers have handled records of all of some shards, or have completed them."""
        read = self.ledger.completed.union(*map(self.ledger.read_by, self.running))
        return read.issuperset(shard_ids)

    async def stop(self) -> None:
        """End all workers in good order.

        Raises:
            Stuck: A worker does not end, or with an error.
        """
        names = self.running
        self.say(f"SIGTERM to {', '.join(names)}")
        for name in names:
            self._workers[name].send(signal.SIGTERM)
        await asyncio.gather(*map(self.ended, names))

    def report(self) -> list[WorkerRead]:
        """Return a row for each worker."""
        rows: list[WorkerRead] = []
        for name, worker in self._workers.items():
            first = self.ledger.first_record(name)
            by = None if worker.ended_by is None else worker.ended_by[1].name
            shards = sorted(
                {shard_id for shard_id, read in self.ledger.by_shard().items() if name in {w for w, _ in read}}
            )
            rows.append(
                WorkerRead(
                    name, None if first is None else first - worker.started, self.ledger.handled[name], shards, by or ""
                )
            )
        return rows

    def _check(self) -> None:
        for name, worker in self._workers.items():
            if worker.failed:
                raise Stuck(f"{name} has ended with an error")

    def _receive(self, name: str, message: Message | None) -> None:
        if message is not None:
            before = self.ledger.handled[name]
            passages = self.ledger.receive(name, message)
            if handled := self.ledger.handled[name] - before:
                self._show.advance(name, handled)
            else:
                self._show_holders()
            self._report(passages)
        self._changed.set()

    def _report(self, passages: list[Passage]) -> None:
        for passage in passages:
            of = "after the kill" if passage.killed else "without a record"
            shard = short_id(passage.shard_id)
            self.say(f"  shard {shard}: {passage.giver} -> {passage.taker}, {1000 * passage.gap:,.0f} ms {of}")

    def _show_holders(self) -> None:
        holders = self.ledger.holders()
        for name in self._workers:
            self._show.label(name, f"{name}  {_ids(holders.get(name, []))}")


def _ids(shard_ids: Collection[str]) -> str:
    return ", ".join(map(short_id, shard_ids)) or "-"
