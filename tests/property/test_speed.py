"""The compiled hot path compared with its pure twins. Any input gives the same value or error."""

from __future__ import annotations

import base64
import gc
import json
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.doubles.compiled import compiled_or_skip
from tests.doubles.memory import assert_nothing_is_kept
from tests.property.checks import checks, pure

from kinstream.aws import kinesis
from kinstream.aws.codec import (
    CborCodec,
    Codec,
    Entry,
    JsonCodec,
    _load_get_records,
    _load_put_records,
    _read_get_records,
    _read_put_records,
)
from kinstream.errors import KinesisError
from kinstream.record import (
    NO_KEY,
    EncryptionType,
    GetRecordsResult,
    PutRecordResult,
    PutRecordsResult,
    ReceivedRecord,
    Record,
)
from kinstream.sharding.hashkey import MAX_HASH_KEY
from kinstream.validate import plain_size

FUZZED_ANSWERS = int(os.environ.get("KINSTREAM_FUZZED_INPUTS", "20000"))
"""Damaged answers for each pair of twins; 250000 makes a million."""

FAST = compiled_or_skip()


class PureJson(JsonCodec):
    """JSON without compiled code."""

    def encode_put_records(self, stream: dict[str, str], records: Sequence[Entry], omitted: str | None = None) -> bytes:
        body: bytes = pure("put_records_to_json")(records, b"," + self.encode(stream)[1:], omitted)
        return body

    def decode_put_records(self, body: bytes) -> PutRecordsResult:
        return _read_put_records(body)

    def decode_get_records(self, body: bytes) -> GetRecordsResult[bytes]:
        return _read_get_records(body)


class PureCbor(CborCodec):
    """CBOR without compiled code."""

    def encode_put_records(self, stream: dict[str, str], records: Sequence[Entry], omitted: str | None = None) -> bytes:
        body: bytes = pure("put_records_to_cbor")(records, self.encode(stream)[1:], omitted)
        return body

    def decode_put_records(self, body: bytes) -> PutRecordsResult:
        return _load_put_records(body)

    def decode_get_records(self, body: bytes) -> GetRecordsResult[bytes]:
        return _load_get_records(body)


JSON = PureJson(), JsonCodec()
CBOR = PureCbor(), CborCodec()
TWINS = st.sampled_from([JSON, CBOR])
STREAM = {"StreamName": "orders"}


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of `function`, or all that a caller can see of the error that it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        return type(error), str(error)


class Text(str):
    """Text of another type."""

    __slots__ = ()


class Blob(bytes):
    """Bytes of another type."""


class Subrecord(Record, frozen=True):
    """A user's own kind of record."""


ANY_TEXT = (
    st.text(max_size=30) | st.text(min_size=256, max_size=257) | st.just("\ud800") | st.just('"\\\b\f\n\r\t\0\x1f\x7f')
)
KEY = ANY_TEXT | ANY_TEXT.map(Text)
BLOB = st.binary(max_size=60) | st.binary(min_size=1000, max_size=1100)
DATA: st.SearchStrategy[Any] = (
    BLOB
    | BLOB.map(Blob)
    | BLOB.map(bytearray)
    | BLOB.map(lambda data: memoryview(data))
    | BLOB.map(lambda data: memoryview(data)[::2])  # not contiguous
)
PLAIN = st.builds(Record, BLOB, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
ROUTED = st.builds(Record, BLOB, KEY, st.integers(0, MAX_HASH_KEY).map(str))
READY = st.builds(Record, BLOB | BLOB.map(bytearray), ANY_TEXT, st.none() | st.integers(0, MAX_HASH_KEY).map(str))
ODD = st.builds(
    Record,
    DATA | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2) | st.none() | st.floats(),
    KEY | st.none() | st.integers(),
    st.none() | st.just("0") | st.just("00") | st.just(Text("7")) | st.integers(),
    st.none() | st.just("1") | st.just("x"),
    st.none() | st.just(str) | st.just(3),
)
RESERVED = st.builds(
    Record, BLOB, st.sampled_from([NO_KEY, NO_KEY[:-1], NO_KEY + "x", NO_KEY.upper(), "\u017f" + NO_KEY[1:]])
)
OTHER = st.builds(Subrecord, BLOB, KEY) | st.none() | st.just(("data", "key"))
RECORDS = (
    st.lists(PLAIN, max_size=12)
    | st.lists(PLAIN | ROUTED, max_size=12)
    | st.lists(PLAIN | ROUTED | ODD | OTHER | RESERVED, max_size=6)
)


