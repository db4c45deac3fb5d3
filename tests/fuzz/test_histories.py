"""Random histories compared with a small model: no loss, no reordering, right lineage, and only old records expire."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.fuzz.grounds import Alone, Killable, Killed
from tests.fuzz.history import History

HISTORIES = int(os.environ.get("KINSTREAM_HISTORIES", "300"))
"""On the operations alone; `make fuzz-local` has 20,000."""
KILLED_HISTORIES = int(os.environ.get("KINSTREAM_KILLED_HISTORIES", "2"))
"""On a server that is killed; `make fuzz-local` has 20."""
FIRST_SEED = int(os.environ.get("KINSTREAM_SEED", "0"))
STEPS = 80
KILLS = 3
"""In each history of a server that is killed."""


def told(seed: int) -> None:
    print(f"seed {seed}: KINSTREAM_SEED={seed} begins with it", file=sys.stderr)


def until_killed(history: History) -> None:
    try:
        while True:
            history.step()
    except Killed:
        return


@pytest.mark.timeout(600 + HISTORIES / 2)
def test_random_histories_match_the_model() -> None:
    started = time.monotonic()
    steps: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        history = History(Alone(transition=[0.0, 0.0, 0.5, 20.0][seed % 4], quotas=seed % 8 < 4), seed)
        try:
            for _ in range(STEPS):
                history.step()
            history.end()
        except BaseException:
            told(seed)
            raise
        steps.update(history.steps)
        if seed % 1000 == 999:
            print(f"seed {seed} done after {time.monotonic() - started:.0f} s", flush=True)
    print(
        f"{HISTORIES} histories from seed {FIRST_SEED}, {time.monotonic() - started:.0f} s: {dict(steps.most_common())}"
    )
    assert all(steps[name] for name in ("split", "merge", "scale", "change_retention", "delete", "refused by quotas"))
    assert all(steps[name] for name in ("ExpiredIteratorException", "ResourceNotFoundException", "AT_TIMESTAMP"))


@pytest.mark.timeout(600 + 60 * KILLED_HISTORIES)
def test_random_histories_continue_after_kills(tmp_path: Path) -> None:
    started = time.monotonic()
    steps: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + KILLED_HISTORIES):
        ground = Killable(tmp_path / str(seed), seed)
        history = History(ground, seed)
        try:
            for _ in range(KILLS):
                for _ in range(history.random.randrange(STEPS)):
                    history.step()
                ground.kill_soon()
                until_killed(history)
                steps["a doubt"] += history.doubt is not None
                ground.restart()
                history.recover()
            history.end()
        except BaseException:
            told(seed)
            raise
        finally:
            ground.close()
        steps.update(history.steps)
    kills = KILLED_HISTORIES * KILLS
    print(f"{kills} kills, seeds from {FIRST_SEED}, {time.monotonic() - started:.0f} s: {dict(steps.most_common())}")
