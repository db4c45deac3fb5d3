"""Gate of the pipeline: buffers a record immediately if credit is left, otherwise after a wait for space in the buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from threading import get_ident
from typing import Any, NamedTuple

from kinstream.clock import Clock
from kinstream.config import BufferLimits
from kinstream.errors import ClosedError, ConfigError
from kinstream.produce.admit import OVERHEAD, Admission
from kinstream.produce.capacity import Capacity
from kinstream.produce.lane import Lane, count_records
from kinstream.produce.pending import KEYLESS, PendingRecord, settle_waiter
from kinstream.produce.pump import Pump
from kinstream.produce.route import Router
from kinstream.produce_errors import BufferFull
from kinstream.record import Record

CHUNK = 500
"""Records of `put_many` that are admitted at a time."""
INBOX = 2000
"""Maximum records that may be put in one turn of the event loop before the pipeline has its turn."""
WAKE_AT_ONCE = 100
"""Waiting calls of `put` that are admitted at a time to a lane that was saturated."""


class Credit(NamedTuple):
    """Space that is granted in advance, so that records are buffered without a check of each lane.

    Attributes:
        records: Number of records.
        size: Bytes, as the buffer charges them.
    """

    records: int
    size: int


class Gate:
    """Buffers records that are put.

    Args:
        admission: Checks and encodes records.
        buffering: Limits of the buffer.
        router: Has the lanes.
        pump: Schedules a turn once a record is in the inbox.
        route: Moves the records in the inbox to their lanes, if their shards are known.
        clock: Measures time and waits.

    Attributes:
        admission: Checks and encodes records.
        capacity: Space left in the buffer.
        inbox: Records that were put since the last turn.
        saturated: Lanes that accept no records, because they fill half of the buffer.
        closed_by: The error with which records are refused. None while the pipeline is open.
        now: Time of admission of the records that are put before the next turn.
        flush_requested: True if the records that were put are to linger no longer.
    """

    def __init__(
        self,
        admission: Admission,
        buffering: BufferLimits,
        router: Router,
        pump: Pump,
        route: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.admission: Admission = admission
        self.capacity: Capacity = Capacity(buffering)
        self.inbox: list[PendingRecord] = []
        self.saturated: set[Lane] = set()
        self.closed_by: ClosedError | None = None
        self.now: float = 0.0
        self.flush_requested: bool = False
        self._raises_when_full = buffering.when_full == "raise"
        self._router = router
        self._pump = pump
        self._route = route
        self._clock = clock
        self._queues: dict[Lane, deque[asyncio.Future[None]]] = {}  # calls that wait for saturated lanes
        # Credit until the next turn: records, and all free bytes except for the reserve.
        self._credit = 0
        self._reserve = 0
        self._granted = False
        self._thread = 0
        self._max_wait = buffering.max_wait

    @property
    def waiting(self) -> int:
        """Number of calls that wait for space."""
        return len(self.capacity.queue) + sum(map(len, self._queues.values()))

    def offer(self, delivery: PendingRecord) -> bool:
        """Buffer a record if credit is left for it. Return False if not, for `enter` to buffer it when there is space."""
        capacity = self.capacity
        charge = delivery.size + OVERHEAD
        if self._credit > 0 and charge <= capacity.size - self._reserve and get_ident() == self._thread:
            self._credit -= 1
            capacity.records -= 1  # `take` in place: a call would be a large part of a put
            capacity.size -= charge
            self.inbox.append(delivery)
            return True
        return False

    async def enter(self, delivery: PendingRecord) -> None:
        """Buffer a record as soon as there is space."""
        charge = delivery.size + OVERHEAD
        self._pump.check_loop()
        if self._credit < 1 or charge > self.capacity.size - self._reserve:
            await self._wait_for_space(delivery, charge)
        self._credit -= 1
        self.capacity.take(1, charge)
        delivery.admitted = self.now
        self.inbox.append(delivery)

    async def put_many(self, records: Iterable[Any], taken: list[PendingRecord]) -> None:
        """Buffer records, a chunk at a time, as there is space.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs.
            taken: Every record that was buffered is appended, also if an error follows.
        """
        remaining = iterated(records)
        raised: Exception | None = None
        while raised is None:
            chunk, raised = next_chunk(remaining)
            if not chunk:
                break
            self.open()
            deliveries, size, wrong = self.admission.some(chunk, len(taken), self.now)
            charge = size + OVERHEAD * len(deliveries)
            if self._granted and len(deliveries) > self._credit:
                await asyncio.sleep(0)  # the credit of this turn is used up: let the pipeline have its turn
                self.open()
            if len(deliveries) <= self._credit and charge <= self.capacity.size - self._reserve:
                self._credit -= len(deliveries)
                self.capacity.take(len(deliveries), charge)
                self.inbox += deliveries
                taken += deliveries
            else:
                for delivery in deliveries:
                    await self.enter(delivery)
                    taken.append(delivery)
            if wrong is not None:
                raise wrong
        if raised is not None:
            raise raised

    def grant(self) -> Credit:
        """Return the credit for `take`."""
        if self.saturated or self.capacity.queue or self.closed_by is not None:
            return Credit(0, 0)
        records, reserve = self._free_credit()
        return Credit(min(self._credit if self._pump.scheduled else INBOX, records), self.capacity.size - reserve)

    def take(self, deliveries: list[PendingRecord], charge: int) -> None:
        """Buffer admitted records within the credit that was granted. Never waits."""
        self.open()
        self.capacity.take(len(deliveries), charge)
        self._credit -= len(deliveries)
        for delivery in deliveries:
            delivery.admitted = self.now
        self.inbox += deliveries

    def has_space(self, delivery: PendingRecord, records: int, size: int) -> bool:
        """Return True if the buffer has space for a record behind a number of records and bytes that are not in it yet.

        Any thread may call it: it changes nothing.
        """
        fits = self.capacity.fits(records + 1, size + delivery.size + OVERHEAD)
        return fits and self._saturated_lane(delivery) is None

    def open(self) -> None:
        """Check that this event loop may put records now, and schedule the turn that processes them."""
        if self.closed_by is not None:
            raise ClosedError(self.closed_by.details) from self.closed_by.__cause__
        self._pump.check_loop()
        if not self._pump.scheduled:
            self._pump.schedule()

    def before_turn(self) -> None:
        """Grant credit for the records put until the next turn. They count as admitted now."""
        self.now = self._clock.monotonic()
        self._thread = get_ident()  # comparing event loops instead would cost half of a put
        self._credit = self._reserve = 0
        if not (self.saturated or self.capacity.queue or self.closed_by):
            records, self._reserve = self._free_credit()
            self._credit = min(INBOX, records)
        self._granted = self._credit > 0

    def after_turn(self) -> None:
        """Grant no credit until the next turn is scheduled."""
        self._credit = 0

    def request_flush(self) -> None:
        """Let all records that were put linger no longer, once they are in their lanes."""
        self.flush_requested = True

    def take_flush_request(self) -> bool:
        """Return True once after `request_flush`."""
        requested, self.flush_requested = self.flush_requested, False
        return requested

    def keep(self, records: list[PendingRecord]) -> None:
        """Keep only these records in the inbox."""
        self.inbox = records

    def close(self, reason: ClosedError) -> None:
        """Accept no more records, and wake all calls that wait for space."""
        self.closed_by = reason
        self._credit = 0
        for waiter, _ in self.capacity.queue:
            _wake(waiter)
        for queue in self._queues.values():
            for waiter in queue:
                _wake(waiter)

    def check_saturation(self, lanes: Iterable[Lane]) -> None:
        """Check whether lanes that received records are saturated."""
        if len(self._router.lanes) > 1 and self.capacity.half_full:
            for lane in lanes:
                self._check_saturation(lane)

    def wake_waiters(self) -> None:
        """Wake calls that wait for space, up to the space that there is now."""
        if self.capacity.queue:
            self.capacity.wake_waiters()
        for lane in list(self.saturated):
            self._check_saturation(lane)
        for lane, queue in list(self._queues.items()):
            if lane not in self.saturated:
                for waiter in islice(queue, WAKE_AT_ONCE):
                    _wake(waiter)
            if not queue:
                del self._queues[lane]

    def _free_credit(self) -> tuple[int, int]:
        # With several lanes, only a part of the space. One lane must not take all of it before the records are routed.
        return (self.capacity.records, 0) if len(self._router.lanes) < 2 else self.capacity.credit()

    def _check_saturation(self, lane: Lane) -> None:
        saturated = lane.retrying and lane in self.saturated  # records in flight may return to the lane
        if not saturated and len(self._router.lanes) > 1 and self.capacity.half_full:
            # At most half of the buffer, so that a slow shard leaves space for the others.
            waiting = len(lane) + count_records(lane.retries)
            saturated = self.capacity.exceeds_half(waiting, waiting * (lane.average + OVERHEAD))
        if saturated and self._router.has(lane):
            self.saturated.add(lane)
        else:
            self.saturated.discard(lane)

    async def _wait_for_space(self, delivery: PendingRecord, charge: int) -> None:
        """Wait until the buffer has space for a record, behind all calls that waited before."""
        self.open()
        if self._granted and self._credit < 1:
            await asyncio.sleep(0)  # the credit of this turn is used up: let the pipeline have its turn
        came_back = False
        limit = None if self._max_wait is None else self._clock.monotonic() + self._max_wait
        while True:
            self.open()
            if self.inbox and len(self._router.lanes) > 1:
                self._route()  # the number of records in each lane must be current
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue: deque[Any]
            place: Any = waiter
            if not self.capacity.fits(1, charge) or (self.capacity.queue and not came_back):
                queue, place = self.capacity.queue, (waiter, charge)
            elif (lane := self._saturated_lane(delivery)) is not None:
                queue = self._queues.setdefault(lane, deque())
            else:
                return
            if self._raises_when_full:
                raise BufferFull(
                    "put: the buffer is full, because the stream accepts records more slowly than they are put. Put the record"
                    " again later, add shards, or raise BufferLimits.max_records or BufferLimits.max_bytes",
                    delivery.record(),
                )
            (queue.appendleft if came_back else queue.append)(place)
            came_back = True
            self._credit = 0
            try:
                if limit is None:
                    await waiter
                else:
                    async with self._clock.timeout(max(limit - self._clock.monotonic(), 0.0)):
                        await waiter
            except asyncio.CancelledError:
                self._leave(queue, place)
                self.wake_waiters()  # wake the next waiter, in case this one was woken
                raise
            except TimeoutError:
                self._leave(queue, place)
                self.wake_waiters()
                details = (
                    f"put: the buffer had no space for the record within {self._max_wait:g} s (BufferLimits.max_wait), because"
                    " the stream accepts records more slowly than they are put. Put the record again later, add shards, or raise"
                    " max_wait"
                )
                raise BufferFull(details, delivery.record()) from None
            self._leave(queue, place)

    def _leave(self, queue: deque[Any], place: Any) -> None:
        if place in queue:
            queue.remove(place)

    def _saturated_lane(self, delivery: PendingRecord) -> Lane | None:
        """Return the lane of a record if the lane is saturated, else None."""
        if not self.saturated or delivery.partition_key is KEYLESS:
            return None
        lane = self._router.lane_of(delivery)
        return lane if lane in self.saturated else None


def iterated(records: Iterable[Any]) -> Iterator[Any]:
    """Return an iterator of the records given to `put_many`. Raises ConfigError if the argument cannot contain records."""
    if isinstance(records, (str, bytes, bytearray, memoryview, Mapping, Record)) or not isinstance(records, Iterable):
        raise ConfigError(
            f"records: must be an iterable of Records or of (data, partition_key) pairs, not {type(records).__name__}"
        )
    return iter(records)


def next_chunk(records: Iterator[Any]) -> tuple[list[Any], Exception | None]:
    """Return the next records of an iterator, and the exception that it raised after them, if any. At its end, return none."""
    chunk: list[Any] = []
    try:
        chunk.extend(islice(records, CHUNK))
    except Exception as error:  # noqa: BLE001 - it is user code
        return chunk, error
    return chunk, None


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        settle_waiter(waiter)
