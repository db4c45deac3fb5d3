"""One held lease: its fence, its expiry, writes with an unknown outcome, and the end of its tenure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.doubles.fleet import FaultyTable, Fleets
from tests.doubles.virtual_loop import simulate

from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.fleet.checked_table import CheckedTable
from kinstream.consume.fleet.held_lease import HeldLease, Terms
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import RowKind, Write
from kinstream.errors import LeaseLost, LeaseStoreFailed

SHARD = "shardId-000000000000"


class Ground:
    """A stored lease of the worker "me", held since now."""

    def __init__(self) -> None:
        self.fleet = Fleets(1)
        self.table = FaultyTable(self.fleet.store.table("app", "stream"), self.fleet.clock)
        self.gate = asyncio.Semaphore(1)

    async def hold(self, **values: object) -> HeldLease:
        lease = Lease(SHARD, owner="me", counter=1, **values)  # type: ignore[arg-type]
        await self.fleet.change(changes.create(lease, one_table=True))
        return await self.held()

    async def held(self) -> HeldLease:
        row = await self.fleet.row(RowKind.LEASE, SHARD)
        assert row is not None
        clock = self.fleet.clock
        checked = CheckedTable(self.table, clock, 10 / 3)
        return HeldLease(row, clock.monotonic(), self.fleet.shards[0], Terms("me", 10.0, clock.monotonic), checked)

    async def stored(self) -> Lease:
        return (await self.fleet.leases())[SHARD]


def on(program: Callable[[Ground], Awaitable[None]]) -> None:
    async def begin() -> None:
        await program(Ground())

    simulate(begin)


def test_a_renewal_counts_from_before_it_was_sent() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        ground.table.seconds = 1.0
        await ground.fleet.clock.sleep(5)
        await held.renew(ground.gate)
        assert held.expires == 15.0
        assert held.due == pytest.approx(5 + 10 / 3 - 0.025)
        assert (await ground.stored()).counter == 2

    on(program)


def test_a_checkpoint_counts_as_the_renewal() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.clock.sleep(3)
        await held.checkpoint(Position.after("5"))
        await held.renew(ground.gate)
        assert (await ground.stored()).counter == 2
        assert held.expires == 13.0

    on(program)


def test_an_earlier_checkpoint_is_ignored_unless_it_rewinds() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold(checkpoint=Position.after("5"))
        await held.checkpoint(Position.after("4"))
        assert (await ground.stored()).counter == 1
        await held.checkpoint(Position.after("4"), rewinds=True)
        assert (await ground.stored()).checkpoint == Position.after("4")

    on(program)


def test_a_lease_that_another_worker_took_is_lost_at_the_next_write() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.change(changes.take(await ground.stored(), "other"))
        with pytest.raises(LeaseLost):
            await held.checkpoint(Position.after("5"))
        assert held.expired
        assert (await ground.stored()).checkpoint == TRIM_HORIZON
        with pytest.raises(LeaseLost):
            await held.idle(5.0)

    on(program)


def test_a_lease_that_was_taken_and_given_back_is_lost() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.change(changes.take(await ground.stored(), "other"))
        await ground.fleet.change(changes.take(await ground.stored(), "me"))
        with pytest.raises(LeaseLost):
            await held.checkpoint(Position.after("5"))

    on(program)


def test_no_write_is_sent_after_the_lease_has_expired() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.clock.sleep(10)
        assert held.expired
        with pytest.raises(LeaseLost):
            await held.checkpoint(Position.after("5"))
        assert ground.table.calls.get("write", 0) == 0

    on(program)


def test_a_write_in_flight_ends_with_the_lease() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.clock.sleep(9)
        ground.table.seconds = 60.0
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        assert ground.fleet.clock.monotonic() == 10.0

    on(program)


@pytest.mark.parametrize("second", ["renewal", "the same checkpoint", "a later checkpoint"])
def test_a_checkpoint_whose_response_was_lost_is_recognized(second: str) -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.clock.sleep(1)
        ground.table.lost = lambda write: True
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        ground.table.lost = lambda write: False
        await ground.fleet.clock.sleep(5)
        if second == "renewal":
            await held.renew(ground.gate)
        else:
            await held.checkpoint(Position.after("5" if second == "the same checkpoint" else "6"))
        stored = await ground.stored()
        assert stored.checkpoint == Position.after("6" if second == "a later checkpoint" else "5")
        # The lost write was sent at 1 s. It was all that a renewal or the same checkpoint would have done.
        done = second != "a later checkpoint"
        assert stored.counter == (2 if done else 3)
        assert held.expires == pytest.approx(11.0 if done else 16.01, abs=0.01)
        if done:
            assert held.due < ground.fleet.clock.monotonic()
        assert not held.ended

    on(program)


def test_a_lease_counts_from_the_first_of_several_unresolved_writes() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.clock.sleep(1)
        ground.table.lost = lambda write: True
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        ground.table.fails = lambda name, write: LeaseStoreFailed("no response")
        await ground.fleet.clock.sleep(3)
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        ground.table.lost, ground.table.fails = lambda write: False, lambda name, write: None
        await ground.fleet.clock.sleep(2)
        await held.renew(ground.gate)
        assert held.expires == pytest.approx(11.0, abs=0.01)  # either of the two may have been applied

    on(program)


def test_a_write_that_is_applied_late_does_not_undo_a_later_one() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        late: list[Write] = []

        def delay(name: str, write: Write | None) -> LeaseStoreFailed | None:
            if write is None:
                return None
            late.append(write)
            return LeaseStoreFailed("no response")

        ground.table.fails = delay
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        ground.table.fails = lambda name, write: None
        await held.checkpoint(Position.after("9"))
        assert not await ground.fleet.change(late[0])
        assert (await ground.stored()).checkpoint == Position.after("9")

    on(program)


def test_a_late_write_that_is_applied_first_is_followed_by_the_later_one() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        late: list[Write] = []

        def delay(name: str, write: Write | None) -> LeaseStoreFailed | None:
            if write is not None:
                late.append(write)
            return LeaseStoreFailed("no response")

        ground.table.fails = delay
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        ground.table.fails = lambda name, write: None
        assert await ground.fleet.change(late[0])
        await held.checkpoint(Position.after("9"))
        assert (await ground.stored()).checkpoint == Position.after("9")
        assert not held.ended

    on(program)


def test_a_handoff_is_noticed_by_a_read_and_does_not_extend_the_lease() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.clock.sleep(1)
        await held.inspect()
        await ground.fleet.change(changes.hand_off(await ground.stored(), "next"))
        await held.inspect()
        assert held.handoff is not None
        assert held.handoff.successor == "next"
        assert held.expires == 10.0
        await held.hand_off(lambda lease: changes.hand_off(lease, "another"))  # has no effect
        assert (await ground.stored()).owner == "next"

    on(program)


def test_the_end_of_a_handoff_whose_response_was_lost_is_recognized_after_the_next_owner_has_begun() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await held.hand_off(lambda lease: changes.hand_off(lease, "next"))
        ground.table.lost = lambda write: True
        with pytest.raises(LeaseStoreFailed):
            await held.release(Position.after("5"))
        ground.table.lost = lambda write: False
        await ground.fleet.change(changes.renew(await ground.stored()))
        await held.release(Position.after("5"))
        assert held.ended
        assert not held.lost
        await held.release()  # may be repeated

    on(program)


def test_a_handoff_that_the_leader_forced_is_a_loss() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await held.hand_off(lambda lease: changes.hand_off(lease, "next"))
        await ground.fleet.change(changes.force_handoff(await ground.stored()))
        with pytest.raises(LeaseLost):
            await held.release(Position.after("5"))
        assert held.lost
        assert (await ground.stored()).checkpoint == TRIM_HORIZON

    on(program)


def test_a_lease_without_a_successor_is_released_after_its_checkpoint() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await held.release(Position.after("5"))
        stored = await ground.stored()
        assert (stored.owner, stored.checkpoint, stored.counter) == (None, Position.after("5"), 3)
        assert held.ended
        assert not held.lost

    on(program)


def test_a_completed_shard_ends_its_handoff_in_the_same_write() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await held.name_children(["c", "d"])
        await held.name_children(["c", "d"])
        assert ground.table.calls["write"] == 1
        await held.hand_off(lambda lease: changes.hand_off(lease, "next"))
        await held.end()
        stored = await ground.stored()
        assert (stored.owner, stored.checkpoint_owner, stored.checkpoint) == ("next", None, SHARD_END)
        assert stored.children == ("c", "d")
        assert held.ended

    on(program)


def test_a_shard_that_is_completed_before_its_handoff_is_noticed_ends_the_handoff() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.change(changes.hand_off(await ground.stored(), "next"))  # the counter is unchanged
        assert held.handoff is None
        await held.end()
        stored = await ground.stored()
        assert (stored.owner, stored.checkpoint_owner, stored.checkpoint) == ("next", None, SHARD_END)

    on(program)


def test_a_lease_that_was_taken_with_the_counter_of_an_unresolved_renewal_is_lost() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        ground.table.fails = lambda name, write: LeaseStoreFailed("no response")
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        ground.table.fails = lambda name, write: None
        await ground.fleet.change(changes.take(await ground.stored(), "thief"))
        assert (await ground.stored()).counter == held.lease.counter + 1
        with pytest.raises(LeaseLost):
            await held.idle(60.0)
        assert held.lost

    on(program)


def test_end_of_a_shard_that_two_tasks_store_is_stored_once_and_no_lease_is_lost() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await asyncio.gather(held.end(), held.end())
        assert ground.table.calls["write"] == 1
        await held.name_children(["c"])
        await held.end()
        assert ground.table.calls["write"] == 1
        assert held.completed
        assert not held.lost
        with pytest.raises(LeaseLost):
            await held.checkpoint(Position.after("1"))

    on(program)


def test_end_of_a_shard_is_not_stored_after_its_release() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await held.release()
        assert not held.completed
        with pytest.raises(LeaseLost):
            await held.end()

    on(program)


def test_a_missing_row_fails_writes_and_ends_with_the_expiry() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        row = await ground.fleet.row(RowKind.LEASE, SHARD)
        assert row is not None
        await ground.fleet.change(changes.delete(SHARD))
        with pytest.raises(LeaseStoreFailed, match="deleted"):
            await held.checkpoint(Position.after("5"))
        with pytest.raises(LeaseStoreFailed, match="deleted"):
            await held.inspect()
        assert held.row_missing
        assert not held.ended
        # Another program restores it.
        await ground.fleet.change(changes.create(lease_of(row), one_table=True))
        await held.checkpoint(Position.after("5"))
        assert not held.row_missing

    on(program)


def test_writes_in_the_place_of_renewals_store_the_throughput() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        for second in range(1, 9):
            held.received(10 * 1024)
            await ground.fleet.clock.sleep(1)
            await held.checkpoint(Position.after(str(second)))
            await held.renew(ground.gate)
            assert (await ground.stored()).throughput_kbps == (None if second < 4 else pytest.approx(10, rel=0.02))
        assert (await ground.stored()).counter == 9  # no renewal was written
        await ground.fleet.clock.sleep(4)
        await held.idle(100.0)
        assert (await ground.stored()).throughput_kbps == pytest.approx(5, rel=0.02)

    on(program)


def test_the_throughput_is_averaged_and_stored_with_the_renewal() -> None:
    async def program(ground: Ground) -> None:
        held = await ground.hold()
        await ground.fleet.clock.sleep(4)
        await held.renew(ground.gate)
        assert (await ground.stored()).throughput_kbps is None
        held.received(40 * 1024)
        await ground.fleet.clock.sleep(4)
        await held.renew(ground.gate)
        first = (await ground.stored()).throughput_kbps
        assert first is not None
        assert first == pytest.approx(40 / 8.005, rel=0.01)
        await ground.fleet.clock.sleep(4)
        await held.renew(ground.gate)
        assert (await ground.stored()).throughput_kbps == pytest.approx(first / 2, rel=0.01)

    on(program)


def test_a_renewal_after_an_unresolved_one_counts_from_the_earlier_time() -> None:
    """A store that retries cannot tell the result of the earlier write from that of its own first attempt."""

    async def program(ground: Ground) -> None:
        held = await ground.hold()
        ground.table.seconds = 0.0
        ground.table.fails = lambda name, write: LeaseStoreFailed("the network is down")
        await ground.fleet.clock.sleep(4)
        with pytest.raises(LeaseStoreFailed):
            await held.checkpoint(Position.after("5"))
        ground.table.fails = lambda name, write: None
        await ground.fleet.clock.sleep(2)
        await held.checkpoint(Position.after("5"))
        assert held.expires == 14.0
        assert held.due < ground.fleet.clock.monotonic() + 10 / 3
        await held.checkpoint(Position.after("6"))
        assert held.expires == 16.0

    on(program)
