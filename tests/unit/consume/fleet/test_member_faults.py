"""A member of a fleet while its table fails, others change its rows, or its process stops for a while."""

from __future__ import annotations

import asyncio

import pytest
from tests.doubles.fleet import Fleets
from tests.doubles.virtual_loop import simulate

from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet.holdings import LeaseGone, LeaseGranted, LeaseRevoked, StoreRecovered
from kinstream.consume.lease import changes
from kinstream.consume.lease.row import Condition, Delete, Put, RowKind, Update, Value, Write
from kinstream.errors import AccessDenied, ConfigError, LeaseLost, LeaseStoreFailed, NotFound, Throttled, UsageError
from kinstream.events import CheckpointFailed

FAILOVER = 10.0
SHARD = "shardId-000000000000"


def test_a_restarted_worker_with_its_own_id_continues_its_shards_at_once() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first = await fleet.join("a")
        await fleet.clock.sleep(30)
        await first.die()
        began = fleet.clock.monotonic()
        again = await fleet.join("a")
        assert len(again.reading) == 4
        assert fleet.clock.monotonic() - began < 1
        await fleet.end()

    simulate(program)


def test_a_first_write_that_another_process_with_the_worker_id_may_have_made_begins_no_tenure() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a")
        await fleet.clock.sleep(30)
        await first.die()
        again = fleet.worker("a")
        recognized: list[tuple[float, str]] = []

        def recognize(write: Write) -> bool:
            new = write.kind is RowKind.LEASE and write.key not in [key for _, key in recognized]
            if new:
                recognized.append((fleet.clock.monotonic(), write.key))
            return new

        again.table.recognized = recognize
        await again.begin()
        await fleet.until(lambda: len(again.reading) == 2, 1)
        assert len(recognized) == 2
        for at, key in recognized:
            renewals = [time for time, write, applied in again.table.writes if applied and write.key == key]
            assert len(renewals) == 2
            (held,) = (held for held in again.reading.values() if held.key == key)
            assert at - 0.001 < held.expires - FAILOVER < renewals[1]  # a write takes 0.005 s
        await fleet.end()

    simulate(program)


def test_a_lease_that_is_taken_by_a_recognized_write_is_renewed_first() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        worker = fleet.worker("a")
        worker.table.recognized = lambda write: (
            write.kind is RowKind.LEASE and isinstance(write.change, Update) and "leaseOwner" in write.change.set
        )
        await worker.begin()
        await fleet.until(lambda: len(worker.reading) == 1, 5)
        writes = [write for _, write, applied in worker.table.writes if applied and write.key == SHARD]
        taken = next(
            number
            for number, write in enumerate(writes)
            if isinstance(write.change, Update) and "leaseOwner" in write.change.set
        )
        renewal = writes[taken + 1].change
        assert isinstance(renewal, Update)
        assert "leaseOwner" not in renewal.set
        await fleet.end()

    simulate(program)


def test_the_older_of_two_processes_with_one_id_stops_with_an_error() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a")
        await fleet.clock.sleep(5)
        second = await fleet.join("a")
        await fleet.until(lambda: first.error is not None, 2 * FAILOVER)
        assert isinstance(first.error, UsageError)
        assert len(second.reading) == 2
        assert not first.reading
        await fleet.clock.sleep(60)
        assert second.error is None
        assert len(second.reading) == 2
        await first.end()
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize("name", ["write", "list", "owned", "get"])
def test_no_lease_is_lost_while_the_table_fails_for_a_third_of_failover(name: str) -> None:
    async def program() -> None:
        fleet = Fleets(4)
        worker, other = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(60)
        for _ in range(20):
            for each in (worker, other):
                each.table.fails = lambda op, _: Throttled("slow down") if op == name else None
            await fleet.clock.sleep(FAILOVER / 3)
            for each in (worker, other):
                each.table.fails = lambda op, _: None
            await fleet.clock.sleep(FAILOVER * 0.77)
        assert not worker.of(LeaseGone)
        assert not other.of(LeaseGone)
        assert len(worker.of(LeaseGranted)) + len(other.of(LeaseGranted)) <= 6
        await fleet.clock.sleep(FAILOVER)
        assert worker.of(CheckpointFailed)
        assert worker.of(StoreRecovered)
        await fleet.end()

    simulate(program)