@checks("put_records_to_json", "put_records_to_cbor")
@given(TWINS, st.lists(PLAIN | READY, min_size=1, max_size=12))
@example(JSON, [Record(b"\xff" * size, "k") for size in range(120)])
@example(CBOR, [Record(b"x" * size, "k" * 30) for size in (0, 23, 24, 255, 256, 65535, 65536, 1 << 20)])
@example(JSON, [Record(b"", '"\\\b\f\n\r\t\0\x1f\x7fä\u2028\U0001f6eb' * 20, "0")] * 3)
def the_same_bytes_are_written(twins: tuple[Codec, Codec], records: list[Record]) -> None:
    slow, fast = twins
    assert outcome(slow.encode_put_records, STREAM, records) == outcome(fast.encode_put_records, STREAM, records)


@given(TWINS, RECORDS)
def test_a_request_is_the_same_whatever_its_records_are(twins: tuple[Codec, Codec], records: list[Any]) -> None:
    from kinstream.aws.endpoint import Stream

    slow, fast = (
        outcome(lambda codec: kinesis.put_records(codec, Stream("orders"), records).body, codec) for codec in twins
    )
    assert slow == fast


@checks("plain_size")
@given(RECORDS)
def the_same_records_are_plain_and_of_the_same_size(records: list[Any]) -> None:
    assert plain_size(records, 256) == pure("plain_size")(records, 256)


MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "SequenceNumber": st.none() | st.text(max_size=60) | st.integers(0, 10**56).map(str),
        "ShardId": st.none() | st.text(max_size=30) | st.integers(0, 70).map("shardId-{:012d}".format),
        "ErrorCode": st.none() | st.sampled_from(["InternalFailure", "ProvisionedThroughputExceededException"]),
        "ErrorMessage": st.none() | st.text(max_size=60),
    },
)
WRITTEN = st.integers(0, 10**56).map(lambda n: {"SequenceNumber": str(n), "ShardId": f"shardId-{n % 70:012d}"})
RESULTS = st.fixed_dictionaries(
    {"Records": st.lists(WRITTEN, max_size=200) | st.lists(WRITTEN | MEMBERS, max_size=20)},
    optional={
        "FailedRecordCount": st.integers(),
        "EncryptionType": st.none() | st.sampled_from(["NONE", "KMS", "NEW"]),
        "Later": st.recursive(
            st.none() | st.text(max_size=9), lambda inner: st.lists(inner) | st.fixed_dictionaries({"Records": inner})
        ),
    },
)
RECEIVED = st.fixed_dictionaries(
    {
        "Data": BLOB,
        "SequenceNumber": st.integers(0, 10**56).map(str),
        "ApproximateArrivalTimestamp": st.integers(0, 2**64 - 1) | st.integers(1_700_000_000_000, 1_900_000_000_000),
    },
    optional={
        "PartitionKey": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        "EncryptionType": st.sampled_from(["NONE", "KMS", "NEW"]),
        "Later": st.none(),
    },
)
PAGES = st.fixed_dictionaries(
    {"Records": st.lists(RECEIVED, max_size=12), "MillisBehindLatest": st.integers(0, 10**12)},
    optional={
        "NextShardIterator": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        "Later": st.just({"Records": [{"Data": b"", "SequenceNumber": "1", "ApproximateArrivalTimestamp": 0}]}),
    },
)
ORDER = st.randoms(use_true_random=False)


