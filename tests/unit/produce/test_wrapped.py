"""Payloads that are aggregated records: wrapped if they travel alone, as they are inside an aggregate."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from tests.simulation.reader import MAGIC, pack, unpack
from tests.unit.produce.shapes import written

from kinstream import Record
from kinstream.config import BufferLimits
from kinstream.errors import InvalidRecord
from kinstream.kpl.container import is_container
from kinstream.produce import aggregate
from kinstream.produce.admit import Admission
from kinstream.produce.lane import Lane
from kinstream.produce.pending import KEYLESS, Aggregate, PendingRecord, WrappedRecord
from kinstream.produce.route import Router
from kinstream.produce.settle import in_doubt, judge, mark_written
from kinstream.sharding.hashkey import MAX_HASH_KEY

INNER = pack([("pk0", b"zero"), ("pk1", b"one")])
EMPTY = MAGIC + hashlib.md5(b"").digest()
KEYS_ALONE = MAGIC + b"\x0a\x01k" + hashlib.md5(b"\x0a\x01k").digest()


def admitted(data: Any, key: str | None = "outer", hash_key: str | None = None) -> PendingRecord:
    return Admission(BufferLimits()).one(data, key, hash_key)


@pytest.mark.parametrize("payload", [INNER, EMPTY, KEYS_ALONE, pack([("k", INNER)])])
@pytest.mark.parametrize("hash_key", [None, "0", str(MAX_HASH_KEY)])
@pytest.mark.parametrize("key", ["outer", "schlüssel", "k" * 256, "\U0001f511" * 256])
def test_valid_aggregate_is_wrapped_with_the_records_own_keys(payload: bytes, hash_key: str | None, key: str) -> None:
    made = admitted(payload, key, hash_key)
    assert isinstance(made, WrappedRecord)
    assert unpack(made.data) == [(key, hash_key, payload)]
    assert (made.partition_key, made.explicit_hash_key) == (key, hash_key)
    assert made.size == len(made.data) + len(key.encode())
    assert made.record() == Record(payload, key, hash_key)


@pytest.mark.parametrize(
    "data",
    [bytearray(INNER), memoryview(INNER), Record(INNER, "outer"), Record(1, "outer", encoder=lambda _: INNER)],
)
def test_valid_aggregate_is_wrapped_however_it_is_given(data: Any) -> None:
    key = None if isinstance(data, Record) else "outer"
    for made in (
        admitted(data, key),
        Admission(BufferLimits()).some([data if key is None else (data, key)], 0, 1.0)[0][0],
    ):
        assert isinstance(made, WrappedRecord)
        assert made.payload == INNER


@pytest.mark.parametrize("data", [MAGIC, MAGIC[:1], INNER[:-1], INNER + b"x", INNER[1:], b"x" + INNER, b"", MAGIC * 9])
def test_data_that_is_not_a_valid_aggregate_is_not_wrapped(data: bytes) -> None:
    of = Admission(BufferLimits())
    for made in (of.one(data, "outer", None), of.some([(data, "outer")], 0, 1.0)[0][0]):
        assert type(made) is PendingRecord
        assert made.data == data


def test_result_of_a_payload_codec_decides() -> None:
    assert (
        type(Admission(BufferLimits(), payload_codec=lambda data: b"<" + data).one(INNER, "outer", None))
        is PendingRecord
    )
    made = Admission(BufferLimits(), payload_codec=lambda _: INNER).one(b"plain", "outer", None)
    assert unpack(made.data) == [("outer", None, INNER)]


def test_other_records_of_the_same_call_are_plain_and_all_are_admitted_alike() -> None:
    records: list[Any] = [(b"a", "k"), (INNER, "k"), ("text", "k"), (b"b", "k")]
    made, size, wrong = Admission(BufferLimits()).some(records, 0, 7.0)
    assert [type(one) for one in made] == [PendingRecord, WrappedRecord, PendingRecord, PendingRecord]
    assert {one.admitted for one in made} == {7.0}
    assert (size, wrong) == (sum(one.size for one in made), None)


def test_payload_that_only_fits_without_a_container_is_refused_and_put_record_is_named() -> None:
    of = Admission(BufferLimits())
    wrapped = of.one(INNER, "outer", None).size
    of.record_limit = wrapped
    assert of.one(INNER, "outer", None).size == wrapped
    of.record_limit = wrapped - 1
    for index, refused in (
        (0, lambda: of.one(INNER, "outer", None)),
        (8, lambda: of.some([(INNER, "outer")], 8, 1.0)[2]),
    ):
        try:
            error = refused()
        except InvalidRecord as raised:
            error = raised
        assert isinstance(error, InvalidRecord)
        assert error.index == index
        assert f"{wrapped} bytes" in str(error)
        assert f"The stream accepts {wrapped - 1}" in str(error)
        assert "put_record " in str(error)


def test_payload_that_does_not_fit_without_a_container_either_is_refused_without_naming_put_record() -> None:
    of = Admission(BufferLimits())
    of.record_limit = len(INNER)
    with pytest.raises(InvalidRecord) as refused:
        of.one(INNER, "outer", None)
    assert "put_record" not in str(refused.value)


def test_stream_is_checked_again_when_only_the_container_is_too_large() -> None:
    calls: list[None] = []
    of = Admission(BufferLimits())
    of.outgrown = lambda: calls.append(None)
    of.record_limit = len(INNER) + len("outer")
    with pytest.raises(InvalidRecord):
        of.one(INNER, "outer", None)
    assert calls == [None]


def test_payload_whose_container_does_not_fit_the_buffer_is_refused() -> None:
    payload = pack([("k", b"x" * (1024 - 256 - 40))])
    with pytest.raises(InvalidRecord, match=r"put_record .*BufferLimits\.max_bytes"):
        Admission(BufferLimits(max_bytes=1024)).one(payload, "outer", None)


def test_inside_an_aggregate_a_payload_has_no_container_of_its_own() -> None:
    waiting = [admitted(b"first"), admitted(INNER), admitted(b"last")]
    entry, taken = aggregate.pack(waiting, 0, 10, 51200, 1000)
    assert isinstance(entry, Aggregate)
    assert taken == 3
    aggregate.write_digests([entry])
    assert unpack(entry.data) == [("outer", None, b"first"), ("outer", None, INNER), ("outer", None, b"last")]


def test_payload_that_is_sent_alone_keeps_its_container() -> None:
    waiting = [admitted(INNER, "schlüssel", "7"), admitted(b"x" * 60_000)]
    for queue in (waiting, waiting[:1]):
        entry, taken = aggregate.pack(queue, 0, 10, 51200, 1000)
        assert (entry, taken) == (waiting[0], 1)
    assert unpack(waiting[0].data) == [("schlüssel", "7", INNER)]


def test_record_without_a_key_gets_its_shards_hash_key_inside_and_outside() -> None:
    made = admitted(INNER, None)
    router = Router(lambda shard, key: Lane(shard, key, None), keep_order=False)
    size = made.size
    router.spread([made], lambda: 5)
    assert (made.partition_key, made.explicit_hash_key) == (KEYLESS, "5")
    assert unpack(made.data) == [(KEYLESS, "5", INNER)]
    assert len(made.data) + len(KEYLESS) <= size == made.size
    longest = admitted(INNER, None)
    router.spread([longest], lambda: MAX_HASH_KEY)
    assert len(longest.data) + len(KEYLESS) == longest.size == size


def test_result_has_the_subsequence_number_that_readers_see() -> None:
    alone, plain = admitted(INNER), admitted(b"plain")
    packed = [admitted(b"first"), admitted(INNER)]
    entry, _ = aggregate.pack(packed, 0, 10, 51200, 1000)
    size = alone.size
    _, settled, _ = mark_written([alone, plain, entry], [written()] * 3)
    assert [one.result().subsequence_number for one in (alone, plain, *packed)] == [0, None, 0, 1]
    assert settled == sum(one.size for one in (alone, plain, *packed))
    assert alone.size == size
    assert alone.data == b""


def test_container_of_one_is_accepted_in_every_shard() -> None:
    made = admitted(INNER, "outer", "0")
    assert judge(made, written("a shard that is not known"), None) is True
    assert in_doubt(made) == 0


def test_container_is_found_by_its_md5_not_by_its_content() -> None:
    nonsense = b"\xff\xff\xff"
    assert is_container(MAGIC + nonsense + hashlib.md5(nonsense).digest())
    assert isinstance(admitted(MAGIC + nonsense + hashlib.md5(nonsense).digest()), WrappedRecord)
