"""The numbers of the AWS SDKs' standard retry mode, 2026 (AWS SDKs and Tools Reference Guide, "Retry behavior")."""

import random

import pytest

from kinstream.aws.attempts import QUOTA_CAPACITY, Attempts, RetryQuota
from kinstream.config import RetryPolicy
from kinstream.errors import ConnectionFailed, InvalidArgument, KinesisError, service_error

BROKEN = service_error("PutRecords", 500, "InternalFailure", "")
THROTTLED = service_error("PutRecords", 400, "ProvisionedThroughputExceededException", "")
PATIENT = RetryPolicy(max_attempts=100)


def attempts(quota: RetryQuota | None = None, retrying: RetryPolicy = PATIENT) -> Attempts:
    return Attempts(retrying, RetryQuota() if quota is None else quota)


def test_three_attempts_by_default() -> None:
    call = attempts(retrying=RetryPolicy())
    assert call.next_delay(BROKEN, 0.5) is not None
    assert call.next_delay(BROKEN, 0.5) is not None
    assert call.next_delay(BROKEN, 0.5) is None
    assert call.number == 3


def test_one_attempt_never_repeats() -> None:
    assert attempts(retrying=RetryPolicy(max_attempts=1)).next_delay(THROTTLED, 0.5) is None


def test_pauses_after_faults_double_from_50_ms_to_20_s() -> None:
    call = attempts()
    pauses = [call.next_delay(BROKEN, 1.0) for _ in range(12)]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20, 20]


def test_pauses_after_throttles_double_from_1_s_to_20_s() -> None:
    call = attempts()
    assert [call.next_delay(THROTTLED, 1.0) for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]


def test_jitter_is_full() -> None:
    assert attempts().next_delay(THROTTLED, 0.0) == 0
    assert attempts().next_delay(THROTTLED, 0.25) == 0.25
    call = attempts()
    call.next_delay(BROKEN, 0.5)
    assert call.next_delay(THROTTLED, 0.5) == 1.0


def test_configured_cap_bounds_every_pause() -> None:
    call = attempts(retrying=RetryPolicy(max_attempts=10, max_delay=0.07))
    assert [call.next_delay(BROKEN, 1.0) for _ in range(3)] == [0.05, 0.07, 0.07]


def test_hundredth_delay_does_not_overflow() -> None:
    call = attempts(RetryQuota(10**9))
    delays = [call.next_delay(THROTTLED, 1.0) for _ in range(99)]
    assert delays[-1] == 20
    assert call.next_delay(THROTTLED, 1.0) is None


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(None, 0.5), (0.0, 0.5), (0.2, 0.5), (3.0, 3.0), (5.5, 5.5), (60.0, 5.5)],
)
def test_retry_after_lengthens_the_pause_by_at_most_5_s(retry_after: float | None, pause: float) -> None:
    assert attempts().next_delay(THROTTLED, 0.5, retry_after) == pause


def test_error_that_repeating_cannot_help_is_final_and_costs_nothing() -> None:
    quota = RetryQuota()
    assert attempts(quota).next_delay(InvalidArgument("no"), 0.5) is None
    assert quota.available == QUOTA_CAPACITY == 500


@pytest.mark.parametrize(("error", "cost"), [(BROKEN, 14), (ConnectionFailed("no", sent=False), 14), (THROTTLED, 5)])
def test_retry_costs_14_after_a_fault_and_5_after_a_throttle(error: KinesisError, cost: int) -> None:
    quota = RetryQuota()
    attempts(quota).next_delay(error, 0.5)
    assert quota.available == 500 - cost


def test_retry_that_the_quota_cannot_pay_is_not_made() -> None:
    quota = RetryQuota()
    quota.available = 13
    call = attempts(quota)
    assert call.next_delay(BROKEN, 0.5) is None
    assert quota.available == 13
    assert call.number == 1
    assert call.next_delay(THROTTLED, 0.5) is not None


def test_success_without_a_retry_returns_1_token() -> None:
    quota = RetryQuota()
    quota.available = 100
    attempts(quota).succeeded()
    assert quota.available == 101


def test_success_after_retries_returns_the_last_retrys_cost() -> None:
    quota = RetryQuota()
    call = attempts(quota)
    call.next_delay(BROKEN, 0.5)
    call.next_delay(BROKEN, 0.5)
    call.next_delay(THROTTLED, 0.5)
    call.succeeded()
    assert quota.available == 500 - 14 - 14


def test_quota_never_holds_more_than_its_capacity() -> None:
    quota = RetryQuota()
    attempts(quota).succeeded()
    assert quota.available == 500


def test_a_minute_of_faults_costs_at_most_a_fifth_more_calls_once_the_quota_is_empty() -> None:
    # 20 calls a second for 60 s, each with a 500 as response, on a virtual clock. Events are ordered by time.
    quota, jitter = RetryQuota(), random.Random(4)
    calls = [(i / 20, Attempts(RetryPolicy(), quota)) for i in range(60 * 20)]
    sent: list[tuple[float, bool]] = []
    emptied = None
    waiting = [(when, number, call, True) for number, (when, call) in enumerate(calls)]
    while waiting:
        waiting.sort(key=lambda entry: entry[:2], reverse=True)
        when, number, call, first = waiting.pop()
        sent.append((when, first))
        delay = call.next_delay(BROKEN, jitter.random())
        if delay is not None:
            waiting.append((when + delay, number, call, False))
        elif call.number < 3 and emptied is None:
            emptied = when

    assert emptied is not None
    assert emptied < 3
    after = [first for when, first in sent if when > emptied]
    assert len(after) <= 1.2 * sum(after)
    assert len(sent) - len(calls) <= 500 // 14


def test_the_quota_recovers_with_the_service() -> None:
    quota = RetryQuota()
    quota.available = 0
    for _ in range(14):
        assert attempts(quota).next_delay(BROKEN, 0.5) is None
        attempts(quota).succeeded()
    assert attempts(quota).next_delay(BROKEN, 0.5) is not None