def test_no_lease_is_lost_if_the_responses_of_writes_are_lost() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        worker = await fleet.join("a")
        turn = 0

        def lost(write: Write) -> bool:
            nonlocal turn
            turn += 1
            return turn % 2 == 0

        worker.table.lost = lost
        for n in range(100):
            held = worker.reading[SHARD]
            while True:
                try:
                    await worker.member.checkpoint(held, Position.after(str(n + 1)))
                    break
                except LeaseStoreFailed:
                    pass
            assert (await fleet.leases())[SHARD].checkpoint == Position.after(str(n + 1))
            await fleet.clock.sleep(0.7)
        assert not worker.of(LeaseGone)
        worker.table.lost = lambda write: False
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize("error", [OSError("no network"), LookupError("the driver of a store that is not ours")])
def test_a_lease_is_lost_when_it_expires_and_not_before(error: Exception) -> None:
    async def program() -> None:
        fleet = Fleets(1)
        worker = await fleet.join("a")
        held = worker.reading[SHARD]
        await fleet.clock.sleep(60)
        last = max(time for time, write, applied in worker.table.writes if write.key == SHARD and applied)
        worker.table.fails = lambda op, _: error
        await fleet.until(lambda: bool(worker.of(LeaseGone)), 2 * FAILOVER)
        lost, _ = worker.of(LeaseGone)[0]
        assert last + FAILOVER - 0.1 < lost <= last + FAILOVER
        assert held.expired
        with pytest.raises(LeaseLost):
            await worker.member.checkpoint(held, Position.after("5"))
        worker.table.fails = lambda op, _: None
        await fleet.until(lambda: SHARD in worker.reading, FAILOVER)
        assert worker.reading[SHARD] is not held
        with pytest.raises(LeaseLost):  # of the old tenure
            await worker.member.checkpoint(held, Position.after("5"))
        await fleet.end()

    simulate(program)


def test_a_deleted_row_is_held_until_it_expires_and_not_created_again() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        worker = await fleet.join("a")
        await fleet.clock.sleep(5)
        deleted = fleet.clock.monotonic()
        await fleet.change(Write(RowKind.LEASE, SHARD, Delete()))
        await fleet.until(lambda: bool(worker.of(LeaseGone)), FAILOVER + 0.1)
        assert fleet.clock.monotonic() - deleted > FAILOVER * 0.6
        errors = [event.error for _, event in worker.of(CheckpointFailed)]
        assert any(isinstance(error, LeaseStoreFailed) and "deleted" in str(error) for error in errors)
        await fleet.clock.sleep(900)
        assert SHARD not in await fleet.leases()
        assert worker.error is None
        assert len(worker.reading) == 1
        await fleet.end()

    simulate(program)


def test_a_deleted_table_ends_the_worker_with_an_error_after_its_leases_have_expired() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        worker = await fleet.join("a")
        await fleet.clock.sleep(5)
        worker.table.fails = lambda op, _: NotFound("the table does not exist")
        gone = fleet.clock.monotonic()
        await fleet.until(lambda: worker.error is not None, 3 * FAILOVER)
        assert isinstance(worker.error, NotFound)
        assert len(worker.of(LeaseGone)) == 2
        assert min(time for time, _ in worker.of(LeaseGone)) - gone > FAILOVER * 0.6
        await fleet.end()

    simulate(program)


def test_a_table_that_refuses_writes_ends_the_worker_with_the_error() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        worker = await fleet.join("a")
        await fleet.clock.sleep(5)
        worker.table.fails = lambda op, _: AccessDenied("no permission") if op == "write" else None
        await fleet.until(lambda: worker.error is not None, 4 * FAILOVER)
        assert isinstance(worker.error, AccessDenied)
        await fleet.end()

    simulate(program)


def test_a_lost_stream_ends_the_worker_with_the_error() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        worker = await fleet.join("a")
        fleet.listing_fails = NotFound("the stream does not exist")
        with pytest.raises(NotFound):
            await worker.member.complete(worker.reading[SHARD], [])
        worker.table.fails = lambda op, _: Throttled("slow down") if op == "list" else None
        await fleet.until(lambda: worker.error is not None, FAILOVER)
        assert isinstance(worker.error, NotFound)
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize("fails", ["denied", "missing"])
def test_without_the_index_of_owners_workers_share_the_shards_by_scans(fails: str) -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second = fleet.worker("a"), fleet.worker("b")
        for worker in (first, second):
            worker.table.index = fails != "missing"
            worker.table.fails = lambda op, _: (
                AccessDenied("no permission for the index") if op == "owned" and fails == "denied" else None
            )
            await worker.begin()
        await fleet.until(lambda: len(second.reading) == 2 and fleet.all_read(), 2 * FAILOVER)
        await fleet.clock.sleep(120)
        assert first.error is None
        assert second.error is None
        assert not first.of(LeaseGone)
        await fleet.end()

    simulate(program)


