"""When a shard is stuck: no progress for so long, and a lag that does not shrink."""

from __future__ import annotations

from kinstream.consume.shard.watch import Watch


def test_silence_is_a_stall_once_it_is_long_enough() -> None:
    watch = Watch(0.0)
    assert watch.stalled(60.0, 60.0) is None
    assert watch.stalled(61.0, 60.0) == 61.0


def test_records_are_progress_and_so_is_the_newest_record() -> None:
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


def test_empty_pages_with_a_shrinking_lag_are_the_way_through_a_gap() -> None:
    watch = Watch(0.0)
    for second in range(1, 70):
        watch.received(float(second), 0, 100_000 - second)
    assert watch.stalled(70.0, 60.0) is None


def test_shard_that_nobody_waited_for_is_not_stuck() -> None:
    watch = Watch(0.0)
    watch.reset(100.0)
    assert watch.stalled(150.0, 60.0) is None


def test_lag_that_shrank_while_nobody_waited_excuses_no_later_silence() -> None:
    watch = Watch(0.0)
    watch.received(1.0, 0, 9000)
    watch.reset(100.0)
    watch.received(101.0, 0, 5000)
    assert watch.stalled(170.0, 60.0) == 70.0


def test_empty_page_without_a_lag_is_no_progress() -> None:
    watch = Watch(0.0)
    watch.received(5.0, 0, None)
    assert watch.stalled(11.0, 10.0) == 11.0
