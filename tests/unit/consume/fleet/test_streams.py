"""Streams of an application: tables of one stream and of several, which are refused by workers of the other kind."""

from __future__ import annotations

import pytest
from tests.conformance.test_kcl_modes import view_of
from tests.doubles.fleet_rows import kcl_row, owned, seen, worker_row

from kinstream.consume.fleet.streams import check_format, check_stream, of_streams, unread
from kinstream.errors import ConfigError

VERSIONS = ("2.7.2", "3.4.2", "3.5.1")


@pytest.mark.parametrize("several", [False, True])
def test_empty_table_is_accepted(several: bool) -> None:
    check_format(seen([]), "<table>", several=several)


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_table_of_several_streams_is_refused_by_a_consumer_of_one(version: str) -> None:
    view = view_of(f"kcl-{version}-multi-stream")
    check_format(view, "<table>", several=True)
    with pytest.raises(
        ConfigError, match=r"<table>: the lease '000000000000:clicks:\d+:shardId-000000000000' .* as a list, or"
    ):
        check_format(view, "<table>", several=False)


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_table_of_one_stream_is_refused_by_a_consumer_of_several(version: str) -> None:
    view = view_of(f"kcl-{version}-all-stopped")
    check_format(view, "<table>", several=False)
    with pytest.raises(
        ConfigError, match=r"<table>: the lease 'shardId-000000000000' .* as text instead of a list, or"
    ):
        check_format(view, "<table>", several=True)


@pytest.mark.parametrize("several", [False, True])
def test_table_with_leases_of_both_kinds_is_refused(several: bool) -> None:
    view = seen(owned({"shardId-000000000000": "w", "1:orders:2:shardId-000000000000": "w"}))
    with pytest.raises(ConfigError, match="Nothing was written"):
        check_format(view, "<table>", several=several)


def test_leases_of_streams_that_are_not_read_are_left_out_and_named() -> None:
    view = view_of("kcl-3.5.1-multi-stream")
    streams = {str(observed.lease.stream) for observed in view.leases.values()}
    orders = next(stream for stream in streams if ":orders:" in stream)
    (clicks,) = streams - {orders}
    assert of_streams(view, None) is view
    assert of_streams(view, frozenset(streams)) is view
    assert {lease.lease.stream for lease in of_streams(view, frozenset({orders})).leases.values()} == {orders}
    assert unread(view, None) == unread(view, frozenset(streams)) == []
    (note,) = unread(view, frozenset({orders}))
    assert note.endswith(f"leaves their leases alone: {clicks}.")


def test_table_of_a_worker_that_reads_another_stream_is_refused() -> None:
    view = seen([worker_row("a", only_stream="orders"), worker_row("b"), kcl_row("j")])
    check_stream(view, "<table>", "orders")
    check_stream(view, "<table>", None)
    with pytest.raises(ConfigError, match=r"<table>: has the leases of the stream 'orders', .* 'clicks'"):
        check_stream(view, "<table>", "clicks")
