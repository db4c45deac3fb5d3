from __future__ import annotations

from kinstream.consume.statistics import Counts


def test_snapshot_does_not_change_with_the_counters() -> None:
    counts = Counts(records=2, skipped=1)
    snapshot = counts.snapshot()
    counts.records += 1
    assert (snapshot.records, snapshot.skipped, snapshot.bytes) == (2, 1, 0)
