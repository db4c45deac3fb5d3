"""The costs in docs/fleet.md are those of the intervals in the code, and of the prices in docs/fleet_costs.py."""

from __future__ import annotations

import re

import pytest
from tests.docs.test_file_map import ROOT, generator

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
    assert often.busy == pytest.approx(100 * 86_400 * 0.625e-6)
    assert rarely.renewals <= rarely.busy < often.busy
