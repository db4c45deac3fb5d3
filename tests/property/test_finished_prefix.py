"""A checkpoint never passes a record that is not completed, in any order of completion, and leases never go back."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kinstream import Position, ReceivedRecord
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import RowKind
from kinstream.consume.shard.progress import Progress, RunningRecord

Steps = st.lists(
    st.tuples(st.sampled_from(["begin", "finish", "finish_record"]), st.integers(0, 1 << 16)), max_size=200
)


@given(Steps)
def test_position_is_the_end_of_the_completed_prefix(steps: list[tuple[str, int]]) -> None:
    progress = Progress()
    works: list[RunningRecord] = []
    finished: list[bool] = []
    for step, choice in steps:
        if step == "begin":
            record = ReceivedRecord(b"", str(len(works) // 3), 0.0, "k", subsequence_number=len(works) % 3)
            works.append(progress.begin(record))
            finished.append(False)
        elif works:
            index = choice % len(works)
            if step == "finish":
                if finished[index]:
                    continue
                progress.finish(works[index])
            else:
                progress.finish_record(works[index].record)
            finished[index] = True
        prefix = next((i for i, done in enumerate(finished) if not done), len(finished))
        place = progress.position
        assert place == (None if prefix == 0 else Position.after(str((prefix - 1) // 3), (prefix - 1) % 3))
        assert len(progress) == len(works) - prefix


POSITIONS = st.one_of(
    st.builds(Position.after, st.integers(0, 50).map(str), st.integers(0, 3)),
    st.just(TRIM_HORIZON),
    st.just(SHARD_END),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), POSITIONS), max_size=40), st.integers(0, 1 << 16))
def test_checkpoints_of_workers_that_compete_for_a_shard_follow_the_owner(
    steps: list[tuple[int, Position]], seed: int
) -> None:
    chance = random.Random(seed)

    async def fight() -> None:
        table = MemoryLeaseTable()
        await table.write(changes.create(Lease("s"), one_table=True))
        known = [Lease("s", owner="nobody")] * 3
        holder: int | None = None
        stored = TRIM_HORIZON
        for worker, position in steps:
            if holder is None or chance.random() < 0.3:
                row = await table.get(RowKind.LEASE, "s")
                assert row is not None
                taken = await table.write(changes.take(lease_of(row), f"worker-{worker}"))
                assert taken.applied
                assert taken.row is not None
                known[worker] = lease_of(taken.row)
                holder = worker
            elif chance.random() < 0.5:
                worker = holder
            written = await table.write(changes.checkpoint(known[worker], position))
            assert written.applied is (worker == holder)
            if written.applied and written.row is not None:
                known[worker] = lease_of(written.row)
                stored = position
            row = await table.get(RowKind.LEASE, "s")
            assert row is not None
            assert lease_of(row).checkpoint == stored

    asyncio.run(fight())


WHOLE = st.one_of(
    st.builds(Position.at, st.integers(0, 9).map(str), st.integers(0, 3)),
    st.builds(Position.after, st.integers(0, 9).map(str), st.none() | st.integers(0, 3)),
    st.builds(Position.at_time, st.integers(0, 9)),
    st.sampled_from([TRIM_HORIZON, SHARD_END, Position("LATEST")]),
)


@given(WHOLE, WHOLE, WHOLE)
def test_order_of_positions_is_total(first: Position, second: Position, third: Position) -> None:
    assert (first <= second) or (second <= first)
    assert (first < second) is (second > first) is not (second <= first)
    if first <= second <= third:
        assert first <= third
    if first == second:
        assert first <= second <= first
