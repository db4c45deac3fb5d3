"""Follow: looks at the stream when that is due, and has the pipeline go by what is seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from kinstream.clock import Clock
from kinstream.errors import KinesisError, NotFound
from kinstream.events import AggregationDisabled, Event, ShardMapRefreshed
from kinstream.produce.batch import Batch, Batcher
from kinstream.produce.entrance import Entrance
from kinstream.produce.expire import ABSENT, NEVER, REFRESH, StallClocks
from kinstream.produce.lane import Lane
from kinstream.produce.learn import Scout, Sight
from kinstream.produce.pending import Aggregate
from kinstream.produce.pump import Pump
from kinstream.produce.report import Reporter
from kinstream.produce.route import Router
from kinstream.produce.settle import Again, hopeless, judge
from kinstream.produce.statistics import Counts
from kinstream.record import PutRecordResult
from kinstream.sharding.shardmap import ShardMap

PATIENCE = 2.0
"""Seconds for which records wait until their shards can be told; from then on they go alone, until they can."""
ABSENT_DELAY = 1.0
"""Seconds between two requests for the description of a stream that is being created or deleted."""
LOOK_AGAIN = 5.0
"""Seconds after which the stream is looked at again, where that failed, or where it may take larger records by now."""

_log = logging.getLogger("kinstream.producer")


class Stray(NamedTuple):
    """An aggregate that a shard took whose range is not known.

    Attributes:
        lane: Where it was.
        aggregate: It.
        result: Where it is.
        looks: How often the stream had been looked at.
    """

    lane: Lane
    aggregate: Aggregate
    result: PutRecordResult
    looks: int


class Unconfirmed(NamedTuple):
    """A request that was refused because the stream was not found, which its description has not confirmed yet.

    Attributes:
        batch: The request.
        error: The refusal.
        parts: Its Kinesis records by lane, to be retried if the stream is there.
        looks: How often the stream had been described.
    """

    batch: Batch
    error: NotFound
    parts: list[Again]
    looks: int


class Judged(Protocol):
    """Settles a stray once it is known whether it is well where it is."""

    def __call__(self, stray: Stray, *, well: bool) -> None: ...  # noqa: D102


class Confirmed(Protocol):
    """Settles a request refused with NotFound once the stream's description has said whether it is there."""

    def __call__(self, refused: Unconfirmed, *, gone: bool) -> None: ...  # noqa: D102