def test_a_mode_that_is_not_supported_is_refused_before_the_first_write() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        values = {"cv": "CLIENT_VERSION_9X"}
        await fleet.change(Write(RowKind.MIGRATION, "Migration3.0", Put(values)))
        worker = fleet.worker("a")
        with pytest.raises(ConfigError, match="CLIENT_VERSION_9X"):
            await worker.member.begin()
        assert worker.table.writes == []
        await worker.end()
        assert worker.table.writes == []

    simulate(program)


def test_a_mode_that_cannot_be_followed_ends_the_worker() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        worker = await fleet.join("a")
        await fleet.clock.sleep(5)
        values = {"cv": "CLIENT_VERSION_9X"}
        await fleet.change(Write(RowKind.MIGRATION, "Migration3.0", Put(values)))
        await fleet.until(lambda: worker.error is not None, FAILOVER)
        assert isinstance(worker.error, ConfigError)
        assert len(worker.reading) == 2  # they are renewed until the application has stopped
        await fleet.clock.sleep(3 * FAILOVER)
        assert len(worker.reading) == 2
        await worker.leave()

    simulate(program)


def test_a_stopped_process_begins_nothing_after_its_leases_have_expired() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(60)
        stopped = list(second.reading.values())
        assert len(stopped) == 2
        second.clock.stop()
        await fleet.until(lambda: len(first.reading) == 4, FAILOVER + FAILOVER / 3)
        assert all(held.expired for held in stopped)
        await fleet.clock.sleep(30)
        second.clock.resume()
        with pytest.raises(LeaseLost):
            await second.member.checkpoint(stopped[0], Position.after("5"))
        await fleet.until(lambda: not second.reading, 1)
        assert len(second.of(LeaseGone)) == 2
        await fleet.until(lambda: len(second.reading) == 2 and fleet.all_read(), 3 * FAILOVER)
        await fleet.end()

    simulate(program)


def test_a_leader_that_was_stopped_does_not_move_leases_by_its_old_view() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(60)
        first.clock.stop()
        await fleet.until(lambda: len(second.reading) == 4, 2 * FAILOVER)
        await fleet.clock.sleep(60)
        first.clock.resume()
        await fleet.until(lambda: not first.reading, 1)
        await fleet.until(lambda: len(first.reading) == 2 and fleet.all_read(), 3 * FAILOVER)
        assert not second.of(LeaseGone)
        assert len(second.of(LeaseRevoked)) == 2
        leader = await fleet.row(RowKind.LEADER, "Leader")
        assert leader is not None
        assert leader.values["ownerName"] == "b"
        await fleet.end()

    simulate(program)


def test_a_handoff_that_the_application_does_not_end_is_ended_after_its_timeout() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a", drain=None, handoff_timeout=5.0)
        second = await fleet.join("b", handoff_timeout=5.0)
        await fleet.until(lambda: bool(first.of(LeaseRevoked)), 5)
        revoked, event = first.of(LeaseRevoked)[0]
        assert event.successor == "b"
        assert event.timeout == 5.0
        await fleet.until(lambda: len(second.reading) == 1, 8)
        assert 5 <= fleet.clock.monotonic() - revoked < 8
        assert [gone.held for _, gone in first.of(LeaseGone)] == [event.held]
        await fleet.end()

    simulate(program)


def test_the_last_checkpoint_and_the_end_of_a_handoff_are_one_write() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a")
        first.position = Position.after("7")
        second = await fleet.join("b")
        await fleet.until(lambda: len(second.reading) == 1, 5)
        (held,) = second.reading.values()
        assert held.lease.checkpoint == Position.after("7")
        writes = [write for _, write, applied in first.table.writes if applied and write.key == held.key]
        last = writes[-1].change
        assert isinstance(last, Update)
        assert last.set["checkpoint"] == "7"
        assert "checkpointOwner" in last.remove
        assert len(first.reading) == 1
        await fleet.end()

    simulate(program)


def test_a_checkpoint_during_a_handoff_is_accepted() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a", drain=None)
        await fleet.clock.sleep(1)
        held = first.reading[SHARD]
        await fleet.change(changes.hand_off((await fleet.leases())[SHARD], "x"))
        await first.member.checkpoint(held, Position.after("9"))
        assert (await fleet.leases())[SHARD].checkpoint == Position.after("9")
        assert [event.successor for _, event in first.of(LeaseRevoked)] == ["x"]
        await first.member.release(held, Position.after("10"))
        lease = (await fleet.leases())[SHARD]
        assert (lease.owner, lease.checkpoint_owner, lease.checkpoint) == ("x", None, Position.after("10"))
        await fleet.end()

    simulate(program)


