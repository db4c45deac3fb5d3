"""The end of reading at a time: which page is the last one, and which of its records are delivered."""

from __future__ import annotations

import pytest

from kinstream import ReceivedRecord
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.shard.until import Until

END = 100.0


def until(end: float | None = END, *, is_start: bool = False, closed: bool = False, began: float = 0.0) -> Until:
    limit = Until(end, is_start=is_start, began=began, closed=closed)
    limit.begin(began)
    return limit


def page(*arrivals: float, behind: int | None = 0, as_of: float | None = None, ended: bool = False) -> Page:
    records = [ReceivedRecord(b"", str(index), arrival, "k") for index, arrival in enumerate(arrivals)]
    return Page(records, behind, 7, ended, as_of=as_of)


def cut(limit: Until, given: Page) -> tuple[list[float], bool]:
    """Return the arrival times of the records that are left, and whether the page is the last one."""
    left = limit.cut(given)
    assert left.size_bytes == given.size_bytes  # the budget counts the page as it was received
    assert limit.reached is (left.ended and not given.ended)
    return [record.arrival_time for record in left.records], left.ended


def test_page_is_unchanged_if_reading_does_not_end_by_itself() -> None:
    given = page(99.0, 101.0)
    assert until(None).cut(given) is given


def test_records_that_arrived_later_are_removed_and_the_page_is_the_last_one() -> None:
    assert cut(until(), page(98.0, 100.0, 100.5, behind=5)) == ([98.0, 100.0], True)


def test_record_that_arrived_in_time_is_delivered_although_an_earlier_one_arrived_late() -> None:
    assert cut(until(), page(101.0, 99.0, 102.0)) == ([101.0, 99.0], True)


def test_page_of_late_records_only_is_the_last_one_and_empty() -> None:
    assert cut(until(), page(101.0, 102.0)) == ([], True)


def test_current_page_with_records_is_not_the_last_one() -> None:
    assert cut(until(), page(99.0, as_of=200.0)) == ([99.0], False)


@pytest.mark.parametrize(
    ("given", "last"),
    [
        (page(as_of=103.0), True),
        (page(as_of=101.0), False),  # clocks differ by up to two seconds
        (page(as_of=None), False),  # the page may be old
        (page(as_of=103.0, behind=1), False),
        (page(as_of=103.0, behind=None), False),
    ],
)
def test_empty_page_is_the_last_one_only_if_it_is_current_and_later_than_the_time(given: Page, last: bool) -> None:
    assert cut(until(), given) == ([], last)


def test_closed_shard_is_read_to_its_end() -> None:
    assert cut(until(closed=True), page(as_of=200.0)) == ([], False)
    assert cut(until(closed=True, is_start=True), page(101.0, as_of=200.0)) == ([101.0], False)
    assert cut(until(closed=True), page(ended=True)) == ([], True)


def test_until_the_start_of_reading_the_first_current_page_is_the_last_one() -> None:
    limit = until(is_start=True)
    assert cut(limit, page(50.0, behind=1000)) == ([50.0], False)
    assert cut(limit, page(51.0, behind=0)) == ([51.0], True)


def test_until_the_start_of_reading_the_time_is_taken_from_the_first_lagging_page() -> None:
    # Its newest record arrived at 130 by the service's clock, and this shard's reading began 10 seconds after the stream's.
    limit = Until(END, is_start=True, began=0.0, closed=False)
    limit.begin(10.0)
    assert cut(limit, page(50.0, behind=80_000)) == ([50.0], False)
    assert cut(limit, page(119.0, 121.0, behind=1000)) == ([119.0], True)


def test_another_beginning_forgets_that_the_time_was_reached() -> None:
    limit = until()
    limit.cut(page(101.0))
    assert limit.reached
    limit.begin(5.0)
    assert not limit.reached
