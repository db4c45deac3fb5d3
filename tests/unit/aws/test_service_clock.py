"""The service's clock is learned from responses, and a wrong clock of this machine is corrected in signatures."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from kinstream.aws.service_clock import (
    CLOCKS_DIFFER,
    SKEW_TOLERANCE,
    ClockReading,
    ServiceClock,
    parse_date,
    time_compared,
)

NOW = 1_800_000_000.0


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


@pytest.mark.parametrize(("ahead", "learned"), [(0.0, 0.0), (CLOCKS_DIFFER, 0.0), (30.0, 30.0), (-3600.0, -3600.0)])
def test_date_of_a_response_is_learned_if_it_differs(ahead: float, learned: float) -> None:
    clock = ServiceClock()
    clock.observe(http_date(NOW + ahead), NOW)
    assert clock.time(NOW + 5) == NOW + 5 + learned
    assert clock.signing_time(NOW) == NOW


def test_date_is_evaluated_when_it_first_appears() -> None:
    clock = ServiceClock()
    clock.observe(http_date(NOW + 30), NOW)
    clock.observe(http_date(NOW + 30), NOW + 0.9)
    assert clock.time(NOW) == NOW + 30


@pytest.mark.parametrize(
    "date", [None, "", "no date", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"]
)
def test_date_that_is_missing_or_not_plausible_is_ignored(date: str | None) -> None:
    clock = ServiceClock()
    clock.observe(http_date(NOW + 30), NOW)
    clock.observe(date, NOW)
    assert parse_date(date) is None
    assert clock.time(NOW) == NOW + 30


def test_refusal_of_a_wrong_time_corrects_the_next_signature() -> None:
    clock = ServiceClock()
    assert clock.correct(NOW + 3600, NOW, 10.0, ClockReading(NOW + 1, 11.0), None) == NOW - 10
    assert clock.signing_time(NOW + 2) == NOW + 3601


def test_refusal_of_a_right_time_is_not_signed_again() -> None:
    clock = ServiceClock()
    assert clock.correct(NOW + SKEW_TOLERANCE, NOW, 10.0, ClockReading(NOW + 1, 11.0), None) is None
    assert clock.skew == 0.0


def test_second_refusal_of_a_call_is_not_signed_again_unless_the_clock_was_set() -> None:
    clock = ServiceClock()
    now = ClockReading(NOW + 1, 11.0)
    first = clock.correct(NOW + 3600, NOW, 10.0, now, None)
    assert clock.correct(NOW + 9999, NOW, 10.0, now, first) is None
    set_since = ClockReading(NOW + 7200, 12.0)
    assert clock.correct(NOW + 3602, NOW + 3601, 11.0, set_since, first) is None
    assert clock.correct(NOW + 3602, NOW + 10_800, 12.0, set_since, first) == NOW + 7188
    assert clock.signing_time(NOW + 7200) == NOW + 3602


def test_refusal_without_a_time_is_signed_again_if_the_correction_is_newer_than_the_signature() -> None:
    clock = ServiceClock()
    now = ClockReading(NOW + 1, 11.0)
    assert clock.correct(None, NOW, 10.0, now, None) is None
    clock.correct(NOW + 3600, NOW, 10.0, now, None)
    assert clock.correct(None, NOW, 10.0, now, None) == NOW - 10


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (
            "Signature expired: 20270115T080000Z is now earlier than 20270115T090000Z (20270115T090500Z - 5 min.)",
            1_800_003_900,
        ),
        ("Signature not yet current: X is still later than Y (20270115T080000Z + 5 min.)", 1_800_000_000),
        ("(20279915T080000Z - 5 min.)", None),
        ("The security token is invalid", None),
    ],
)
def test_time_in_a_refusal_is_parsed(message: str, seconds: float | None) -> None:
    assert time_compared(message) == seconds
