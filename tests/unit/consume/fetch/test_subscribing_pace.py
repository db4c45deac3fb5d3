"""Delays between subscriptions to one shard."""

import pytest

from kinstream.consume.fetch.subscribing_pace import LONGEST_BACKOFF, MARGIN, SubscribingPace


def test_first_call_has_no_delay() -> None:
    assert SubscribingPace().delay(1000.0) == 0


def test_calls_are_a_second_apart_regardless_of_the_last_result() -> None:
    pace = SubscribingPace()
    pace.called(10.0)
    assert pace.delay(10.2) == pytest.approx(0.8 + MARGIN)


def test_after_a_successful_call_the_next_one_waits_five_seconds() -> None:
    pace = SubscribingPace()
    pace.called(10.0)
    pace.subscribed(10.3)
    assert pace.delay(11.3) == pytest.approx(4.0)


def test_after_five_minutes_the_next_call_has_no_delay() -> None:
    pace = SubscribingPace()
    pace.called(10.0)
    pace.subscribed(10.3)
    assert pace.delay(310.3) == 0


def test_delays_double_to_a_limit_until_an_event_arrives() -> None:
    pace = SubscribingPace()
    now = 0.0
    pauses = []
    for _ in range(9):
        pauses.append(pace.failed(now, 1.0, in_use=False))
        now += pauses[-1]
    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_BACKOFF, LONGEST_BACKOFF, LONGEST_BACKOFF]
    pace.event_received()
    assert pace.failed(now, 1.0, in_use=False) == 0.5


def test_jitter_shortens_a_delay_by_up_to_half() -> None:
    assert SubscribingPace().failed(0.0, 0.0, in_use=False) == 0.25


def test_another_readers_subscription_is_given_five_seconds() -> None:
    assert SubscribingPace().failed(0.0, 1.0, in_use=True) == 5.5


def test_failure_soon_after_a_successful_call_waits_for_the_remaining_seconds() -> None:
    pace = SubscribingPace()
    pace.subscribed(10.0)
    assert pace.failed(11.0, 1.0, in_use=False) == 4.0
