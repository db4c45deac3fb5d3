"""Entrance: how a record gets in: at once nearly always, else after a wait for room in the buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from threading import get_ident
from typing import Any

from kinstream.clock import Clock
from kinstream.config import BufferLimits
from kinstream.errors import BufferFull, ClosedError, ConfigError
from kinstream.produce.admit import OVERHEAD, Admission
from kinstream.produce.lane import Lane, count_records
from kinstream.produce.pending import KEYLESS, PendingRecord, settle_waiter
from kinstream.produce.pump import Pump
from kinstream.produce.room import Room
from kinstream.produce.route import Router

CHUNK = 500
"""So many records of `put_many` are admitted at a time."""
INBOX = 2000
"""So many records may be put in one turn of the event loop; then it is the pipeline's turn."""
LET_IN = 100
"""So many calls of `put` are let into a lane at a time that had too much in it."""


class Entrance:
    """Takes records in.

    Args:
        buffering: How much is held.
        router: Has the lanes.
        pump: Told when there is anything in the inbox.
        route: Puts what is in the inbox into the lanes, if their shards are known.
        clock: The time.

    Attributes:
        admission: Makes deliveries of what is put.
        room: What the buffer still takes.
        inbox: Records that came since the last turn.
        crowded: Lanes that take no more for now.
        shut: Why nothing is taken in any more.
        now: When a record is admitted that is put before the next turn.
    """

    def __init__(
        self,
        buffering: BufferLimits,
        router: Router,
        pump: Pump,
        route: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.admission: Admission = Admission(buffering)
        self.room: Room = Room(buffering)
        self.inbox: list[PendingRecord] = []
        self.crowded: set[Lane] = set()
        self.shut: ClosedError | None = None
        self.now: float = 0.0
        self._raises_when_full = buffering.when_full == "raise"
        self._router = router
        self._pump = pump
        self._route = route
        self._clock = clock
        self._queued: set[Lane] = set()
        # What may be put before the next turn without a closer look: records; and bytes, but for the reserve.
        self._express = 0
        self._reserve = 0
        self._lent = False
        self._thread = 0
        self._max_wait = buffering.max_wait

    @property
    def waiting(self) -> int:
        """How many calls wait for room."""
        return len(self.room.queue) + sum(len(lane.queue) for lane in self._queued)

    def offer(self, delivery: PendingRecord) -> bool:
        """Buffer a record if credit is left for it; return False if not, for `enter` to buffer it when there is space."""
        room = self.room
        charge = delivery.size + OVERHEAD
        if self._express > 0 and charge <= room.size - self._reserve and get_ident() == self._thread:
            self._express -= 1
            room.records -= 1
            room.size -= charge
            self.inbox.append(delivery)
            return True
        return False

    async def enter(self, delivery: PendingRecord) -> None:
        """Take a record in as soon as there is room."""
        charge = delivery.size + OVERHEAD
        self._pump.check_loop()
        if self._express < 1 or charge > self.room.size - self._reserve:
            await self._wait_for_room(delivery, charge)
        self._express -= 1
        self.room.take(1, charge)
        delivery.admitted = self.now
        self.inbox.append(delivery)

    async def put_many(self, records: Iterable[Any]) -> list[PendingRecord]:
        """Take records in, a part at a time, as there is room."""
        remaining = iterated(records)
        taken: list[PendingRecord] = []
        raised: Exception | None = None
        while raised is None:
            chunk, raised = next_chunk(remaining)
            if not chunk:
                break
            self.open()
            deliveries, size, wrong = self.admission.some(chunk, len(taken), self.now)
            charge = size + OVERHEAD * len(deliveries)
            if self._lent and len(deliveries) > self._express:
                await asyncio.sleep(0)  # so much was put in one go: now it is the event loop's turn
                self.open()
            if len(deliveries) <= self._express and charge <= self.room.size - self._reserve:
                self._express -= len(deliveries)
                self.room.take(len(deliveries), charge)
                self.inbox += deliveries
            else:
                for delivery in deliveries:
                    await self.enter(delivery)
            taken += deliveries
            if wrong is not None:
                raise wrong
        if raised is not None:
            raise raised
        return taken

    def lend(self) -> tuple[int, int]:
        """Return how many records, and bytes as the buffer charges them, `take` may take in without a closer look."""
        if self.crowded or self.room.queue or self.shut is not None:
            return 0, 0
        records, reserve = self._at_once()
        return min(self._express if self._pump.scheduled else INBOX, records), self.room.size - reserve

    def take(self, deliveries: list[PendingRecord], charge: int) -> None:
        """Take in admitted records that keep to what was lent. Never waits."""
        self.open()
        self.room.take(len(deliveries), charge)
        self._express -= len(deliveries)
        for delivery in deliveries:
            delivery.admitted = self.now
        self.inbox += deliveries

    def has_space(self, delivery: PendingRecord, records: int, size: int) -> bool:
        """Return True if the buffer has space for a record behind a number of records and bytes that are not in it yet.

        Any thread may call it: it changes nothing.
        """
        fits = self.room.fits(records + 1, size + delivery.size + OVERHEAD)
        return fits and self._crowded_lane(delivery) is None

    def open(self) -> None:
        """Check that records may be put here and now, and see to it that what is put is looked at."""
        if self.shut is not None:
            raise ClosedError(self.shut.details) from self.shut.__cause__
        self._pump.check_loop()
        if not self._pump.scheduled:
            self._pump.schedule()

    def before_turn(self) -> None:
        """Grant credit for the records put until the next turn. They count as admitted now."""
        self.now = self._clock.monotonic()
        self._thread = get_ident()  # to ask for the event loop itself would cost half as much as a put
        self._express = self._reserve = 0
        if not (self.crowded or self.room.queue or self.shut):
            records, self._reserve = self._at_once()
            self._express = min(INBOX, records)
        self._lent = self._express > 0

    def after_turn(self) -> None:
        """Lend nothing until the next turn is ordered."""
        self._express = 0

    def close(self, reason: ClosedError) -> None:
        """Take nothing more, and let all who wait for room know."""
        self.shut = reason
        self._express = 0
        for waiter, _ in self.room.queue:
            _let(waiter)
        for lane in self._queued:
            for waiter in lane.queue:
                _let(waiter)

    def look_at(self, lanes: Iterable[Lane]) -> None:
        """Look at lanes that have got records: too much may wait there for more to be let in."""
        if len(self._router.lanes) > 1 and self.room.half_full:
            for lane in lanes:
                self._look_at(lane)

    def let_in(self) -> None:
        """Let in those who waited for room, as far as there is some now."""
        if self.room.queue:
            self.room.let_in()
        for lane in list(self.crowded):
            self._look_at(lane)
        for lane in list(self._queued):
            if lane not in self.crowded:
                for waiter in islice(lane.queue, LET_IN):
                    _let(waiter)
            if not lane.queue:
                self._queued.discard(lane)

    def _at_once(self) -> tuple[int, int]:
        # With several lanes only a part of the room: no lane may take all of it before it is known how the records are spread.
        return (self.room.records, 0) if len(self._router.lanes) < 2 else self.room.at_once()

    def _look_at(self, lane: Lane) -> None:
        crowded = lane.retrying and lane in self.crowded  # what made it so may come back
        if not crowded and len(self._router.lanes) > 1 and self.room.half_full:
            # No more than half of the buffer, so that a slow shard leaves space for the others.
            waiting = len(lane) + count_records(lane.again)
            crowded = self.room.half_taken_by(waiting, waiting * (lane.average + OVERHEAD))
        if crowded and self._router.has(lane):
            self.crowded.add(lane)
        else:
            self.crowded.discard(lane)

    async def _wait_for_room(self, delivery: PendingRecord, charge: int) -> None:
        """Wait until there is room for a record, and it is its turn."""
        self.open()
        if self._lent and self._express < 1:
            await asyncio.sleep(0)  # so much was put in one go: now it is the event loop's turn
        came_back = False
        limit = None if self._max_wait is None else self._clock.monotonic() + self._max_wait
        while True:
            self.open()
            if self.inbox and len(self._router.lanes) > 1:
                self._route()  # what each lane has must be known now
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue: deque[Any]
            place: Any = waiter
            if not self.room.fits(1, charge) or (self.room.queue and not came_back):
                queue, place = self.room.queue, (waiter, charge)
            elif (lane := self._crowded_lane(delivery)) is not None:
                queue = lane.queue
                self._queued.add(lane)
            else:
                return
            if self._raises_when_full:
                raise BufferFull(
                    "put: the buffer is full (Buffering): the stream accepts records more slowly than they are put; put it again"
                    " later, add shards, or enlarge the buffer",
                    delivery.record(),
                )
            (queue.appendleft if came_back else queue.append)(place)
            came_back = True
            self._express = 0
            try:
                if limit is None:
                    await waiter
                else:
                    async with self._clock.timeout(max(limit - self._clock.monotonic(), 0.0)):
                        await waiter
            except asyncio.CancelledError:
                self._leave(queue, place)
                self.let_in()  # if it was its turn, the next has it
                raise
            except TimeoutError:
                self._leave(queue, place)
                self.let_in()
                details = (
                    f"put: the buffer had no space for the record within {self._max_wait:g} s (BufferLimits.max_wait): the stream"
                    " accepts records more slowly than they are put; put it again later, add shards, or raise max_wait"
                )
                raise BufferFull(details, delivery.record()) from None
            self._leave(queue, place)

    def _leave(self, queue: deque[Any], place: Any) -> None:
        if place in queue:
            queue.remove(place)

    def _crowded_lane(self, delivery: PendingRecord) -> Lane | None:
        """Return the lane that a record must wait for, because too much waits there already."""
        if not self.crowded or delivery.partition_key is KEYLESS:
            return None
        lane = self._router.lane_of(delivery)
        return lane if lane in self.crowded else None


def iterated(records: Iterable[Any]) -> Iterator[Any]:
    """Return an iterator of what was given as records. Raises ConfigError where it cannot be any."""
    if isinstance(records, (str, bytes, bytearray, memoryview, dict)) or not isinstance(records, Iterable):
        raise ConfigError(
            f"records: must be an iterable of Records or of (data, partition_key) pairs, not {type(records).__name__}"
        )
    return iter(records)


def next_chunk(records: Iterator[Any]) -> tuple[list[Any], Exception | None]:
    """Return the next records of an iterator, none at its end; and what it raised after them."""
    chunk: list[Any] = []
    try:
        chunk.extend(islice(records, CHUNK))
    except Exception as error:  # noqa: BLE001 - it is anybody's code
        return chunk, error
    return chunk, None


def _let(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        settle_waiter(waiter)
