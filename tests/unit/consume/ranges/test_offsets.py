"""Offsets of engines: parents before children, merges, targets, expired shards. Reads of random lineages are complete."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream import SHARD_END, TRIM_HORIZON, ConfigError, DataExpired, Position
from kinstream.consume.ranges import offsets
from kinstream.consume.ranges.offsets import Offsets, ShardSpan
from kinstream.record import HashKeyRange, SequenceNumberRange, Shard


def name(number: int) -> str:
    return f"shardId-{number:012}"


def shard(number: int, *parents: int, closed: bool = False) -> Shard:
    parent, adjacent = [*map(name, parents), None, None][:2]
    numbers = SequenceNumberRange("1", "9" if closed else None)
    return Shard(name(number), HashKeyRange("0", "1"), numbers, parent, adjacent)


A, B, C, D = map(name, range(4))
SPLIT = [shard(0, closed=True), shard(1, 0), shard(2, 0)]
MERGE = [shard(0, closed=True), shard(1, closed=True), shard(2, 0, 1)]


def after(number: int) -> Position:
    return Position.after(str(number))


def test_offsets_are_stored_as_text_in_one_order() -> None:
    stored = offsets.as_json({B: after(7), A: SHARD_END})
    assert list(stored.items()) == [(A, "SHARD_END"), (B, "after 7")]
    assert offsets.from_json(stored) == {A: SHARD_END, B: after(7)}


@pytest.mark.parametrize("stored", [{A: "7"}, {A: 7}, {A: None}, ["after 7"]])
def test_foreign_offsets_are_refused(stored: object) -> None:
    with pytest.raises(ConfigError, match="offset: must be a position by shard id"):
        offsets.from_json(stored)  # type: ignore[arg-type]


def test_read_begins_with_the_shards_before_which_there_is_nothing_to_read() -> None:
    oldest = {each.shard_id: TRIM_HORIZON for each in SPLIT}
    assert offsets.initial(SPLIT, oldest) == {A: TRIM_HORIZON}
    now = {A: SHARD_END, B: after(5), C: TRIM_HORIZON}
    assert offsets.initial(SPLIT, now) == now
    assert offsets.initial(SPLIT[1:], oldest) == {B: TRIM_HORIZON, C: TRIM_HORIZON}  # the parent has expired
    assert offsets.initial(MERGE, {A: SHARD_END, B: after(1), C: TRIM_HORIZON}) == {A: SHARD_END, B: after(1)}
    # The middle one is empty, so it is at its end although the first one is not.
    deep = [shard(0, closed=True), shard(1, 0, closed=True), shard(2, 1)]
    assert offsets.initial(deep, {A: after(1), B: SHARD_END, C: TRIM_HORIZON}) == {A: after(1)}


def test_children_enter_in_the_batch_after_the_one_that_ended_their_parent() -> None:
    target = {A: SHARD_END, B: after(5), C: TRIM_HORIZON}
    first = offsets.advanced({A: TRIM_HORIZON}, SPLIT, target)
    assert first == {A: SHARD_END}
    second = offsets.advanced(first, SPLIT, target)
    assert second == target
    assert offsets.spans(first, second) == [ShardSpan(B, TRIM_HORIZON, after(5))]  # the other one is empty
    assert offsets.advanced(second, SPLIT, target) == second


def test_child_of_a_merge_waits_for_both_parents() -> None:
    target = {A: SHARD_END, B: SHARD_END, C: after(5)}
    assert offsets.readable({A: SHARD_END, B: after(1)}, MERGE) == [MERGE[1]]
    assert offsets.advanced({A: SHARD_END, B: after(1)}, MERGE, target) == {A: SHARD_END, B: SHARD_END}
    assert offsets.advanced({A: SHARD_END, B: SHARD_END}, MERGE, target) == target


def test_expired_parent_counts_as_ended() -> None:
    listed = [MERGE[0], MERGE[2]]
    assert offsets.advanced({A: SHARD_END, B: SHARD_END}, listed, {A: SHARD_END, C: after(5)}) == {
        A: SHARD_END,
        C: after(5),
    }
    assert offsets.advanced({A: SHARD_END}, listed, {C: after(5)}) == {A: SHARD_END, C: after(5)}


def test_shard_that_was_created_after_the_target_is_not_read() -> None:
    target = {A: after(3)}
    assert offsets.advanced({A: after(1)}, SPLIT, target) == target
    assert offsets.advanced(target, SPLIT, target) == target


def test_stored_offset_beyond_the_target_stays() -> None:
    start = {A: SHARD_END, B: after(7), C: after(9)}
    assert offsets.advanced(start, SPLIT, {A: SHARD_END, B: TRIM_HORIZON, C: after(8)}) == start
    assert offsets.spans(start, start) == []


def test_shard_that_a_listing_lacked_is_not_read_again() -> None:
    start = {B: after(5), C: after(6)}  # the parent had ended, and left when a listing lacked it
    target = {A: SHARD_END, B: after(7), C: after(6)}
    assert offsets.advanced(start, SPLIT, target) == {B: after(7), C: after(6)}


def test_shard_that_no_listing_shows_yet_keeps_its_offset() -> None:
    assert offsets.advanced({A: SHARD_END, D: after(5)}, SPLIT, {B: after(1)}) == {
        A: SHARD_END,
        B: after(1),
        D: after(5),
    }


def test_shard_that_expired_before_it_was_read_is_reported() -> None:
    start = {A: after(3), B: after(5)}
    end = offsets.advanced(start, SPLIT[1:], {B: after(6), C: after(7)})
    assert end == {B: after(6)}
    assert offsets.advanced(end, SPLIT[1:], {B: after(6), C: after(7)}) == {B: after(6), C: after(7)}
    with pytest.raises(
        DataExpired, match=rf"^{A}: expired before it was read to its end, from 'after 3' on. Skip"
    ) as raised:
        offsets.check_lost(start, end, "Skip it")
    assert raised.value.shard_id == A
    offsets.check_lost({A: SHARD_END, B: after(5)}, end, "Skip it")
    offsets.check_lost({A: TRIM_HORIZON, B: after(5)}, end, "Skip it")


@st.composite
def lineages(draw: st.DrawFn) -> list[Shard]:
    """Return shards after random splits and merges."""
    count = draw(st.integers(1, 4))
    shards = {number: shard(number) for number in range(count)}
    open_shards = list(shards)
    for _ in range(draw(st.integers(0, 8))):
        merges = len(open_shards) > 1 and draw(st.booleans())
        parents = [open_shards.pop(draw(st.integers(0, len(open_shards) - 1))) for _ in range(2 if merges else 1)]
        for _ in range(1 if merges else 2):
            shards[count] = shard(count, *parents)
            open_shards.append(count)
            count += 1
        for parent in parents:
            before = shards[parent]
            shards[parent] = Shard(
                before.shard_id,
                before.hash_key_range,
                SequenceNumberRange("1", "9"),
                before.parent_shard_id,
                before.adjacent_parent_shard_id,
            )
    return list(shards.values())


@given(lineages(), st.data())
def test_each_record_is_in_one_batch_after_those_of_all_parents(shards: list[Shard], data: st.DataObject) -> None:
    ends = {each.shard_id: SHARD_END if each.closed else after(data.draw(st.integers(1, 9))) for each in shards}
    start: Offsets = offsets.initial(shards, dict.fromkeys(ends, TRIM_HORIZON))
    read_in: dict[str, int] = {}
    times: Counter[str] = Counter()
    batch = 0
    while True:
        late = batch < 5 and data.draw(st.booleans())
        known = shards[: data.draw(st.integers(1, len(shards)))] if late else shards
        target = {each.shard_id: ends[each.shard_id] for each in known}
        end = offsets.advanced(offsets.from_json(offsets.as_json(start)), known, target)
        if end == start and known is shards:
            break
        for span in offsets.spans(start, end):
            assert (span.after, span.upto) == (TRIM_HORIZON, ends[span.shard_id])
            read_in[span.shard_id] = batch
            times[span.shard_id] += 1
        start = end
        batch += 1
        assert batch < 100
    assert times == dict.fromkeys(ends, 1)
    for each in shards:
        assert all(read_in[parent] < read_in[each.shard_id] for parent in offsets.parents(each))
