"""Reports of a consumer of several streams: the stream of each event and log line."""

from __future__ import annotations

import logging

import pytest
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream.consume.report import Reporter
from kinstream.errors import KinesisError
from kinstream.events import DiscoveryFailed, Event, FellBackToPolling, Subscribed


def test_events_of_one_of_several_streams_have_its_name() -> None:
    async def program() -> None:
        seen: list[Event] = []
        report, error = Reporter("app", LoopClock(), seen.append), KinesisError("no")
        orders = report.of_stream("orders")
        for event in (Subscribed("shardId-1"), FellBackToPolling(error), DiscoveryFailed(error, "clicks")):
            orders(event)
        assert seen == [
            Subscribed("orders:shardId-1"),
            FellBackToPolling(error, "orders"),
            DiscoveryFailed(error, "clicks"),
        ]
        assert report.of_stream(None) is report

    simulate(program)


def test_a_stream_that_is_listed_does_not_hide_that_another_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        report = Reporter("app", LoopClock(), None)
        report(DiscoveryFailed(KinesisError("no"), "orders"))
        report.listed("clicks")
        assert [record.message for record in caplog.records] == [
            "app: listing the shards of orders failed: KinesisError: no; known shards are still read, and it is retried"
        ]
        report.listed("orders")
        assert "app: listing the shards of orders works again" in caplog.records[-1].message
        report = Reporter("orders", LoopClock(), None)
        report(DiscoveryFailed(KinesisError("no"), "orders"))
        assert caplog.records[-1].message.startswith("orders: listing the shards failed")

    caplog.set_level(logging.INFO, "kinstream.consumer")
    simulate(program)


def test_log_line_of_polling_names_the_stream_if_there_are_several(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        report = Reporter("app", LoopClock(), None)
        report(FellBackToPolling(KinesisError("no")))
        report.of_stream("orders")(FellBackToPolling(KinesisError("no")))

    simulate(program)
    first, second = (record.message for record in caplog.records)
    assert first.startswith("app: the stream is read by polling: ")
    assert second.startswith("app: the stream orders is read by polling: ")
