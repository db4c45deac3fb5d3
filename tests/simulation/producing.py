"""One run of a producer, drawn by a seed: the records, the failures, and the checks afterwards.

`draw` creates a plan from a seed, and `live` runs it on a virtual clock. The checks compare the requests as the service saw
them (`Network.trips`), the records that a reader gets from the stream, and the results that the caller got.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from typing import Any

from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Fate, Faults, Network, Trip
from tests.doubles.virtual_loop import LoopClock, VirtualLoop, simulate
from tests.simulation.reader import Reading, Seen, pack, read, unpack

from kinstream import Client, Credentials, Producer, Record, WireFormat
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.errors import RequestTimedOut
from kinstream.produce.delivery import Delivery
from kinstream.produce_errors import BufferFull, OrderBroken, ProduceError, Undelivered
from kinstream.record import PutResult
from kinstream.sharding.hashkey import hash_key_bytes

STREAM = "orders"
MIB = 2**20
CLOSING = 0.5
"""Seconds by which a close may last longer than its timeout."""
SLACK = 0.1
"""Seconds by which a record may outlast its timeout."""
SIGNING = 1.0
"""Seconds that may pass between a request's start, credentials included, and its way to the service."""

WEATHERS: dict[str, Faults] = {
    "fine": Faults(),
    "partial": Faults(partial=0.8, entry=0.3),
    "partial, nearly all": Faults(partial=0.6, entry=0.9),
    "partial, hardly any": Faults(partial=0.5, entry=0.01),
    "cuts": Faults(unsent=0.1, cut_before=0.1, cut_after=0.15, late=0.05, latency=(0.001, 0.2)),
    "faults": Faults(broken_before=0.15, broken_after=0.15, throttled=0.15),
    "strange answers": Faults(miscounted=0.1, truncated=0.1, foreign=0.1),
    "silence": Faults(black_hole=0.1, loris=0.03, latency=(0.01, 0.5)),
    "everything": Faults(
        unsent=0.03, cut_before=0.03, cut_after=0.03, late=0.03, broken_before=0.03, broken_after=0.03, throttled=0.05,
        partial=0.2, miscounted=0.02, truncated=0.02, foreign=0.02, black_hole=0.02, loris=0.01, expired=0.02,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Parameters of one life."""

    seed: int
    shards: int = 3
    records: int = 200
    keys: int = 10
    putters: int = 3
    order: str | None = None
    aggregate: Aggregation | None = field(default_factory=Aggregation)
    batch: Batching = field(default_factory=Batching)
    rate_limits: RateLimits | None = field(default_factory=RateLimits)
    buffer: BufferLimits = field(default_factory=BufferLimits)
    delivery: DeliveryPolicy = field(default_factory=DeliveryPolicy)
    wire_format: str = "json"
    weather: str = "fine"
    reshards: int = 0
    transition: float = 0.0
    quotas: bool = True
    largest: int = 300
    pause: float = 0.01
    """Seconds between a putter's puts, about."""
    ahead: float = 0.0
    """Seconds by which the client's clock is wrong."""
    signed: bool = False
    keyless: bool = False
    nested: bool = False
    """Some payloads are aggregates themselves."""
    close: float | None = None
    latency: tuple[float, float] | None = None
    """Of puts; None: the weather's."""


@dataclass
class Put:
    """One record that was put.

    Attributes:
        outcome: The result that the caller received.
        settled: When it was settled, if a task awaited it from the start.
    """

    number: int
    key: str | None
    explicit: str | None
    data: bytes = field(repr=False)
    admitted: float = 0.0
    delivery: Delivery | None = None
    outcome: PutResult | ProduceError | None = None
    settled: float | None = None


@dataclass
class Story:
    """Results of a life."""

    plan: Plan
    puts: list[Put]
    network: Network
    reading: Reading
    ended: float
    closing: float
    closed: float
    turns: int
    events: Counter[str]
    delivered: int
    failed: int

    @property
    def acknowledged(self) -> list[tuple[Put, PutResult]]:
        """Return the records that were acknowledged to their caller."""
        return [(put, put.outcome) for put in self.puts if isinstance(put.outcome, PutResult)]

    @property
    def failures(self) -> list[tuple[Put, ProduceError]]:
        """Return the others."""
        return [(put, put.outcome) for put in self.puts if isinstance(put.outcome, ProduceError)]


def draw(seed: int, **fixed: Any) -> Plan:
    """Return the plan of a seed; `fixed` members are not drawn."""
    chance = random.Random(seed * 7919 + 1)
    pick = chance.choice
    order = pick([None, "key"])
    plan = Plan(
        seed=seed,
        shards=pick([1, 1, 2, 3, 5, 16, 64]),
        records=pick([50, 200, 200, 600]),
        keys=pick([1, 3, 10, 10, 200]),
        putters=pick([1, 3, 8]),
        order=order,
        aggregate=pick(
            [None, Aggregation(), Aggregation(), Aggregation(max_bytes=pick([1024, 3000])), Aggregation(max_records=3)]
        ),
        batch=Batching(linger=pick([0.0, 0.02, 0.1]), max_records=pick([500, 500, 2, 20])),
        rate_limits=pick([RateLimits(), RateLimits(), None]),
        buffer=pick([BufferLimits(), BufferLimits(max_records=20), BufferLimits(when_full="raise", max_records=50)]),
        delivery=DeliveryPolicy(timeout=pick([30.0, 30.0, 120.0, 3.0])),
        wire_format=pick(["json", "json", "cbor"]),
        weather=pick(list(WEATHERS)),
        reshards=pick([0, 0, 1, 5, 20]),
        transition=pick([0.0, 0.2, 2.0]),
        quotas=pick([True, True, False]),
        largest=pick([40, 300, 300, 5000, 200_000]),
        pause=pick([0.0, 0.003, 0.01, 0.1]),
        ahead=pick([0.0] * 5 + [900.0, -86_400.0]),
        signed=seed % 10 == 0,
        keyless=order is None and chance.random() < 0.3,
        nested=seed % 3 == 0,
        close=pick([None, None, None, 0.0, 1.0, 5.0]),
    )
    return replace(plan, **fixed)


def live(plan: Plan) -> Story:
    """Live a plan."""
    return simulate(lambda: Life(plan).live(), seed=plan.seed, lasts=7200)


class Life:
    """The producer of a plan, and all that happens to it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = random.Random(plan.seed)
        self.service = Kinesis(
            LoopClock(), quotas=plan.quotas, transition=plan.transition, signed=plan.signed or plan.ahead != 0
        )
        self.service.ask("CreateStream", StreamName=STREAM, ShardCount=plan.shards)
        faults = WEATHERS[plan.weather]
        slow = replace(faults, latency=plan.latency or faults.latency)
        self.network = Network(
            self.service, plan.seed, lambda now, operation: slow if operation == "PutRecords" else faults
        )
        self.client = Client(
            region="us-east-1",
            credentials=fresh_credentials,
            endpoint_url="http://127.0.0.1:1",
            wire_format=WireFormat(plan.wire_format),
            clock=LoopClock(plan.ahead),
            transport=self.network.connect(),
        )
        self.events: Counter[str] = Counter()
        self.producer = Producer(
            STREAM,
            order=plan.order,  # type: ignore[arg-type]
            aggregate=plan.aggregate,
            batch=plan.batch,
            rate_limits=plan.rate_limits,
            buffer=plan.buffer,
            delivery=plan.delivery,
            observer=self.observe,
            client=self.client,
        )
        self.producer._pipeline._random = random.Random(plan.seed)  # its jitter would be another one each time
        self.puts: list[Put] = []
        self.waiting: list[asyncio.Task[None]] = []

    def observe(self, event: object) -> None:
        self.events[type(event).__name__] += 1

    async def live(self) -> Story:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if self.service.state.transition:
            await asyncio.sleep(self.service.state.transition + 0.1)
        resharding = asyncio.create_task(self.reshard())
        await asyncio.gather(*(self.put_some(number) for number in range(self.plan.putters)))
        if self.plan.close is None:
            await self.producer.flush()
            assert all(put.delivery is None or put.delivery.done for put in self.puts), "flush left some"
        resharding.cancel()
        started = loop.time()
        with suppress(Undelivered):
            await self.producer.close(self.plan.close)
        closed = loop.time() - started
        await asyncio.gather(*self.waiting, resharding, return_exceptions=True)
        await self.client.close()
        for put in self.puts:
            if put.delivery is not None:
                assert put.delivery.done, f"record {put.number} is unresolved"
                put.outcome = outcome(put.delivery)
        turns = loop.turns
        ended = loop.time()
        await self.network.calm()
        statistics = self.producer.statistics()
        return Story(
            self.plan,
            self.puts,
            self.network,
            read(self.service.written(STREAM), self.service.shards(STREAM)),
            ended,
            started,
            closed,
            turns,
            self.events,
            statistics.records_written,
            statistics.records_failed,
        )

    async def put_some(self, putter: int) -> None:
        """Put the records of some keys, one after another."""
        plan, chance = self.plan, random.Random(self.plan.seed * 1009 + putter)
        keys = [f"k{number}" + "é" * (number % 3) for number in range(plan.keys) if number % plan.putters == putter]
        if not keys:
            return
        for _ in range(plan.records // plan.putters):
            key: str | None = chance.choice(keys)
            explicit = None
            if len(key or "") % 3 == 0:  # a key's hash key is always the same
                explicit = str(random.Random(key).getrandbits(128))
            if plan.keyless and chance.random() < 0.5:
                key = explicit = None
            await self.put(key, explicit, int(plan.largest * chance.random() ** 3), wait=chance.random() < 0.1)
            if plan.pause:
                await asyncio.sleep(chance.expovariate(1 / plan.pause))

    async def put(self, key: str | None, explicit: str | None, size: int, *, wait: bool) -> None:
        number = len(self.puts)
        data = b"%d|" % number + self.random.randbytes(size)
        if self.plan.nested and number % 3 == 0:
            data = pack([(f"inner-{number}", data)])
        put = Put(number, key, explicit, data)
        self.puts.append(put)
        try:
            if key is not None and number % 5 == 0:
                put.delivery = await self.producer.put(Record(put.data, key, explicit))
            else:
                put.delivery = await self.producer.put(put.data, key, explicit_hash_key=explicit)
        except BufferFull as full:
            put.outcome = full
        put.admitted = asyncio.get_running_loop().time()
        if wait and put.delivery is not None:
            self.waiting.append(asyncio.create_task(self.wait(put)))

    async def wait(self, put: Put) -> None:
        assert put.delivery is not None
        with suppress(ProduceError):
            await put.delivery
        put.settled = asyncio.get_running_loop().time()

    async def reshard(self) -> None:
        length = self.plan.records / self.plan.putters * self.plan.pause + 1
        for _ in range(self.plan.reshards):
            await asyncio.sleep(self.random.expovariate(self.plan.reshards / length))
            self.service.reshard(STREAM, self.random)


async def fresh_credentials() -> Credentials:
    """Return credentials from a slow source."""
    await asyncio.sleep(0.3)
    return Credentials("local", "local", str(random.random()))


def outcome(delivery: Delivery) -> PutResult | ProduceError:
    """Return the outcome of a record."""
    try:
        return delivery.result()
    except ProduceError as error:
        return error


def number_of(data: bytes) -> int:
    """Return which record this is."""
    payload = unpack(data)
    return int((data if payload is None else payload[0][2]).partition(b"|")[0])


def members(data: bytes) -> list[int]:
    """Return which records a Kinesis record holds."""
    inner = unpack(data)
    return [number_of(data)] if inner is None else [number_of(one) for _, _, one in inner]


# Invariants. Each raises AssertionError with the violation.


def nothing_is_lost(story: Story) -> None:
    """Every acknowledged record is at its reported position, and a KCL reader sees it there."""
    seen = {(one.shard_id, one.sequence_number, one.subsequence_number): one for one in story.reading.seen}
    for put, result in story.acknowledged:
        there = seen.get((result.shard_id, result.sequence_number, result.subsequence_number))
        assert there is not None, f"record {put.number} is lost: {result}"
        assert there.data == put.data, f"record {put.number} was told the place of record {number_of(there.data)}"
        if put.key is not None:
            assert there.partition_key == put.key
            assert there.explicit_hash_key in (put.explicit, None)


def every_failure_holds_its_record(story: Story) -> None:
    for put, error in story.failures:
        assert error.record.data == put.data
        assert put.key is None or error.record.partition_key == put.key


def a_failure_that_was_not_written_is_not_there(story: Story) -> None:
    there = {number_of(one.data) for one in story.reading.seen}
    for put, error in story.failures:
        assert error.maybe_written or put.number not in there, f"record {put.number}: {error!r}, and it is written"


def nothing_is_over_a_limit(story: Story) -> None:
    for trip in puts_of(story):
        assert trip.undecodable is None
        records = trip.request.records
        sizes = [len(entry.data) + len(entry.partition_key.encode()) for entry in records]
        assert 0 < len(records) <= 500
        assert sum(sizes) <= 10 * MIB
        assert max(sizes) <= MIB
        assert trip.refused in ("", "ExpiredTokenException", "InvalidSignatureException"), trip.refused


def only_what_failed_is_sent_again(story: Story) -> None:
    """A record is retried only once it has failed, its result is unknown, or no reader will see it."""
    good = {(one.shard_id, one.sequence_number) for one in story.reading.seen}
    busy_until: dict[int, float] = {}
    final: dict[int, Trip] = {}
    for trip in puts_of(story):
        for entry in trip.request.records:
            for number in members(entry.data):
                assert number not in final, f"record {number} is retried though it was written: {trip.sent}"
                assert busy_until.get(number, 0.0) <= trip.sent, f"record {number} is sent twice at once: {trip.sent}"
                busy_until[number] = trip.ended
        for place, entry in enumerate(trip.request.records):
            result = trip.results[place] if trip.known and trip.results else None
            if result is not None and result in good:
                final.update(dict.fromkeys(members(entry.data), trip))


def duplicates_are_few_and_told(story: Story) -> None:
    """A record is there once more for each attempt of unknown outcome at most, and its result says that it may be."""
    unknown: Counter[int] = Counter()
    for trip in puts_of(story):
        for place, entry in enumerate(trip.request.records):
            # It is not documented if a record may be written after an InternalFailure.
            if not trip.known or (trip.codes and trip.codes[place] == "InternalFailure"):
                unknown.update(members(entry.data))
    copies = Counter(number_of(one.data) for one in story.reading.seen)
    strays = {number_of(data) for data in story.reading.strays}
    for put, result in story.acknowledged:
        assert copies[put.number] <= 1 + unknown[put.number], f"record {put.number}: {copies[put.number]} copies"
        if copies[put.number] > 1:
            assert result.maybe_duplicate, f"record {put.number} is there {copies[put.number]} times"
        if result.maybe_duplicate:
            assert unknown[put.number] or put.number in strays, f"record {put.number} is no duplicate"


def order_is_kept(story: Story) -> None:
    """Of each key, the acknowledged records' first occurrences are in the order in which they were put."""
    if story.plan.order is None:
        return
    acknowledged = {put.number for put, _ in story.acknowledged}
    keys = {put.number: put.key for put in story.puts}
    newest: dict[str | None, int] = {}
    met: set[int] = set()
    for one in sorted(story.reading.seen, key=place_of):
        number = number_of(one.data)
        if number in met or number not in acknowledged:
            continue
        met.add(number)
        before = newest.get(keys[number], -1)
        assert before < number, f"key {keys[number]}: record {number} comes after record {before}"
        newest[keys[number]] = number


def what_waits_behind_a_failure_is_not_written(story: Story) -> None:
    """A record that was put before an earlier one of its key had failed must not pass it.

    A record of a request that failed may be written after all, and the others of its aggregate with it.
    """
    if story.plan.order is None:
        return
    failed: dict[str | None, float] = {}
    for put in story.puts:
        began_afresh = failed.get(put.key, 0.0)
        if isinstance(put.outcome, PutResult):
            assert put.admitted >= began_afresh - SLACK, f"record {put.number} passed one of its key that failed"
        elif isinstance(put.outcome, ProduceError) and story.plan.close is None:
            late = isinstance(put.outcome.__cause__, RequestTimedOut)
            if late and not put.outcome.maybe_written:
                failed[put.key] = max(began_afresh, put.admitted + story.plan.delivery.timeout)


def broken_order_names_its_cause(story: Story) -> None:
    for put, error in story.failures:
        if isinstance(error, OrderBroken):
            assert story.plan.order == "key"
            cause = error.__cause__
            assert isinstance(cause, ProduceError)
            assert not isinstance(cause, OrderBroken)
            assert cause.record.partition_key == put.key
            assert number_of(bytes(cause.record.data)) < put.number


def records_end_in_time(story: Story) -> None:
    """A record ends a timeout after its first failed request, and a timeout after its put while the service does not respond."""
    timeout = story.plan.delivery.timeout
    responded = sorted(trip.ended for trip in story.network.trips if trip.known)
    starts = story.plan.batch.linger + SIGNING  # a clock starts once a request is sent
    failed = first_failures(story)
    for put in story.puts:
        if put.settled is None:
            continue
        limit = failed.get(put.number, inf) + timeout
        assert put.settled <= limit + SLACK, f"record {put.number} ended {put.settled - limit:.3f} s after its limit"
        took = put.settled - put.admitted
        if took > timeout + SLACK:
            times = [put.admitted, *(when for when in responded if put.admitted < when <= put.settled), put.settled]
            longest = max(later - earlier for earlier, later in pairwise(times))
            assert longest <= timeout + starts + SLACK, (
                f"record {put.number} outlasted {longest:.3f} s without a response"
            )
    if story.plan.close is not None:
        assert story.closed <= story.plan.close + CLOSING, f"close took {story.closed:.3f} s"


def nothing_times_out_without_a_cause(story: Story) -> None:
    """A record that timed out had a failed request of its own a timeout before, or its shard accepted nothing for as long."""
    if story.plan.reshards:
        return
    timeout = story.plan.delivery.timeout
    failed = first_failures(story)
    shards = story.network.service.shards(STREAM)
    for put, error in story.failures:
        if put.settled is None or not isinstance(error.__cause__, RequestTimedOut) or put.settled >= story.closing:
            continue
        since = put.settled - timeout
        if failed.get(put.number, inf) <= since + SIGNING or put.key is None:
            continue
        key = hash_key_bytes(put.key, put.explicit)
        (shard_id,) = [shard.id for shard in shards if shard.start <= key <= shard.end]
        between = [when for when in acceptances(story, shard_id) if since + SIGNING < when < put.settled]
        assert not between, f"record {put.number} timed out though {shard_id} accepted records at {between[0]:.3f} s"


def acceptances(story: Story, shard_id: str | None = None) -> list[float]:
    """Return when responses came that said that a record was written, in one shard or in any."""
    return sorted(
        trip.ended
        for trip in story.network.trips
        if trip.operation == "PutRecords" and trip.known
        if any(result is not None and shard_id in (None, result[0]) for result in trip.results)
    )


def first_failures(story: Story) -> dict[int, float]:
    """Return when the first request was sent that failed for a record itself, by its number."""
    first: dict[int, float] = {}
    for trip in story.network.trips:
        if trip.operation != "PutRecords" or trip.refused or trip.undecodable is not None:
            continue
        for place, entry in enumerate(trip.request.records):
            if not trip.known or (trip.results and trip.results[place] is None):
                for number in members(entry.data):
                    first.setdefault(number, trip.sent)
    return first


def counts_add_up(story: Story) -> None:
    admitted = [put for put in story.puts if put.delivery is not None]
    delivered = sum(isinstance(put.outcome, PutResult) for put in admitted)
    assert (story.delivered, story.failed) == (delivered, len(admitted) - delivered)


def aggregates_lie_in_their_shards(story: Story) -> None:
    if not story.plan.reshards:
        assert story.reading.dropped == 0


def nothing_fails_without_need(story: Story) -> None:
    """If the network lets requests through, all records are written."""
    plan = story.plan
    if plan.weather in ("fine", "partial", "partial, hardly any") and plan.close is None and plan.delivery.timeout > 20:
        failed = [put.number for put, error in story.failures if not isinstance(error, BufferFull)]
        if plan.rate_limits is not None or not plan.quotas:
            assert not failed, f"{len(failed)} records failed, such as {story.failures[0]}"


CHECKS: list[Callable[[Story], None]] = [
    nothing_is_lost,
    every_failure_holds_its_record,
    a_failure_that_was_not_written_is_not_there,
    nothing_is_over_a_limit,
    only_what_failed_is_sent_again,
    duplicates_are_few_and_told,
    order_is_kept,
    what_waits_behind_a_failure_is_not_written,
    broken_order_names_its_cause,
    records_end_in_time,
    nothing_times_out_without_a_cause,
    counts_add_up,
    aggregates_lie_in_their_shards,
    nothing_fails_without_need,
]


def puts_of(story: Story) -> list[Trip]:
    """Return the puts that may have reached the service, in the order in which they were sent."""
    puts = (trip for trip in story.network.trips if trip.operation == "PutRecords" and trip.fate is not Fate.UNSENT)
    return sorted(puts, key=lambda trip: trip.sent)


def place_of(one: Seen) -> tuple[int, int]:
    """Return a place that grows along a key's way, from parents to children."""
    return int(one.sequence_number), one.subsequence_number or 0
