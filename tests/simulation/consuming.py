"""One run of a consumer, drawn by a seed: records and reshards while it reads, failures, and the checks afterwards.

Records are written directly to the service, so that all failures affect the consumer. Sometimes it is killed as by SIGKILL:
its later writes to the store are lost, and the next consumer starts from the stored state.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from tests.doubles.kinesis import Kinesis
from tests.doubles.leases import StoreOf
from tests.doubles.network import Faults, Network
from tests.doubles.pushing import PushFaults
from tests.doubles.virtual_loop import LoopClock, VirtualLoop, simulate
from tests.simulation.reader import Reading, hash_key, pack, read

from kinstream import (
    Checkpoints,
    Client,
    Consumer,
    Credentials,
    EnhancedFanOut,
    ErrorPolicy,
    Handling,
    KinesisError,
    Polling,
    ReceivedRecord,
    WireFormat,
)
from kinstream.consume.fetch.position import Position
from kinstream.consume.lease.lease import lease_of
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import Listing, Row, RowKind, Write, Written

STREAM = "orders"

WEATHERS: dict[str, Faults] = {
    "fine": Faults(),
    "cuts": Faults(
        unsent=0.1, cut_before=0.1, cut_after=0.1, latency=(0.001, 0.3), push=PushFaults(cut=0.4, early=0.2)
    ),
    "faults": Faults(broken_before=0.15, broken_after=0.1, throttled=0.15, push=PushFaults(raised=0.6)),
    "strange answers": Faults(truncated=0.1, foreign=0.1, push=PushFaults(damaged=0.3, torn=0.2)),
    "iterators": Faults(iterator=0.3, push=PushFaults(early=0.7)),
    "silence": Faults(black_hole=0.05, loris=0.02, latency=(0.01, 0.5), push=PushFaults(silent=0.4)),
    "everything": Faults(
        unsent=0.04, cut_before=0.04, cut_after=0.04, broken_before=0.04, broken_after=0.04, throttled=0.06,
        truncated=0.04, foreign=0.04, iterator=0.05, black_hole=0.02, loris=0.01, expired=0.03,
        push=PushFaults(cut=0.1, torn=0.1, damaged=0.1, silent=0.1, raised=0.1, early=0.1),
    ),
}  # fmt: skip
FACES = ["iterate", "batches", "run", "run_batches"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Parameters of one simulation."""

    seed: int
    shards: int = 2
    records: int = 200
    keys: int = 10
    reshards: int = 3
    transition: float = 0.0
    aggregated: float = 0.5
    """How likely a put is an aggregate."""
    stray: float = 0.05
    """Probability that an aggregate goes to a shard that does not own all of its records."""
    pause: float = 0.1
    """Seconds between puts, about."""
    face: str = "iterate"
    manual: bool = False
    handling: Handling = field(default_factory=Handling)
    fetch: Polling | EnhancedFanOut = field(default_factory=Polling)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    work: float = 0.0
    """Seconds that a record's work takes, about."""
    fails: float = 0.0
    """How likely a record's work fails, each time."""
    store_fails: float = 0.0
    """How likely a write to the store fails, or seems to."""
    kills: int = 0
    outages: int = 0
    """Times of more than five minutes in which nothing goes through: iterators expire."""
    weather: str = "fine"
    wire_format: str = "json"
    quotas: bool = True
    ahead: float = 0.0
    signed: bool = False


