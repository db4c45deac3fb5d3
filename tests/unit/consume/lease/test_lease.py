"""Leases as rows of the KCL's table: positions, extra properties, and rows that cannot be read."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream import HashKeyRange, LeaseStoreFailed, Position
from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON
from kinstream.consume.lease.lease import (
    Lease,
    Pending,
    checkpoint_columns,
    columns_of,
    lease_key,
    lease_of,
    name_of,
    stream_identifier,
)
from kinstream.consume.lease.row import Row, RowKind

NUMBER = "49680673368926827850135038059041012970258601963264409602"
ROW: dict[str, Any] = {"leaseCounter": 3, "checkpoint": "TRIM_HORIZON", "checkpointSubSequenceNumber": 0}

numbers = st.from_regex(r"[0-9]{1,56}", fullmatch=True)
times = st.floats(min_value=0, max_value=2**32).map(lambda seconds: round(seconds, 6))
indexes = st.integers(min_value=0, max_value=2**31)
canonical = st.one_of(
    st.just(TRIM_HORIZON),
    st.just(SHARD_END),
    st.just(LATEST),
    st.builds(LATEST.since, times),
    st.builds(Position.at_time, times),
    st.builds(Position.at, numbers),
    st.builds(Position.after, numbers, st.none() | indexes),
)
words = st.text("abc-0", min_size=1, max_size=5)
ids = st.frozensets(words, max_size=3).map(lambda found: tuple(sorted(found)))
streams = st.none() | st.just("000000000000:orders:1795949125")


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    stream = draw(streams)
    return Lease(
        key=lease_key(draw(words), stream),
        stream=stream,
        owner=draw(st.none() | words),
        checkpoint_owner=draw(st.none() | words),
        counter=draw(st.integers(0, 2**62)),
        checkpoint=draw(canonical),
        pending=draw(st.none() | st.builds(Pending, st.builds(Position.after, numbers), st.none() | st.binary())),
        parents=draw(ids),
        children=draw(ids),
        hash_key_range=draw(st.none() | st.just(HashKeyRange("0", str(2**128 - 1)))),
        owner_switches=draw(st.integers(0, 9)),
        throughput_kbps=draw(st.none() | st.floats(0, 1e9)),
        idle_until=draw(st.none() | times),
    )


def row(**columns: Any) -> Row:
    return Row(
        RowKind.LEASE, "shardId-0", {name: value for name, value in (ROW | columns).items() if value is not None}
    )


@given(leases())
def test_lease_comes_back_as_it_was_written(lease: Lease) -> None:
    assert lease_of(Row(RowKind.LEASE, lease.key, columns_of(lease))) == lease


@given(numbers, indexes)
def test_position_before_a_later_record_of_an_aggregate_comes_back_as_after_the_one_before_it(
    number: str, index: int
) -> None:
    columns = checkpoint_columns(Position.at(number, index + 1))
    assert columns == checkpoint_columns(Position.after(number, index))
    assert lease_of(row(**columns)).checkpoint == Position.after(number, index)


@pytest.mark.parametrize(
    ("position", "text", "subsequence"),
    [
        (Position.at(NUMBER), NUMBER, -1),
        (Position.at(NUMBER, 7), NUMBER, 6),
        (Position.after(NUMBER, 7), NUMBER, 7),
        (Position.after(NUMBER), NUMBER, 9223372036854775807),
        (TRIM_HORIZON, "TRIM_HORIZON", 0),
        (LATEST.since(1.5), "LATEST", 0),
        (Position.at_time(1.5), "AT_TIMESTAMP", 0),
        (SHARD_END, "SHARD_END", 0),
    ],
)
def test_checkpoint_is_stored_as_the_record_after_which_reading_continues(
    position: Position, text: str, subsequence: int
) -> None:
    assert checkpoint_columns(position) == {"checkpoint": text, "checkpointSubSequenceNumber": subsequence}


def test_extra_properties_of_an_earlier_checkpoint_do_not_count() -> None:
    lease = Lease("shardId-0", checkpoint=Position.after(NUMBER, 3), idle_until=9.5)
    columns = columns_of(lease)
    assert columns["kinstream"] == {"v": 1, "of": f"{NUMBER}/3", "idle_until": 9.5}
    assert lease_of(row(**columns)).idle_until == 9.5
    assert lease_of(row(**columns | {"checkpointSubSequenceNumber": 4})).idle_until is None
    assert lease_of(row(**columns | {"checkpoint": "1"})).idle_until is None


@pytest.mark.parametrize(
    "extras",
    [
        "text",
        {"v": 2, "of": "TRIM_HORIZON/0", "idle_until": 1.0},
        {"v": 1, "of": "TRIM_HORIZON/0", "idle_until": "now"},
        {"v": 1, "of": "TRIM_HORIZON/0", "idle_until": True},
    ],
)
def test_extra_properties_of_another_version_or_type_are_ignored(extras: Any) -> None:
    assert lease_of(row(kinstream=extras)).idle_until is None


def test_time_of_a_start_that_the_kcl_has_stored_is_unknown() -> None:
    assert lease_of(row(checkpoint="AT_TIMESTAMP")).checkpoint == Position("AT_TIMESTAMP")


def test_columns_that_old_versions_do_not_write_have_defaults() -> None:
    found = lease_of(row(checkpointSubSequenceNumber=None))
    assert found == Lease("shardId-0", counter=3)


def test_numbers_may_have_a_fraction_of_zero() -> None:
    assert lease_of(row(leaseCounter=4.0)).counter == 4


@pytest.mark.parametrize(("state", "read"), [(b"x", b"x"), (12, b"12"), (None, None)])
def test_state_of_a_prepared_checkpoint_is_read_as_bytes_or_as_a_number(state: Any, read: bytes | None) -> None:
    found = lease_of(row(pendingCheckpoint="5", pendingCheckpointSubSequenceNumber=2, pendingCheckpointState=state))
    assert found.pending == Pending(Position.after("5", 2), read)


def test_state_of_a_prepared_checkpoint_is_not_shown() -> None:
    shown = repr(Lease("a", pending=Pending(TRIM_HORIZON, b"hidden")))
    assert "state=..." in shown
    assert "hidden" not in shown
    assert "state=None" in repr(Pending(TRIM_HORIZON))


def test_stream_of_a_lease_is_read_from_its_key_if_the_column_is_missing() -> None:
    key = "000000000000:orders:1795949125:shardId-000000000001"
    found = lease_of(Row(RowKind.LEASE, key, ROW))
    assert (found.stream, found.shard_id) == ("000000000000:orders:1795949125", "shardId-000000000001")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("leaseCounter", None),
        ("leaseCounter", "3"),
        ("leaseCounter", True),
        ("leaseCounter", 1.5),
        ("leaseOwner", 5),
        ("leaseOwner", ""),
        ("checkpointOwner", b"x"),
        ("checkpoint", None),
        ("checkpoint", "NOWHERE"),
        ("checkpoint", "1" * 130),
        ("checkpoint", "-1"),
        ("checkpointSubSequenceNumber", -2),
        ("checkpointSubSequenceNumber", 2**63),
        ("parentShardId", "shardId-1"),
        ("childShardIds", ["shardId-1"]),
        ("ownerSwitchesSinceCheckpoint", "0"),
        ("throughputKBps", "fast"),
        ("pendingCheckpoint", 5),
        ("streamName", "orders"),
        ("startingHashKey", "-5"),
    ],
)
def test_row_that_cannot_be_read_is_refused_with_its_key_and_the_column(column: str, value: Any) -> None:
    with pytest.raises(LeaseStoreFailed, match=re.escape(f"lease 'shardId-0': column '{column}'")):
        lease_of(row(**{column: value}))


def test_incomplete_range_of_hash_keys_and_state_of_another_type_are_refused() -> None:
    with pytest.raises(LeaseStoreFailed, match="'startingHashKey' is missing"):
        lease_of(row(endingHashKey="5"))
    with pytest.raises(LeaseStoreFailed, match="'endingHashKey' has an invalid value"):
        lease_of(row(startingHashKey="0", endingHashKey="x"))
    with pytest.raises(LeaseStoreFailed, match="'pendingCheckpointState'"):
        lease_of(row(pendingCheckpoint="5", pendingCheckpointState=["x"]))


def test_identifier_of_a_stream_has_the_second_of_its_creation() -> None:
    stream = stream_identifier("123456789012", "orders", 1795949125.9)
    assert stream == "123456789012:orders:1795949125"
    assert name_of(stream) == "orders"


def test_id_of_a_shard_has_the_name_of_its_stream_if_there_are_several() -> None:
    stream = "123456789012:orders:1795949125"
    assert Lease(lease_key("shardId-1", stream), stream).qualified_id == "orders:shardId-1"
    assert Lease("shardId-1").qualified_id == "shardId-1"
