"""Stalled shards: no progress within the limit, and a lag that does not shrink."""

from __future__ import annotations

from kinstream.consume.shard.watch import Watch


def test_time_without_pages_is_a_stall_after_the_limit() -> None:
    watch = Watch(0.0)
    assert watch.stalled(60.0, 60.0) is None
    assert watch.stalled(61.0, 60.0) == 61.0


def test_records_are_progress_and_so_is_reaching_the_newest_record() -> None:
    watch = Watch(0.0)
    watch.received(50.0, 3, 9000)
    assert watch.stalled(100.0, 60.0) is None
    watch.received(100.0, 0, 0)
    assert watch.stalled(150.0, 60.0) is None


def test_empty_pages_with_a_growing_lag_are_a_stall() -> None:
    watch = Watch(0.0)
    for second in range(1, 70):
        watch.received(float(second), 0, second * 1000)
    assert watch.stalled(70.0, 60.0) == 70.0


def test_empty_pages_with_a_shrinking_lag_are_not_a_stall() -> None:
    watch = Watch(0.0)
    for second in range(1, 70):
        watch.received(float(second), 0, 100_000 - second)
    assert watch.stalled(70.0, 60.0) is None


def test_shard_is_not_stalled_while_the_reader_does_not_wait() -> None:
    watch = Watch(0.0)
    watch.reset(100.0)
    assert watch.stalled(150.0, 60.0) is None


def test_lag_that_shrank_before_a_reset_does_not_hide_a_later_stall() -> None:
    watch = Watch(0.0)
    watch.received(1.0, 0, 9000)
    watch.reset(100.0)
    watch.received(101.0, 0, 5000)
    assert watch.stalled(170.0, 60.0) == 70.0


def test_empty_page_without_a_lag_is_not_progress() -> None:
    watch = Watch(0.0)
    watch.received(5.0, 0, None)
    assert watch.stalled(11.0, 10.0) == 11.0
