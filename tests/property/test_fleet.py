"""Fleets of workers that execute the decisions on one table: one reader of each lease, balance at rest, and moves that end."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.doubles.fleet_model import FAILOVER, RENEWAL, Fleet, Taker, Worker

from kinstream.consume.fleet.balance import MoveKind
from kinstream.consume.fleet.view import QUIET

REST = int((QUIET + 5) * FAILOVER)
"""Steps after which a fleet is at rest: the quiet time, and a few scans."""


def names(fleet: Fleet) -> list[Worker]:
    return [worker for worker in fleet.present if isinstance(worker, Worker) and not worker.leaving]


class AnyFleet(RuleBasedStateMachine):
    """Workers of any number join, leave, die and pause. Listings and indexes are stale."""

    def __init__(self) -> None:
        super().__init__()
        self.random = Random(0)
        self.fleet = Fleet(self.random, 0)
        self.started = False

    @precondition(lambda self: not self.started)
    @rule(seed=st.integers(0, 2**32), shards=st.integers(1, 16), workers=st.integers(1, 6), stale=st.floats(0, 0.5))
    def start(self, seed: int, shards: int, workers: int, stale: float) -> None:
        self.random = Random(seed)
        self.fleet = Fleet(self.random, shards, stale=stale)
        self.started = True
        for _ in range(workers):
            self.fleet.join()

    @precondition(lambda self: self.started)
    @rule(steps=st.integers(1, 40))
    def run(self, steps: int) -> None:
        self.fleet.step(steps)

    @precondition(lambda self: self.started)
    @rule(count=st.integers(1, 5), drain=st.integers(0, 5))
    def join(self, count: int, drain: int) -> None:
        for _ in range(count):
            self.fleet.join(drain=drain)

    @precondition(lambda self: self.started)
    @rule(count=st.integers(1, 3))
    def leave(self, count: int) -> None:
        for worker in names(self.fleet)[1:][:count]:
            if worker.announced and worker.paused_until <= self.fleet.now:
                worker.leave()

    @precondition(lambda self: self.started)
    @rule(count=st.integers(1, 3))
    def die(self, count: int) -> None:
        for worker in self.random.sample(names(self.fleet)[1:], min(count, len(names(self.fleet)) - 1)):
            worker.gone = True

    @precondition(lambda self: self.started)
    @rule(steps=st.integers(1, 60))
    def pause(self, steps: int) -> None:
        worker = self.random.choice(names(self.fleet))
        worker.paused_until = self.fleet.now + steps

    @invariant()
    def one_reader_of_each_lease(self) -> None:
        assert self.fleet.two_readers == []

    def teardown(self) -> None:
        if self.started:
            self.fleet.step(60 + REST)
            check_rest(self.fleet)


def check_rest(fleet: Fleet) -> None:
    """Check that each lease has a reader, that the workers are in balance, and that nothing moves any more."""
    decisions = len(fleet.decisions)
    fleet.step(int(6 * FAILOVER))
    counts = fleet.counts()
    assert sum(counts.values()) == len(list(fleet.table.leases()))
    assert max(counts.values()) - min(counts.values()) <= 1, counts
    assert len(fleet.decisions) == decisions
    assert fleet.two_readers == []
    assert not fleet.unread_since


TestAnyFleet = AnyFleet.TestCase
TestAnyFleet.settings = settings(max_examples=8, stateful_step_count=10, deadline=None)


@given(seed=st.integers(0, 2**32), workers=st.integers(1, 50), shards=st.integers(1, 60), gap=st.integers(0, 4))
@settings(max_examples=3, deadline=None)
def test_workers_that_join_one_after_the_other_share_the_shards(seed: int, workers: int, shards: int, gap: int) -> None:
    fleet = Fleet(Random(seed), shards, stale=0.2)
    for _ in range(workers):
        fleet.join()
        fleet.step(gap)
    fleet.step(REST)
    check_rest(fleet)


@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(2, 6),
    shards_each=st.integers(1, 4),
    batch=st.integers(1, 2),
    gap=st.integers(int(FAILOVER), int(3 * FAILOVER)),
    surge=st.booleans(),
)
@settings(max_examples=4, deadline=None)
def test_deploy_one_by_one_moves_each_shard_twice_at_most(
    seed: int, workers: int, shards_each: int, batch: int, gap: int, surge: bool
) -> None:
    random = Random(seed)
    fleet = Fleet(random, workers * shards_each, stale=0.1)
    for _ in range(workers):
        fleet.join()
    fleet.step(300)
    fleet.moves.clear()
    fleet.longest_unread = 0.0
    old = names(fleet)
    random.shuffle(old)
    for first in range(0, workers, batch):
        leaving = old[first : first + batch]
        if surge:
            for _ in leaving:
                fleet.join()
            fleet.step(gap)
        for worker in leaving if len(leaving) < len(names(fleet)) else leaving[:-1]:
            worker.leave()
        fleet.step(gap)
        if not surge:
            for _ in leaving:
                fleet.join()
            fleet.step(gap)
    fleet.step(int(3 * FAILOVER))
    times = Counter(fleet.moves.values())
    # If several workers leave at once or shortly after each other, a lease may pass through two workers that are replaced next.
    slow = batch == 1 and gap >= 2 * FAILOVER
    assert max(times, default=0) <= (2 if slow else 3), times
    fleet.step(REST)
    check_rest(fleet)


@given(seed=st.integers(0, 2**32), workers=st.integers(1, 5), takers=st.integers(1, 3), shards=st.integers(1, 16))
@settings(max_examples=4, deadline=None)
def test_workers_that_take_for_themselves_cause_no_endless_moves(
    seed: int, workers: int, takers: int, shards: int
) -> None:
    fleet = Fleet(Random(seed), shards, stale=0.1)
    for _ in range(workers):
        fleet.join()
    fleet.step(60)
    for _ in range(takers):
        fleet.join_taker()
    fleet.step(shards * 24 + REST)  # a taker steals one lease in two failovers
    decisions, moves = len(fleet.decisions), fleet.moves.total()
    fleet.step(int(20 * FAILOVER))
    assert (len(fleet.decisions), fleet.moves.total()) == (decisions, moves)
    counts = fleet.counts()
    assert sum(counts.values()) == shards
    ours = [count for name, count in counts.items() if name.startswith("worker")]
    assert max(ours) - min(ours) <= 1
    # A worker notices a theft at its next poll or renewal, and reads until then.
    assert len(fleet.two_readers) <= fleet.moves.total() * RENEWAL
    assert all(
        move.kind is not MoveKind.HAND_OFF or str(move.reader).startswith("worker") for _, move in fleet.decisions
    )


@given(seed=st.integers(0, 2**32), workers=st.integers(2, 10), shards=st.integers(1, 20))
@settings(max_examples=4, deadline=None)
def test_shards_of_a_worker_that_died_are_read_again_after_one_failover(seed: int, workers: int, shards: int) -> None:
    random = Random(seed)
    fleet = Fleet(random, shards)
    for _ in range(workers):
        fleet.join()
    fleet.step(200)
    leader = next(worker for worker in names(fleet) if worker.heartbeat_at and _leads(fleet, worker))
    victim = random.choice([worker for worker in names(fleet) if worker is not leader])
    fleet.longest_unread = 0.0
    victim.gone = True
    fleet.step(int(4 * FAILOVER))
    assert fleet.longest_unread <= FAILOVER + FAILOVER / 3
    assert not fleet.unread_since


@given(seed=st.integers(0, 2**32), workers=st.integers(2, 10), shards=st.integers(1, 20))
@settings(max_examples=4, deadline=None)
def test_shards_of_a_leader_that_died_are_read_again_after_two_failovers(seed: int, workers: int, shards: int) -> None:
    fleet = Fleet(Random(seed), shards)
    for _ in range(workers):
        fleet.join()
    fleet.step(200)
    leader = next(worker for worker in names(fleet) if _leads(fleet, worker))
    fleet.longest_unread = 0.0
    leader.gone = True
    fleet.step(int(6 * FAILOVER))
    assert fleet.longest_unread <= 2 * FAILOVER
    assert not fleet.unread_since


def _leads(fleet: Fleet, worker: Worker) -> bool:
    return worker.worker_id == fleet.leader


@pytest.mark.parametrize("weights", [(1, 1, 2), (1, 3), (0.5, 1, 1.5, 2)])
def test_weights_decide_the_shares_at_rest(weights: tuple[float, ...]) -> None:
    fleet = Fleet(Random(1), 40)
    workers = [fleet.join(weight=weight) for weight in weights]
    fleet.step(REST)
    for worker in workers:
        assert abs(len(worker.reads()) - 40 * worker.weight / sum(weights)) < 1


def test_worker_with_a_maximum_gets_no_more() -> None:
    fleet = Fleet(Random(1), 40)
    small, *_ = fleet.join(max_leases=3), fleet.join(), fleet.join()
    fleet.step(REST)
    assert len(small.reads()) == 3
    assert sum(fleet.counts().values()) == 40


def test_takers_alone_share_the_shards() -> None:
    fleet = Fleet(Random(1), 10)
    takers: list[Taker] = [fleet.join_taker() for _ in range(3)]
    fleet.step(500)
    assert sorted(len(taker.reads()) for taker in takers) in ([3, 3, 4], [2, 4, 4])
    moves = fleet.moves.total()
    fleet.step(500)
    assert fleet.moves.total() == moves
