"""TailSearch on simulated shards: it always ends at the last record, with few requests and few records."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream import Position, ReceivedRecord
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.ranges.tail import FIRST_LOOK, LONGEST_LOOK, TailSearch

NOW = 1_800_000_000.0
HOUR = 3600.0


class SimulatedShard:
    """A shard with records at given times, which counts requests and the records that it returns."""

    def __init__(
        self, arrivals: list[float], *, limit: int = 10_000, now: float = NOW, finds_times: bool = True
    ) -> None:
        self.arrivals = sorted(arrivals)
        self.limit = limit
        self.now = now
        self.finds_times = finds_times
        self.requests = self.records = 0

    def search(self, told: float, known: Position | None = None) -> Position | None:
        """Search for the last record, with the time that the client takes for the service's."""
        search = TailSearch(told, known)
        while not search.done:
            place = search.look()
            if place.timestamp is not None and place.timestamp > self.now:
                search.refused()
                continue
            begin = 0
            if place.timestamp is not None and self.finds_times:
                begin = bisect_left(self.arrivals, place.timestamp)
            elif place.is_number:
                begin = int(place.sequence_number) + 1
            while True:
                page = self.page(begin)
                begin += len(page.records)
                if not search.received(page):
                    break
            assert self.requests < 200
        return search.last

    def page(self, begin: int) -> Page:
        self.requests += 1
        found = self.arrivals[begin : begin + self.limit]
        self.records += len(found)
        records = [ReceivedRecord(b"", str(begin + i), arrival, "k") for i, arrival in enumerate(found)]
        at_tip = begin + len(found) >= len(self.arrivals)
        return Page(records, 0 if at_tip else max(1, int((self.now - found[-1]) * 1000)))

    @property
    def last(self) -> Position | None:
        return Position.after(str(len(self.arrivals) - 1)) if self.arrivals else None


AGES = st.floats(0, 40 * 24 * HOUR) | st.floats(0, 10) | st.floats(0, 2 * HOUR)


@given(
    st.lists(AGES, max_size=60),
    st.integers(1, 20),
    st.sampled_from([0.0, -2.0, 2.0, 400.0, -400.0, 3 * HOUR, -3 * HOUR, 50 * 24 * HOUR, -50 * 24 * HOUR]),
    st.booleans(),
)
def test_last_record_is_found_whatever_the_traffic_and_the_clock(
    ages: list[float], limit: int, off: float, finds_times: bool
) -> None:
    shard = SimulatedShard([NOW - age for age in ages], limit=limit, finds_times=finds_times)
    assert shard.search(NOW + off) == shard.last


@given(st.lists(AGES, min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 59), st.booleans(), st.booleans())
def test_last_record_is_found_from_any_known_position(
    ages: list[float], limit: int, index: int, finds_times: bool, before: bool
) -> None:
    number = str(min(index, len(ages) - 1))
    shard = SimulatedShard([NOW - age for age in ages], limit=limit, finds_times=finds_times)
    assert shard.search(NOW, Position.at(number) if before else Position.after(number)) == shard.last


@pytest.mark.parametrize("age", [1.0, HOUR, 7 * 24 * HOUR])
def test_idle_shard_whose_last_record_is_known_takes_one_request(age: float) -> None:
    shard = SimulatedShard([NOW - age - i for i in range(500)])
    assert shard.search(NOW, shard.last) == shard.last
    assert (shard.requests, shard.records) == (1, 0)


def test_backlog_behind_a_known_position_is_searched_instead_of_read() -> None:
    shard = SimulatedShard([NOW - i / 100 for i in range(360_000)])
    assert shard.search(NOW, Position.after("100")) == shard.last
    assert shard.requests <= 4
    assert shard.records <= 30_000


@pytest.mark.parametrize("age", [None, 0.0, 1.0, 3.0, 60.0, HOUR, 23 * HOUR, 7 * 24 * HOUR, LONGEST_LOOK])
def test_idle_shard_takes_at_most_twelve_requests(age: float | None) -> None:
    shard = SimulatedShard([] if age is None else [NOW - age - i for i in range(500)])
    assert shard.search(NOW) == shard.last
    assert shard.requests <= 8


def test_shard_that_is_written_to_is_read_only_at_its_tail() -> None:
    shard = SimulatedShard([NOW - i / 1000 for i in range(200_000)])
    assert shard.search(NOW) == shard.last
    assert shard.requests == 1
    assert shard.records <= 1001 * FIRST_LOOK


@pytest.mark.parametrize("idle", [10 * 60.0, HOUR, 20 * HOUR])
def test_shard_that_was_busy_before_is_searched_instead_of_read(idle: float) -> None:
    shard = SimulatedShard([NOW - idle - i / 20 for i in range(40 * 72_000)])
    assert shard.search(NOW) == shard.last
    assert shard.requests <= 20
    assert shard.records < 110_000  # of 2,880,000


@pytest.mark.parametrize("idle", [5.0, 10 * 60.0, HOUR, 20 * HOUR, 6 * 24 * HOUR])
@pytest.mark.parametrize("records", [15_000, 25_000, 45_000])
def test_idle_shard_that_ended_with_a_burst_of_several_pages_takes_at_most_twelve_requests(
    idle: float, records: int
) -> None:
    shard = SimulatedShard([NOW - idle - i / 20_000 for i in range(records)])
    assert shard.search(NOW) == shard.last
    assert shard.requests <= 12
    assert shard.records <= records


def test_clock_that_is_behind_by_hours_causes_no_reading_of_these_hours() -> None:
    shard = SimulatedShard([NOW - i / 100 for i in range(360_000)])
    assert shard.search(NOW - HOUR) == shard.last
    assert shard.requests <= 4
    assert shard.records <= 30_000


def test_search_ends_although_records_are_written_all_the_time() -> None:
    class Busy(SimulatedShard):
        def page(self, begin: int) -> Page:
            self.now += 1.0  # in each request, more arrives than a page holds
            self.arrivals += [self.now - 1 + (i + 1) / 200 for i in range(200)]
            return super().page(begin)

    shard = Busy([NOW - i / 100 for i in range(1000)], limit=100)
    before = len(shard.arrivals)
    found = shard.search(NOW)
    assert found is not None
    assert before - 1 <= int(found.sequence_number) <= len(shard.arrivals)
    assert bisect_right(shard.arrivals, NOW) >= before
