"""Number of seeds, the first seed, and the command that repeats a failed one."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SEEDS = int(os.environ.get("KINSTREAM_SEEDS", "40"))
"""Of each kind; `make simulate` has thousands."""
FIRST_SEED = int(os.environ.get("KINSTREAM_SEED", "0"))
"""First seed: where to continue after a failure, or the failure to reproduce."""

WHOLE = SEEDS >= 1000
"""True if simulations of minutes run in full. The checks of each commit run a part of them."""


@contextmanager
def shown_again(kind: str, seed: int) -> Iterator[None]:
    """Print how to reproduce a failure."""
    try:
        yield
    except BaseException:
        print(f"{kind}: seed {seed}: KINSTREAM_SEED={seed} KINSTREAM_SEEDS=2 begins with it", file=sys.stderr)
        raise


def summed(kind: str, seeds: int, life: Callable[[int], Counter[str]]) -> Counter[str]:
    """Run `seeds` simulations, one per seed. Return, and print, the sums of their counts."""
    started = time.monotonic()
    sums: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        with shown_again(kind, seed):
            sums += life(seed)
    told = ", ".join(f"{count} {what}" for what, count in sums.items())
    print(f"{kind}: {seeds} lives from seed {FIRST_SEED} in {time.monotonic() - started:.0f} s: {told}")
    return sums