def draw(seed: int, **fixed: Any) -> Plan:
    """Return the plan of a seed; `fixed` members are not drawn."""
    chance = random.Random(seed * 7907 + 3)
    pick = chance.choice
    face = pick(FACES)
    plan = Plan(
        seed=seed,
        shards=pick([1, 1, 2, 5]),
        records=pick([50, 200, 400]),
        keys=pick([1, 5, 30]),
        reshards=pick([0, 2, 6, 15]),
        transition=pick([0.0, 0.0, 1.0]),
        aggregated=pick([0.0, 0.5, 1.0]),
        stray=pick([0.0, 0.1]),
        pause=pick([0.0, 0.05, 0.3]),
        face=face,
        manual=chance.random() < 0.2,
        handling=Handling(
            concurrency=pick([1, 1, 4, 50]) if face == "run" else 1,
            max_batch_records=pick([10_000, 7]),
            read_ahead_bytes=pick([64 << 20, 64 << 10]),
        ),
        fetch=Polling(max_records=pick([10_000, 3, 50]), idle_interval=pick([1.0, 0.3])),
        checkpoints=Checkpoints(interval=pick([5.0, 0.1])),
        work=pick([0.0, 0.0, 0.01, 0.3]),
        fails=pick([0.0, 0.0, 0.1]) if face.startswith("run") else 0.0,
        store_fails=pick([0.0, 0.0, 0.2]),
        kills=pick([0, 0, 1, 4]),
        outages=pick([0, 0, 0, 1]),
        weather=pick(list(WEATHERS)),
        wire_format=pick(["json", "cbor"]),
        quotas=pick([True, True, False]),
        ahead=pick([0.0] * 5 + [900.0, -86_400.0]),
        signed=seed % 10 == 0,
    )
    return replace(plan, **fixed)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened.

    Attributes:
        kind: "began" or "done" (a record's work), or "wrote" (a checkpoint).
        life: Which worker's; the first is 0.
        position: Of a checkpoint; None at a shard's end.
    """

    kind: str
    life: int
    when: float
    shard_id: str
    place: tuple[int, int] | None
    number: int = -1


@dataclass
class Story:
    """Results of one simulation."""

    plan: Plan
    steps: list[Step]
    reading: Reading
    parents: dict[str, list[str]]
    network: Network
    ended: float
    turns: int
    events: Counter[str]
    endings: Counter[str]
    lives: int


class SpiedTable(MemoryLeaseTable):
    """The leases of all workers, one after another; it notes each checkpoint, and fails as planned."""

    def __init__(self, life: Life) -> None:
        super().__init__(clock=LoopClock())
        self._life = life
        self._random = random.Random(life.plan.seed)

    async def list(self) -> Listing:
        self._fail()
        return await super().list()

    def _fail(self) -> None:
        if self._random.random() < self._life.plan.store_fails:
            raise OSError("the store failed: it was drawn")

    async def write(self, write: Write) -> Written:
        before = await self.get(RowKind.LEASE, write.key)
        self._fail()
        written = await super().write(write)
        if written.applied and before is not None and written.row is not None and write.kind is RowKind.LEASE:
            stored, position = lease_of(before).checkpoint, lease_of(written.row).checkpoint
            if position != stored:
                self._life.note("wrote", write.key, None if position.ended else place_of(position))
        self._fail()  # written, and yet it failed
        return written


class DeadTable(MemoryLeaseTable):
    """Lease table of a killed worker. Writes have no effect."""

    async def write(self, write: Write) -> Written:
        raise OSError("the worker was killed")


class WorkerTable(MemoryLeaseTable):
    """The table as one worker reaches it, until it is killed. The next worker knows that it has ended.

    Args:
        table: The table of all workers.
        killed: Ids of killed workers.
    """

    poll_interval = 0.5  # as in DynamoDB

    def __init__(self, table: MemoryLeaseTable, killed: set[str]) -> None:
        super().__init__(clock=LoopClock())
        self._target = table
        self._killed = killed
        self._worker_id = ""

    def kill(self) -> None:
        """Let no write arrive any more."""
        self._target = DeadTable()
        self._killed.add(self._worker_id)

    async def open(self, worker_id: str) -> None:
        self._worker_id = worker_id

    async def list(self) -> Listing:
        await asyncio.sleep(0.002)
        return await self._target.list()

    async def get(self, kind: RowKind, key: str) -> Row | None:
        await asyncio.sleep(0.002)
        return await self._target.get(kind, key)

    async def owned(self, owner: str) -> frozenset[str] | None:
        await asyncio.sleep(0.002)
        return await self._target.owned(owner)

    async def write(self, write: Write) -> Written:
        await asyncio.sleep(0.002)
        return await self._target.write(write)

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        return workers & self._killed


def live(plan: Plan) -> Story:
    """Live a plan."""
    return simulate(lambda: Life(plan).live(), seed=plan.seed, lasts=20_000)


class Life:
    """The consumers of a plan, one after another, and all that happens to them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = random.Random(plan.seed)
        self.service = Kinesis(
            LoopClock(), quotas=plan.quotas, transition=plan.transition, signed=plan.signed or plan.ahead != 0
        )
        self.service.ask("CreateStream", StreamName=STREAM, ShardCount=plan.shards)
        faults = WEATHERS[plan.weather]
        nothing = Faults(unsent=0.5, black_hole=0.5)
        starts = [self.random.uniform(1, 30) + 400 * number for number in range(plan.outages)]
        self.over = starts[-1] + 350 if starts else 0.0
        self.network = Network(
            self.service,
            plan.seed,
            lambda now, operation: nothing if any(start <= now < start + 350 for start in starts) else faults,
        )
        self.table = SpiedTable(self)
        self.killed: set[str] = set()
        self.steps: list[Step] = []
        self.lives = 0
        self.endings: Counter[str] = Counter()
        self.all_is_done = False
        self.dead = False
        self.done: set[int] = set()
        self.events: Counter[str] = Counter()
        self.written = 0
        self.strays: set[int] = set()
        self.in_work: set[tuple[str, str | None]] = set()

    def note(self, kind: str, shard_id: str, place: tuple[int, int] | None, number: int = -1) -> None:
        if not self.dead:
            now = asyncio.get_running_loop().time()
            self.steps.append(Step(kind, self.lives, now, shard_id, place, number))

    def observe(self, event: object) -> None:
        self.events[type(event).__name__] += 1

    async def live(self) -> Story:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if self.plan.transition:
            await asyncio.sleep(self.plan.transition + 0.1)
        writing = asyncio.create_task(self.write())
        kills = self.plan.kills
        while not self.all_is_done:
            self.dead = False
            self.in_work.clear()
            table = WorkerTable(self.table, self.killed)
            consumer = self.consumer(StoreOf(table))
            working = asyncio.create_task(self.use(consumer))
            if kills:
                kills -= 1
                await asyncio.wait([working], timeout=self.random.expovariate(1 / 10))
                self.dead = True
                table.kill()
            else:
                await self.wait_until_all_is_done(writing, working)
            await self.end(working, consumer)
            self.lives += 1
            assert self.lives < 300, f"it ends again and again: {self.endings}"
        self.dead = True
        await writing
        await self.network.calm()
        shards = self.service.shards(STREAM)
        names = [shard.id for shard in shards]
        parents = {
            shard.id: [names[index] for index in (shard.parent, shard.adjacent) if index is not None]
            for shard in shards
        }
        reading = read(self.service.written(STREAM), shards)
        return Story(
            self.plan,
            self.steps,
            reading,
            parents,
            self.network,
            loop.time(),
            loop.turns,
            self.events,
            self.endings,
            self.lives,
        )

    async def end(self, working: asyncio.Task[None], consumer: Consumer) -> None:
        """End a worker that was killed or has done all, or look at why it ended by itself."""
        if working.done() and not working.cancelled() and (error := working.exception()) is not None:
            # Such as a service that is out of reach at the start. A supervisor would restart the worker.
            if not isinstance(error, (KinesisError, OSError)):
                raise error
            self.endings[f"{type(error).__name__} of {type(error.__cause__).__name__}"] += 1
            await asyncio.sleep(5)
        working.cancel()
        with suppress(asyncio.CancelledError, KinesisError, OSError):
            await working
        with suppress(KinesisError, OSError):
            await consumer.close()
        await consumer.client.close()

    def consumer(self, store: StoreOf) -> Consumer:
        plan = self.plan
        client = Client(
            region="us-east-1",
            credentials=fresh_credentials,
            endpoint_url="http://127.0.0.1:1",
            wire_format=WireFormat(plan.wire_format),
            clock=LoopClock(plan.ahead),
            transport=self.network.connect(),
        )
        return Consumer(
            STREAM,
            application="billing",
            lease_store=store,
            fetch=plan.fetch,
            handling=plan.handling,
            errors=ErrorPolicy(max_attempts=100, initial_delay=0.01, max_delay=0.1),
            checkpoints="manual" if plan.manual else plan.checkpoints,
            observer=self.observe,
            client=client,
        )

    async def wait_until_all_is_done(self, writing: asyncio.Task[None], working: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while not working.done():
            await asyncio.sleep(1)
            if writing.done() and len(self.done) == self.written:
                await asyncio.sleep(12)  # time for duplicates to arrive
                self.all_is_done = True
                return
            if loop.time() > self.over + 4000:
                self.all_is_done = True  # it is not; the checks will say so
                return

    async def use(self, consumer: Consumer) -> None:
        """Read with the face that was drawn."""
        face, manual = self.plan.face, self.plan.manual
        count = 0
        if face == "run":
            await consumer.run(self.work_and_checkpoint if manual else self.work)
        elif face == "run_batches":
            await consumer.run_batches(self.work_batch)
        elif face == "iterate":
            async for record in consumer:
                await self.work(record)
                count += 1
                if manual and count % 7 == 0:
                    await self.persist(record, record.checkpoint)
        else:
            async for batch in consumer.batches():
                await self.work_batch(batch)

    async def work_batch(self, batch: Any) -> None:
        if self.random.random() < self.plan.fails:
            raise ValueError("the work failed: it was drawn")
        for record in batch:
            assert record.shard_id == batch.shard_id
            await self.work(record)
        if self.plan.manual:
            await self.persist(batch[-1], batch.checkpoint)

    async def work_and_checkpoint(self, record: ReceivedRecord[bytes]) -> None:
        await self.work(record)
        if self.random.random() < 0.2 and self.plan.handling.concurrency == 1:
            await self.persist(record, record.checkpoint)

    async def persist(self, record: ReceivedRecord[bytes], checkpoint: Callable[[], Any]) -> None:
        """Checkpoint, and retry if the store fails."""
        self.note("asked", record.shard_id, (int(record.sequence_number), record.subsequence_number or 0))
        while not self.dead:
            with suppress(KinesisError, OSError):
                await checkpoint()
                return
            await asyncio.sleep(0.1)

    async def work(self, record: ReceivedRecord[bytes]) -> None:
        number = int(record.data.partition(b"|")[0])
        place = int(record.sequence_number), record.subsequence_number or 0
        key = (record.shard_id, record.partition_key)
        assert key not in self.in_work, f"two records of {key} at once"
        self.note("began", record.shard_id, place, number)
        self.in_work.add(key)
        try:
            if self.plan.work and self.random.random() < 0.3:
                await asyncio.sleep(self.random.expovariate(1 / self.plan.work))
            if self.plan.face == "run" and self.random.random() < self.plan.fails:
                raise ValueError("the work failed: it was drawn")
        finally:
            self.in_work.discard(key)
        self.note("done", record.shard_id, place, number)
        if not self.dead:
            self.done.add(number)

    async def write(self) -> None:
        """Write records in order, and reshard in between."""
        plan, chance = self.plan, random.Random(self.plan.seed * 1013)
        reshards = sorted(chance.randrange(plan.records) for _ in range(plan.reshards))
        number = 0
        while number < plan.records:
            while reshards and reshards[0] <= number:
                reshards.pop(0)
                self.service.reshard(STREAM, chance)
            stream = self.service.stream(STREAM)
            records: list[tuple[str, bytes]] = []
            shard = None
            most = chance.randrange(1, 12) if chance.random() < plan.aggregated else 1
            stray = chance.random() < plan.stray
            while len(records) < most and number < plan.records:
                key = f"k{chance.randrange(plan.keys)}"
                home = bisect_left(stream.ends, hash_key(key, None))
                if shard is None:
                    shard = home
                if home != shard and not stray:
                    break
                records.append((key, b"%d|" % number + bytes(chance.randrange(50))))
                number += 1
            out = any(bisect_left(stream.ends, hash_key(key, None)) != shard for key, _ in records)
            assert shard is not None
            if len(records) == 1:
                ((key, data),) = records
                self.service.ask("PutRecord", StreamName=STREAM, PartitionKey=key, Data=data)
            else:
                start = str(int.from_bytes(stream.open[shard].start, "big"))
                self.service.ask(
                    "PutRecord", StreamName=STREAM, PartitionKey="a", ExplicitHashKey=start, Data=pack(records)
                )
            if out:
                self.strays |= {int(data.partition(b"|")[0]) for _, data in records}
            else:
                self.written += len(records)
            if plan.pause:
                await asyncio.sleep(chance.expovariate(1 / plan.pause))


async def fresh_credentials() -> Credentials:
    """Return credentials from a slow source."""
    await asyncio.sleep(0.3)
    return Credentials("local", "local", str(random.random()))


def place_of(position: Position) -> tuple[int, int] | None:
    """Return a checkpoint as the place of the last record that it says is done."""
    if not position.is_number:
        return (-1, 0)
    subsequence = position.subsequence_number
    return int(position.sequence_number), 2**30 if subsequence is None else subsequence


# Invariants. Each raises AssertionError with the violation.


def nothing_is_lost(story: Story) -> None:
    done = {step.number for step in story.steps if step.kind == "done"}
    missing = [number for number in map(number_of, story.reading.seen) if number not in done]
    assert not missing, f"{len(missing)} records were never handled, such as {missing[0]}; at {story.ended:.0f} s"


def what_no_kcl_reader_sees_is_not_handed_on(story: Story) -> None:
    seen = set(map(number_of, story.reading.seen))
    assert not [step for step in story.steps if step.number >= 0 and step.number not in seen]


def each_comes_once(story: Story) -> None:
    """If the worker is never killed, no record is handled twice."""
    if story.lives > 1:
        return
    twice = [
        number for number, count in Counter(s.number for s in story.steps if s.kind == "done").items() if count > 1
    ]
    assert not twice, f"{len(twice)} records came twice, such as {twice[0]}"


def order_of_each_key_is_kept(story: Story) -> None:
    """Of each key, records are handled in order; after a kill, from some earlier record on again."""
    keys = {number_of(one): one.partition_key for one in story.reading.seen}
    first: dict[int, int] = {}
    for index, step in enumerate(story.steps):
        if step.kind == "began":
            first.setdefault(step.number, index)
    newest: dict[str, int] = {}
    for number in sorted(first, key=first.__getitem__):
        key = keys[number]
        before = newest.get(key, -1)
        assert before < number, f"key {key}: record {number} is handled after record {before}"
        newest[key] = number
    for life in range(story.lives):  # and within each life without exception
        newest = {}
        for step in story.steps:
            if step.kind == "done" and step.life == life:
                key = keys[step.number]
                assert newest.get(key, -1) < step.number, f"life {life}, key {key}: {step.number} after {newest[key]}"
                newest[key] = step.number


def parents_come_before_children(story: Story) -> None:
    of_shard: dict[str, set[int]] = {}
    for one in story.reading.seen:
        of_shard.setdefault(one.shard_id, set()).add(number_of(one))
    done: set[int] = set()
    for step in story.steps:
        if step.kind == "done":
            done.add(step.number)
        elif step.kind == "began":
            for parent in story.parents[step.shard_id]:
                early = of_shard.get(parent, set()) - done
                assert not early, f"{step.shard_id} is read before {parent} is done: {sorted(early)[:3]} are left"


def checkpoints_follow_the_work(story: Story) -> None:
    """No checkpoint lies beyond unfinished work, and none goes back."""
    places: dict[str, list[tuple[int, int]]] = {}
    for one in story.reading.seen:
        places.setdefault(one.shard_id, []).append((int(one.sequence_number), one.subsequence_number or 0))
    done: dict[str, set[tuple[int, int]]] = {}
    newest: dict[str, tuple[int, int]] = {}
    for step in story.steps:
        if step.kind == "done":
            assert step.place is not None
            done.setdefault(step.shard_id, set()).add(step.place)
        elif step.kind == "wrote":
            place = (2**200, 0) if step.place is None else step.place
            assert newest.get(step.shard_id, (-2, 0)) <= place, f"{step.shard_id}: a checkpoint goes back"
            newest[step.shard_id] = place
            finished = done.get(step.shard_id, set())
            left = [one for one in places.get(step.shard_id, []) if one <= place and one not in finished]
            assert not left, f"{step.shard_id}: a checkpoint lies beyond {len(left)} records that are not done"


def by_hand_no_checkpoint_is_beyond_what_was_asked_for(story: Story) -> None:
    if not story.plan.manual:
        return
    last: dict[str, tuple[int, int]] = {}
    for one in story.reading.seen:
        place = int(one.sequence_number), one.subsequence_number or 0
        last[one.shard_id] = max(last.get(one.shard_id, place), place)
    asked: dict[str, tuple[int, int]] = {}
    for step in story.steps:
        if step.kind == "asked":
            assert step.place is not None
            asked[step.shard_id] = max(asked.get(step.shard_id, step.place), step.place)
        elif step.kind == "wrote":
            place = last.get(step.shard_id, (-1, 0)) if step.place is None else step.place
            assert place <= asked.get(step.shard_id, (-1, 0)), (
                f"{step.shard_id}: the application never requested this checkpoint"
            )


CHECKS: list[Callable[[Story], None]] = [
    nothing_is_lost,
    what_no_kcl_reader_sees_is_not_handed_on,
    each_comes_once,
    order_of_each_key_is_kept,
    parents_come_before_children,
    checkpoints_follow_the_work,
    by_hand_no_checkpoint_is_beyond_what_was_asked_for,
]


def number_of(one: Any) -> int:
    """Return which record this is."""
    return int(one.data.partition(b"|")[0])
