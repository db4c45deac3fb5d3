"""Positions: their order, the arguments of the service, and invalid values."""

from __future__ import annotations

import contextlib
import pickle
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream import ConfigError, ShardIteratorType
from kinstream.consume.fetch.position import (
    LATEST,
    LATEST_MARGIN,
    SHARD_END,
    START_AHEAD,
    TRIM_HORIZON,
    Position,
    from_now_on,
    too_early,
)

IN_ORDER = [
    Position.at_time(1),
    Position.at_time(2),
    TRIM_HORIZON,
    LATEST,
    Position.at("9"),
    Position.after("9", 0),
    Position.at("9", 1),
    Position.after("9", 1),
    Position.after("9"),
    Position.at("10"),
    Position.at("1" + "0" * 55),
    SHARD_END,
]


def test_positions_are_in_the_order_of_the_kcls_checkpoints() -> None:
    shuffled = sorted(IN_ORDER, key=lambda position: str(position)[::-1])
    assert sorted(shuffled) == IN_ORDER
    for earlier, later in pairwise(IN_ORDER):
        assert earlier < later
        assert earlier <= later
        assert later > earlier
        assert later >= earlier
        assert not later <= earlier


@pytest.mark.parametrize(
    ("position", "arguments"),
    [
        (TRIM_HORIZON, ("TRIM_HORIZON", None, None)),
        (LATEST, ("LATEST", None, None)),
        (Position.at_time(1.5), ("AT_TIMESTAMP", None, 1.5)),
        (Position.at("7"), ("AT_SEQUENCE_NUMBER", "7", None)),
        (Position.at("7", 3), ("AT_SEQUENCE_NUMBER", "7", None)),
        (Position.after("7"), ("AFTER_SEQUENCE_NUMBER", "7", None)),
        (Position.after("7", 3), ("AT_SEQUENCE_NUMBER", "7", None)),
    ],
)
def test_position_becomes_the_arguments_of_the_service(position: Position, arguments: tuple[str, Any, Any]) -> None:
    kind, number, moment = position.iterator_arguments
    assert (ShardIteratorType(kind).value, number, moment) == arguments


def test_position_inside_an_aggregate_requests_the_whole_aggregate() -> None:
    assert Position.after("7", 2).iterator_arguments[0] is ShardIteratorType.AT_SEQUENCE_NUMBER


def test_latest_does_not_become_later_by_itself() -> None:
    later = LATEST.since(100.0)
    assert later.sequence_number == "LATEST"
    assert later.iterator_arguments == (ShardIteratorType.AT_TIMESTAMP, None, 100.0)
    assert Position.after("7").since(100.0) == Position.after("7")


def test_nothing_is_read_from_the_end() -> None:
    assert SHARD_END.ended
    with pytest.raises(ConfigError, match="SHARD_END"):
        SHARD_END.iterator_arguments  # noqa: B018


@pytest.mark.parametrize(
    ("value", "position"),
    [
        ("TRIM_HORIZON", TRIM_HORIZON),
        ("LATEST", LATEST),
        ("SHARD_END", SHARD_END),
        (1.5, Position.at_time(1.5)),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), Position.at_time(60)),
        (Position.at("7"), Position.at("7")),
        ("at 7", Position.at("7")),
        ("after 7/2", Position.after("7", 2)),
        ("AT_TIMESTAMP(1.5)", Position.at_time(1.5)),
    ],
)
def test_valid_positions_are_parsed(value: Any, position: Position) -> None:
    assert Position.parse("start", value) == position


@pytest.mark.parametrize(
    "value", ["AT_TIMESTAMP", "7", "", "latest", None, True, -1, float("nan"), float("inf"), b"7", []]
)
def test_invalid_positions_are_refused_with_the_name_of_the_field(value: Any) -> None:
    with pytest.raises(ConfigError, match="start"):
        Position.parse("start", value)


def test_datetime_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match="time zone"):
        Position.parse("until", datetime(2026, 1, 1))  # noqa: DTZ001


def test_datetime_before_1970_is_refused_with_the_name_of_the_field() -> None:
    before = datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
    with pytest.raises(ConfigError, match=r"^until=datetime.*1970$"):
        Position.parse("until", before)
    with pytest.raises(ConfigError, match="1970"):
        Position.at_time(before)


@pytest.mark.parametrize(
    ("number", "index"), [("x", 0), ("", 0), ("1" * 130, 0), (7, 0), ("7", -1), ("7", True), ("7", 2**63)]
)
def test_invalid_numbers_are_refused(number: Any, index: Any) -> None:
    with pytest.raises(ConfigError):
        Position.at(number, index)
    with pytest.raises(ConfigError):
        Position.after(number, index)


