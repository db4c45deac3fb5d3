"""Status of a fleet, from the rows that a worker has seen."""

from __future__ import annotations

from tests.doubles.fleet_rows import FAILOVER, owned, seen

from kinstream.consume.fleet.fleet_status import fleet_status
from kinstream.consume.fleet.mode import Mode


def test_time_without_an_owner_does_not_grow_while_the_table_is_not_read() -> None:
    view = seen(owned({"a": None, "b": "x"}))

    def unowned(now: float) -> dict[str, float]:
        return fleet_status(view, Mode.ONE_TABLE, "w", now, 0.0, []).unowned

    assert unowned(1.5 * FAILOVER) == {"a": 1.5 * FAILOVER}
    assert unowned(40 * FAILOVER) == {"a": 2 * FAILOVER}  # the leader has usually assigned it since


def test_time_without_an_owner_counts_over_several_scans() -> None:
    view = seen(owned({"a": None}))
    view = seen(owned({"a": None}), view, 4 * FAILOVER)
    assert fleet_status(view, Mode.ONE_TABLE, "w", 5 * FAILOVER, 4 * FAILOVER, []).unowned == {"a": 5 * FAILOVER}
