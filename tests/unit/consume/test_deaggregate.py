"""Aggregates are taken apart lazily, strays are dropped whole, damaged ones pass as they are, bad ones are a failure."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from kinstream import ConfigError, EncryptionType, HashKeyRange, ReceivedRecord, SequenceNumberRange, Shard, deaggregate
from kinstream.consume.deaggregate import KEYS_REMEMBERED, Deaggregator, Undeliverable
from kinstream.events import AggregateDamaged, Event, MisroutedAggregateDropped
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC
from kinstream.sharding.hashkey import hash_key
from kinstream.speed import TWINS

Expand: TypeAlias = Callable[..., list[ReceivedRecord[bytes]] | None]
SHARD = "shardId-000000000000"
WHOLE = HashKeyRange("0", str(2**128 - 1))
HALF = str(2**127)


@pytest.fixture(params=["pure", "compiled"])
def expand(request: pytest.FixtureRequest) -> Expand:
    if request.param == "pure":
        return TWINS["user_records"].pure
    module: Any = pytest.importorskip("kinstream._speed", exc_type=ImportError)
    return module.user_records  # type: ignore[no-any-return]


def aggregate(*keys: str | tuple[str, str | None]) -> bytes:
    builder = Builder(1 << 20, 100_000)
    for number, key in enumerate(keys):
        name, hash_key_text = (key, None) if isinstance(key, str) else key
        builder.add(name, hash_key_text, b"data %d" % number)
    return builder.finish()


def sealed(message: bytes) -> bytes:
    return MAGIC + message + hashlib.md5(message).digest()


def received(data: bytes, number: int = 1) -> ReceivedRecord[bytes]:
    return ReceivedRecord(data, str(number), 5.0, "outer")


class Apart:
    """A deaggregator and what it announced."""

    def __init__(self, expand: Expand, hash_keys: HashKeyRange | None = WHOLE, batch_records: int = 10_000) -> None:
        self.events: list[Event] = []
        self.origin = object()
        self.deaggregator = Deaggregator(SHARD, self.origin, hash_keys, batch_records, self.events.append, expand)

    def __call__(self, *data: bytes) -> list[list[ReceivedRecord[bytes]] | Undeliverable]:
        return list(self.lazily(*data))

    def lazily(self, *data: bytes) -> Iterator[list[ReceivedRecord[bytes]] | Undeliverable]:
        return self.deaggregator.batches([received(each, number) for number, each in enumerate(data, 1)])


def shown(
    batches: list[list[ReceivedRecord[bytes]] | Undeliverable],
) -> list[list[tuple[str, int | None, str | None, bytes]]]:
    return [
        [(r.sequence_number, r.subsequence_number, r.partition_key, r.data) for r in batch]
        for batch in batches
        if isinstance(batch, list)
    ]


def test_plain_records_are_one_batch_without_a_copy(expand: Expand) -> None:
    apart = Apart(expand)
    records = [received(b"one", 1), received(b"", 2)]
    (batch,) = apart.deaggregator.batches(records)
    assert batch is records
    assert [record.origin for record in records] == [apart.origin] * 2
    assert [record.subsequence_number for record in records] == [None, None]


def test_plain_records_are_split_into_batches_of_the_maximum_size(expand: Expand) -> None:
    batches = Apart(expand, batch_records=2)(b"one", b"two", b"three")
    assert [len(batch) for batch in batches if isinstance(batch, list)] == [2, 1]


def test_no_records_are_no_batch(expand: Expand) -> None:
    assert Apart(expand)() == []


def test_user_records_have_their_keys_their_numbers_and_the_aggregates_time(expand: Expand) -> None:
    apart = Apart(expand)
    batches = apart(b"before", aggregate("a", "b", "a"), b"after")
    assert shown(batches) == [
        [
            ("1", None, "outer", b"before"),
            ("2", 0, "a", b"data 0"),
            ("2", 1, "b", b"data 1"),
            ("2", 2, "a", b"data 2"),
            ("3", None, "outer", b"after"),
        ]
    ]
    (batch,) = batches
    assert isinstance(batch, list)
    assert {record.arrival_time for record in batch} == {5.0}
    assert {id(record.origin) for record in batch} == {id(apart.origin)}


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7, 100])
def test_batches_are_no_larger_than_asked_for_and_may_split_an_aggregate(expand: Expand, most: int) -> None:
    data = [b"x", aggregate(*"abcde"), b"y", b"z", aggregate(*"fghijk"), b"w"]
    batches = shown(Apart(expand, batch_records=most)(*data))
    assert max(map(len, batches)) <= most
    assert all(batches)
    assert [one for batch in batches for one in batch] == shown(Apart(expand)(*data))[0]


def test_aggregate_with_a_stray_is_dropped_whole_and_counted(expand: Expand) -> None:
    low = next(key for key in "abcdefgh" if hash_key(key) < 2**127)
    high = next(key for key in "abcdefgh" if hash_key(key) >= 2**127)
    apart = Apart(expand, HashKeyRange("0", str(2**127 - 1)))
    batches = apart(b"plain", aggregate(low, low), aggregate(low, high), aggregate(low))
    assert [row[:2] for row in shown(batches)[0]] == [("1", None), ("2", 0), ("2", 1), ("4", 0)]
    assert apart.events == [MisroutedAggregateDropped(SHARD, "3", 2)]
    assert apart.deaggregator.dropped == 1


@pytest.mark.parametrize("hash_key_text", [HALF, str(2**128), "x", "-1", ""])
def test_explicit_hash_key_decides_and_one_that_is_none_is_a_stray(expand: Expand, hash_key_text: str) -> None:
    low = next(key for key in "abcdefgh" if hash_key(key) < 2**127)
    apart = Apart(expand, HashKeyRange("0", str(2**127 - 1)))
    assert apart(aggregate((low, hash_key_text))) == []
    assert apart.deaggregator.dropped == 1


def test_strays_are_kept_where_no_range_is_asked_for(expand: Expand) -> None:
    assert len(shown(Apart(expand, None)(aggregate(*"abcdefgh")))[0]) == 8


@pytest.mark.parametrize(
    "data",
    [
        aggregate("a", "b")[:-1] + b"\0",
        MAGIC + b"x" * 40,
        sealed(b"\xff\xff\xff\xff"),
        sealed(b"\x0a\x02\xff\xfe"),
        aggregate("a", "b")[:30],
    ],
)
def test_damaged_aggregate_is_passed_on_as_it_is_and_counted(expand: Expand, data: bytes) -> None:
    apart = Apart(expand)
    assert shown(apart(data)) == [[("1", None, "outer", data)]]
    assert apart.deaggregator.damaged == 1
    (event,) = apart.events
    assert isinstance(event, AggregateDamaged)
    assert event.sequence_number == "1"


def test_short_record_that_begins_like_one_is_a_plain_record(expand: Expand) -> None:
    apart = Apart(expand)
    assert shown(apart(MAGIC, MAGIC + b"x" * 16, b"\xf3")) == [
        [("1", None, "outer", MAGIC), ("2", None, "outer", MAGIC + b"x" * 16), ("3", None, "outer", b"\xf3")]
    ]
    assert apart.events == []


def test_aggregate_whose_key_is_missing_is_a_failure_in_its_place(expand: Expand) -> None:
    bad = sealed(b"\x0a\x01a\x1a\x04\x08\x05\x1a\x00")  # a table of one key, and a record that names the sixth
    batches = Apart(expand)(b"before", bad, b"after")
    assert [type(batch) for batch in batches] == [list, Undeliverable, list]
    assert isinstance(batches[1], Undeliverable)
    assert batches[1].record.sequence_number == "2"
    assert shown(batches) == [[("1", None, "outer", b"before")], [("3", None, "outer", b"after")]]


def test_aggregate_that_claims_very_many_records_is_taken_apart_in_batches(expand: Expand) -> None:
    message = b"\x0a\x01a" + b"\x1a\x04\x08\x00\x1a\x00" * 20_000
    data = sealed(message)
    batches = Apart(expand, batch_records=1000).lazily(data)
    tracemalloc.start()
    first = next(batches)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(first, list)
    assert len(first) == 1000
    assert peak < 4 * len(data)
    assert sum(len(batch) for batch in batches if isinstance(batch, list)) == 19_000


# Records without a key


@pytest.mark.parametrize("hash_keys", [WHOLE, None, HashKeyRange(HALF, WHOLE.ending_hash_key)])
def test_records_put_without_a_key_have_none_alone_and_in_aggregates(
    expand: Expand, hash_keys: HashKeyRange | None
) -> None:
    apart = Apart(expand, hash_keys)
    names = [
        ("kinstream-no-key", HALF),
        ("kinstream-no-ke", HALF),
        ("kinstream-no-key!", HALF),
        ("kinstream-no-key", HALF),
    ]
    alone = [
        ReceivedRecord(b"x", "1", 5.0, "kinstream-no-key"),
        ReceivedRecord(b"x", "2", 5.0, "Kinstream-no-key"),
        ReceivedRecord(b"x", "3", 5.0, None),
        ReceivedRecord(aggregate(*names), "4", 5.0, "a"),
        ReceivedRecord(MAGIC + b"damaged" * 9, "5", 5.0, "kinstream-no-key"),
    ]
    found = [batch for batch in apart.deaggregator.batches(alone) if isinstance(batch, list)]
    keys = [record.partition_key for batch in found for record in batch]
    assert keys == [None, "Kinstream-no-key", None, None, "kinstream-no-ke", "kinstream-no-key!", None, None]
    assert [type(event) for event in apart.events] == [AggregateDamaged]


def test_record_without_a_key_belongs_to_a_shard_by_its_hash_key_alone(expand: Expand) -> None:
    apart = Apart(expand, HashKeyRange("0", str(2**127 - 1)))
    assert shown(apart(aggregate(("kinstream-no-key", "0")))) == [[("1", 0, None, b"data 0")]]
    assert apart(aggregate(("kinstream-no-key", HALF))) == []
    assert [type(event) for event in apart.events] == [MisroutedAggregateDropped]


# The public function


def the_shard(low: str = "0", high: str = WHOLE.ending_hash_key) -> Shard:
    return Shard(SHARD, HashKeyRange(low, high), SequenceNumberRange("0"))


def test_function_expands_containers_and_returns_all_other_records_themselves() -> None:
    damaged = received(aggregate("a")[:-1] + b"x", 4)
    no_such_key = received(sealed(b"\x0a\x01k\x1a\x05\x08\x01\x1a\x01x"), 5)
    plain, text = received(b"{}", 1), received(MAGIC, 3)
    container = ReceivedRecord(aggregate("a", ("b", "5"), "kinstream-no-key"), "2", 5.0, "a", EncryptionType.KMS)
    found = deaggregate([plain, container, text, damaged, no_such_key])
    assert found[0] is plain
    assert found[1:4] == [
        ReceivedRecord(b"data 0", "2", 5.0, "a", EncryptionType.KMS, 0),
        ReceivedRecord(b"data 1", "2", 5.0, "b", EncryptionType.KMS, 1),
        ReceivedRecord(b"data 2", "2", 5.0, "kinstream-no-key", EncryptionType.KMS, 2),
    ]
    assert [one is other for one, other in zip(found[4:], (text, damaged, no_such_key), strict=True)] == [True] * 3


def test_function_expands_once_so_that_aggregates_inside_come_back_whole() -> None:
    builder = Builder(1 << 20, 10)
    builder.add("outer", None, aggregate("a", "b"))
    (once,) = deaggregate([received(builder.finish())])
    assert (once.partition_key, once.subsequence_number, once.data) == ("outer", 0, aggregate("a", "b"))
    (twice,) = deaggregate([once])
    assert twice is once


def test_function_drops_what_does_not_belong_to_the_shard_only_if_it_knows_the_shard() -> None:
    other_half = received(aggregate(("a", "0"), ("b", HALF)), 1)
    this_half, plain = received(aggregate(("a", HALF)), 2), received(b"plain", 3)
    given = [other_half, this_half, plain]
    assert [(r.sequence_number, r.subsequence_number) for r in deaggregate(given, shard=the_shard(HALF))] == [
        ("2", 0),
        ("3", None),
    ]
    for shard in (None, the_shard()):
        assert [r.sequence_number for r in deaggregate(given, shard=shard)] == ["1", "1", "2", "3"]


def test_function_takes_any_iterable_and_an_aggregate_without_records_is_nothing() -> None:
    assert deaggregate(iter([received(sealed(b"\x0a\x01k"))])) == []
    assert deaggregate(()) == []
    assert [record.data for record in deaggregate(received(each) for each in (b"a", aggregate("k")))] == [
        b"a",
        b"data 0",
    ]


@pytest.mark.parametrize(
    ("records", "shard", "said"),
    [
        (None, None, r"records: must be the records that get_records returned, not NoneType"),
        ([b"data"], None, r"records\[0\]: must be a kinstream.ReceivedRecord, not bytes"),
        ([], SHARD, r"shard: must be a kinstream.Shard, as get_shards returns it, or None, not str"),
    ],
)
def test_function_names_what_is_wrong(records: Any, shard: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        deaggregate(records, shard=shard)


def test_strays_are_found_after_more_keys_than_are_remembered() -> None:
    keys = [key for key in map(str, range(3 * KEYS_REMEMBERED)) if hash_key(key) < 2**127]
    high = next(key for key in "abcdefgh" if hash_key(key) >= 2**127)
    apart = Apart(TWINS["user_records"].pure, HashKeyRange("0", str(2**127 - 1)))
    apart(aggregate(*keys[:KEYS_REMEMBERED]), aggregate(*keys[KEYS_REMEMBERED:]), aggregate(keys[0], high))
    assert [event.sequence_number for event in apart.events if isinstance(event, MisroutedAggregateDropped)] == ["3"]


def test_nothing_is_a_stray_in_a_shard_without_a_range() -> None:
    apart = Apart(TWINS["user_records"].pure, None)
    assert [row[:2] for row in shown(apart(aggregate("a", "b")))[0]] == [("1", 0), ("1", 1)]
    assert apart.events == []
