"""Processes of a simulated fleet: their consumer side is a script that reads shards, works, checkpoints, and drains."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from tests.doubles.gated_clock import Gate, GatedClock
from tests.doubles.simulated_table import SimulatedTable, TableClient
from tests.doubles.virtual_loop import TICK
from tests.simulation.fleet_log import FleetLog, Turn
from tests.simulation.sharded_stream import ShardedStream

from kinstream.config import Fleet
from kinstream.consume.discover import ShardListing
from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet.held_lease import HeldLease
from kinstream.consume.fleet.holdings import LeaseGone, LeaseGranted, LeaseRevoked, MemberEvent
from kinstream.consume.fleet.known_shards import StreamSource
from kinstream.consume.fleet.member import Member
from kinstream.consume.start import Start
from kinstream.errors import ConfigError, KinesisError, LeaseLost, ServiceUnavailable, UsageError
from kinstream.record import ChildShard

_PROCESS: ContextVar[Process | None] = ContextVar("_PROCESS", default=None)


def track_tasks() -> None:
    """Let each process know its tasks, so that a kill ends them."""

    def create(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        process = _PROCESS.get()
        if process is not None:
            process.tasks[task] = None
            task.add_done_callback(process.tasks.pop)
        return task

    asyncio.get_running_loop().set_task_factory(create)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class Habits:
    """How the consumer side of all processes behaves.

    Attributes:
        work: Seconds of a batch, from and to.
        batch: Maximum records of a batch.
        checkpoint_interval: Seconds between two checkpoints.
        idle_interval: Seconds between two reads of an empty shard.
        hangs: Probability that a handler never returns.
        returns_late: Probability that a handler that hangs blocks the drain too, until the lease is lost.
        listing_fails: Probability that the shards cannot be listed.
        dies_at_end: True to kill the next process that has created the leases of children, before it stores SHARD_END.
    """

    work: tuple[float, float] = (0.01, 0.3)
    batch: int = 10
    checkpoint_interval: float = 3.0
    idle_interval: float = 0.5
    hangs: float = 0.0
    returns_late: float = 0.5
    listing_fails: float = 0.0
    dies_at_end: bool = False


@dataclass
class World:
    """All that the processes of one simulation share."""

    table: SimulatedTable
    stream: ShardedStream
    log: FleetLog
    habits: Habits
    random: random.Random


class SimulatedTenure(Protocol):
    """A tenure of our own member, or of a model of a KCL worker."""

    position: Position

    @property
    def expired(self) -> bool: ...

    async def checkpoint(self, position: Position) -> None: ...

    async def complete(self, children: Sequence[ChildShard]) -> None: ...

    async def end(self, children: Sequence[str]) -> None: ...

    async def release(self, position: Position | None) -> None: ...


class Process:
    """A process with two event loops that can be stopped apart: that of the leases, and that of the application.

    Attributes:
        name: Its name, unique.
        worker_id: Its worker id.
        tasks: Its running tasks, in the order of their creation.
        reading: Its turns.
        leaving: True once it stops in good order.
        over: True once it has ended.
        failure: The error that ended it.
    """

    foreign = False

    def __init__(self, world: World, name: str, worker_id: str | None = None, *, ahead: float = 0.0) -> None:
        self.world = world
        self.name = name
        self.worker_id = worker_id or name
        self.random = random.Random(world.random.getrandbits(64))
        self.gate = Gate()
        self.application_gate = Gate()
        self.clock = GatedClock(self.gate, ahead)
        self.application_clock = GatedClock(self.application_gate, ahead)
        self.client = TableClient(world.table, name, self.gate)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.reading: dict[object, Reading] = {}
        self.leaving = False
        self.over = False
        self.failure: Exception | None = None
        self.started = asyncio.get_running_loop().time()
        self.first_grant: float | None = None
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        token = _PROCESS.set(self)
        self._main = asyncio.create_task(self._run(), name=self.name)
        _PROCESS.reset(token)
        self.world.log.note(f"{self.name} starts")

    @property
    def alive(self) -> bool:
        return not self.over and not self.gate.dead

    async def _run(self) -> None:
        try:
            await self.live()
        finally:
            self.over = True
            self.world.log.stopped.add(self.name)
            self._abandon("ended")
            self.world.log.note(f"{self.name} is over: {self.failure!r}")

    async def live(self) -> None:
        """Join, read, and end."""
        raise NotImplementedError

    def leave(self) -> None:
        """Begin to stop in good order, as after SIGTERM."""
        raise NotImplementedError

    async def wait_until_over(self) -> None:
        if self._main is not None:
            await asyncio.wait([self._main])

    # Faults.

    def kill(self) -> None:
        """End at once, as by SIGKILL. Requests that were sent are executed."""
        self.world.log.note(f"{self.name} is killed")
        self.gate.kill()
        self.application_gate.kill()
        self.over = True
        self.world.log.stopped.add(self.name)
        self._abandon("killed")
        for task in list(self.tasks):
            task.cancel()
        if self.world.table.knows_dead:
            self.world.table.ended.add(self.worker_id)

    def stop(self, *, suspended: bool = False) -> None:
        """Stop as by SIGSTOP, or as the suspension of the machine does."""
        self.world.log.note(f"{self.name} is stopped")
        self.gate.close(suspended=suspended)
        self.application_gate.close(suspended=suspended)
        self.world.log.stopped.add(self.name)
        for reading in self.reading.values():
            if reading.turn.ended is None:
                self.world.log.uncover(reading.turn, "stopped")

    def resume(self) -> None:
        self.world.log.note(f"{self.name} is resumed")
        self.world.log.stopped.discard(self.name)
        if not self.gate.dead:
            self.gate.open()
            self.application_gate.open()
            for reading in self.reading.values():
                self.world.log.resumed(reading.turn)

    def block(self) -> None:
        """Block the event loop of the application. The leases are renewed in another thread."""
        self.world.log.note(f"{self.name} is blocked")
        self.application_gate.close()

    def unblock(self) -> None:
        if not self.application_gate.dead:
            self.application_gate.open()

    def _abandon(self, how: str) -> None:
        for reading in self.reading.values():
            self.world.log.ended(reading.turn, how)

    # The consumer side.

    def grant(self, handle: object, shard_id: str, tenure: SimulatedTenure) -> None:
        """Begin to read a shard."""
        if self.gate.dead:
            return
        now = asyncio.get_running_loop().time()
        if self.first_grant is None:
            self.first_grant = now
        turn = Turn(self.name, self.worker_id, shard_id, now, self.foreign)
        reading = Reading(self, tenure, turn)
        self.reading[handle] = reading
        self.world.log.granted(turn, self.world.stream.shards[shard_id].completed_at(tenure.position))
        asyncio.create_task(reading.run(), name=f"{self.name} reads {shard_id}")  # noqa: RUF006 - tracked

    def revoke(self, handle: object, timeout: float) -> None:
        reading = self.reading.get(handle)
        if reading is not None and not reading.revoked:
            reading.timeout = timeout
            reading.turn.revoked = asyncio.get_running_loop().time()
            reading.revoked = True
            reading.wake()

    def lose(self, handle: object, how: str = "lost") -> None:
        reading = self.reading.get(handle)
        if reading is not None:
            reading.lost = True
            reading.wake()
            self.world.log.ended(reading.turn, how)


class Reading:
    """A script that reads one shard during a tenure."""

    def __init__(self, process: Process, tenure: SimulatedTenure, turn: Turn) -> None:
        self.process = process
        self.tenure = tenure
        self.turn = turn
        self.revoked = False
        self.lost = False
        self.over = False
        self.timeout = 30.0
        self._clock = process.application_clock
        self._log = process.world.log
        self._habits = process.world.habits
        self._shard = process.world.stream.shards[turn.shard_id]
        self._done = self._shard.completed_at(tenure.position)
        self._start = self._stored = self._done
        self._stored_at = self._clock.monotonic()
        self._loop = asyncio.get_running_loop()
        self._changed = False
        self._waiter: asyncio.Future[None] | None = None

    async def run(self) -> None:
        try:
            await self._read()
        except LeaseLost:
            self._log.ended(self.turn, "lost")
        finally:
            self.over = True

    async def _read(self) -> None:
        stream, habits = self.process.world.stream, self._habits
        while not self.lost:
            if self.revoked:
                await self._release()
                return
            available = stream.available(self._shard.id)
            if self.tenure.expired:
                await self._wait(0.5)
            elif self._done < available:
                end = min(available, self._done + habits.batch)
                self._log.begun(self.turn, self._done)
                if not await self._work():
                    return
                self._log.completed(self.turn, self._done, end)
                self._done = end
                await self._checkpoint_sometimes()
            elif self._shard.closed is not None:
                await self._finish()
                return
            else:
                await self._checkpoint_sometimes()
                await self._wait(habits.idle_interval)

    async def _work(self) -> bool:
        """Handle a batch. Returns False if the turn is over, or if its records were given up at the end of a handoff."""
        chance, habits = self.process.random, self._habits
        if habits.hangs and chance.random() < habits.hangs:
            self._log.counts["handlers that hang"] += 1
            while habits.hangs and not self.revoked and not self.lost:
                await self._wait(5.0)
            if self.revoked and chance.random() < habits.returns_late:
                while not self.lost:
                    await self._sleep(1.0)
            elif self.revoked:
                await self._sleep(self.timeout)
                if not self.lost:
                    await self._release()
            return not self.lost and not self.revoked
        await self._sleep(chance.uniform(*habits.work))
        return not self.lost

    async def _checkpoint_sometimes(self) -> None:
        now = self._clock.monotonic()
        if self._done > self._stored and now - self._stored_at >= self._habits.checkpoint_interval:
            self._stored_at = now
            done = self._done
            try:
                await self.tenure.checkpoint(self._shard.after(done))
            except LeaseLost:
                raise
            except (KinesisError, OSError):
                self._log.counts["checkpoints that failed"] += 1
            else:
                self._stored = done
                self._log.checkpointed(self.turn, done)
            await self.process.application_gate.passes()

    async def _finish(self) -> None:
        log, world = self._log, self.process.world
        self.turn.completed = True
        children = [world.stream.shards[child].as_child() for child in self._shard.children]
        announced = children if self.process.random.random() < 0.7 else []
        await self._until_done(lambda: self.tenure.complete(announced))
        if self._habits.dies_at_end and not self.turn.foreign:
            self._habits.dies_at_end = False
            log.counts["deaths before SHARD_END"] += 1
            asyncio.get_running_loop().call_soon(self.process.kill)
            await self._sleep(3600.0)
        await self._until_done(lambda: self.tenure.end([child.shard_id for child in children]))
        log.ended(self.turn, "finished")

    async def _release(self) -> None:
        """Store the last checkpoint and end the turn."""
        self._log.ended(self.turn, "released")
        position = self._shard.after(self._done) if self._done > self._start else None
        await self._until_done(lambda: self.tenure.release(position))
        if not self.lost:
            self._log.checkpointed(self.turn, self._done)

    async def _until_done(self, operation: Any) -> None:
        """Repeat an operation until it succeeds.

        Raises:
            LeaseLost: The turn is over.
        """
        while True:
            try:
                await operation()
            except LeaseLost:
                raise
            except (KinesisError, OSError):
                await self._sleep(self.process.random.uniform(0.05, 0.5))
            else:
                return
            if self.lost:
                return

    async def _wait(self, seconds: float) -> None:
        """Wait until something changes, for a maximum time."""
        if not self._changed:
            self._waiter = waiter = self._loop.create_future()
            timer = self._loop.call_later(max(seconds, TICK), self.wake)
            try:
                await waiter
            finally:
                timer.cancel()
        self._changed = False
        await self.process.application_gate.passes()

    def wake(self) -> None:
        """End a wait, or the next one: a handoff has begun, or the turn is lost."""
        self._changed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the turn is lost."""
        end = self._clock.monotonic() + seconds
        while not self.lost and (left := end - self._clock.monotonic()) > 0:
            if self.revoked:
                await self._clock.sleep(min(left, 0.1) if left > 1 else left)
            else:
                await self._wait(left)


