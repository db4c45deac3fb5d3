"""Bounds of a range: the places between records, their order, and the records between two of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream import LATEST, SHARD_END, TRIM_HORIZON, ConfigError, Position, ReceivedRecord
from kinstream.consume.ranges.bounds import Bounds

# Each place between two records of the shard, in order, with all positions that mean it. Record 7 is an aggregate of three.
PLACES: list[list[Position]] = [
    [TRIM_HORIZON],
    [Position.at("5")],
    [Position.after("5", 0), Position.at("5", 1)],
    [Position.at("7"), Position.at("07", 0)],
    [Position.after("7", 0), Position.at("7", 1)],
    [Position.after("7", 1), Position.at("7", 2)],
    [Position.after("7", 2), Position.at("7", 3)],
    [Position.after("7")],
    [Position.at("8")],
    [SHARD_END],
]
RECORDS = [
    ReceivedRecord(b"", number, 1.0, "k", subsequence_number=index)
    for number, index in [("5", None), ("7", 0), ("7", 1), ("7", 2), ("8", None)]
]
# Number of records before each place.
BEFORE = [0, 0, 1, 1, 2, 3, 4, 4, 4, 5]
INDEX = st.integers(0, len(PLACES) - 1)


@given(INDEX, INDEX, st.data())
def test_range_has_exactly_the_records_between_its_places(low: int, high: int, data: st.DataObject) -> None:
    after, upto = data.draw(st.sampled_from(PLACES[low])), data.draw(st.sampled_from(PLACES[high]))
    if high < low:
        with pytest.raises(ConfigError, match=rf"^upto='{upto}': is before after='{after}'"):
            Bounds(after, upto)
        return
    bounds = Bounds(str(after), upto)
    assert bounds.empty is (low == high)
    if bounds.empty:
        return
    start = int(after.sequence_number) if after.is_number else 0
    page = [record for record in RECORDS if int(record.sequence_number) >= start]
    cut, _ = bounds.cut(page)
    assert bounds.within(cut) == RECORDS[BEFORE[low] : BEFORE[high]] if cut else BEFORE[low] >= BEFORE[high]


@given(st.lists(st.integers(1, 40), unique=True, max_size=20).map(sorted), st.integers(1, 41))
def test_page_is_cut_after_the_record_of_the_upper_bound(numbers: list[int], upto: int) -> None:
    page = [ReceivedRecord(b"", str(number), 1.0, "k") for number in numbers]
    cut, reached = Bounds(TRIM_HORIZON, Position.at(str(upto))).cut(page)
    assert [int(record.sequence_number) for record in cut] == [number for number in numbers if number <= upto]
    assert reached is (bool(numbers) and numbers[-1] >= upto)


@pytest.mark.parametrize(
    "bad", [LATEST, "LATEST", LATEST.since(5.0), Position.at_time(5), 1_700_000_000.5, "at x", None, b"x"]
)
def test_bound_that_is_not_a_fixed_place_is_refused_with_its_name(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"^after="):
        Bounds(bad, SHARD_END)
    with pytest.raises(ConfigError, match=r"^upto="):
        Bounds(TRIM_HORIZON, bad)
