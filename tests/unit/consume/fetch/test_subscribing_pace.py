"""When a shard is subscribed to again."""

import pytest

from kinstream.consume.fetch.subscribing_pace import LONGEST_BACKOFF, MARGIN, SubscribingPace


def test_the_first_call_goes_out_at_once() -> None:
    assert SubscribingPace().delay(1000.0) == 0


def test_calls_are_a_second_apart_whatever_became_of_the_last() -> None:
    pace = SubscribingPace()
    pace.called(10.0)
    assert pace.delay(10.2) == pytest.approx(0.8 + MARGIN)


def test_after_a_successful_call_the_next_one_waits_five_seconds() -> None:
    pace = SubscribingPace()
    pace.called(10.0)
    pace.subscribed(10.3)
    assert pace.delay(11.3) == pytest.approx(4.0)


def test_after_five_minutes_the_next_call_goes_out_at_once() -> None:
    pace = SubscribingPace()
    pace.called(10.0)
    pace.subscribed(10.3)
    assert pace.delay(310.3) == 0


def test_pauses_double_to_a_limit_until_an_event_comes() -> None:
    pace = SubscribingPace()
    now = 0.0
    pauses = []
    for _ in range(9):
        pauses.append(pace.failed(now, 1.0, in_use=False))
        now += pauses[-1]
    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_BACKOFF, LONGEST_BACKOFF, LONGEST_BACKOFF]
    pace.event_received()
    assert pace.failed(now, 1.0, in_use=False) == 0.5


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    assert SubscribingPace().failed(0.0, 0.0, in_use=False) == 0.25


def test_a_subscription_of_somebody_else_gets_its_five_seconds() -> None:
    assert SubscribingPace().failed(0.0, 1.0, in_use=True) == 5.5


def test_a_failure_soon_after_a_successful_call_waits_for_the_rest_of_its_five_seconds() -> None:
    pace = SubscribingPace()
    pace.subscribed(10.0)
    assert pace.failed(11.0, 1.0, in_use=False) == 4.0