class MemberTenure:
    """A tenure of our own member."""

    def __init__(self, member: Member, held: HeldLease) -> None:
        self.position = held.lease.checkpoint
        self._member = member
        self._held = held

    @property
    def expired(self) -> bool:
        return self._held.expired

    async def checkpoint(self, position: Position) -> None:
        await self._member.checkpoint(self._held, position)

    async def complete(self, children: Sequence[ChildShard]) -> None:
        await self._member.complete(self._held, children)

    async def end(self, children: Sequence[str]) -> None:
        await self._member.end(self._held, children)

    async def release(self, position: Position | None) -> None:
        await self._member.release(self._held, position)


class KinstreamProcess(Process):
    """A process with a member of the library."""

    def __init__(
        self, world: World, name: str, options: Fleet, worker_id: str | None = None, *, ahead: float = 0.0
    ) -> None:
        super().__init__(world, name, worker_id, ahead=ahead)
        self.options = options
        self.client.poll_interval = 0.05 if world.table.knows_dead else 0.5  # as SQLite and DynamoDB
        self.member: Member | None = None
        self.endings: list[str] = []
        self._leave = asyncio.Event()

    async def _list_shards(self) -> ShardListing:
        await self.clock.sleep(self.random.uniform(0.01, 0.1))
        if self.random.random() < self.world.habits.listing_fails:
            raise ServiceUnavailable("InternalFailure", code="InternalFailure")
        return ShardListing(self.world.stream.listed())

    def _heard(self, event: MemberEvent) -> None:
        if self.gate.dead or self.member is None:
            return
        if isinstance(event, LeaseGranted):
            self.grant(event.held, event.held.shard.shard_id, MemberTenure(self.member, event.held))
            if self.leaving:
                self.revoke(event.held, 30.0)
        elif isinstance(event, LeaseRevoked):
            self.revoke(event.held, event.timeout)
        elif isinstance(event, LeaseGone):
            self.lose(event.held)

    async def live(self) -> None:
        while not self.leaving:
            self.member = Member(
                self.client,
                self.worker_id,
                self.options,
                self.clock,
                self.random,
                {None: StreamSource(self._list_shards, Start())},
                self._heard,
            )
            try:
                await self._take_part(self.member)
            except (ConfigError, UsageError) as error:
                self.failure = error
                self._abandon("refused")
                await self.member.stop()
                return
            except KinesisError as error:
                # A supervisor restarts the process.
                self.world.log.counts["processes that failed"] += 1
                self.world.log.note(f"{self.name} fails: {error!r}")
                self._abandon("failed")
                await self.member.stop()
                await self.clock.sleep(self.random.uniform(1, 3))

    async def _take_part(self, member: Member) -> None:
        running = asyncio.create_task(self._begin_and_run(member), name=f"{self.name} runs")
        leaving = asyncio.create_task(self._signalled(), name=f"{self.name} waits")
        try:
            await asyncio.wait([running, leaving], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            await self._stop_in_good_order(member)
        finally:
            for task in (running, leaving):
                task.cancel()
            await asyncio.wait([running, leaving])

    async def _begin_and_run(self, member: Member) -> None:
        await member.begin()
        await member.run()

    async def _signalled(self) -> None:
        """Wait until the process handles a SIGTERM, as a worker does also while it begins."""
        await self._leave.wait()
        await self.gate.passes()
        await self.application_gate.passes()

    async def _stop_in_good_order(self, member: Member) -> None:
        member.leave()
        for handle in list(self.reading):
            self.revoke(handle, self.options.handoff_timeout)
        deadline = self.clock.monotonic() + self.options.handoff_timeout + 5
        while any(not reading.over and not reading.lost for reading in self.reading.values()):
            await self.clock.sleep(0.05)
            if self.clock.monotonic() > deadline:
                break
        self._abandon("given up")
        await member.stop()

    def leave(self) -> None:
        self.world.log.note(f"{self.name} leaves")
        self.leaving = True
        self._leave.set()