def shuffled(value: Any, order: random.Random) -> Any:
    """Return `value` with the members of every object in another order."""
    if isinstance(value, dict):
        members = list(value.items())
        order.shuffle(members)
        return {name: shuffled(member, order) for name, member in members}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


def as_json(value: Any, order: random.Random | None = None) -> bytes:
    """Return `value` as Kinesis writes it, or in one of the forms that JSON allows."""

    def ready(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {name: ready(member, name) for name, member in value.items()}
        if isinstance(value, list):
            return [ready(item) for item in value]
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return value / 1000 if name == "ApproximateArrivalTimestamp" else value

    if order is None:
        return json.dumps(ready(value), separators=(",", ":"), ensure_ascii=False).encode()
    return json.dumps(
        ready(value),
        separators=order.choice([(",", ":"), (", ", ": ")]),
        indent=order.choice([None, None, 1]),
        ensure_ascii=order.choice([True, False]),
    ).encode(errors="surrogatepass")


def as_cbor(value: Any, order: random.Random | None = None) -> bytes:
    def ready(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {name: ready(member, name) for name, member in value.items()}
        if isinstance(value, list):
            return [ready(item) for item in value]
        return cbor2.CBORTag(1, value) if name == "ApproximateArrivalTimestamp" else value

    return cbor2.dumps(ready(value), indefinite_containers=order is not None and order.random() < 0.1)


def same(twins: tuple[Codec, Codec], body: bytes, kind: str) -> None:
    slow, fast = (outcome(getattr(codec, f"decode_{kind}_records"), body) for codec in twins)
    assert slow == fast
    if isinstance(slow, tuple):
        return
    for one, other in zip(
        slow.results if kind == "put" else slow.records, fast.results if kind == "put" else fast.records, strict=True
    ):
        assert type(one) is type(other)
        assert [type(getattr(one, name)) for name in one.__struct_fields__] == [
            type(getattr(other, name)) for name in other.__struct_fields__
        ]


@checks("results_from_json", "results_from_cbor")
@given(TWINS, RESULTS, ORDER)
def the_same_results_are_read(twins: tuple[Codec, Codec], answer: Any, order: random.Random) -> None:
    write = as_json if twins is JSON else as_cbor
    try:
        body = write(shuffled(answer, order), order)
    except (UnicodeEncodeError, cbor2.CBOREncodeError):  # a lone surrogate, which CBOR cannot say
        return
    same(twins, body, "put")


@checks("page_from_json", "page_from_cbor")
@given(TWINS, PAGES, ORDER)
def the_same_page_is_read(twins: tuple[Codec, Codec], answer: Any, order: random.Random) -> None:
    write = as_json if twins is JSON else as_cbor
    same(twins, write(shuffled(answer, order), order), "get")


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.floats(0).map(repr)
)
@example("1.787036486712E9")
@example("9007199254740993")
@example("01")
@example("1.")
@example("1e")
@example(".5")
def test_the_same_number_is_read(number: str) -> None:
    body = b'{"Records":[{"Data":"","SequenceNumber":"1","ApproximateArrivalTimestamp":%b}],"MillisBehindLatest":0}'
    same(JSON, body % number.encode(), "get")


@pytest.mark.parametrize("size", [4, 64, 300])
def test_each_character_is_taken_for_base64_as_the_twin_takes_it(size: int) -> None:
    body = b'{"Records":[{"Data":"%b","SequenceNumber":"1","ApproximateArrivalTimestamp":1}],"MillisBehindLatest":0}'
    good = base64.b64encode(random.Random(1).randbytes(size * 3 // 4))
    for place in (*range(0, size - 4, 7), *range(size - 4, size)):
        for character in range(256):
            same(JSON, body % (good[:place] + bytes([character]) + good[place + 1 :]), "get")


TWICE = [
    ({"Later": {"Records": [0]}, "Records": []}, "a list of the same name inside another member"),
    ({"Records": [0], "Later": {"Records": []}}, "the same after the list"),
    ({"Later": 'x"Records":[', "Records": [0]}, "a text that looks like the list"),
]


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize(("answer", "what"), TWICE, ids=[what for _, what in TWICE])
def test_no_list_is_taken_for_another(answer: dict[str, Any], what: str, kind: str) -> None:
    entry: dict[str, Any] = {"SequenceNumber": "1" * 56, "ShardId": "s"}
    if kind == "get":
        entry = {"Data": b"x", "PartitionKey": "k", "SequenceNumber": "1" * 56, "ApproximateArrivalTimestamp": 7000}
    text = json.loads(
        json.dumps(answer), object_hook=lambda o: {n: [entry] * 9 if v == [0] else v for n, v in o.items()}
    )
    text |= {"MillisBehindLatest": 0}
    same(JSON, as_json(text), kind)
    same(CBOR, as_cbor(text), kind)


def test_a_member_that_comes_twice_counts_as_the_general_decoder_counts_it() -> None:
    entry = b'{"SequenceNumber":"1","ShardId":"s"}'
    records = cbor2.dumps([{"SequenceNumber": "1" * 56, "ShardId": "s"}] * 9)
    same(CBOR, b"\xa2gRecords" + records + b"gRecords\x80", "put")
    same(CBOR, b"\xa2gRecords\x80gRecords" + records, "put")
    for body in (
        b'{"Records":[%b],"Records":[]}' % entry,
        b'{"Records":[],"Records":[%b]}' % entry,
        b'{"Records":[%b],"\\u0052ecords":[]}' % entry,
        b'{"Records":[{"SequenceNumber":"1","ShardId":"s","ShardId":"t"}]}',
    ):
        same(JSON, body, "put")


ENTRY: dict[str, Any] = {
    "Data": b"hello" * 20,
    "SequenceNumber": "49590338271490256608559692538361571095921575989136588898",
    "ApproximateArrivalTimestamp": 1787036486712,
    "PartitionKey": "käse",
    "EncryptionType": "KMS",
}
BODIES: dict[str, Any] = {
    "get": {"MillisBehindLatest": 0, "NextShardIterator": "AAAA", "Records": [ENTRY, {**ENTRY, "Data": b"y"}] * 5},
    "put": {
        "EncryptionType": "KMS",
        "FailedRecordCount": 1,
        "Records": [{"SequenceNumber": "1" * 56, "ShardId": "shardId-000000000001"}] * 9
        + [{"ErrorCode": "InternalFailure", "ErrorMessage": "Internal service failure."}],
    },
}


def damaged(rng: random.Random, body: bytes) -> bytes:
    """Return `body` with a few bytes changed, cut, put in or repeated."""
    changed = bytearray(body)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0 | 1:
                changed[place : place + 1] = rng.randbytes(1)
            case 2:
                del changed[place : place + rng.randint(1, 20)]
            case 3:
                changed[place:place] = rng.choice(
                    [b" ", b'"', b"\\", b",", b"{", b"}", b"0", b"\xff", b"\x9f", b"\x7b"]
                )
            case 4:
                start = rng.randrange(len(body))
                changed[place:place] = body[start : start + rng.randint(1, 60)]
            case 5 if rng.random() < 0.2:
                del changed[place:]
    return bytes(changed)


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize("twins", [JSON, CBOR], ids=["json", "cbor"])
def test_a_damaged_response_is_read_or_refused_alike(twins: tuple[Codec, Codec], kind: str) -> None:
    rng = random.Random(f"{twins is JSON} {kind}")
    body = (as_json if twins is JSON else as_cbor)(BODIES[kind])
    same(twins, body, kind)
    for _ in range(FUZZED_ANSWERS):
        same(twins, damaged(rng, body), kind)
    for end in range(len(body)):
        same(twins, body[:end], kind)


@checks("count_failed")
def failures_are_counted_alike() -> None:
    written, failed, lacking = PutRecordResult("1", "s"), PutRecordResult(error_code="e"), PutRecordResult("1")
    for results in (
        [],
        [written],
        [failed, written],
        [failed, failed],
        [written, lacking],
        [PutRecordResult(None, "s")],
    ):
        assert kinesis.count_failed(results) == pure("count_failed")(results)


def test_what_is_no_list_and_no_body_is_not_touched() -> None:
    unusual: Any
    for unusual in (None, 3, "text", bytearray(b"{}"), (), object()):
        assert FAST.page_from_json(unusual) is None
        assert FAST.page_from_cbor(unusual) is None
        assert FAST.results_from_json(unusual) is None
        assert FAST.results_from_cbor(unusual) is None
        assert FAST.put_records_to_json(unusual, b"", None) is None
        assert FAST.put_records_to_cbor([], unusual, None) is None
        with pytest.raises(TypeError):
            FAST.plain_size(unusual, 256)
        with pytest.raises(TypeError):
            FAST.count_failed([unusual])


def test_records_made_by_it_behave_as_any_other() -> None:
    found = FAST.page_from_json(as_json(BODIES["get"]))
    assert found is not None
    page, rest = found
    record = page[0]
    assert record == ReceivedRecord(b"hello" * 20, ENTRY["SequenceNumber"], 1787036486.712, "käse", EncryptionType.KMS)
    assert record.__class__ is ReceivedRecord
    assert hash(record) == hash(page[2])
    assert repr(record).startswith("ReceivedRecord(data=<100 bytes>, partition_key='käse'")
    assert gc.is_tracked(record) is gc.is_tracked(ReceivedRecord(b"", "1", 1.0))
    assert rest == b'{"MillisBehindLatest":0,"NextShardIterator":"AAAA","Records":[]}'


def test_no_call_keeps_memory() -> None:
    records = [Record(b"x" * 40, "kä"), Record(b"y" * 900, "k", "7")]
    bad = [Record(b"x", "\ud800"), Record("text", "k")]
    bodies = {write: [write(BODIES[kind]) for kind in ("get", "put")] for write in (as_json, as_cbor)}
    pages = [
        (FAST.page_from_json, FAST.results_from_json, bodies[as_json]),
        (FAST.page_from_cbor, FAST.results_from_cbor, bodies[as_cbor]),
    ]

    def each_once() -> None:
        FAST.plain_size(records, 256)
        for some in (records, bad):
            for omitted in (None, records[0].partition_key):
                FAST.put_records_to_json(some, b',"StreamName":"s"}', omitted)
                FAST.put_records_to_cbor(some, b"jStreamNamees", omitted)
        for page, results, (get, put) in pages:
            for body in (get, get[:-200], get[:300], get.replace(b"KMS", b"NEW"), get.replace(b"\xc3", b"\xff"), put):
                page(body)
            for body in (put, put[:-20], put[:100], get):
                FAST.count_failed(found[0]) if (found := results(body)) is not None else None

    assert_nothing_is_kept(each_once)  # 150,000 calls


def test_put_records_refuses_alike() -> None:
    from kinstream.aws.endpoint import Stream

    for records in (
        [],
        [Record(b"x", "")],
        [Record(b"x", "k" * 257)],
        [Record(b"x", "k")] * 501,
        [Record(b"x" * (11 << 20), "k")],
    ):
        for twins in (JSON, CBOR):
            errors = []
            for codec in twins:
                with pytest.raises(KinesisError) as refused:
                    kinesis.put_records(codec, Stream("orders"), records)
                errors.append(str(refused.value))
            assert errors[0] == errors[1]