class Follower:
    """Follows a stream through its changes. At most one task of it looks at the stream; it ends when all that is wanted is known.

    Args:
        scout: Looks at the stream.
        router: Goes by the shards.
        batcher: Packs records, where they may be packed.
        entrance: Goes by the limit of a record, and has the records that wait for a first look.
        pump: Starts the task.
        clock: The time.
        counts: Looks are counted there.
        stalls: Has the clock of the records that wait for the stream's description.
        aggregates: Whether records are to be packed where they may be.
        name: The stream's name.
        tell: Told events; None where nobody listens.
        report: Logs looks that failed.
        judged: Settles strays.
        confirmed: Settles requests that were refused because the stream was not found.
        die: Told of an error that nobody foresaw.

    Attributes:
        spreads: True if the stream distributes records itself (RecordDistributionStrategy AUTO), so that none needs a key.
        known: Whether it is known which shard takes which record, or known that it cannot be told.
        hold_until: So long records wait for a first look.
        absent: True while the stream is being created or deleted: nothing is sent.
        unsure: Strays that are not judged yet.
        unconfirmed: Requests refused because the stream was not found, not confirmed yet: nothing is sent.
        looking: The task that looks at the stream.
        trouble: Why the last look failed; "" where it did not.
    """

    def __init__(
        self,
        scout: Scout,
        router: Router,
        batcher: Batcher,
        entrance: Entrance,
        pump: Pump,
        clock: Clock,
        counts: Counts,
        stalls: StallClocks,
        *,
        aggregates: bool,
        name: str,
        tell: Callable[[Event], None] | None,
        report: Reporter,
        judged: Judged,
        confirmed: Confirmed,
        die: Callable[[BaseException], None],
    ) -> None:
        self.spreads: bool = False
        self.known: bool = False
        self.hold_until: float = NEVER
        self.absent: bool = False
        self.unsure: list[Stray] = []
        self.unconfirmed: list[Unconfirmed] = []
        self.looking: asyncio.Task[None] | None = None
        self.trouble: str = ""
        self._scout = scout
        self._router = router
        self._batcher = batcher
        self._entrance = entrance
        self._pump = pump
        self._clock = clock
        self._counts = counts
        self._stalls = stalls
        self._aggregates = aggregates
        self._name = name
        self._tell = tell
        self._report = report
        self._judged = judged
        self._confirmed = confirmed
        self._die = die
        self._looks = 0
        self._look_at = 0.0
        self._outgrown_at = -LOOK_AGAIN
        self._why_single: str | None = None
        entrance.admission.outgrown = self._outgrown

    def holds_back(self, now: float) -> bool:
        """Return whether records wait until their shards are known."""
        return self.absent or (not self.known and now < self.hold_until)

    @property
    def forbids_sending(self) -> bool:
        """True while the stream is not there, as far as is known."""
        return self.absent or bool(self.unconfirmed)

    # When to look.

    @property
    def next_look(self) -> float:
        """When the stream is described again for the records that wait for it; NEVER if none does or a look is running."""
        waits = self.forbids_sending and self._entrance.room.taken_records
        return self._look_at if waits and self.looking is None else NEVER

    def look_if_due(self, now: float) -> None:
        """Refresh the stream's description for the first records, and for records that come after a failed refresh."""
        if self.looking is None and now >= self._look_at and (self._entrance.inbox or now >= self.next_look):
            self._look_at = NEVER
            self.hold_until = now + PATIENCE
            self.look_again()

    def look_again(self) -> None:
        """Look at the stream, because it is not as it was known."""
        if self.looking is None:
            self._start_clock()
            self.looking = self._pump.start(self._learn())

    def _start_clock(self) -> None:
        self._stalls.start(REFRESH, self._clock.monotonic())

    def _note_absence(self) -> None:
        if self.forbids_sending:
            self._stalls.start(ABSENT, self._clock.monotonic())
        else:
            self._stalls.clear(ABSENT)

    def forget(self) -> None:
        """Know nothing of the stream any more: one made anew in its place may have the same shards with other ranges."""
        self.known = self.spreads = False
        self._batcher.aggregating = False
        self._look_at = 0.0

    def judge_later(self, lane: Lane, aggregate: Aggregate, result: PutRecordResult) -> None:
        """Keep an aggregate until it is known whether it is in the right shard."""
        lane.unjudged += 1
        self.unsure.append(Stray(lane, aggregate, result, self._looks))

    def drop(self, stray: Stray) -> None:
        """Forget an aggregate after all of its records were settled."""
        self.unsure.remove(stray)
        stray.lane.unjudged -= 1

    def confirm(self, batch: Batch, error: NotFound, parts: list[Again]) -> None:
        """Keep a request that was refused because the stream was not found until its description has confirmed that."""
        self.unconfirmed.append(Unconfirmed(batch, error, parts, self._looks))
        self._note_absence()
        self.look_again()

    def _outgrown(self) -> None:
        """Look at the stream because a record is larger than it takes, as far as is known. Called in any thread."""
        now = self._clock.monotonic()
        if now - self._outgrown_at >= LOOK_AGAIN:
            self._outgrown_at = now
            self._pump.call(self._look_unless_shut)

    def _look_unless_shut(self) -> None:
        if self._entrance.shut is None:
            self.look_again()

    # What is seen.

    async def _learn(self) -> None:
        """Look at the stream; again and again as long as that fails and records wait for it."""
        try:
            while True:
                self._start_clock()
                self._looks += 1
                error = await self._look()
                self._note_absence()
                if error is None and self.unsure:
                    # A shard that was made and closed again meanwhile is not among the open ones.
                    self._looks += 1
                    try:
                        self._judge(await self._scout.history(), since=self._looks)
                    except KinesisError as problem:
                        error = problem
                        self.trouble = problem.details
                if error is None:
                    self._stalls.clear(REFRESH)
                    if not (self.unsure or self.unconfirmed):
                        break
                else:
                    if not self._entrance.room.taken_records or (hopeless(error) and not self.unconfirmed):
                        self._look_at = self._clock.monotonic() + self._delay
                        break
                    self._pump.schedule()
                    await self._clock.sleep(self._delay)
        except asyncio.CancelledError:
            self._look_at = 0.0
            self._stalls.clear(REFRESH)
            self._pump.pause()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._die(error)
        finally:
            self.looking = None
            self._pump.schedule()

    @property
    def _delay(self) -> float:
        """Seconds between a look that failed and the next one."""
        return ABSENT_DELAY if self.forbids_sending else LOOK_AGAIN

    async def _look(self) -> KinesisError | None:
        """Describe the stream once and apply the result; return why it is incomplete, if it is."""
        look = self._looks
        try:
            sight = await self._scout.look()
        except KinesisError as error:
            self.trouble = error.details
            self._report.looked(error)
            if isinstance(error, NotFound):
                self.absent = self._batcher.aggregating = False
                # If no record was refused for it yet, the records go out to be: only that is final.
                self.known = not self._confirm(look, gone=True)
            elif not (self.known or self.absent):
                self._go_single(f"the stream cannot be described: {error.details}", logged=True)
            return error
        self._report.looked(sight.error)
        self.absent = sight.facts.absent
        self._confirm(look, gone=not sight.facts.status)  # if describing it is denied, nothing contradicts the refusal
        missing = self._saw(sight)
        self.trouble = "" if missing is None else missing.details
        return missing

    def _confirm(self, look: int, *, gone: bool) -> bool:
        """Settle the requests that were refused before the stream was described; return whether there were any."""
        refused = [one for one in self.unconfirmed if one.looks < look]
        self.unconfirmed = [one for one in self.unconfirmed if one.looks >= look]
        for one in refused:
            self._confirmed(one, gone=gone)
        return bool(refused)

    def _saw(self, sight: Sight) -> KinesisError | None:
        """Go by what is known now; return why it is not all that should be."""
        now = self._clock.monotonic()
        facts, shard_map, used = sight.facts, sight.shard_map, self._router.shard_map
        self._entrance.admission.record_limit = self._batcher.record_limit = facts.record_limit
        self.spreads = facts.spreads
        if facts.absent:
            self.known = False
            return sight.error
        if facts.why_single is not None:
            self._go_single(facts.why_single)
        elif shard_map is not None:
            self._why_single = None
            self._batcher.aggregating = self._aggregates
        elif used is None and sight.error is not None:
            self._go_single(f"its shards are not known: {sight.error.details}", logged=True)
        if shard_map is not None:
            self.known = True
            self._counts.shard_map_refreshes += 1
            changed = used is None or shard_map.open != used.open
            if self._tell is not None:
                self._tell(ShardMapRefreshed(len(shard_map.open), changed))
            if changed:
                for lane in self._router.follow(shard_map):
                    self._batcher.touch(lane, now)
        self._judge(self._router.shard_map, all_well=facts.spreads)
        return sight.error

    def _go_single(self, reason: str, *, logged: bool = False) -> None:
        """Send records alone from now on, and say why, once; `logged`: the log has it already."""
        self.known = True
        self._batcher.aggregating = False
        if not self._aggregates or reason == self._why_single:
            return
        self._why_single = reason
        if not logged:
            _log.warning("%s: records are not aggregated: %s", self._name, reason)
        if self._tell is not None:
            self._tell(AggregationDisabled(reason))

    def _judge(self, shard_map: ShardMap | None, *, all_well: bool = False, since: int = 0) -> None:
        """Judge the strays by what is known now.

        Args:
            shard_map: Has the ranges.
            all_well: The stream does not go by hash keys: every shard is right.
            since: Those that were unsure before so many looks are sent again even now: their shard is gone.
        """
        strays, self.unsure = self.unsure, []
        for stray in strays:
            well = all_well or judge(stray.aggregate, stray.result, shard_map)
            if well is None and stray.looks >= since:
                self.unsure.append(stray)
            else:
                stray.lane.unjudged -= 1
                self._judged(stray, well=bool(well))
