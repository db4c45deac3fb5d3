"""The state alone: no server, no clock, no disk."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from hashlib import md5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinstream.local.state import sequence
from kinstream.local.state.model import Placement, Shard, ShardChanged, Status, Stream, StreamChanged, StreamDeleted
from kinstream.local.state.request_error import RequestError
from kinstream.local.state.state import SHARD_LIMIT, State

NOW = 1_700_000_000.0
TOP = 2**128 - 1


def key(text: str) -> bytes:
    return md5(text.encode()).digest()


def active(shards: int = 1, *, transition: float = 0.0) -> tuple[State, Stream]:
    state = State(transition=transition)
    state.create("orders", shards, NOW)
    state.advance(NOW + transition)
    return state, state.stream("orders")


def span(shard: Shard) -> tuple[int, int]:
    return int.from_bytes(shard.start, "big"), int.from_bytes(shard.end, "big")


def put(state: State, stream: Stream, keys: list[bytes], now: float = NOW) -> list[Placement]:
    return state.place(stream, keys, now)


def test_stream_is_creating_until_its_transition_ends() -> None:
    state = State(transition=5.0)
    events = state.create("orders", 2, NOW)
    assert [type(e) for e in events] == [StreamChanged, ShardChanged, ShardChanged]
    assert state.advance(NOW + 4.9) == []
    assert state.stream("orders").settings.status is Status.CREATING
    (event,) = state.advance(NOW + 5.0)
    assert isinstance(event, StreamChanged)
    assert state.stream("orders").settings.status is Status.ACTIVE


def test_transition_ends_in_time_if_the_clock_was_set_back() -> None:
    state = State(transition=5.0)
    state.create("orders", 1, NOW)
    state.advance(NOW - 0.5)
    assert state.stream("orders").settings.status is Status.CREATING
    state.advance(NOW - 3600)
    assert state.stream("orders").settings.status is Status.ACTIVE


def test_recreated_stream_shares_no_number_and_no_creation_time_with_its_predecessor() -> None:
    state = State()
    state.create("orders", 1, NOW)
    state.advance(NOW)
    state.split("orders", "shardId-000000000000", str(2**127), NOW)
    state.advance(NOW)
    gone = state.stream("orders")
    state.delete("orders", NOW)
    state.advance(NOW)
    state.create("orders", 1, NOW)
    (shard,) = state.stream("orders").shards
    assert shard.origin > max(shard.origin for shard in gone.shards)
    assert state.stream("orders").settings.created > gone.settings.created


def test_streams_being_created_or_deleted_are_counted() -> None:
    state = State(transition=5.0)
    state.create("orders", 1, NOW)
    state.create("returns", 1, NOW + 1)
    assert state.creating_or_deleting() == 2
    state.advance(NOW + 6)
    assert state.creating_or_deleting() == 0
    state.split("orders", "shardId-000000000000", str(2**127), NOW + 6)
    state.delete("returns", NOW + 6)
    assert state.creating_or_deleting() == 1


def test_records_are_refused_while_a_stream_is_creating_or_deleting() -> None:
    state = State(transition=5.0)
    state.create("orders", 1, NOW)
    with pytest.raises(RequestError, match="ResourceNotFoundException"):
        state.readable("orders")
    state.advance(NOW + 5)
    state.readable("orders")
    state.delete("orders", NOW + 5)
    with pytest.raises(RequestError, match="ResourceNotFoundException"):
        state.readable("orders")


def test_deleted_stream_is_removed_with_its_shards_when_its_transition_ends() -> None:
    state, stream = active(3, transition=1.0)
    state.delete("orders", NOW + 10)
    assert state.delete("orders", NOW + 10.5) == []
    assert state.advance(NOW + 11) == [StreamDeleted("orders", [s.number for s in stream.shards])]
    assert state.streams == {}


def test_shard_numbers_of_a_deleted_stream_are_not_reused() -> None:
    state, stream = active(3)
    old = {s.number for s in stream.shards}
    state.delete("orders", NOW)
    state.advance(NOW)
    state.create("orders", 3, NOW)
    assert old.isdisjoint(s.number for s in state.stream("orders").shards)


def test_existing_stream_cannot_be_created_again() -> None:
    state, _ = active()
    with pytest.raises(RequestError, match="Stream orders under account 000000000000 already exists"):
        state.create("orders", 1, NOW)


def test_shards_above_the_account_limit_are_refused() -> None:
    state, _ = active(2)
    with pytest.raises(RequestError, match="LimitExceededException"):
        state.create("more", SHARD_LIMIT - 1, NOW)


def test_reshard_needs_an_active_stream() -> None:
    state, _ = active(2, transition=1.0)
    state.split("orders", "shardId-000000000000", "1000", NOW + 2)
    with pytest.raises(RequestError, match="not ACTIVE, instead in state UPDATING"):
        state.split("orders", "shardId-000000000001", str(TOP - 5), NOW + 2.5)
    with pytest.raises(RequestError, match="not ACTIVE, instead in state UPDATING"):
        state.merge("orders", "shardId-000000000000", "shardId-000000000001", NOW + 2.5)


def test_parent_accepts_records_until_the_split_takes_effect() -> None:
    state, stream = active(1, transition=1.0)
    state.split("orders", "shardId-000000000000", "1000", NOW + 2)
    (placement,) = put(state, stream, [key("a")], NOW + 2.5)
    assert placement.shard.index == 0
    state.advance(NOW + 3)
    assert [(p.shard.index, p.members) for p in put(state, stream, [key("a"), (0).to_bytes(16, "big")], NOW + 3)] == [
        (2, [0]),
        (1, [1]),
    ]
    assert stream.shards[0].ending_place == 2


def test_split_divides_the_parents_range_and_names_the_parent() -> None:
    state, stream = active()
    state.split("orders", "shardId-000000000000", "1000", NOW)
    state.advance(NOW)
    parent, low, high = stream.shards
    assert (span(low), span(high)) == ((0, 999), (1000, TOP))
    assert parent.closed is not None
    assert {(c.parent, c.adjacent) for c in (low, high)} == {(0, None)}
    assert stream.children(parent) == [low, high]


def test_merge_joins_the_ranges_whichever_shard_is_named_first() -> None:
    for first, second in ((0, 1), (1, 0)):
        state, stream = active(2)
        state.merge("orders", f"shardId-{first:012}", f"shardId-{second:012}", NOW)
        state.advance(NOW)
        child = stream.shards[2]
        assert span(child) == (0, TOP)
        assert (child.parent, child.adjacent) == (first, second)
        assert stream.children(stream.shards[0]) == stream.children(stream.shards[1]) == [child]


@pytest.mark.parametrize("at", ["0", "1", str(TOP), str(2**128), "x"])
def test_split_needs_a_hash_key_inside_the_shard(at: str) -> None:
    state, _ = active()
    with pytest.raises(RequestError, match=r"NewStartingHashKey .* is not both greater than one plus"):
        state.split("orders", "shardId-000000000000", at, NOW)


@pytest.mark.parametrize("pair", [(0, 2), (2, 0), (1, 1)])
def test_shards_that_are_not_adjacent_cannot_be_merged(pair: tuple[int, int]) -> None:
    state, _ = active(3)
    with pytest.raises(RequestError, match="not an adjacent pair"):
        state.merge("orders", f"shardId-{pair[0]:012}", f"shardId-{pair[1]:012}", NOW)


def test_closed_shard_cannot_be_split_or_merged_again() -> None:
    state, _ = active(2)
    state.split("orders", "shardId-000000000000", "1000", NOW)
    state.advance(NOW)
    with pytest.raises(RequestError, match="InvalidArgumentException: Shard shardId-000000000000"):
        state.split("orders", "shardId-000000000000", "500", NOW)
    with pytest.raises(RequestError, match="InvalidArgumentException: Shard shardId-000000000000"):
        state.merge("orders", "shardId-000000000000", "shardId-000000000001", NOW)


def test_refused_command_changes_nothing() -> None:
    state, stream = active(3)
    before = (stream.settings, [span(s) for s in stream.open])
    with pytest.raises(RequestError):
        state.merge("orders", "shardId-000000000000", "shardId-000000000002", NOW)
    with pytest.raises(RequestError):
        state.split("orders", "shardId-000000000009", "5", NOW)
    assert (stream.settings, [span(s) for s in stream.open]) == before
    assert state.advance(NOW + 1e6) == []


def test_shard_is_found_by_the_number_in_its_id() -> None:
    state, stream = active(2)
    assert state.shard(stream, "1") is state.shard(stream, "shardId-000000000001") is stream.shards[1]
    for wrong in ("shardId-000000000002", "shard", "-1", "1.0", "٣", "9" * 13, ""):
        with pytest.raises(
            RequestError, match=r"Could not find shard .* in stream orders under account 000000000000\."
        ):
            state.shard(stream, wrong)


def test_arrival_times_do_not_decrease_if_the_clock_is_set_back() -> None:
    state, stream = active()
    arrivals = [put(state, stream, [key("a")], now)[0].arrival for now in (NOW + 10, NOW + 5, NOW - 100, NOW + 11)]
    assert arrivals == sorted(arrivals)


def test_children_of_quick_reshards_have_greater_numbers() -> None:
    state, stream = active()
    for generation in range(5):
        state.split("orders", stream.open[-1].id, str(span(stream.open[-1])[0] + 1000 + generation), NOW)
        state.advance(NOW)
    for shard in stream.shards:
        if shard.parent is not None:
            ending = stream.shards[shard.parent].ending_number
            assert ending is not None
            assert int(ending) < int(shard.starting_number)


# Random commands, compared with a model that only stores the shard of each record.

HASH_KEYS = st.one_of(st.integers(0, TOP), st.integers(0, 3), st.integers(TOP - 3, TOP))
COMMANDS = st.one_of(
    st.tuples(st.just("put"), st.lists(HASH_KEYS, min_size=1, max_size=6)),
    st.tuples(st.just("split"), st.tuples(st.integers(0, 40), HASH_KEYS)),
    st.tuples(st.just("merge"), st.tuples(st.integers(0, 40), st.integers(0, 40))),
    st.tuples(st.just("merge neighbours"), st.integers(0, 40)),
    st.tuples(st.just("wait"), st.floats(-3, 10)),
)


@dataclass
class Model:
    """Records of each shard in order, as (hash key, order of the put, number, arrival)."""

    shards: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=dict)
    put: int = 0

    def take(self, placements: list[Placement], keys: list[int]) -> None:
        taken = []
        for placement in placements:
            shard = placement.shard
            assert shard.closed is None
            base = sequence.number(shard.origin, placement.first, placement.arrival // 1000, shard.index)
            for offset, member in enumerate(placement.members):
                low, high = span(shard)
                assert low <= keys[member] <= high
                entry = (keys[member], self.put + member, base + offset * sequence.STEP, placement.arrival)
                self.shards.setdefault(shard.index, []).append(entry)
                taken.append(member)
        assert sorted(taken) == list(range(len(keys)))
        self.put += len(keys)


@given(st.integers(1, 4), st.sampled_from([0.0, 2.0]), st.lists(COMMANDS, max_size=40))
@settings(max_examples=100, deadline=None)
def test_no_sequence_of_commands_loses_misplaces_or_reorders_records(
    count: int, transition: float, commands: list[tuple[str, object]]
) -> None:
    state = State(transition=transition)
    state.create("orders", count, NOW)
    state.advance(NOW + transition)
    stream, model, now = state.stream("orders"), Model(), NOW + transition
    for name, argument in commands:
        state.advance(now)
        try:
            match name, argument:
                case "put", list(keys):
                    model.take(state.place(stream, [k.to_bytes(16, "big") for k in keys], now), keys)
                case "split", (int(index), int(at)):
                    state.split("orders", f"shardId-{index:012}", str(at), now)
                case "merge", (int(index), int(other)):
                    state.merge("orders", f"shardId-{index:012}", f"shardId-{other:012}", now)
                case "merge neighbours", int(index):
                    pair = stream.open[index % len(stream.open) :][:2]
                    if len(pair) == 2:
                        state.merge("orders", pair[1].id, pair[0].id, now)
                case "wait", float(seconds):
                    now += seconds
        except RequestError:
            continue  # a shard that is not there or closed, or a stream that is UPDATING
    check_partition(stream)
    check_lineage(stream)
    check_records(stream, model)


def check_partition(stream: Stream) -> None:
    """The open shards cover every hash key once."""
    spans = [span(shard) for shard in stream.open]
    assert spans[0][0] == 0
    assert spans[-1][1] == TOP
    assert all(high + 1 == low for (_, high), (low, _) in itertools.pairwise(spans))


def check_lineage(stream: Stream) -> None:
    """Children take exactly their parents' hash keys, after them."""
    for shard in stream.shards:
        children = stream.children(shard)
        assert (shard.closed is None) == (not children)
        if children:
            family = [stream.shards[i] for i in (children[0].parent, children[0].adjacent) if i is not None]
            assert min(span(c) for c in children)[0] == min(span(p)[0] for p in family)
            assert max(span(c) for c in children)[1] == max(span(p)[1] for p in family)
            assert all(c.created >= (shard.closed or 0) for c in children)
            assert all(int(c.starting_number) > int(shard.ending_number or 0) for c in children)


