"""Lives of a producer by the hundred, each drawn by a seed: faults, throttles and reshards while it writes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.doubles.network import Fate
from tests.simulation.producing import CHECKS, Story, draw, live
from tests.simulation.seeds import SEEDS, summed


def lives(kind: str, seeds: int, **fixed: Any) -> Counter[str]:
    """Live a number of plans, check each, and return the sum of their events."""

    def life(seed: int) -> Counter[str]:
        story = live(draw(seed, **fixed))
        for check in CHECKS:
            check(story)
        return counts(story)

    return summed(kind, seeds, life)


def counts(story: Story) -> Counter[str]:
    """Return the counts of a simulation."""
    copies = Counter(one.data for one in story.reading.seen)
    return Counter(
        {
            "acknowledged": len(story.acknowledged),
            "failed": len(story.failures),
            "twice": sum(count > 1 for count in copies.values()),
            "requests": len(story.network.trips),
            "unknown": sum(trip.unknown for trip in story.network.trips),
            "partial": story.network.fates[Fate.PARTIAL],
            "aggregates": story.reading.aggregates,
            "dropped": story.reading.dropped,
            "resharded": len(story.network.service.shards("orders")) - story.plan.shards,
        }
    )


@pytest.mark.timeout(600 + SEEDS)
def test_no_acknowledged_record_is_lost_whatever_happens() -> None:
    sums = lives("whatever happens", SEEDS)
    if SEEDS >= 100:  # the seeds' lives are not all easy ones
        assert min(sums[what] for what in ("failed", "twice", "unknown", "partial", "aggregates", "dropped")) > 3


@pytest.mark.timeout(600 + SEEDS)
def test_order_of_each_key_holds_under_partial_failures_and_reshards() -> None:
    sums = lives("order", SEEDS, order="key", keyless=False, weather="partial", reshards=5, transition=0.0, putters=2)
    if SEEDS >= 100:
        assert min(sums[what] for what in ("partial", "resharded", "aggregates", "dropped")) > 3


@pytest.mark.timeout(600 + SEEDS)
def test_order_of_each_key_holds_if_shards_are_split_and_merged_faster_than_requests_return() -> None:
    fixed: dict[str, Any] = {"order": "key", "keyless": False, "weather": "fine", "reshards": 30, "transition": 0.0}
    lives("order, slow", SEEDS // 2, **fixed, latency=(0.05, 4.0), pause=0.02, keys=20, shards=3, putters=2, close=None)


@pytest.mark.timeout(600 + SEEDS)
def test_order_of_each_key_holds_when_results_are_unknown() -> None:
    lives("order, unknown", SEEDS // 2, order="key", keyless=False, weather="everything", reshards=3, keys=3)
