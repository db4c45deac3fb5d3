"""Whatever comes, in whatever order: no request over a limit, nothing lost and nothing twice between the stages."""

from __future__ import annotations

import random

import hypothesis.strategies as st
from hypothesis import given, settings
from tests.unit.produce.shapes import Stages

from kinstream.config import Aggregation, Batching, RateLimits
from kinstream.kpl.container import unpack
from kinstream.produce.batch import Batch
from kinstream.produce.expire import NEVER
from kinstream.produce.lane import Lane
from kinstream.produce.pace import Pace
from kinstream.produce.pending import Aggregate, Entry, PendingRecord
from kinstream.produce.settle import mark_written, settle
from kinstream.record import PutRecordResult

TIMEOUT = 1e6
"""Far away: nothing is to expire here."""
REFUSED = PutRecordResult(error_code="ProvisionedThroughputExceededException", error_message="too fast")


class Service:
    """Takes each record or refuses it, by chance, and remembers."""

    def __init__(self, chance: random.Random, refuses: float) -> None:
        self.chance = chance
        self.refuses = refuses
        self.taken: list[bytes] = []
        self.last: dict[str, int] = {}

    def answer(self, batch: Batch, *, keep_order: bool) -> list[PutRecordResult]:
        results = []
        for lane, start, stop in batch.spans:
            for entry in batch.entries[start:stop]:
                if self.chance.random() < self.refuses:
                    results.append(REFUSED)
                    continue
                results.append(PutRecordResult("1", lane.shard_id))
                for key, data in inside(entry):
                    self.taken.append(data)
                    number = int(data.partition(b"|")[0])
                    assert not keep_order or self.last.get(key, -1) < number, f"{number} of {key} comes too late"
                    self.last[key] = number
        return results


def inside(entry: Entry) -> list[tuple[str, bytes]]:
    if isinstance(entry, PendingRecord):
        return [(entry.partition_key, entry.data)]
    found = unpack(entry.data)
    assert found is not None
    return [(key, data) for key, _, data in found]


def check(batch: Batch, batching: Batching, aggregation: Aggregation) -> None:
    assert 0 < len(batch.entries) <= batching.max_records
    sizes = [len(entry.data) + len(entry.partition_key.encode()) for entry in batch.entries]
    assert sizes == [entry.size for entry in batch.entries]
    assert batch.size == sum(sizes)
    assert batch.size <= batching.max_bytes or len(batch.entries) == 1
    for entry in batch.entries:
        if isinstance(entry, Aggregate):
            assert entry.size <= min(aggregation.max_bytes, batching.max_bytes)
            assert 1 < len(entry.members) <= aggregation.max_records
    assert [index for _, start, stop in batch.spans for index in range(start, stop)] == list(range(len(sizes)))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shards=st.integers(1, 6),
    aggregating=st.booleans(),
    keep_order=st.booleans(),
    paced=st.booleans(),
    linger=st.sampled_from([0.0, 0.1, 1.0]),
    max_records=st.sampled_from([1, 2, 7, 500]),
    max_bytes=st.sampled_from([1024, 5000, 2**20]),
    refuses=st.sampled_from([0.0, 0.3, 0.8]),
)
def test_every_record_is_written_once_within_all_limits_and_in_order_where_that_is_asked_for(
    seed: int,
    shards: int,
    aggregating: bool,
    keep_order: bool,
    paced: bool,
    linger: float,
    max_records: int,
    max_bytes: int,
    refuses: float,
) -> None:
    chance = random.Random(seed)
    batching = Batching(linger=linger, max_records=max_records, max_bytes=max_bytes)
    aggregation = Aggregation(max_bytes=chance.choice([1024, 51_200]), max_records=chance.choice([2, 1000]))
    stages = Stages(batching, aggregation, keep_order=keep_order, aggregating=aggregating, timeout=TIMEOUT)
    service = Service(chance, refuses)
    pacing = RateLimits(records_per_second=50, bytes_per_second=50_000)
    lanes = [Lane(f"s{number}", "0", Pace(pacing, 0.0) if paced else None) for number in range(shards)]
    now, count, put = 0.0, chance.randrange(1, 200), 0
    in_flight: list[Batch] = []
    for _ in range(20_000):
        if put < count:
            touched = set()
            for _ in range(chance.randrange(1, 30)):
                key = f"k{chance.randrange(12)}"
                data = b"%d|" % put + bytes(chance.choice([0, 10, 100, 300, 2000]))
                lane = lanes[int(key[1:]) % shards]
                lane.waiting.append(PendingRecord(data, key, None, len(data) + len(key), now))
                touched.add(lane)
                put += 1
            stages.schedule.touch_all([*touched], now)
        room = chance.randrange(1, 4)
        batches = stages.batcher.ready(room, now)
        for batch in batches:
            check(batch, batching, aggregation)
            batch.sent_at = now
            assert not keep_order or all(lane.in_flight == 1 for lane in batch.lanes)
            in_flight.append(batch)
        if in_flight and chance.random() < 0.7:
            batch = in_flight.pop(chance.randrange(len(in_flight)))
            verdict = settle(batch, service.answer(batch, keep_order=keep_order), None)
            for entries, results in verdict.written:
                mark_written(entries, results)
            for part in verdict.retries:
                assert part.throttled
                part.lane.retry(part.entries)
            for lane in batch.lanes:
                lane.request_ended()
                stages.schedule.touch(lane, now)
        elif put >= count and not in_flight:
            if not any(lanes):
                break
            now = max(now, stages.schedule.alarm) if stages.schedule.alarm != NEVER else now + 0.01
    assert sorted(int(data.partition(b"|")[0]) for data in service.taken) == list(range(put))
    assert not stages.schedule.expired
