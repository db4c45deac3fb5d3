from __future__ import annotations

import pytest

from kinstream.produce.statistics import Counts


@pytest.mark.parametrize(
    ("reason", "counter"),
    [("throttled", "retried_throttled"), ("unknown", "retried_unknown"), ("failed", "retried_failed")],
)
def test_retries_are_counted_by_their_reason(reason: str, counter: str) -> None:
    counts = Counts()
    counts.retried(reason, 3)
    assert {name: value for name in Counts.__slots__ if (value := getattr(counts, name))} == {counter: 3}
