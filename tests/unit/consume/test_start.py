"""The start: which shards are read, and where reading of each begins, by checkpoints, start positions and ancestors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kinstream import HashKeyRange, Position, SequenceNumberRange, Shard
from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON
from kinstream.consume.start import Start, passed, starts, unread

AT_5 = Position.at("5")
AT_7 = Position.at("7")


def shard(shard_id: str, *parents: str, closed: bool = False) -> Shard:
    first, second = [*parents, None, None][:2]
    numbers = SequenceNumberRange("1", "9" if closed else None)
    return Shard(shard_id, HashKeyRange("0", "1"), numbers, first, second)


# 0 was split into 1 and 2. 1 and 2 were merged into 3. 4 stands alone.
SHARDS = [
    shard("0", closed=True),
    shard("1", "0", closed=True),
    shard("2", "0", closed=True),
    shard("3", "1", "2"),
    shard("4"),
]


def test_all_shards_are_read_from_their_oldest_record_by_default() -> None:
    assert passed(SHARDS, {}, Start(), None) == set()
    assert starts(SHARDS, {}, Start()) == dict.fromkeys("01234", TRIM_HORIZON)


def test_closed_shards_are_not_read_if_the_start_is_the_newest_record() -> None:
    assert passed(SHARDS, {}, Start(LATEST), None) == {"0", "1", "2"}


def test_shards_without_records_since_the_start_time_are_not_read() -> None:
    assert passed(SHARDS, {}, Start(Position.at_time(1000.0)), {"2", "3", "4"}) == {"0", "1"}


def test_ancestors_of_shards_in_the_start_are_not_read_unless_they_are_in_the_start_themselves() -> None:
    start = Start(of_shards={"3": AT_5, "1": AT_7, "4": SHARD_END})
    assert passed(SHARDS, {}, start, None) == {"0", "2", "4"}
    assert starts(SHARDS, {}, start) == {**start.of_shards, "0": TRIM_HORIZON, "2": TRIM_HORIZON}


def test_checkpoints_take_precedence_over_the_start() -> None:
    start = Start(of_shards={"2": SHARD_END, "3": AT_5, "4": SHARD_END})
    known = {"1": SHARD_END, "4": AT_7}
    assert passed(SHARDS, known, start, None) == {"0", "1", "2"}
    assert starts(SHARDS, known, start) == {"2": SHARD_END, "3": AT_5}


def test_shard_without_a_checkpoint_begins_at_its_oldest_record_once_a_record_was_completed() -> None:
    assert starts(SHARDS, {"0": SHARD_END}, Start(LATEST)) == {}
    assert starts(SHARDS, {"4": AT_5}, Start(LATEST)) == {}


def test_shard_without_a_checkpoint_begins_as_the_stored_start_positions_if_no_ancestor_has_one() -> None:
    known = {"1": Position.at_time(1000.0), "2": Position.at_time(900.0)}
    assert starts(SHARDS, known, Start(LATEST)) == {"0": Position.at_time(900.0), "4": Position.at_time(900.0)}


def test_ancestors_that_retention_has_removed_are_not_followed() -> None:
    remaining = [shard("3", "1", "2"), shard("4")]
    assert passed(remaining, {}, Start(of_shards={"3": AT_5}), None) == {"1", "2"}
    assert passed(remaining, {"removed": AT_5}, Start(), None) == set()


def test_only_named_shards_and_their_descendants_are_read_if_the_start_says_so() -> None:
    start = Start(of_shards={"1": AT_5}, only_named=True)
    assert unread(SHARDS, (), start) == {"0", "2", "4"}
    assert passed(SHARDS, {}, start, None) == {"0", "2", "4"}
    assert starts(SHARDS, {}, start) == {"1": AT_5}
    later = [*SHARDS, shard("5", "4"), shard("6", "3")]
    assert unread(later, (), start) == {"0", "2", "4", "5"}
    assert passed(later, {"3": AT_7}, start, None) == {"0", "1", "2", "4", "5"}
    assert unread(later, ["4"], start) == {"0", "2"}
    assert unread(SHARDS, (), Start(of_shards={"1": AT_5})) == set()


def test_start_of_a_stream_of_which_no_shard_is_named_reads_nothing_if_only_named_shards_are_read() -> None:
    start = Start(of_shards={"orders:1": AT_5}, only_named=True).of_stream("clicks")
    assert passed(SHARDS, {}, start, None) == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize("others", [LATEST, Position.at_time(1000.0), TRIM_HORIZON])
def test_other_shards_have_a_position_of_their_own_and_descendants_of_named_ones_none(others: Position) -> None:
    start = Start(others, {"1": AT_5})
    open_since = None if others.timestamp is None else {"2", "4"}
    more = [*SHARDS, shard("5", closed=True), shard("6", "5")]
    closed = {LATEST: {"2", "5"}, TRIM_HORIZON: set[str]()}.get(others, {"5", "6"})
    assert passed(more, {}, start, open_since) == {"0", *closed}
    assert starts(more, {}, start) == {"1": AT_5, **dict.fromkeys(["0", "2", "4", "5", "6"], others)}


@pytest.mark.parametrize("start", [Start(), Start(AT_5, {"3": AT_7}), Start(AT_5, {"3": AT_7}, only_named=True)])
def test_each_position_of_a_start_can_be_replaced(start: Start) -> None:
    mapped = start.mapped(lambda position: Position.after(position.sequence_number) if position.is_number else LATEST)
    assert mapped.position == (Position.after("5") if start.position == AT_5 else LATEST)
    assert mapped.of_shards == {shard_id: Position.after("7") for shard_id in start.of_shards}
    assert mapped.only_named is start.only_named


def test_start_in_one_of_several_streams_has_the_positions_of_its_shards() -> None:
    start = Start(of_shards={"orders:0": AT_5, "clicks:0": AT_7})
    assert start.of_stream("orders") == Start(of_shards={"0": AT_5})
    assert start.of_stream("clicks") == Start(of_shards={"0": AT_7})
    assert start.of_stream("visits") == Start(TRIM_HORIZON)
    assert start.of_stream(None) is start
    assert Start(LATEST).of_stream("orders") == Start(LATEST)


def test_a_listing_is_not_read_again_for_each_of_its_shards() -> None:
    class Counted(list[Shard]):
        reads = 0

        def __iter__(self) -> Iterator[Shard]:
            self.reads += 1
            return super().__iter__()

    shards = Counted(shard(str(number)) for number in range(100))
    assert len(starts(shards, {"0": LATEST}, Start())) == 99
    assert shards.reads <= 5
