"""Observation of a table: how long it lasts, and how a plan is executed if the table changes."""

from __future__ import annotations

import argparse
import json

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.observations import lease_row

from kinstream.cli.leases.access import SCAN_INTERVAL, observe_table
from kinstream.cli.leases.actions import carry_out
from kinstream.cli.leases.plan import Plan, release_plan
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import Listing, Row, RowKind, Write, Written
from kinstream.errors import LeaseStoreFailed

A, B = Lease("a", owner="w1", counter=1), Lease("b", owner="w2", counter=1)


class Renewing(MemoryLeaseTable):
    """A table in which workers renew their leases between two listings.

    Args:
        leases: The leases.
        renewed: Keys of the leases that are renewed.
        dead_workers: Workers that the store knows to have ended.
    """

    def __init__(
        self, leases: list[Lease], renewed: frozenset[str] = frozenset(), dead_workers: frozenset[str] = frozenset()
    ) -> None:
        super().__init__({(RowKind.LEASE, lease.key): lease_row(lease) for lease in leases})
        self.listed = 0
        self.failing = False
        self._renewed = renewed
        self._dead = dead_workers

    async def list(self) -> Listing:
        self.listed += 1
        listing = await super().list()
        for row in listing.rows:
            if row.key in self._renewed:
                await self.write(changes.renew(lease_of(row)))
        return listing

    async def write(self, write: Write) -> Written:
        if self.failing:
            raise LeaseStoreFailed("disk full")
        return await super().write(write)

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        return workers & self._dead

    def row(self, key: str) -> Row:
        return self._rows[RowKind.LEASE, key]


async def test_one_look_lists_the_table_once() -> None:
    table = Renewing([A])
    observation = await observe_table(table, 0, failover=10, clock=VirtualClock())
    assert (table.listed, observation.seconds) == (1, 0)


async def test_observation_ends_when_each_owner_has_renewed_a_lease() -> None:
    table = Renewing([A, B], frozenset({"a", "b"}))
    observation = await observe_table(table, 4, failover=10, clock=VirtualClock())
    assert (table.listed, observation.seconds) == (2, SCAN_INTERVAL)


async def test_observation_lasts_its_whole_time_for_a_silent_owner_and_for_a_plan() -> None:
    table = Renewing([A, B], frozenset({"a"}))
    observation = await observe_table(table, 4, failover=10, clock=VirtualClock())
    assert (table.listed, observation.seconds) == (5, 4)
    assert observation.renewing() == {"w1"}
    assert (
        await observe_table(Renewing([A], frozenset({"a"})), 10, failover=10, whole=True, clock=VirtualClock())
    ).seconds == 10


async def test_workers_that_have_ended_are_known_from_the_store() -> None:
    lease = Lease("a", owner="w2", checkpoint_owner="w1")
    table = Renewing([lease], dead_workers=frozenset({"w1"}))
    assert (await observe_table(table, 0, failover=10, clock=VirtualClock())).view.dead == {"w1"}


def arguments(*, yes: bool = True, as_json: bool = False) -> argparse.Namespace:
    return argparse.Namespace(yes=yes, json=as_json)


async def planned(table: MemoryLeaseTable) -> Plan:
    observation = await observe_table(table, 10, failover=10, whole=True, clock=VirtualClock())
    return release_plan(observation, shards=frozenset({"a", "b"}))


async def test_execution_stops_at_a_lease_that_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    table = Renewing([A, B, Lease("c")])
    plan = await planned(table)
    await table.write(changes.renew(B))
    assert await carry_out(table, plan, arguments()) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[-1] == "1 of 2 steps were executed."
    assert output.err == (
        "kinstream leases: b: the lease was changed by a worker since it was read. Check the leases, and run the command again\n"
    )
    assert (lease_of(table.row("a")).owner, lease_of(table.row("b")).owner) == (None, "w2")


async def test_failing_store_stops_the_execution(capsys: pytest.CaptureFixture[str]) -> None:
    table = Renewing([A, B])
    plan = await planned(table)
    table.failing = True
    assert await carry_out(table, plan, arguments(as_json=True)) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["executed"], printed["problem"]) == (
        0,
        "a: disk full. Check the leases, and run the command again",
    )


async def test_refused_plan_is_shown_and_not_executed(capsys: pytest.CaptureFixture[str]) -> None:
    table = Renewing([A, B], frozenset({"a"}))
    assert await carry_out(table, await planned(table), arguments()) == 1
    output = capsys.readouterr()
    assert output.out == "release      a  from w1\nrelease      b  from w2\n"
    assert output.err.startswith("kinstream leases: refused: worker w1: renewed its leases")
    assert lease_of(table.row("b")).owner == "w2"


async def test_empty_plan_is_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    table = Renewing([Lease("a"), Lease("b")])
    assert await carry_out(table, await planned(table), arguments()) == 0
    assert capsys.readouterr().out == "a: has no owner.\nb: has no owner.\nThere is nothing to do.\n"
