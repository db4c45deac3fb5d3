"""Plans of changes to leases: live workers are protected, and a reset leaves a set of leases that the KCL can use."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from tests.doubles.observations import HIGH, LOW, lease_row, shard, shard_id, watched, worker_row

from kinstream import Position, Shard
from kinstream.cli.leases.plan import Action, Plan, release_plan, reset_plan
from kinstream.cli.leases.survey import Observation
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON
from kinstream.consume.fleet.mode import Mode
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import Row

A, B = Lease("a", owner="w1", counter=5), Lease("b", owner="w2", counter=5)


def steps(plan: Plan) -> list[tuple[Action, str]]:
    return [(step.action, step.key) for step in plan.steps]


def renewed(lease: Lease) -> Lease:
    return msgspec.structs.replace(lease, counter=lease.counter + 1)


def still(*leases: Lease) -> Observation:
    rows = [lease_row(lease) for lease in leases]
    return watched(rows, rows, seconds=10.0)


def after(plan: Plan, rows: Iterable[Row]) -> dict[str, Lease]:
    """Return the leases after the plan was executed."""
    stored = {row.key: row for row in rows}
    for step in plan.steps:
        assert step.write.condition.holds(stored.get(step.key))
        row = step.write.applied(stored.get(step.key))
        if row is None:
            del stored[step.key]
        else:
            stored[step.key] = row
    return {key: lease_of(row) for key, row in stored.items()}


# Release.


def test_silent_owner_is_removed_on_condition_that_nothing_has_changed() -> None:
    plan = release_plan(still(A, B), worker="w1")
    assert (steps(plan), plan.refusals) == ([(Action.RELEASE, "a")], [])
    assert plan.steps[0].detail == "from w1"
    released = after(plan, [lease_row(A)])["a"]
    assert (released.owner, released.counter) == (None, 6)
    assert not plan.steps[0].write.condition.holds(lease_row(renewed(A)))
    assert not plan.steps[0].write.condition.holds(lease_row(msgspec.structs.replace(A, owner="w2")))


def test_owner_that_renews_any_lease_is_alive_and_keeps_all() -> None:
    other = Lease("c", owner="w1", counter=9)
    observation = watched([lease_row(A), lease_row(other)], [lease_row(A), lease_row(renewed(other))], seconds=10.0)
    plan = release_plan(observation, shards=frozenset({"a"}))
    (refusal,) = plan.refusals
    assert refusal == (
        "worker w1: renewed its leases during the observation, so it is alive. Stop it first, which releases its leases in good"
        " order, or use --force"
    )


def test_force_releases_a_lease_of_a_live_worker_and_states_the_consequence() -> None:
    observation = watched([lease_row(A)], [lease_row(renewed(A))], seconds=10.0)
    plan = release_plan(observation, worker="w1", force=True)
    assert (steps(plan), plan.refusals) == ([(Action.RELEASE, "a")], [])
    assert "other workers read its records since the last checkpoint again" in plan.notes[0]


def test_shards_and_workers_that_do_not_exist_are_refused() -> None:
    assert release_plan(still(A), shards=frozenset({"a", "x"})).refusals == ["shard x: has no lease"]
    assert release_plan(still(A), worker="w9").refusals == ["worker w9: reads no shard"]


def test_lease_may_be_named_by_its_shard_or_by_its_key() -> None:
    lease = Lease("000000000000:clicks:1795949306:s", "000000000000:clicks:1795949306", owner="w1")
    for name in ("s", lease.key):
        assert steps(release_plan(still(lease), shards=frozenset({name}))) == [(Action.RELEASE, lease.key)]


def test_lease_without_owner_needs_no_release() -> None:
    plan = release_plan(still(Lease("a")), shards=frozenset({"a"}))
    assert (plan.steps, plan.notes) == ([], ["a: has no owner."])


@pytest.mark.parametrize(("following", "reads"), [("w2", "w2"), (None, "another worker")])
def test_handoff_of_a_silent_worker_is_ended_and_the_next_owner_keeps_the_lease(
    following: str | None, reads: str
) -> None:
    lease = Lease("a", owner=following, checkpoint_owner="w1", counter=5)
    plan = release_plan(still(lease), worker="w1")
    assert steps(plan) == [(Action.END_HANDOFF, "a")]
    assert plan.steps[0].detail == f"from w1, so that {reads} reads it"
    ended = after(plan, [lease_row(lease)])["a"]
    assert (ended.owner, ended.checkpoint_owner) == (following, None)


def test_finished_leases_of_a_worker_stay() -> None:
    assert steps(release_plan(still(A, Lease("z", owner="w1", checkpoint=SHARD_END)), worker="w1")) == [
        (Action.RELEASE, "a")
    ]


# Reset. Shard 0 is split into 2 and 3, and 3 is merged with 1 into 4.

Q1, Q2 = LOW, HIGH
SHARDS = [
    shard(0, LOW, closed=True),
    shard(1, HIGH, closed=True),
    shard(2, LOW, parents=(0,), first=200),
    shard(3, LOW, parents=(0,), closed=True, first=200),
    shard(4, HIGH, parents=(3, 1), first=300),
]
S0, S1, S2, S3, S4 = (shard_id(number) for number in range(5))
READ_TO_THE_END = [
    Lease(S0, owner="w1", checkpoint=SHARD_END, children=(S2, S3)),
    Lease(S1, owner="w1", checkpoint=SHARD_END, children=(S4,)),
    Lease(S2, owner="w1", counter=7, checkpoint=Position.after("250"), parents=(S0,)),
    Lease(S3, owner="w1", checkpoint=SHARD_END, children=(S4,), parents=(S0,)),
    Lease(S4, owner="w1", checkpoint=Position.after("350"), parents=(S3, S1)),
]


def reset(
    observation: Observation,
    positions: dict[str, Position],
    *,
    shards: list[Shard] = SHARDS,
    mode: Mode = Mode.ONE_TABLE,
    force: bool = False,
) -> Plan:
    return reset_plan(observation, mode, shards, positions, force=force)


def test_reset_to_a_time_before_a_reshard_removes_the_later_shards() -> None:
    plan = reset(still(*READ_TO_THE_END), {S0: Position.at("110"), S1: Position.at("120")})
    assert plan.refusals == []
    assert steps(plan) == [
        (Action.RESET, S0),
        (Action.RESET, S1),
        (Action.DELETE, S4),
        (Action.DELETE, S3),
        (Action.DELETE, S2),
    ]
    found = after(plan, map(lease_row, READ_TO_THE_END))
    assert {key: (lease.owner, lease.checkpoint) for key, lease in found.items()} == {
        S0: (None, Position.at("110")),
        S1: (None, Position.at("120")),
    }


def test_reset_within_the_same_shards_keeps_finished_parents() -> None:
    plan = reset(still(*READ_TO_THE_END), {S2: Position.at("210"), S4: Position.at("310")})
    assert steps(plan) == [(Action.RESET, S2), (Action.RESET, S4)]
    assert plan.steps[0].detail == "after 250 -> at 210/0"
    found = after(plan, map(lease_row, READ_TO_THE_END))
    assert found[S2].counter == 8
    assert found.keys() == {S0, S1, S2, S3, S4}


def test_reset_to_a_time_after_a_reshard_creates_leases_and_removes_unread_parents() -> None:
    behind = [Lease(S0, checkpoint=Position.after("110")), Lease(S1, checkpoint=Position.after("120"))]
    plan = reset(still(*behind), {S2: Position.after("299"), S4: TRIM_HORIZON})
    assert steps(plan) == [(Action.CREATE, S2), (Action.CREATE, S4), (Action.DELETE, S1), (Action.DELETE, S0)]
    assert [step.detail for step in plan.steps[2:]] == ["has no records to read"] * 2
    found = after(plan, map(lease_row, behind))
    assert found[S4] == Lease(S4, checkpoint=TRIM_HORIZON, parents=(S1, S3), hash_key_range=HIGH)
    assert found[S2] == Lease(S2, checkpoint=Position.after("299"), parents=(S0,), hash_key_range=LOW)


def test_finished_lease_without_all_of_its_children_is_removed_too() -> None:
    # The KCL reports a finished lease whose child has no lease as an error, and then deletes no finished lease.
    leases = [
        Lease(S0, checkpoint=SHARD_END, children=(S2, S3)),
        Lease(S1, checkpoint=Position.after("120")),
        Lease(S2, checkpoint=Position.after("210"), parents=(S0,)),
        Lease(S3, checkpoint=Position.after("210"), parents=(S0,)),
    ]
    plan = reset(still(*leases), {S2: Position.at("290"), S4: Position.at("390")})
    assert after(plan, map(lease_row, leases)).keys() == {S2, S4}
    assert plan.steps[-1].key == S0
    assert plan.steps[-1].detail == "is finished, and a lease of its children is deleted"


def test_lease_of_an_expired_shard_is_removed() -> None:
    expired = Lease(shard_id(9), checkpoint=Position.after("9"))
    plan = reset(still(*READ_TO_THE_END, expired), {S2: Position.at("210"), S4: Position.at("310")})
    assert (steps(plan)[-1], plan.steps[-1].detail) == ((Action.DELETE, shard_id(9)), "its shard has expired")


def test_deletion_is_refused_if_the_lease_has_changed() -> None:
    expired = Lease(shard_id(9), owner="w1", checkpoint=Position.after("9"))
    (step,) = reset(still(*READ_TO_THE_END, expired), {S2: Position.at("210"), S4: Position.at("310")}).steps[2:]
    assert step.write.condition.holds(lease_row(expired))
    assert not step.write.condition.holds(lease_row(renewed(expired)))


def test_running_application_is_not_reset() -> None:
    moving = watched([lease_row(READ_TO_THE_END[2])], [lease_row(renewed(READ_TO_THE_END[2]))], seconds=10.0)
    assert reset(moving, {S2: Position.at("210")}).refusals == ["the application is running: w1 changed 1 lease"]
    announcing = watched(
        [lease_row(READ_TO_THE_END[2]), worker_row("w2", lut=1)],
        [lease_row(READ_TO_THE_END[2]), worker_row("w2", lut=2)],
        seconds=10.0,
    )
    assert reset(announcing, {S2: Position.at("210")}).refusals == ["the application is running: w2 wrote its row"]


def test_checkpoints_of_another_stream_are_replaced_only_by_force() -> None:
    foreign = still(Lease(S2, checkpoint=Position.after("9")))
    refused = reset(foreign, {S2: Position.at("210")})
    assert refused.refusals == [
        f"the checkpoints of {S2} are not of this stream: check --stream, or use --force if it was deleted and created again"
    ]
    forced = reset(foreign, {S2: Position.at("210")}, force=True)
    assert (forced.refusals, forced.notes) == ([], [f"the checkpoints of {S2} are not of this stream: check --stream."])


def test_application_without_leases_or_being_created_is_not_reset() -> None:
    assert "has no leases of this stream yet" in reset(still(), {S2: TRIM_HORIZON}).refusals[0]
    assert reset(still(*READ_TO_THE_END), {S2: TRIM_HORIZON}, mode=Mode.UNDECIDED).refusals == [
        "a KCL worker is creating the application"
    ]


def test_only_the_leases_of_the_stream_are_reset() -> None:
    clicks = "000000000000:clicks:1795949306"
    leases = [Lease(f"{clicks}:{S0}", clicks), *READ_TO_THE_END]
    plan = reset_plan(
        still(*leases), Mode.ONE_TABLE, [shard(0), shard(1)], {S0: Position.at("110"), S1: TRIM_HORIZON}, stream=clicks
    )
    assert steps(plan) == [(Action.RESET, f"{clicks}:{S0}"), (Action.CREATE, f"{clicks}:{S1}")]


@pytest.mark.parametrize(("mode", "kind"), [(Mode.ONE_TABLE, {"entityType": "LEASE"}), (Mode.TAKE, {})])
def test_created_leases_have_the_columns_of_the_application_s_mode(mode: Mode, kind: dict[str, str]) -> None:
    plan = reset(still(READ_TO_THE_END[4]), {S2: TRIM_HORIZON, S4: TRIM_HORIZON}, mode=mode)
    written = msgspec.to_builtins(plan.steps[0].write.change)["values"]
    assert {name: value for name, value in written.items() if name == "entityType"} == kind