def test_position_before_a_record_requires_a_subsequence_number() -> None:
    with pytest.raises(ConfigError, match=r"^subsequence_number=None"):
        Position.at("7", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_positions_read_as_text() -> None:
    texts = [
        str(p)
        for p in (TRIM_HORIZON, Position.at("7"), Position.after("7", 2), Position.after("7"), Position.at_time(1))
    ]
    assert texts == ["TRIM_HORIZON", "at 7/0", "after 7/2", "after 7", "AT_TIMESTAMP(1.0)"]


NUMBERS = st.integers(0, 10**129 - 1).map(str) | st.from_regex(r"[0-9]{1,129}", fullmatch=True)
INDEXES = st.integers(0, 2**63 - 1)
TIMES = st.floats(0, allow_infinity=False)
POSITIONS = st.one_of(
    st.sampled_from([TRIM_HORIZON, LATEST, SHARD_END]),
    st.builds(Position.at, NUMBERS, INDEXES),
    st.builds(Position.after, NUMBERS, INDEXES | st.none()),
    st.builds(Position.at_time, TIMES),
    TIMES.map(LATEST.since),
)


@given(POSITIONS)
def test_every_position_is_read_from_its_text_and_from_a_pickle(position: Position) -> None:
    text = str(position)
    assert Position.from_text(text) == position
    assert Position.parse("start", text) == position
    assert Position.parse("start", position) is position
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(position, protocol)) == position


WRONG_TEXTS = ["at", "at ", "at -7", "at 7/", "at 7/-1", "at 7/0/0", "at 7/9223372036854775808", "After 7", " after 7",
               "after 7\n", "before 7", "after \u0667", f"after {'1' * 130}", "LATEST()", "AT_TIMESTAMP(nan)",
               "AT_TIMESTAMP(inf)", "AT_TIMESTAMP(-1)", "AT_TIMESTAMP(1e999)", "AT_TIMESTAMP(1.2.3)", "AT_TIMESTAMP(1)x",
               "TRIM_HORIZON(1.0)", "SHARD_END ", None, 7, b"after 7"]  # fmt: skip


@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_invalid_text_is_refused_with_its_value_and_the_forms_of_text(text: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        Position.from_text(text)
    assert raised.value.details.startswith(f"text={text!r}: must be the text of a position: 'TRIM_HORIZON', ")
    assert raised.value.details.endswith(" or 'AT_TIMESTAMP(SECONDS_SINCE_1970)'")


@given(st.text())
def test_any_text_is_a_position_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        Position.from_text(text)


@pytest.mark.parametrize(
    "position",
    [
        Position("7", None),
        Position("TRIM_HORIZON", 1),
        Position("SHARD_END", 0, False),
        Position("LATEST", None),
        Position("7", timestamp=1.0),
        Position("AT_TIMESTAMP"),
    ],
)
def test_position_with_contradictory_fields_is_refused(position: Position) -> None:
    with pytest.raises(ConfigError, match=r"^start=Position"):
        Position.parse("start", position)


NOW = 1_800_000_000.0


def test_start_up_to_five_minutes_in_the_future_means_from_now_on() -> None:
    for position in TRIM_HORIZON, LATEST, SHARD_END, Position.after("7", 0), Position.at_time(NOW - 1):
        assert from_now_on("start", position, NOW) == position
    assert from_now_on("start", Position.at_time(NOW + 60), NOW) == LATEST
    assert from_now_on("start", Position.at_time(NOW + START_AHEAD), NOW) == LATEST


def test_start_that_may_be_in_the_past_by_the_services_clock_is_unchanged() -> None:
    for ahead in 0.0, 1.5, LATEST_MARGIN:
        near = Position.at_time(NOW + ahead)
        assert from_now_on("start", near, NOW) == near
        assert too_early(near, NOW)
    assert not too_early(Position.at_time(NOW - LATEST_MARGIN), NOW)
    assert not too_early(TRIM_HORIZON, NOW)


@pytest.mark.parametrize(
    ("ahead", "shown"), [(301.0, "2027-01-15 08:05:01.000+00:00 is 301 s after"), (1e300, "1e+300 s since 1970 is")]
)
def test_later_start_is_an_error_with_both_times(ahead: float, shown: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_now_on("start", Position.at_time(NOW + ahead), NOW)
    assert raised.value.details.startswith(f"start: {shown}")
    assert "2027-01-15 08:00:00.000+00:00" in raised.value.details
