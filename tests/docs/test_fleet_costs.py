"""The costs in docs/fleet.md are those of the intervals in the code, and of the prices in docs/fleet_costs.py."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from tests.docs.test_file_map import ROOT, generator
from tests.doubles.fleet import Fleets, Worker
from tests.doubles.virtual_loop import simulate

from kinstream.consume.lease.row import RowKind

costs = generator("fleet_costs")
PAGE = (ROOT / "docs" / "fleet.md").read_text()


def test_table_is_current() -> None:
    assert costs.updated(PAGE) == PAGE, "run: python docs/fleet_costs.py"


def test_text_names_the_prices() -> None:
    million = 1_000_000
    found = re.search(r"([\d.]+) a million write units, ([\d.]+) a million read units", PAGE)
    assert found
    assert [float(price) for price in found.groups()] == [costs.PRICES.write * million, costs.PRICES.read * million]


def test_each_lease_costs_three_writes_in_the_time_of_a_failover() -> None:
    found = costs.costs(10, 3, failover=10, checkpoint_every=5)
    assert found.renewals == pytest.approx(10 * 3 / 10 * 86_400 * 0.625e-6, rel=0.01)


def test_costs_fall_with_a_longer_failover() -> None:
    at_10, at_30 = (costs.costs(100, 10, failover=seconds, checkpoint_every=5) for seconds in (10, 30))
    assert at_30.renewals == pytest.approx(at_10.renewals / 3, rel=0.01)
    assert at_30.idle_total < at_10.idle_total


def test_shards_with_records_cost_more_writes_unless_they_are_checkpointed_rarely() -> None:
    often, rarely = (costs.costs(100, 10, failover=10, checkpoint_every=seconds) for seconds in (1, 10))
    assert often.busy_renewals == pytest.approx(100 * 86_400 * 0.625e-6)
    assert rarely.renewals <= rarely.busy_renewals < often.busy_renewals


@pytest.mark.parametrize(("shards", "workers", "failover"), [(10, 3, 10), (40, 8, 10), (10, 2, 30)])
def test_a_fleet_at_rest_makes_the_calls_that_are_charged(shards: int, workers: int, failover: int) -> None:
    async def program() -> None:
        fleet = Fleets(shards)
        running.extend([await fleet.join(f"w{number}", failover=float(failover)) for number in range(workers)])
        await fleet.clock.sleep(20 * failover)
        before = counted()
        seconds = 40 * failover
        await fleet.clock.sleep(seconds)
        made = {name: count / seconds for name, count in (counted() - before).items()}
        expected = costs.rates(shards, workers, failover=failover, checkpoint_every=5)
        assert made[RowKind.LEASE] == pytest.approx(expected.renewals, rel=0.05)
        assert made[RowKind.WORKER] + made[RowKind.LEADER] == pytest.approx(expected.workers, rel=0.05)
        assert made["owned"] == pytest.approx(expected.polls, rel=0.05)
        assert made["get"] == pytest.approx(expected.checks, rel=0.05)
        assert made["list"] == pytest.approx(expected.scans, rel=0.05)
        for worker in running:
            await worker.leave()

    def counted() -> Counter[str]:
        found: Counter[str] = Counter()
        for worker in running:
            found.update(worker.table.calls)
            found.update(write.kind for _, write, _ in worker.table.writes)
        return found

    running: list[Worker] = []
    simulate(program)
