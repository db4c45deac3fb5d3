"""The state alone: shard counts, settings that change, consumers and the account."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinstream.local.state.model import (
    Account,
    AccountChanged,
    Change,
    Event,
    ShardChanged,
    Status,
    Stream,
    StreamChanged,
    StreamDeleted,
)
from kinstream.local.state.request_error import RequestError
from kinstream.local.state.state import (
    CONSUMERS,
    CONSUMERS_ON_DEMAND_ADVANTAGE,
    MAX_SHARD_COUNT,
    ON_DEMAND_STREAMS,
    SHARD_LIMIT,
    State,
)
from kinstream.sharding.hashkey import even_ranges

NOW = 1_700_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR


def active(shards: int = 1, *, transition: float = 0.0, on_demand: bool = False) -> tuple[State, Stream]:
    state = State(transition=transition)
    state.create("orders", shards, NOW, on_demand=on_demand)
    state.advance(NOW + transition)
    return state, state.stream("orders")


def spans(stream: Stream) -> list[tuple[int, int]]:
    return [(int.from_bytes(s.start, "big"), int.from_bytes(s.end, "big")) for s in stream.open]


def parents(stream: Stream) -> list[tuple[int | None, int | None]]:
    return [(shard.parent, shard.adjacent) for shard in stream.shards]


# Shard counts


def test_doubling_splits_every_shard_in_the_middle() -> None:
    state, stream = active(2, transition=1.0)
    state.scale("orders", 4, NOW + 2)
    assert stream.settings.status is Status.UPDATING
    assert len(stream.open) == 2
    events = state.advance(NOW + 3)
    assert spans(stream) == even_ranges(4)
    assert parents(stream) == [(None, None)] * 2 + [(0, None)] * 2 + [(1, None)] * 2
    kept = [event.shard.index for event in events if isinstance(event, ShardChanged)]
    assert sorted(kept) == list(range(6))


def test_halving_merges_adjacent_shards() -> None:
    state, stream = active(4)
    state.scale("orders", 2, NOW)
    state.advance(NOW)
    assert spans(stream) == even_ranges(2)
    assert parents(stream)[4:] == [(0, 1), (2, 3)]


def test_short_lived_shard_is_closed_and_has_parents_and_a_child() -> None:
    state, stream = active(2)
    state.scale("orders", 3, NOW)
    state.advance(NOW)
    assert parents(stream) == [(None, None), (None, None), (0, None), (0, None), (1, None), (1, None), (3, 4)]
    assert [shard.index for shard in stream.open] == [2, 6, 5]
    assert stream.children(stream.shards[3]) == stream.children(stream.shards[4]) == [stream.shards[6]]
    for shard in stream.shards:
        for parent in (shard.parent, shard.adjacent):
            if parent is not None:
                assert int(shard.starting_number) > int(stream.shards[parent].ending_number or 0)


@pytest.mark.parametrize(("shards", "target"), [(1, 3), (4, 9), (10, 21)])
def test_more_than_double_the_shards_is_refused(shards: int, target: int) -> None:
    state, _ = active(shards)
    with pytest.raises(RequestError, match="LimitExceededException: UpdateShardCount cannot scale up over double"):
        state.scale("orders", target, NOW)


@pytest.mark.parametrize(("shards", "target"), [(3, 1), (5, 2), (10, 4)])
def test_less_than_half_the_shards_is_refused(shards: int, target: int) -> None:
    state, _ = active(shards)
    with pytest.raises(RequestError, match="LimitExceededException: UpdateShardCount cannot scale down below half"):
        state.scale("orders", target, NOW)


def test_eleventh_count_in_a_day_is_refused_until_the_next_day() -> None:
    state, _ = active(2)
    for turn in range(10):
        state.scale("orders", 2 + turn % 2, NOW + turn * HOUR)
        state.advance(NOW + turn * HOUR)
    with pytest.raises(RequestError, match="LimitExceededException"):
        state.scale("orders", 2, NOW + DAY - 1)
    state.scale("orders", 2, NOW + DAY + 1)


def test_shards_above_the_limit_of_a_stream_or_the_account_are_refused() -> None:
    state, _ = active(MAX_SHARD_COUNT - 1)
    with pytest.raises(RequestError, match="cannot scale to more than 10000"):
        state.scale("orders", MAX_SHARD_COUNT + 1, NOW)
    state.create("others", SHARD_LIMIT - MAX_SHARD_COUNT + 1, NOW)
    with pytest.raises(RequestError, match="would exceed the shard limit"):
        state.scale("orders", MAX_SHARD_COUNT, NOW)


def test_ten_thousand_shards_are_created_together() -> None:
    state, stream = active(MAX_SHARD_COUNT // 2)
    state.scale("orders", MAX_SHARD_COUNT, NOW)
    state.advance(NOW)
    assert spans(stream) == even_ranges(MAX_SHARD_COUNT)


@pytest.mark.parametrize(
    "command",
    [
        lambda state: state.scale("orders", 8, NOW),
        lambda state: state.split("orders", "shardId-000000000000", "1000", NOW),
        lambda state: state.merge("orders", "shardId-000000000000", "shardId-000000000001", NOW),
    ],
    ids=["scale", "split", "merge"],
)
def test_shards_of_an_on_demand_stream_cannot_be_changed_by_the_user(command: Callable[[State], list[Event]]) -> None:
    state, _ = active(4, on_demand=True)
    with pytest.raises(RequestError, match=r"ValidationException: .* is in On-Demand mode"):
        command(state)


@given(st.lists(st.tuples(st.sampled_from(["scale", "split", "merge"]), st.integers(0, 30)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_shard_has_hash_keys_of_its_parents_after_any_changes(commands: list[tuple[str, int]]) -> None:
    state, stream = active(2)
    for turn, (command, choice) in enumerate(commands):
        now = NOW + turn * DAY
        shard = stream.open[choice % len(stream.open)]
        low, high = int.from_bytes(shard.start, "big"), int.from_bytes(shard.end, "big")
        try:
            if command == "scale":
                state.scale("orders", choice, now)
            elif command == "split":
                state.split("orders", shard.id, str((low + high) // 2 + choice), now)
            else:
                state.merge("orders", shard.id, stream.open[(choice + 1) % len(stream.open)].id, now)
        except RequestError:
            continue
        state.advance(now)
    ranges = spans(stream)
    assert [low for low, _ in ranges] == [0, *(high + 1 for _, high in ranges[:-1])]
    for shard in stream.shards:
        children = stream.children(shard)
        assert bool(children) == (shard.closed is not None)
        if children:
            family = [stream.shards[i] for i in (children[0].parent, children[0].adjacent) if i is not None]
            assert min(c.start for c in children) == min(p.start for p in family)
            assert max(c.end for c in children) == max(p.end for p in family)
            assert all(int(c.starting_number) > int(shard.ending_number or 0) for c in children)


# Settings


def test_change_takes_effect_when_the_stream_is_active_again() -> None:
    state, stream = active(transition=1.0)
    state.change("orders", Change(max_record_kib=2048, metrics=["IncomingBytes"]), NOW + 2)
    before = stream.settings
    assert (before.status, before.max_record_kib, before.metrics) == (Status.UPDATING, 1024, [])
    (event,) = state.advance(NOW + 3)
    assert isinstance(event, StreamChanged)
    assert event.settings is stream.settings
    after = stream.settings
    assert (after.status, after.max_record_kib, after.metrics) == (Status.ACTIVE, 2048, ["IncomingBytes"])
    assert after.pending is None


def test_change_needs_an_active_stream() -> None:
    state, _ = active(transition=1.0)
    state.change("orders", Change(max_record_kib=2048), NOW + 2)
    with pytest.raises(RequestError, match="not ACTIVE, instead in state UPDATING"):
        state.change("orders", Change(), NOW + 2)
    with pytest.raises(RequestError, match="not ACTIVE, instead in state UPDATING"):
        state.update("orders", tags={"a": "b"})


def test_longer_retention_does_not_restore_trimmed_records() -> None:
    state, stream = active()
    state.change("orders", Change(retention_hours=48), NOW + 30 * HOUR)
    state.advance(NOW + 30 * HOUR)
    assert stream.horizon(NOW + 30 * HOUR) == (NOW + 6 * HOUR) * 1000
    assert stream.horizon(NOW + 50 * HOUR) == (NOW + 6 * HOUR) * 1000
    assert stream.horizon(NOW + 60 * HOUR) == (NOW + 12 * HOUR) * 1000


def test_shorter_retention_trims_immediately() -> None:
    state, stream = active()
    state.change("orders", Change(retention_hours=72), NOW)
    state.advance(NOW)
    state.change("orders", Change(retention_hours=24), NOW + 60 * HOUR)
    state.advance(NOW + 60 * HOUR)
    assert stream.horizon(NOW + 60 * HOUR) == (NOW + 36 * HOUR) * 1000


def test_records_before_and_after_encryption_have_different_arrival_times() -> None:
    state, stream = active()
    found = []
    for key in (None, "alias/a", "alias/b", ""):
        if key is not None:
            state.change("orders", Change(key_id=key), NOW)
            state.advance(NOW)
        (placement,) = state.place(stream, [bytes(16)], NOW)
        found.append((placement.arrival, stream.settings.key_id))
    assert [key for _, key in found] == [None, "alias/a", "alias/b", None]
    assert [stream.settings.encrypted(arrival) for arrival, _ in found] == [False, True, True, False]


def test_encryptions_without_retained_records_are_removed() -> None:
    state, stream = active()
    for day in range(40):
        state.change("orders", Change(key_id=f"key-{day}"), NOW + day * DAY)
        state.advance(NOW + day * DAY)
    assert len(stream.settings.encryptions) <= 3
    assert stream.settings.key_id == "key-39"


def test_stream_that_becomes_on_demand_gets_enough_shards() -> None:
    state, stream = active()
    state.change("orders", Change(on_demand=True, shards=4), NOW)
    state.advance(NOW)
    assert (stream.settings.on_demand, spans(stream)) == (True, even_ranges(4))


def test_provisioned_stream_has_no_warm_throughput_and_no_auto_distribution() -> None:
    state, stream = active(4, on_demand=True)
    state.update("orders", spread=True, warm_mibps=7)
    state.change("orders", Change(on_demand=False), NOW)
    state.advance(NOW)
    assert (stream.settings.warm_mibps, stream.settings.spread) == (None, False)


def test_on_demand_streams_above_the_account_limit_are_refused() -> None:
    state, _ = active()
    for number in range(ON_DEMAND_STREAMS):
        state.create(f"free-{number}", 4, NOW, on_demand=True)
    with pytest.raises(RequestError, match=r"LimitExceededException: .* limit on the number of On-Demand streams"):
        state.create("one more", 4, NOW, on_demand=True)
    with pytest.raises(RequestError, match=r"LimitExceededException: .* limit on the number of On-Demand streams"):
        state.change("orders", Change(on_demand=True), NOW)


def test_auto_distribution_fills_all_shards_evenly() -> None:
    state, stream = active(4, on_demand=True)
    counts = [0, 0, 0, 0]
    for placement in state.place(stream, [stream.spread_key() for _ in range(1000)], NOW):
        counts[placement.shard.index] = len(placement.members)
    assert all(245 <= count <= 255 for count in counts)


# Consumers


def register(state: State, name: str, now: float = NOW) -> None:
    state.register("orders", name, now, {})


def statuses(stream: Stream) -> dict[str, Status]:
    return {name: consumer.status for name, consumer in stream.settings.consumers.items()}


def test_consumer_is_creating_then_active_then_deleting_then_removed() -> None:
    state, stream = active(transition=1.0)
    (event,) = state.register("orders", "app", NOW + 2, {"a": "b"})
    assert isinstance(event, StreamChanged)
    assert event.settings.consumers["app"].tags == {"a": "b"}
    assert statuses(stream) == {"app": Status.CREATING}
    state.advance(NOW + 3)
    assert statuses(stream) == {"app": Status.ACTIVE}
    state.deregister(stream, stream.settings.consumers["app"], NOW + 4)
    assert statuses(stream) == {"app": Status.DELETING}
    assert state.deregister(stream, stream.settings.consumers["app"], NOW + 4) == []
    assert len(state.advance(NOW + 5)) == 1
    assert statuses(stream) == {}


def test_consumer_that_exists_cannot_be_registered_again() -> None:
    state, _ = active()
    register(state, "app")
    with pytest.raises(RequestError, match="ResourceInUseException: Consumer app under stream orders already exists"):
        register(state, "app")


def test_five_consumers_may_be_creating_at_once() -> None:
    state, _ = active(transition=1.0)
    for number in range(5):
        register(state, f"app-{number}", NOW + 2)
    with pytest.raises(RequestError, match=r"LimitExceededException: .* 5 consumers in CREATING"):
        register(state, "app-5", NOW + 2)
    state.advance(NOW + 3)
    register(state, "app-5", NOW + 3)


@pytest.mark.parametrize(
    ("on_demand", "committed", "limit"),
    [
        (False, False, CONSUMERS),
        (False, True, CONSUMERS),
        (True, False, CONSUMERS),
        (True, True, CONSUMERS_ON_DEMAND_ADVANTAGE),
    ],
)
def test_consumers_of_a_stream_are_limited(on_demand: bool, committed: bool, limit: int) -> None:
    state, _ = active(4, on_demand=on_demand)
    if committed:
        state.set_account(Account(started=int(NOW * 1000)))
    for number in range(limit):
        register(state, f"app-{number}")
        state.advance(NOW)
    with pytest.raises(RequestError, match=f"LimitExceededException: .* its limit of {limit} registered consumers"):
        register(state, "one more")


def test_no_consumer_registers_with_a_stream_being_created_or_deleted() -> None:
    state = State(transition=1.0)
    state.create("orders", 1, NOW)
    with pytest.raises(RequestError, match="not ACTIVE, instead in state CREATING"):
        register(state, "app")
    state.advance(NOW + 1)
    state.delete("orders", NOW + 1)
    with pytest.raises(RequestError, match="not ACTIVE, instead in state DELETING"):
        register(state, "app")


def test_stream_with_consumers_is_deleted_only_with_that_argument() -> None:
    state, stream = active(transition=1.0)
    register(state, "app", NOW + 2)
    with pytest.raises(RequestError, match=r"ResourceInUseException: DeleteStream can't delete"):
        state.delete("orders", NOW + 2)
    state.delete("orders", NOW + 2.5, with_consumers=True)
    assert statuses(stream) == {"app": Status.DELETING}
    assert [type(event) for event in state.advance(NOW + 10)] == [StreamDeleted]
    state.create("orders", 1, NOW + 11)
    assert state.advance(NOW + 20) != []
    assert statuses(state.stream("orders")) == {}


def test_settings_of_a_consumer_change_only_while_it_is_active() -> None:
    state, stream = active(transition=1.0)
    register(state, "app", NOW + 2)
    with pytest.raises(
        RequestError, match=r"Consumer app with creation timestamp 1700000002 .* is not in ACTIVE status\."
    ):
        state.update_consumer(stream, stream.settings.consumers["app"], policy="{}")
    state.advance(NOW + 3)
    state.update_consumer(stream, stream.settings.consumers["app"], policy="{}")
    assert stream.settings.consumers["app"].policy == "{}"


# State from a store


def test_state_continues_from_the_stored_streams() -> None:
    state, stream = active(2, transition=10.0)
    register(state, "app", NOW + 11)
    state.scale("orders", 4, NOW + 12)
    state.set_account(Account(started=5))
    restored = State(transition=10.0)
    restored.restore([stream], 3, state.account)
    restored.advance(NOW + 22)
    assert statuses(restored.stream("orders")) == {"app": Status.ACTIVE}
    assert spans(restored.stream("orders")) == even_ranges(4)
    assert restored.account == Account(started=5)


def test_commitment_is_in_effect_until_its_end() -> None:
    state = State()
    assert state.set_account(Account(started=1000)) == [AccountChanged(Account(started=1000))]
    assert state.account.committed(2)
    state.set_account(Account(started=1000, ends=5000))
    assert state.account.committed(4.9)
    assert not state.account.committed(5)


def test_end_of_the_next_transition_is_known() -> None:
    state = State(transition=10)
    state.create("a", 1, 1000.0)
    state.create("b", 1, 1005.0)
    assert (state.due("a"), state.due("b"), state.due("c")) == (1010.0, 1015.0, float("inf"))
    state.advance(1015.0)
    assert state.due("a") == float("inf")
    state.register("a", "app", 1020.0, {})
    state.split("a", "0", str(2**127), 1016.0)
    assert state.due("a") == 1026.0
