"""The compiled hot path compared with its pure twins: records admitted, routed, packed and settled."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from hashlib import md5
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.compiled import compiled_or_skip
from tests.doubles.memory import assert_nothing_is_kept
from tests.property.checks import checks, pure
from tests.property.test_speed import CBOR, JSON

from kinstream.errors import NotFound
from kinstream.kpl.message import BLANK_DIGEST, MAGIC
from kinstream.produce.admit import admit_one, admit_pairs
from kinstream.produce.aggregate import fill, write_digests
from kinstream.produce.batch import total_size
from kinstream.produce.delivery import first_unsettled, values
from kinstream.produce.lane import Lane
from kinstream.produce.pending import Aggregate, Failure, PendingRecord, WrappedRecord
from kinstream.produce.route import distribute, find_shards
from kinstream.produce.settle import as_meant, mark_written
from kinstream.produce_errors import ProduceError
from kinstream.record import NO_KEY, PutRecordResult, PutResult
from kinstream.sharding.hashkey import MAX_HASH_KEY, even_ranges

FAST = compiled_or_skip()
STREAM = {"StreamName": "orders"}

KEY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=70)
HASH_KEY = st.none() | st.integers(0, MAX_HASH_KEY).map(str)


class Blob(bytes):
    """Bytes of another type."""


DATA = st.binary(max_size=300) | st.binary(max_size=20).map(MAGIC.__add__) | st.sampled_from([MAGIC[:1], MAGIC[:3]])
LIKE_NO_KEY = st.sampled_from([NO_KEY, NO_KEY[:-1], NO_KEY + "x", NO_KEY.upper()])
PAIR = st.tuples(DATA, st.text(st.characters(max_codepoint=127), min_size=1, max_size=10) | LIKE_NO_KEY)
ODD_PAIR: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.binary(max_size=9).map(Blob), KEY),
    st.tuples(st.binary(max_size=9).map(bytearray), KEY),
    st.tuples(st.text(max_size=9), KEY),
    st.tuples(st.binary(max_size=9), st.none() | st.just("") | st.just("x" * 257) | st.just("ä") | st.just("\ud800")),
    st.lists(st.binary(max_size=3), min_size=2, max_size=2),
    st.tuples(st.binary(max_size=3)),
    st.none(),
)


def fields(deliveries: list[PendingRecord]) -> list[list[Any]]:
    return [[getattr(delivery, name) for name in PendingRecord.__struct_fields__] for delivery in deliveries]


@checks("admit_pairs")
@given(st.lists(PAIR, max_size=12) | st.lists(PAIR | ODD_PAIR, max_size=6), st.integers(0, 400))
def the_same_pairs_are_admitted(pairs: list[Any], limit: int) -> None:
    slow, fast = (admit(PendingRecord, pairs, limit, 256, 7.5) for admit in (pure("admit_pairs"), admit_pairs))
    if slow is None or fast is None:
        assert slow is fast
    else:
        assert slow[1] == fast[1]
        assert fields(slow[0]) == fields(fast[0])
        assert {type(delivery) for delivery in fast[0]} <= {PendingRecord}


@checks("admit_one")
@given(PAIR | ODD_PAIR, st.integers(0, 400))
def the_same_record_is_admitted(pair: Any, limit: int) -> None:
    data, key = pair if pair is not None and len(pair) == 2 else (pair, None)
    slow, fast = (admit(PendingRecord, data, key, limit, 256, 7.5) for admit in (pure("admit_one"), admit_one))
    if slow is None or fast is None:
        assert slow is fast
    else:
        assert fields([slow]) == fields([fast])


def made(data: bytes, key: str, hash_key: str | None) -> PendingRecord:
    return PendingRecord(data, key, hash_key, len(data) + len(key.encode()), 7.5)


WRAPPED = st.builds(WrappedRecord.of, st.binary(max_size=60), KEY, HASH_KEY)
DELIVERY = st.builds(made, st.binary(max_size=60), KEY, HASH_KEY) | WRAPPED


@checks("find_shards")
@given(st.lists(DELIVERY, max_size=30), st.sampled_from([1, 2, 64]))
def the_same_shards_are_found(deliveries: list[PendingRecord], shards: int) -> None:
    ends = [end.to_bytes(16, "big") for _, end in even_ranges(shards)]
    assert find_shards(deliveries, ends) == pure("find_shards")(deliveries, ends)


@checks("distribute")
@given(st.lists(DELIVERY, max_size=30), st.sampled_from([1, 2, 64]))
def the_same_queues_get_the_same_records(deliveries: list[PendingRecord], shards: int) -> None:
    ends = [end.to_bytes(16, "big") for _, end in even_ranges(shards)]
    slow: list[list[PendingRecord]] = [[*deliveries[:2]] for _ in ends]
    fast: list[list[PendingRecord]] = [[*deliveries[:2]] for _ in ends]
    assert distribute(deliveries, ends, fast) == pure("distribute")(deliveries, ends, slow)
    assert fast == slow


def test_records_are_put_in_queues_all_or_none() -> None:
    ends = [end.to_bytes(16, "big") for _, end in even_ranges(2)]
    deliveries = [made(b"", f"key-{number}", None) for number in range(20)]
    queues: list[list[Any]] = [[], []]
    assert FAST.distribute([*deliveries, made(b"", "key", "no number")], ends, queues) is None
    assert FAST.distribute(deliveries, ends, queues[:1]) is None
    assert FAST.distribute(deliveries, ends, [queues[0], ()]) is None
    assert queues == [[], []]


@checks("total_size")
@given(st.lists(DELIVERY, max_size=30), st.integers(0, 30), st.integers(0, 30))
def the_same_sizes_are_summed(deliveries: list[PendingRecord], start: int, stop: int) -> None:
    entries = [*deliveries, Aggregate(deliveries, b"packed", "a", "0")] if deliveries else []
    assert total_size(entries, start, stop) == pure("total_size")(entries, start, stop)


SHARD = st.sampled_from(["shard-1", "shard-2", None])


@checks("as_meant")
@given(st.lists(st.tuples(SHARD, st.lists(SHARD, max_size=4) | st.integers(0, 4)), max_size=5), st.booleans())
def the_same_responses_are_as_they_were_meant(parts: list[tuple[str | None, Any]], all_there: bool) -> None:
    spans: list[tuple[Lane, int, int]] = []
    results: list[PutRecordResult] = []
    for meant, found in parts:
        shards = [meant] * found if isinstance(found, int) else found
        spans.append((Lane(meant, None, None), len(results), len(results) + len(shards)))
        results += [PutRecordResult("1", shard and "".join(list(shard))) for shard in shards]
    results = results if all_there else results[1:]
    assert as_meant(results, spans) == pure("as_meant")(results, spans)


@checks("fill")
@given(
    st.lists(DELIVERY, min_size=1, max_size=30), st.integers(1, 9), st.integers(30, 900), st.integers(1, 12), st.data()
)
def the_same_aggregate_is_packed(
    waiting: list[PendingRecord], guess: int, max_bytes: int, max_records: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(waiting) - 1))
    arguments = waiting, start, max_bytes, max_records, guess
    assert fill(*arguments) == pure("fill")(*arguments)


LENGTHS = (0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 50_000)
"""Bytes of a message around the ends of the blocks of MD5, and those of an ordinary aggregate."""


@checks("write_digests")
def the_same_digests_are_written() -> None:
    rng = random.Random(5)
    for number in range(600):
        lengths = LENGTHS if number % 20 == 0 else LENGTHS[:-1]
        entries: list[Any] = []
        twins: list[Any] = []
        expected: list[bytes] = []
        for _ in range(rng.choice([0, 1, 2, 7, 8, 9, 16, 63, 64, 65, 130])):
            message = rng.randbytes(rng.choice(lengths))
            complete = MAGIC + message + md5(message).digest()
            kind = rng.choice(["aggregate", "aggregate", "complete aggregate", "record"])
            data = complete if kind == "complete aggregate" else MAGIC + message + BLANK_DIGEST
            expected.append(data if kind == "record" else complete)
            for either in (entries, twins):
                own = bytes(bytearray(data))
                record = made(own, "key", None)
                either.append(record if kind == "record" else Aggregate([record], own, "a", "0"))
                if kind != "record":
                    record.data = b""
        write_digests(entries)
        pure("write_digests")(twins)
        assert [entry.data for entry in entries] == expected
        assert [entry.data for entry in twins] == expected


def test_data_with_another_reference_keeps_its_blank_digest() -> None:
    data = MAGIC + b"message" + BLANK_DIGEST
    before = bytes(bytearray(data))
    whole = Aggregate([made(b"", "key", None)], data, "a", "0")
    FAST.write_digests([whole])
    assert data == before
    assert whole.data == MAGIC + b"message" + md5(b"message").digest()


def test_the_hash_of_data_that_changes_in_place_is_computed_again() -> None:
    whole = Aggregate([made(b"", "key", None)], bytes(bytearray(MAGIC + b"message" + BLANK_DIGEST)), "a", "0")
    before = hash(whole.data)
    write_digests([whole])
    complete = MAGIC + b"message" + md5(b"message").digest()
    assert hash(whole.data) == hash(complete) != before


def test_entries_that_are_no_aggregates_have_no_digest_to_write() -> None:
    text: Any = "text"
    strange = [None, "x", made(text, "key", None), Aggregate([made(b"", "key", None)], text, "a", "0")]
    FAST.write_digests([*strange, Aggregate([made(b"", "key", None)], MAGIC, "a", "0")])
    assert strange[3].data is text  # type: ignore[union-attr]
    with pytest.raises(TypeError):
        FAST.write_digests(tuple(strange))


@checks("put_records_to_json", "put_records_to_cbor")
@given(st.lists(DELIVERY, min_size=1, max_size=12))
def the_same_bytes_are_written_of_what_waits(deliveries: list[PendingRecord]) -> None:
    entries: list[Any] = [*deliveries, Aggregate(deliveries, b"packed", "a", "0")]
    for slow, fast in (JSON, CBOR):
        for omitted in (None, deliveries[0].partition_key, NO_KEY):
            written = slow.encode_put_records(STREAM, entries, omitted)
            assert written == fast.encode_put_records(STREAM, entries, omitted)
            keys = [entry.get("PartitionKey") for entry in slow.decode(written)["Records"]]
            assert keys == [None if e.partition_key is omitted else e.partition_key for e in entries]


STATE = st.sampled_from(["waiting", "failed", "awaited", "wrapped"])


def entries_of(shape: list[Any]) -> tuple[list[Any], list[PendingRecord]]:
    """Return entries of a shape (a state, or a list of them for an aggregate), and all deliveries in them."""
    everything: list[PendingRecord] = []

    def one(state: str) -> PendingRecord:
        data = b"x" * len(everything)
        delivery = WrappedRecord.of(data, "k", None) if state == "wrapped" else made(data, "k", None)
        if state == "failed":
            delivery.outcome = FAILURE
        elif state == "awaited":
            delivery.waiter = WAITER
        everything.append(delivery)
        return delivery

    entries = [
        one(part) if isinstance(part, str) else Aggregate([one(state) for state in part], b"whole", "a", "0")
        for part in shape
    ]
    return entries, everything


WAITER: Any = object()
FAILURE = Failure("it failed", NotFound("no stream"))
SHAPES = st.lists(STATE | st.lists(STATE, min_size=1, max_size=5), max_size=8)


@checks("mark_written", "first_unsettled", "values")
@given(SHAPES, st.integers(0, 3), st.booleans())
def records_are_settled_alike(shape: list[Any], attempts: int, doubt: bool) -> None:
    outcomes = []
    for mark, first, read in (
        (pure("mark_written"), pure("first_unsettled"), pure("values")),
        (mark_written, first_unsettled, values),
    ):
        entries, everything = entries_of(shape)
        for entry in entries[::2]:
            entry.attempts, entry.maybe_written = attempts, doubt and attempts > 0
        for delivery in everything[::3]:
            delivery.attempts, delivery.maybe_written = attempts, not doubt and attempts > 0
        results = [PutRecordResult(f"{i}", "shard") for i in range(len(entries))]
        before = [first(everything, start) for start in range(len(everything) + 1)]
        records, size, awaited = mark(entries, results)
        outcomes.append(
            (
                before,
                records,
                size,
                [everything.index(delivery) for delivery in awaited],
                [(d.data, d.waiter is WAITER, d.outcome is FAILURE) for d in everything],
                [(entry.members, entry.data) for entry in entries if isinstance(entry, Aggregate)],
                [shown(value) for value in read(everything)],
                first(everything, 0),
            )
        )
    assert outcomes[0] == outcomes[1]


def shown(value: PutResult | ProduceError) -> Any:
    return value if isinstance(value, PutResult) else (type(value), value.details, value.record, value.attempts)


def test_what_is_not_settled_has_no_value() -> None:
    for read in (pure("values"), values):
        with pytest.raises(asyncio.InvalidStateError):
            read([made(b"", "k", None)])


def test_value_of_any_other_type_is_an_error_and_not_a_crash() -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: FAST.mark_written([None], [PutRecordResult()]),
        lambda: FAST.mark_written([PutRecordResult()], [PutRecordResult()]),
        lambda: FAST.first_unsettled([None], 0),
        lambda: FAST.first_unsettled(None, 0),
        lambda: FAST.values((made(b"", "k", None),)),
    )
    for call in calls:
        with pytest.raises(TypeError):
            call()
    with pytest.raises(AttributeError):
        FAST.values([None])
    with pytest.raises(ValueError):
        FAST.mark_written([made(b"", "k", None)], [])
    with pytest.raises(ValueError):
        FAST.first_unsettled([], -1)
    assert FAST.admit_pairs(dict, [(b"x", "k")], 9, 9, 1.0) is None


def test_no_call_keeps_memory() -> None:
    pairs = [(b"x" * 40, f"key {i}") for i in range(20)]
    results = [PutRecordResult("1", "s") for _ in range(21)]

    def each_once() -> None:
        admitted = FAST.admit_pairs(PendingRecord, pairs, 1000, 256, 7.5)
        assert admitted is not None
        deliveries, _ = admitted
        FAST.admit_pairs(PendingRecord, [*pairs, (b"x", "")], 1000, 256, 7.5)
        FAST.first_unsettled(deliveries, 0)
        again = FAST.admit_pairs(PendingRecord, pairs, 1000, 256, 7.5)
        assert again is not None
        whole = Aggregate(again[0], b"data", "a", "0")
        deliveries[3].waiter = WAITER
        FAST.mark_written([*deliveries, whole], results)
        FAST.values(deliveries)
        FAST.values(again[0])
        shared = MAGIC + b"message" + BLANK_DIGEST
        FAST.write_digests([*deliveries, Aggregate(again[0], shared, "a", "0"), Aggregate(again[0], shared, "a", "0")])

    assert_nothing_is_kept(each_once)  # 40,000 calls


def failing_allocations(call: Callable[[], object], untouched: Callable[[], bool]) -> int:
    """Let each allocation of a call fail, one after the other; return how many calls failed. These must not change anything."""
    if sys.gettrace() is not None:
        pytest.skip("a debugger or coverage needs memory, and would fail first")
    memory: Any = pytest.importorskip("_testcapi")
    for nth in range(1, 10_000):
        memory.set_nomemory(nth, nth + 1)
        try:
            call()
        except MemoryError:
            failed = True
        else:
            failed = False
        finally:
            memory.remove_mem_hooks()
        if not failed:
            return nth - 1
        assert untouched(), f"allocation {nth} failed, and something was changed"
    raise AssertionError("it fails however many allocations succeed")


def test_records_are_put_into_queues_all_or_none() -> None:
    deliveries = [made(b"", f"key {number}", None) for number in range(200)]
    ends = [end.to_bytes(16, "big") for _, end in even_ranges(5)]
    before = [[made(b"", "before", None)] * count for count in (0, 1, 9, 100, 0)]
    queues = [list(queue) for queue in before]
    failed = failing_allocations(lambda: FAST.distribute(deliveries, ends, queues), lambda: queues == before)
    assert failed > 10
    assert [len(queue) for queue in queues] != [len(queue) for queue in before]


def test_records_are_settled_all_or_none() -> None:
    entries, everything = entries_of(
        ["waiting", ["awaited", "failed", "waiting"], "awaited", "failed", ["waiting"] * 300]
    )
    results = [PutRecordResult(f"{number}", "shard") for number in range(len(entries))]

    def state() -> list[Any]:
        wholes = [(entry.members, entry.data) for entry in entries if isinstance(entry, Aggregate)]
        return [wholes, [(delivery.outcome, delivery.data, delivery.waiter) for delivery in everything]]

    learned, _ = entries_of(["waiting", ["waiting"]])
    FAST.mark_written(learned, results[:2])  # learns the layout of their classes, and does without if that fails
    before = state()
    failed = failing_allocations(lambda: FAST.mark_written(entries, results), lambda: state() == before)
    assert failed > 300
    assert first_unsettled(everything, 0) == len(everything)
