"""Reports of records that expired before they were read."""

from __future__ import annotations

import pytest

from kinstream import Position, ReceivedRecord
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import LATEST, TRIM_HORIZON
from kinstream.consume.shard.retention import RetentionCheck
from kinstream.events import RecordsExpired

HOUR = 3600.0
NOW = 1_800_000_000.0


def page(*records: tuple[int, float], behind: int | None = 0, ended: bool = False) -> Page:
    """Return a page of records, each a sequence number and hours since it arrived."""
    made = [ReceivedRecord(b"", str(number), NOW - hours * HOUR, "k") for number, hours in records]
    return Page(made, behind, 1, ended)


def begun(position: Position, idle_until: float | None = None, retention: float | None = 24 * HOUR) -> RetentionCheck:
    check = RetentionCheck("s", retention)
    check.begin(position, idle_until)
    return check


@pytest.mark.parametrize(
    "position", [Position.after("7", 0), Position.after("7", 3), Position.after("7"), Position.at("7")]
)
def test_no_loss_is_reported_if_the_record_of_the_checkpoint_exists(position: Position) -> None:
    check = begun(position)
    assert check.received(page(behind=5), NOW) is None
    assert check.received(page((7, 30.0), (8, 1.0)), NOW) is None
    assert check.received(page(), NOW) is None


@pytest.mark.parametrize(
    "position", [Position.after("7", 0), Position.after("7", 3), Position.after("7"), Position.at("7")]
)
def test_possible_loss_is_reported_if_the_record_of_the_checkpoint_is_gone(position: Position) -> None:
    check = begun(position)
    assert check.received(page(behind=5), NOW) is None, "nothing has come yet"
    assert check.received(page((9, 1.0)), NOW) == RecordsExpired("s", str(position), "at 9/0", False)
    assert check.received(page((10, 0.0)), NOW) is None, "once"


@pytest.mark.parametrize("last", [page(), page(behind=None, ended=True), page(ended=True)])
def test_possible_loss_is_reported_if_no_record_is_left(last: Page) -> None:
    assert begun(Position.after("7", 0)).received(last, NOW) == RecordsExpired("s", "after 7/0", "TRIM_HORIZON", False)


@pytest.mark.parametrize(
    "position", [TRIM_HORIZON, LATEST, LATEST.since(NOW - 99 * HOUR), Position.at_time(NOW - 99 * HOUR)]
)
def test_no_loss_is_reported_for_a_position_without_a_record(position: Position) -> None:
    check = begun(position)
    assert check.received(page(), NOW) is None
    assert check.received(page((9, 1.0)), NOW) is None


def test_no_loss_is_reported_if_the_shard_was_idle_until_a_time_within_the_retention() -> None:
    for last in page(), page((9, 1.0)):
        assert begun(Position.after("7", 0), idle_until=NOW - 23 * HOUR).received(last, NOW) is None
        assert begun(Position.after("7", 0), idle_until=NOW - 25 * HOUR).received(last, NOW) is not None
    assert begun(Position.after("7", 0), NOW - 25 * HOUR, retention=48 * HOUR).received(page(), NOW) is None
    assert begun(Position.after("7", 0), NOW - 23 * HOUR, retention=None).received(page(), NOW) is None


def test_possible_loss_in_an_idle_shard_is_reported_if_the_clock_of_arrival_times_is_far_ahead() -> None:
    """A local server dates its responses by the old clock after its clock was advanced by a day."""
    check = begun(Position.after("7", 0), idle_until=NOW)
    assert check.received(page((9, -25.0)), NOW) is not None


def test_reader_that_falls_behind_the_retention_may_lose_records() -> None:
    check = begun(TRIM_HORIZON)
    assert check.received(page((1, 23.0), behind=23 * 3_600_000), NOW) is None
    late = NOW + 2 * HOUR
    assert check.received(page((5, 21.9), behind=1), late) == RecordsExpired("s", "after 1", "at 5/0", False)
    assert check.received(page((6, 21.9), behind=1), late + 10 * HOUR) is None, "once, until it has caught up"
    assert check.received(page((7, -12.0)), late + 10 * HOUR) is None
    assert check.received(page((8, -35.0), behind=0), late + 36 * HOUR) is not None


def test_lagging_reader_reports_loss_if_the_servers_clock_was_advanced() -> None:
    check = begun(TRIM_HORIZON)
    assert check.received(page((1, 0.0), behind=1), NOW) is None
    assert check.received(page((9, -25.0)), NOW) is not None


def test_no_loss_is_reported_for_a_polled_idle_shard() -> None:
    check = begun(TRIM_HORIZON)
    assert check.received(page((1, 0.0)), NOW) is None
    for hours in range(1, 100):
        assert check.received(page(), NOW + hours * HOUR) is None
    assert check.received(page((2, -99.0)), NOW + 99 * HOUR) is None
    # No request was sent for a day: records that arrived in the meantime may have expired.
    assert check.received(page((9, -125.0)), NOW + 125 * HOUR) == RecordsExpired("s", "after 2", "at 9/0", False)
