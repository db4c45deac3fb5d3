"""The pace keeps every shard within its quota, wherever between request and answer the shard counts."""

import random

import pytest

from kinstream.cli.demo.pace import Pace, Share
from kinstream.service_quotas import MIB


def test_the_first_request_goes_at_once() -> None:
    assert Pace().delay({"a": Share(500, 1000)}, 100.0) == 0.0


def test_requests_are_spread_by_what_the_busiest_shard_got() -> None:
    pace = Pace()
    pace.answered({"a": Share(100, 1000), "b": Share(400, 1000)}, 100.0, 100.01)
    assert pace.delay({"a": Share(1, 1)}, 100.1) == pytest.approx(0.3)


def test_a_full_second_must_leave_room_first() -> None:
    pace = Pace()
    pace.answered({"a": Share(500, 1000)}, 100.0, 100.3)
    pace.answered({"a": Share(500, 1000)}, 100.5, 100.6)
    # One more record fits when the first request is a second past its answer.
    assert pace.delay({"a": Share(1, 1)}, 101.1) == pytest.approx(0.2)
    assert pace.delay({"a": Share(1, 1)}, 101.3) == 0.0


def test_another_shard_need_not_wait_for_a_full_one() -> None:
    pace = Pace()
    pace.answered({"a": Share(1000, 1000)}, 100.0, 100.9)
    assert pace.delay({"b": Share(1000, 1000)}, 101.0) == 0.0


def test_bytes_are_paced_as_records_are() -> None:
    pace = Pace()
    pace.answered({"a": Share(1, MIB)}, 100.0, 100.5)
    assert pace.delay({"a": Share(1, 1)}, 101.0) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(20))
def test_no_shard_is_over_its_quota_in_any_second(seed: int) -> None:
    chance = random.Random(seed)
    pace = Pace()
    now = 1000.0
    counted: dict[str, list[tuple[float, Share]]] = {"a": [], "b": [], "c": []}
    for _ in range(200):
        shares = {
            shard: Share(chance.randint(1, 300), chance.randint(1, MIB // 3))
            for shard in chance.sample("abc", chance.randint(1, 3))
        }
        now += pace.delay(shares, now)
        sent_at = now
        now += chance.choice([0.001, 0.01, 0.1, 0.7])
        for shard, share in shares.items():
            counted[shard].append((chance.uniform(sent_at, now), share))
        pace.answered(shares, sent_at, now)
    for records in counted.values():
        for start, _ in records:
            second = [share for at, share in records if start <= at < start + 1 - 1e-6]
            assert sum(share.records for share in second) <= 1000
            assert sum(share.size for share in second) <= MIB


def test_a_steady_stream_goes_at_nearly_the_quota() -> None:
    pace = Pace()
    now = 1000.0
    for _ in range(100):
        now += pace.delay({"a": Share(125, 1000)}, now)
        pace.answered({"a": Share(125, 1000)}, now, now + 0.005)
        now += 0.005
    assert 12_500 / (now - 1000.0) > 950
