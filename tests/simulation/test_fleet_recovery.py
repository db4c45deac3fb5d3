"""How long no worker reads a shard after a single fault, and the moves and requests that it costs, in a printed table."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.simulation.fleet_scenes import SCENES, Scene, play
from tests.simulation.seeds import FIRST_SEED, SEEDS, shown_again

EACH = max(2, SEEDS // 20)
"""Simulations of each fault."""


@dataclass(frozen=True)
class Figures:
    """Figures of one kind of fault, over all seeds.

    Attributes:
        name: The fault.
        longest: Longest time without a reader, in seconds.
        limit: Its limit in that simulation.
        moves: Maximum changes of the reader of one shard.
        calls: Requests of a worker each second, on average.
    """

    name: str
    longest: float
    limit: float
    moves: int
    calls: float


TABLE: dict[str, Figures] = {}


@pytest.mark.timeout(600 + 2 * SEEDS)
@pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])
def test_no_shard_is_without_a_reader_for_longer_than_documented(scene: Scene) -> None:
    longest, limit, moves, calls, seconds = 0.0, scene.limit(play(scene, 0)[0].plan), 0, 0, 0.0
    for seed in range(FIRST_SEED, FIRST_SEED + EACH):
        with shown_again(scene.name, seed):
            story, gap = play(scene, seed)
            assert not story.log.violations, "\n".join(story.log.violations[:10])
            assert gap <= scene.limit(story.plan), f"{gap:.3f} s without a reader"
            if scene.name.startswith("all are replaced"):
                assert story.most_moves <= 2
        if gap >= longest:
            longest, limit = gap, scene.limit(story.plan)
        moves = max(moves, story.most_moves)
        calls += sum(story.table.calls[name] for name in ("list", "get", "owned", "write", "time"))
        seconds += story.seconds * story.plan.workers
    TABLE[scene.name] = Figures(scene.name, longest, limit, moves, calls / seconds)


def test_table_of_figures_is_printed() -> None:
    print(f"\n{'fault':42} {'longest':>8} {'limit':>8} {'moves':>6} {'requests/s of a worker':>24}")
    for figures in TABLE.values():
        print(
            f"{figures.name:42} {figures.longest:7.2f}s {figures.limit:7.2f}s {figures.moves:6} {figures.calls:24.2f}"
        )
