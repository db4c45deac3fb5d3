"""Lives of fleets, each drawn by a seed: members of one application on one faulty table, alone and with models of KCL workers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.simulation.fleet_life import UPGRADE, FleetStory, draw, live
from tests.simulation.fleet_process import Habits
from tests.simulation.seeds import SEEDS, summed

FLEETS = SEEDS // 2 if SEEDS < 1000 else SEEDS
"""Simulations of the first kind. The others run a part of them."""
VERSION_3X = "CLIENT_VERSION_3X"


def lives(kind: str, seeds: int, **fixed: Any) -> Counter[str]:
    """Run simulations, check each, and return the sums of their counts."""

    def life(seed: int) -> Counter[str]:
        story = live(draw(seed, **fixed))
        assert not story.log.violations, "\n".join(story.log.violations[:10])
        return counts(story)

    return summed(kind, max(1, seeds), life)


def counts(story: FleetStory) -> Counter[str]:
    """Return the counts of a simulation."""
    log = story.log
    return Counter(log.counts) + Counter({
        "processes": len(story.processes),
        "shards": len(story.stream.shards),
        "moves": sum(map(len, log.moves.values())),
        "late writes": story.table.calls["late"],
        "retried writes": story.table.calls["retried"],
        "refused writes": story.table.calls["refused"],
        "throttled": story.table.calls["throttled"],
        "requests": sum(story.table.calls[name] for name in ("list", "get", "owned", "write", "time")),
    })  # fmt: skip


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_no_record_is_lost_and_no_shard_has_two_readers_whatever_happens() -> None:
    lives("fleets, whatever happens", FLEETS)


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_fleets_of_up_to_50_workers_lose_no_record_whatever_happens() -> None:
    lives("fleets of 13 to 50 workers", FLEETS // 10, large=True)


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_a_table_that_lies_about_writes_harms_nothing() -> None:
    lives("fleets, lying table", FLEETS // 5, weather="lying", faults=("lying", "stop", "lying", "cut"))


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_shards_that_split_and_merge_are_read_in_order_while_workers_come_and_go() -> None:
    faults = ("storm", "die_at_end", "clean_parents", "kill", "deploy", "stop")
    lives("fleets, resharded", FLEETS // 5, reshards=12, faults=faults, rate=1.0)


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_handlers_that_never_return_delay_no_handoff_forever() -> None:
    habits = Habits(hangs=0.1, returns_late=1.0, batch=100)
    faults = ("join", "leave", "join", "twin")
    lives("fleets, hanging handlers", FLEETS // 5, habits=habits, faults=faults, handoff_timeout=3.0, rate=1.0)


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_large_fleets_come_to_rest() -> None:
    seeds = max(1, FLEETS // 50)
    lives("fleets of 50 workers", seeds, workers=50, shards=120, duration=40.0, failover=10.0, faults=("storm", "kill"))


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_workers_share_an_application_of_kcl_2_workers() -> None:
    lives("fleets in 2.x mode", FLEETS // 5, compatible="2x")
    lives("fleets with KCL 2.7.2", FLEETS // 5, kcl=("2.7.2", "2.7.2"))


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_workers_share_an_application_of_kcl_3_workers() -> None:
    lives("fleets with KCL 3.x, by count", FLEETS // 5, kcl=("3.x count", "3.x count"), cv=VERSION_3X)
    lives("fleets with KCL 3.x, by throughput", FLEETS // 5, kcl=("3.x variance",), cv=VERSION_3X)


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_a_worker_that_steals_leases_of_an_application_with_a_leader_harms_nothing() -> None:
    lives("fleets with kcl-rs", FLEETS // 5, kcl=("kcl-rs",), cv=VERSION_3X)


def test_leases_that_moved_often_are_evened_out_once_no_worker_has_joined_for_long() -> None:
    story = live(draw(103, kcl=("kcl-rs",), cv=VERSION_3X))
    assert not story.log.violations, "\n".join(story.log.violations[:10])


@pytest.mark.timeout(600 + 4 * SEEDS)
def test_workers_follow_the_version_of_a_kcl_application() -> None:
    lives("fleets that are upgraded", FLEETS // 5, cv=UPGRADE, changes=(VERSION_3X,))