def check_records(stream: Stream, model: Model) -> None:
    """Read parents before children: nothing is missing, numbers and times grow, and each key's records are in order."""
    seen: dict[int, list[int]] = {}
    for shard in stream.shards:
        records = model.shards.get(shard.index, [])
        assert len(records) == shard.last_place
        numbers = [int(shard.starting_number), *(r[2] for r in records)]
        if shard.ending_number is not None:
            numbers.append(int(shard.ending_number))
        assert numbers == sorted(set(numbers))
        parents = [stream.shards[i].arrival for i in (shard.parent, shard.adjacent) if i is not None]
        times = [*([max(parents)] if parents else []), *(r[3] for r in records)]
        assert times == sorted(times)
        for hash_key, order, _, _ in records:
            seen.setdefault(hash_key, []).append(order)
    assert sum(map(len, seen.values())) == model.put
    assert all(orders == sorted(orders) for orders in seen.values())


def test_stream_that_does_not_exist_is_refused_by_its_name() -> None:
    with pytest.raises(RequestError, match="Stream orders under account"):
        State(transition=0.0).stream("orders")


def test_refused_records_have_no_placement_and_no_number() -> None:
    state, stream = active(2)
    keys = [key(f"k{number}") for number in range(20)]
    first, second = stream.open
    placements = state.place(stream, keys, NOW, lambda shard, members: members[:3] if shard is first else [])
    assert [(placement.shard, len(placement.members)) for placement in placements] == [(first, 3)]
    following = {placement.shard.index: placement.first for placement in put(state, stream, keys)}
    assert (following[first.index], following[second.index]) == (placements[0].first + 3, placements[0].first)


def test_restored_streams_without_a_transition_do_not_change() -> None:
    state, stream = active()
    state.register("orders", "billing", NOW, {})
    state.advance(NOW)
    restored = State(transition=0.0)
    restored.restore([stream], 10)
    restored.advance(NOW + 100)
    assert restored.stream("orders").settings.consumers.keys() == {"billing"}


def test_transition_can_be_completed_before_its_time() -> None:
    state = State(transition=3600.0)
    state.create("events", 2, NOW)
    assert state.complete("events", NOW) == [StreamChanged(state.stream("events").settings)]
    assert state.stream("events").settings.status is Status.ACTIVE
    assert state.complete("events", NOW) == []
    numbers = [shard.number for shard in state.stream("events").shards]
    state.delete("events", NOW)
    assert state.complete("events", NOW) == [StreamDeleted("events", numbers)]
    assert state.streams == {}
    assert state.complete("events", NOW) == []
