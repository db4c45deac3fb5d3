"""Lives of a consumer by the hundred, each drawn by a seed: faults, reshards, kills and slow work while it reads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.doubles.network import Fate
from tests.doubles.pushing import PushFate
from tests.simulation.consuming import CHECKS, Story, draw, live
from tests.simulation.seeds import SEEDS, summed

from kinstream import EnhancedFanOut, Handling


def lives(kind: str, seeds: int, **fixed: Any) -> Counter[str]:
    """Run `seeds` simulations, check each, and return the sums of their counts."""

    def life(seed: int) -> Counter[str]:
        story = live(draw(seed, **fixed))
        for check in CHECKS:
            check(story)
        return counts(story)

    return summed(kind, seeds, life)


def counts(story: Story) -> Counter[str]:
    """Return the counts of a simulation."""
    done = [step for step in story.steps if step.kind == "done"]
    fates = story.network.push_fates
    by_its_way = (
        {"subscriptions": fates.total()} | {f"that are {fate}": fates[fate] for fate in PushFate}
        if isinstance(story.plan.fetch, EnhancedFanOut)
        else {"iterators expired": story.network.fates[Fate.ITERATOR]}
    )
    return Counter(
        by_its_way
        | {
            "records": len(story.reading.seen),
            "handled again": len(done) - len({step.number for step in done}),
            "workers": story.lives,
            "shards with parents": sum(map(bool, story.parents.values())),
            "checkpoints": sum(step.kind == "wrote" for step in story.steps),
            "aggregates dropped": story.reading.dropped,
            "requests": story.network.sent,
            "reads that failed": story.events["FetchFailed"],
            "writes that failed": story.events["CheckpointFailed"],
        }
    )


@pytest.mark.timeout(600 + SEEDS)
def test_no_record_is_lost_or_out_of_order_whatever_happens() -> None:
    sums = lives("reading, whatever happens", SEEDS)
    if SEEDS >= 100:  # the seeds' lives are not all easy ones
        assert min(sums.values()) > 3, sums


@pytest.mark.timeout(600 + SEEDS)
def test_no_pushed_record_is_lost_or_out_of_order_whatever_happens() -> None:
    sums = lives("pushed, whatever happens", SEEDS, fetch=EnhancedFanOut())
    if SEEDS >= 100:
        assert min(sums.values()) > 3, sums


@pytest.mark.timeout(600 + SEEDS)
def test_subscriptions_end_and_break_and_shards_split_and_every_record_comes_once() -> None:
    """R7-R9: in order, parents before children, none lost and none twice at any seam."""
    fixed: dict[str, Any] = {"fetch": EnhancedFanOut(), "kills": 0, "outages": 0, "store_fails": 0.0, "manual": False}
    lives("pushed, resharded", SEEDS // 2, **fixed, reshards=15, pause=0.05)
    lives("pushed, for half an hour", SEEDS // 10, **fixed, reshards=6, records=200, pause=10.0, weather="fine")


@pytest.mark.timeout(600 + SEEDS)
def test_every_reshard_under_load_is_followed_in_order() -> None:
    fixed: dict[str, Any] = {"weather": "fine", "kills": 0, "outages": 0, "reshards": 15, "pause": 0.05}
    lives("reading, resharded", SEEDS // 2, **fixed, store_fails=0.0, manual=False)


@pytest.mark.timeout(600 + SEEDS)
def test_a_worker_that_is_killed_again_and_again_loses_nothing() -> None:
    lives("reading, killed", SEEDS // 2, weather="fine", kills=8, outages=0, reshards=6, pause=0.2)


@pytest.mark.timeout(600 + SEEDS)
def test_after_an_expired_iterator_reading_continues_after_the_last_record() -> None:
    lives("reading, iterators", SEEDS // 2, weather="iterators", kills=0, outages=0, store_fails=0.0, manual=False)


@pytest.mark.timeout(600 + SEEDS)
def test_a_program_that_checkpoints_by_hand_and_is_killed_reads_on_in_order() -> None:
    fixed: dict[str, Any] = {"weather": "fine", "outages": 0, "store_fails": 0.0, "fails": 0.0}
    lives("reading, by hand", SEEDS // 4, **fixed, manual=True, face="iterate", kills=6, reshards=80, pause=0.1, keys=3)


@pytest.mark.timeout(600 + SEEDS)
def test_a_handler_of_many_at_once_finishes_keys_in_order() -> None:
    handling = Handling(concurrency=20)
    lives("reading, side by side", SEEDS // 2, face="run", handling=handling, work=0.5, fails=0.2, manual=False)