def test_workers_that_the_store_knows_to_have_ended_are_replaced_within_a_second() -> None:
    async def program() -> None:
        fleet = Fleets(4, poll_interval=0.05)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(60)
        await first.die()
        second.table.ended = frozenset({"a"})
        await fleet.until(lambda: len(second.reading) == 4, 1)
        await fleet.end()

    simulate(program)


def test_a_pending_checkpoint_is_part_of_the_tenure_and_removed_by_the_first_checkpoint() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        first = await fleet.join("a")
        await first.leave()
        columns: dict[str, Value] = {
            "pendingCheckpoint": "12",
            "pendingCheckpointSubSequenceNumber": 3,
            "pendingCheckpointState": b"s",
        }
        await fleet.change(Write(RowKind.LEASE, SHARD, Update(set=columns), Condition(exists=True)))
        second = await fleet.join("b")
        held = second.reading[SHARD]
        assert held.lease.pending is not None
        assert held.lease.pending.state == b"s"
        await second.member.checkpoint(held, Position.after("12"))
        assert (await fleet.leases())[SHARD].pending is None
        await fleet.end()

    simulate(program)


def test_the_older_of_two_processes_with_one_id_writes_no_lease_once_it_knows() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a")
        other = await fleet.join("b")
        await fleet.clock.sleep(30)
        second = await fleet.join("a")
        await fleet.until(lambda: first.error is not None, 2 * FAILOVER)
        assert isinstance(first.error, UsageError)
        known = len(first.table.writes)
        held = set(second.reading)
        await first.end()
        assert [write for _, write, _ in first.table.writes[known:] if write.kind is not RowKind.LEADER] == []
        await fleet.clock.sleep(30)
        assert set(second.reading) == held
        assert second.error is other.error is None
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize("compatible", [None, "2x"])
def test_two_processes_with_one_id_are_noticed_at_the_first_lease_that_both_renew(compatible: str | None) -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a", compatible=compatible)
        await fleet.clock.sleep(5)
        second = await fleet.join("a", compatible=compatible)
        await fleet.until(lambda: first.error is not None, FAILOVER / 3 + 1)
        assert isinstance(first.error, UsageError)
        assert len(second.reading) == 2
        await fleet.clock.sleep(30)
        assert second.error is None
        await first.end()
        await fleet.end()

    simulate(program)


def test_a_late_first_announcement_of_an_older_process_does_not_end_the_newer_one() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a")
        announced = next(write for _, write, _ in first.table.writes if write.kind is RowKind.WORKER)
        await first.die()
        await fleet.clock.sleep(5)
        second = await fleet.join("a")
        assert await fleet.change(announced)
        await fleet.clock.sleep(3 * FAILOVER)
        assert second.error is None
        row = await fleet.row(RowKind.WORKER, "a")
        assert row is not None
        assert row.values != announced.change.set  # type: ignore[union-attr]
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize(
    ("operation", "kind", "name"),
    [
        ("open", None, "open"),
        ("list", None, "leases"),
        ("write", RowKind.WORKER, "worker"),
        ("write", RowKind.LEASE, "assign"),
        ("write", RowKind.LEADER, "leader"),
    ],
)
def test_a_failure_at_the_start_is_reported_with_its_operation_and_shown_in_the_status(
    operation: str, kind: RowKind | None, name: str
) -> None:
    async def program() -> None:
        fleet = Fleets(2)
        worker = fleet.worker("a")

        def fails(called: str, write: Write | None) -> Exception | None:
            wrong = called == operation and (kind is None or (write is not None and write.kind is kind))
            return OSError("no network") if wrong else None

        worker.table.fails = fails
        joining = asyncio.create_task(worker.begin())
        await fleet.clock.sleep(4)
        assert {event.operation for _, event in worker.of(CheckpointFailed)} == {name}
        status = worker.member.snapshot()
        assert "no network" in str(status.last_error)
        if operation in ("open", "list"):
            assert (status.mode, status.last_scan, status.owners) == ("UNKNOWN", None, {})
            assert status.notes == ["The leases were not read yet: this worker was started 4 s ago."]
        else:
            assert status.mode == "3X"
        worker.table.fails = lambda called, write: None
        await joining
        await fleet.until(lambda: len(worker.reading) == 2, 10)
        assert [event.operation for _, event in worker.of(StoreRecovered)] == [name]
        assert worker.member.snapshot().last_error is None
        await fleet.end()

    simulate(program)
