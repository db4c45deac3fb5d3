"""The demo's data is the whole month, with the source's columns, types and missing values."""

import json
from collections import Counter
from itertools import pairwise

import pytest

from kinstream.cli.demo.flights import Event, events, flights, is_cancelled


@pytest.fixture(scope="module")
def month() -> list[Event]:
    return events()


def test_the_month_has_all_its_flights_and_no_two_are_the_same(month: list[Event]) -> None:
    assert len(month) == len(set(month)) == 27_004
    assert sum(map(is_cancelled, month)) == 521
    assert len({event.key for event in month}) == 1_652


def test_a_flight_reads_as_in_the_source(month: list[Event]) -> None:
    # The first row of the source's table.
    first = {
        "year": 2013, "month": 1, "day": 1, "dep_time": 517, "sched_dep_time": 515, "dep_delay": 2, "arr_time": 830,
        "sched_arr_time": 819, "arr_delay": 11, "carrier": "UA", "flight": 1545, "tailnum": "N14228", "origin": "EWR",
        "dest": "IAH", "air_time": 227, "distance": 1400, "hour": 5, "minute": 15, "time_hour": "2013-01-01T10:00:00Z",
    }  # fmt: skip
    assert json.loads(month[0].data) == first
    assert month[0].key == "1545"


def test_missing_values_are_null_and_as_many_as_in_the_source() -> None:
    missing = Counter(name for flight in flights() for name, value in flight.items() if value is None)
    assert missing == {
        "dep_time": 521, "dep_delay": 521, "arr_time": 536, "arr_delay": 606, "tailnum": 155, "air_time": 606,
    }  # fmt: skip


def test_columns_are_whole_numbers_but_for_five() -> None:
    text = {name for flight in flights() for name, value in flight.items() if isinstance(value, str)}
    numbers = {name for flight in flights() for name, value in flight.items() if type(value) is int}
    assert text == {"carrier", "tailnum", "origin", "dest", "time_hour"}
    assert len(numbers) == 14
    assert not text & numbers


def test_flights_follow_the_timetable() -> None:
    scheduled = [(flight["day"], flight["sched_dep_time"]) for flight in flights()]
    assert all(earlier <= later for earlier, later in pairwise(scheduled))


def test_the_utc_hour_runs_over_midnight_and_over_the_month() -> None:
    hours = {(flight["day"], flight["hour"]): flight["time_hour"] for flight in flights()}
    assert hours[1, 5] == "2013-01-01T10:00:00Z"
    assert hours[1, 19] == "2013-01-02T00:00:00Z"
    assert hours[31, 20] == "2013-02-01T01:00:00Z"
