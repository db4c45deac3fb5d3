"""Aggregates are expanded lazily. Misrouted ones are dropped, damaged ones delivered unchanged, bad ones undeliverable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.lambda_events import event
from tests.doubles.memory import peak_traced

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


class Deaggregation:
    """A deaggregator and its events."""

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
    deaggregation = Deaggregation(expand)
    records = [received(b"one", 1), received(b"", 2)]
    (batch,) = deaggregation.deaggregator.batches(records)
    assert batch is records
    assert [record.origin for record in records] == [deaggregation.origin] * 2
    assert [record.subsequence_number for record in records] == [None, None]


def test_plain_records_are_split_into_batches_of_the_maximum_size(expand: Expand) -> None:
    batches = Deaggregation(expand, batch_records=2)(b"one", b"two", b"three")
    assert [len(batch) for batch in batches if isinstance(batch, list)] == [2, 1]


def test_no_records_are_no_batch(expand: Expand) -> None:
    assert Deaggregation(expand)() == []


def test_user_records_have_their_own_keys_and_numbers_and_the_time_of_the_aggregate(expand: Expand) -> None:
    deaggregation = Deaggregation(expand)
    batches = deaggregation(b"before", aggregate("a", "b", "a"), b"after")
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
    assert {id(record.origin) for record in batch} == {id(deaggregation.origin)}


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7, 100])
def test_batches_are_within_the_limit_and_may_split_an_aggregate(expand: Expand, most: int) -> None:
    data = [b"x", aggregate(*"abcde"), b"y", b"z", aggregate(*"fghijk"), b"w"]
    batches = shown(Deaggregation(expand, batch_records=most)(*data))
    assert max(map(len, batches)) <= most
    assert all(batches)
    assert [one for batch in batches for one in batch] == shown(Deaggregation(expand)(*data))[0]


def test_aggregate_with_a_misrouted_record_is_dropped_completely_and_counted(expand: Expand) -> None:
    low = next(key for key in "abcdefgh" if hash_key(key) < 2**127)
    high = next(key for key in "abcdefgh" if hash_key(key) >= 2**127)
    deaggregation = Deaggregation(expand, HashKeyRange("0", str(2**127 - 1)))
    batches = deaggregation(b"plain", aggregate(low, low), aggregate(low, high), aggregate(low))
    assert [row[:2] for row in shown(batches)[0]] == [("1", None), ("2", 0), ("2", 1), ("4", 0)]
    assert deaggregation.events == [MisroutedAggregateDropped(SHARD, "3", 2)]
    assert deaggregation.deaggregator.dropped == 1


@pytest.mark.parametrize("hash_key_text", [HALF, str(2**128), "x", "-1", ""])
def test_explicit_hash_key_takes_precedence_and_an_invalid_one_is_misrouted(expand: Expand, hash_key_text: str) -> None:
    low = next(key for key in "abcdefgh" if hash_key(key) < 2**127)
    deaggregation = Deaggregation(expand, HashKeyRange("0", str(2**127 - 1)))
    assert deaggregation(aggregate((low, hash_key_text))) == []
    assert deaggregation.deaggregator.dropped == 1


def test_misrouted_records_are_kept_without_a_range(expand: Expand) -> None:
    assert len(shown(Deaggregation(expand, None)(aggregate(*"abcdefgh")))[0]) == 8


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
def test_damaged_aggregate_is_delivered_unchanged_and_counted(expand: Expand, data: bytes) -> None:
    deaggregation = Deaggregation(expand)
    assert shown(deaggregation(data)) == [[("1", None, "outer", data)]]
    assert deaggregation.deaggregator.damaged == 1
    (event,) = deaggregation.events
    assert isinstance(event, AggregateDamaged)
    assert event.sequence_number == "1"


def test_short_record_with_the_magic_bytes_is_a_plain_record(expand: Expand) -> None:
    deaggregation = Deaggregation(expand)
    assert shown(deaggregation(MAGIC, MAGIC + b"x" * 16, b"\xf3")) == [
        [("1", None, "outer", MAGIC), ("2", None, "outer", MAGIC + b"x" * 16), ("3", None, "outer", b"\xf3")]
    ]
    assert deaggregation.events == []


def test_aggregate_with_a_missing_key_is_undeliverable(expand: Expand) -> None:
    bad = sealed(b"\x0a\x01a\x1a\x04\x08\x05\x1a\x00")  # a table of one key, and a record that names the sixth
    batches = Deaggregation(expand)(b"before", bad, b"after")
    assert [type(batch) for batch in batches] == [list, Undeliverable, list]
    assert isinstance(batches[1], Undeliverable)
    assert batches[1].record.sequence_number == "2"
    assert shown(batches) == [[("1", None, "outer", b"before")], [("3", None, "outer", b"after")]]
    assert [type(batch) for batch in Deaggregation(expand)(bad, bad)] == [Undeliverable, Undeliverable]


def test_aggregate_with_20_000_records_is_expanded_in_batches(expand: Expand) -> None:
    message = b"\x0a\x01a" + b"\x1a\x04\x08\x00\x1a\x00" * 20_000
    data = sealed(message)
    batches = Deaggregation(expand, batch_records=1000).lazily(data)
    assert peak_traced(lambda: next(batches)) < 4 * len(data)  # in a fork, which leaves this process's iterator unused
    first = next(batches)
    assert isinstance(first, list)
    assert len(first) == 1000
    assert sum(len(batch) for batch in batches if isinstance(batch, list)) == 19_000


# Records without a key


@pytest.mark.parametrize("hash_keys", [WHOLE, None, HashKeyRange(HALF, WHOLE.ending_hash_key)])
def test_records_put_without_a_key_have_none_alone_and_in_aggregates(
    expand: Expand, hash_keys: HashKeyRange | None
) -> None:
    deaggregation = Deaggregation(expand, hash_keys)
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
    found = [batch for batch in deaggregation.deaggregator.batches(alone) if isinstance(batch, list)]
    keys = [record.partition_key for batch in found for record in batch]
    assert keys == [None, "Kinstream-no-key", None, None, "kinstream-no-ke", "kinstream-no-key!", None, None]
    assert [type(event) for event in deaggregation.events] == [AggregateDamaged]


def test_record_without_a_key_belongs_to_a_shard_by_its_hash_key(expand: Expand) -> None:
    deaggregation = Deaggregation(expand, HashKeyRange("0", str(2**127 - 1)))
    assert shown(deaggregation(aggregate(("kinstream-no-key", "0")))) == [[("1", 0, None, b"data 0")]]
    assert deaggregation(aggregate(("kinstream-no-key", HALF))) == []
    assert [type(event) for event in deaggregation.events] == [MisroutedAggregateDropped]


# The public function

BOTO3 = {
    "Data": b"x",
    "SequenceNumber": "5",
    "PartitionKey": "k",
    "ApproximateArrivalTimestamp": datetime.fromtimestamp(1_800_000_000.5, UTC),
}


def the_shard(low: str = "0", high: str = WHOLE.ending_hash_key) -> Shard:
    return Shard(SHARD, HashKeyRange(low, high), SequenceNumberRange("0"))


def test_function_expands_aggregates_and_returns_all_other_records_unchanged() -> None:
    damaged = received(aggregate("a")[:-1] + b"x", 4)
    no_such_key = received(sealed(b"\x0a\x01k\x1a\x05\x08\x01\x1a\x01x"), 5)
    plain, text = received(b"{}", 1), received(MAGIC, 3)
    container = ReceivedRecord(aggregate("a", ("b", "5"), "kinstream-no-key"), "2", 5.0, "a", EncryptionType.KMS)
    found = list(deaggregate([plain, container, text, damaged, no_such_key]))
    assert found[0] is plain
    assert found[1:4] == [
        ReceivedRecord(b"data 0", "2", 5.0, "a", EncryptionType.KMS, 0),
        ReceivedRecord(b"data 1", "2", 5.0, "b", EncryptionType.KMS, 1),
        ReceivedRecord(b"data 2", "2", 5.0, "kinstream-no-key", EncryptionType.KMS, 2),
    ]
    assert [one is other for one, other in zip(found[4:], (text, damaged, no_such_key), strict=True)] == [True] * 3


def test_function_does_not_expand_aggregates_inside_aggregates() -> None:
    builder = Builder(1 << 20, 10)
    builder.add("outer", None, aggregate("a", "b"))
    (once,) = deaggregate([received(builder.finish())])
    assert (once.partition_key, once.subsequence_number, once.data) == ("outer", 0, aggregate("a", "b"))
    (twice,) = deaggregate([once])
    assert twice is once


def test_function_drops_misrouted_aggregates_only_if_the_shard_is_given() -> None:
    other_half = received(aggregate(("a", "0"), ("b", HALF)), 1)
    this_half, plain = received(aggregate(("a", HALF)), 2), received(b"plain", 3)
    given = [other_half, this_half, plain]
    assert [(r.sequence_number, r.subsequence_number) for r in deaggregate(given, shard=the_shard(HALF))] == [
        ("2", 0),
        ("3", None),
    ]
    for shard in (None, the_shard()):
        assert [r.sequence_number for r in deaggregate(given, shard=shard)] == ["1", "1", "2", "3"]


def test_function_accepts_any_iterable_and_expands_an_empty_aggregate_to_no_records() -> None:
    assert list(deaggregate(iter([received(sealed(b"\x0a\x01k"))]))) == []
    assert list(deaggregate(())) == []
    assert [record.data for record in deaggregate(received(each) for each in (b"a", aggregate("k")))] == [
        b"a",
        b"data 0",
    ]


@pytest.mark.parametrize(
    ("records", "shard", "said"),
    [
        (None, None, r"records: must be the records that get_records returned, not NoneType"),
        (b"data", None, r"records\[0\]: must be a kinstream.ReceivedRecord or a dict, not int"),
        ({"Records": []}, None, r"records: must be a list of records, such as event\['Records'\] or .*, not a dict"),
        ([b"data"], None, r"records\[0\]: must be a kinstream.ReceivedRecord or a dict, not bytes"),
        ([{"Data": "x"}], None, r"records\[0\].Data: of type str: must be bytes"),
        ([{"Data": b""}], None, r"records\[0\].SequenceNumber: missing: must be decimal text"),
        ([{"Data": b"", "SequenceNumber": "5a"}], None, r"records\[0\].SequenceNumber: of type str: must be decimal"),
        ([BOTO3, BOTO3 | {"PartitionKey": 5}], None, r"records\[1\].PartitionKey: of type int: must be text"),
        ([BOTO3 | {"ApproximateArrivalTimestamp": None}], None, r"records\[0\].ApproximateArrivalTimestamp: missing"),
        ([BOTO3 | {"ApproximateArrivalTimestamp": -1}], None, r"records\[0\].ApproximateArrivalTimestamp=-1: must be"),
        ([{"kinesis": {}}], None, r"records\[0\].kinesis.sequenceNumber"),
        ([], SHARD, r"shard: must be a kinstream.Shard, as get_shards returns it, or None, not str"),
    ],
)
def test_function_names_the_invalid_argument(records: Any, shard: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        list(deaggregate(records, shard=shard))


def test_function_takes_records_of_boto3_and_of_lambda_events() -> None:
    packed = aggregate("a", "b")
    boto3 = [BOTO3 | {"Data": packed}, BOTO3 | {"Data": b"{}", "EncryptionType": "KMS"}]
    assert list(deaggregate(boto3)) == [
        ReceivedRecord(b"data 0", "5", 1_800_000_000.5, "a", subsequence_number=0),
        ReceivedRecord(b"data 1", "5", 1_800_000_000.5, "b", subsequence_number=1),
        ReceivedRecord(b"{}", "5", 1_800_000_000.5, "k", EncryptionType.KMS),
    ]
    first, second, third = deaggregate(event(packed, b"{}")["Records"])
    assert [(record.data, record.subsequence_number) for record in (first, second, third)] == [
        (b"data 0", 0), (b"data 1", 1), (b"{}", None),
    ]  # fmt: skip
    assert {(record.shard_id, record.stream_name) for record in (first, second, third)} == {
        ("shardId-000000000006", "lambda-stream")
    }


def test_function_is_lazy() -> None:
    def given() -> Iterator[ReceivedRecord[bytes]]:
        yield received(aggregate("a", "b"))
        yield received(b"plain", 2)
        raise AssertionError("requested too early")

    records = deaggregate(given())
    assert [next(records).data for _ in range(3)] == [b"data 0", b"data 1", b"plain"]
    with pytest.raises(AssertionError, match="too early"):
        next(records)


@given(st.binary(max_size=60), st.booleans(), st.booleans())
def test_function_never_raises_for_a_payload(payload: bytes, magic: bool, digest: bool) -> None:
    data = (MAGIC if magic else b"") + payload
    if digest:
        data += hashlib.md5(payload).digest()
    record = received(data)
    found = list(deaggregate([record]))
    if not all(each.subsequence_number == index for index, each in enumerate(found)):
        assert len(found) == 1
        assert found[0] is record
        assert record.subsequence_number is None


def test_misrouted_records_are_found_after_more_keys_than_are_cached() -> None:
    keys = [key for key in map(str, range(3 * KEYS_REMEMBERED)) if hash_key(key) < 2**127]
    high = next(key for key in "abcdefgh" if hash_key(key) >= 2**127)
    deaggregation = Deaggregation(TWINS["user_records"].pure, HashKeyRange("0", str(2**127 - 1)))
    deaggregation(aggregate(*keys[:KEYS_REMEMBERED]), aggregate(*keys[KEYS_REMEMBERED:]), aggregate(keys[0], high))
    assert [
        event.sequence_number for event in deaggregation.events if isinstance(event, MisroutedAggregateDropped)
    ] == ["3"]


def test_no_record_is_misrouted_in_a_shard_without_a_range() -> None:
    deaggregation = Deaggregation(TWINS["user_records"].pure, None)
    assert [row[:2] for row in shown(deaggregation(aggregate("a", "b")))[0]] == [("1", 0), ("1", 1)]
    assert deaggregation.events == []
