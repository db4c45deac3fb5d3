"""Both codecs compared with the standard library's JSON and a plain CBOR library. Values survive a round trip."""

import base64
import json
import math
import os
import random
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kinstream.aws.codec import CborCodec, Codec, JsonCodec
from kinstream.record import (
    EncryptionType,
    GetRecordsResult,
    PutRecordResult,
    PutRecordsResult,
    ReceivedRecord,
    Record,
    Shard,
)
from kinstream.sharding.hashkey import MAX_HASH_KEY

JSON, CBOR = JsonCodec(), CborCodec()
FUZZED_INPUTS = int(os.environ.get("KINSTREAM_FUZZED_INPUTS", "20000"))
"""Fuzzed answers for each codec and decoder; 250000 makes two million."""

TIMESTAMP_HEAD = b"ApproximateArrivalTimestamp\xc1\x1b"
"""The bytes that CborCodec searches for and cuts out of a response. The data of a record may contain them too."""

KEY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
HASH_KEY = st.none() | st.integers(0, MAX_HASH_KEY).map(str)
SMALL = st.binary(max_size=40) | st.just(TIMESTAMP_HEAD + b"\0" * 8) | st.just(b'"SequenceNumber"')
LARGE = st.binary(min_size=300, max_size=1500) | st.just(TIMESTAMP_HEAD * 40)
NUMBER = st.integers(0, 10**56).map(str)
MILLIS = st.integers(0, 253_402_300_799_999)


def records_of(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Record]]:
    form = st.sampled_from([bytes, bytearray, memoryview])
    shaped = st.builds(lambda kind, value: kind(value), form, data)
    return st.lists(st.builds(Record, shaped, KEY, HASH_KEY), min_size=1, max_size=12)


BATCHES = records_of(SMALL) | records_of(LARGE) | records_of(SMALL | LARGE)
STREAMS = st.sampled_from(
    [{"StreamName": "orders"}, {"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/orders"}]
)


def entries_of(records: list[Record]) -> list[dict[str, Any]]:
    return [
        {"Data": bytes(record.data), "PartitionKey": record.partition_key}
        | ({} if record.explicit_hash_key is None else {"ExplicitHashKey": record.explicit_hash_key})
        for record in records
    ]


def from_json(body: bytes) -> Any:
    def blobs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(pairs) == len(dict(pairs))
        return {name: base64.b64decode(v, validate=True) if name == "Data" else v for name, v in pairs}

    return json.loads(body, object_pairs_hook=blobs)


@given(STREAMS, BATCHES)
@example({"StreamName": "s"}, [Record(b"", '"\\ \n\u2028 \U0001f6eb', "0")])
@example({"StreamName": "s"}, [Record(b"x" * 300, '"\\ \n\u2028 \U0001f6eb', "0")])
def test_put_records_says_the_records_in_json(stream: dict[str, str], records: list[Record]) -> None:
    assert from_json(JSON.encode_put_records(stream, records)) == {**stream, "Records": entries_of(records)}


@given(STREAMS, BATCHES)
@example({"StreamName": "s"}, [Record(b"x" * size, "k") for size in (0, 23, 24, 255, 256, 2048, 2049, 65535, 65536)])
@example({"StreamName": "s"}, [Record(b"", "\U0001f6eb" * 256, str(MAX_HASH_KEY))] * 500)
def test_put_records_says_the_records_in_cbor(stream: dict[str, str], records: list[Record]) -> None:
    assert cbor2.loads(CBOR.encode_put_records(stream, records)) == {**stream, "Records": entries_of(records)}


ANSWER = st.fixed_dictionaries(
    {
        "Records": st.lists(
            st.fixed_dictionaries(
                {"Data": SMALL | LARGE, "SequenceNumber": NUMBER, "ApproximateArrivalTimestamp": MILLIS},
                optional={
                    "PartitionKey": KEY,
                    "EncryptionType": st.sampled_from(["NONE", "KMS"]),
                    "Later": st.none() | st.integers() | KEY,
                },
            ),
            max_size=8,
        ),
        "MillisBehindLatest": st.integers(0, 10**12),
    },
    optional={
        "NextShardIterator": st.none() | KEY,
        "ChildShards": st.lists(
            st.builds(
                lambda shard, parents: {
                    "ShardId": shard,
                    "ParentShards": parents,
                    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str(MAX_HASH_KEY)},
                },
                KEY,
                st.lists(KEY, min_size=1, max_size=2),
            ),
            max_size=2,
        ),
        "Later": st.dictionaries(KEY, st.integers(-(2**63), 2**64 - 1), max_size=2),
    },
)


def check_answer(given: dict[str, Any], read: GetRecordsResult[bytes]) -> None:
    assert read.records == [
        ReceivedRecord(
            record["Data"],
            record["SequenceNumber"],
            record["ApproximateArrivalTimestamp"] / 1000,
            record.get("PartitionKey"),
            EncryptionType(record.get("EncryptionType", "NONE")),
        )
        for record in given["Records"]
    ]
    assert read.millis_behind_latest == given["MillisBehindLatest"]
    assert read.next_shard_iterator == given.get("NextShardIterator")
    assert [child.shard_id for child in read.child_shards] == [c["ShardId"] for c in given.get("ChildShards", [])]
    assert [child.parent_shards for child in read.child_shards] == [
        c["ParentShards"] for c in given.get("ChildShards", [])
    ]


def json_answer(answer: dict[str, Any]) -> bytes:
    records = [
        record
        | {
            "Data": base64.b64encode(record["Data"]).decode(),
            "ApproximateArrivalTimestamp": record["ApproximateArrivalTimestamp"] / 1000,
        }
        for record in answer["Records"]
    ]
    return json.dumps({**answer, "Records": records}).encode()


def cbor_answer(answer: dict[str, Any], tagged: Callable[[int], Any], **options: Any) -> bytes:
    records = [
        record | {"ApproximateArrivalTimestamp": tagged(record["ApproximateArrivalTimestamp"])}
        for record in answer["Records"]
    ]
    return cbor2.dumps({**answer, "Records": records}, **options)


@given(ANSWER)
def test_get_records_is_read_from_json(answer: dict[str, Any]) -> None:
    check_answer(answer, JSON.decode_get_records(json_answer(answer)))


@given(ANSWER, st.booleans())
def test_get_records_is_read_from_cbor(answer: dict[str, Any], indefinite: bool) -> None:
    body = cbor_answer(answer, lambda millis: cbor2.CBORTag(1, millis), indefinite_containers=indefinite)
    check_answer(answer, CBOR.decode_get_records(body))


@given(ANSWER)
def test_get_records_is_read_from_cbor_with_timestamps_of_every_width(answer: dict[str, Any]) -> None:
    # A float, an int and (below 2**32) a short int: only the eight-byte int has the head that is cut out.
    body = cbor_answer(answer, lambda millis: cbor2.CBORTag(1, float(millis) if millis % 2 else millis))
    check_answer(answer, CBOR.decode_get_records(body))


@given(
    st.lists(st.sampled_from([b"", TIMESTAMP_HEAD, TIMESTAMP_HEAD * 2, b"\xc1\x1b"]), min_size=1, max_size=6), ANSWER
)
def test_data_like_a_timestamp_stays_as_it_is(data: list[bytes], answer: dict[str, Any]) -> None:
    for record, extra in zip(answer["Records"], data, strict=False):
        record["Data"] = extra + record["Data"] + extra
    check_answer(answer, CBOR.decode_get_records(cbor_answer(answer, lambda millis: cbor2.CBORTag(1, millis))))


@given(
    st.lists(
        st.fixed_dictionaries({"SequenceNumber": NUMBER, "ShardId": KEY})
        | st.fixed_dictionaries({"ErrorCode": KEY, "ErrorMessage": KEY}),
        max_size=6,
    ),
    st.sampled_from([JSON, CBOR]),
    st.booleans(),
)
def test_put_records_response_is_decoded(results: list[dict[str, str]], codec: Codec, with_nulls: bool) -> None:
    names = ("SequenceNumber", "ShardId", "ErrorCode", "ErrorMessage")
    sent = [{n: r.get(n) for n in names} for r in results] if with_nulls else results
    answer = {"FailedRecordCount": 0, "Records": sent, "EncryptionType": "KMS", "Later": [1]}

    read = codec.decode_put_records(json.dumps(answer).encode() if codec is JSON else cbor2.dumps(answer))

    expected = [
        PutRecordResult(r.get("SequenceNumber"), r.get("ShardId"), r.get("ErrorCode"), r.get("ErrorMessage"))
        for r in results
    ]
    assert read == PutRecordsResult(expected, 0, EncryptionType.KMS)


LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
NAME = KEY.filter(lambda name: name != "Data" and not name.endswith(("Timestamp", "At")))
PARAMS = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3))


@given(st.dictionaries(NAME, PARAMS, max_size=4), st.binary(), st.integers(0, 10**13), st.sampled_from([JSON, CBOR]))
def test_any_parameters_come_back_the_same(params: dict[str, Any], blob: bytes, millis: int, codec: Codec) -> None:
    sent = {**params, "Data": blob, "Timestamp": millis / 1000}
    assert codec.decode(codec.encode(sent)) == sent


def mutilated(rng: random.Random, body: bytes) -> bytes:
    """Return `body` with a few bytes changed, cut, doubled or put in from elsewhere."""
    changed = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[place : place + 1] = rng.randbytes(1)
            case 1:
                del changed[place:]
            case 2:
                changed[place:place] = rng.randbytes(rng.randint(1, 8))
            case 3:
                del changed[place : place + rng.randint(1, 20)]
            case 4:
                start = rng.randrange(len(body))
                changed[place:place] = body[start : start + rng.randint(1, 60)]
    return bytes(changed)


ONE_ANSWER = {
    "Records": [
        {
            "Data": b"hello",
            "SequenceNumber": "49590338271490256608559692538361571095921575989136588898",
            "ApproximateArrivalTimestamp": 1787036486712,
            "PartitionKey": "k",
            "EncryptionType": "KMS",
        },
        {"Data": b"y" * 500, "SequenceNumber": "2", "ApproximateArrivalTimestamp": 1787036486713},
    ],
    "MillisBehindLatest": 0,
    "NextShardIterator": "AAAA",
    "ChildShards": [
        {"ShardId": "s", "ParentShards": ["p"], "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"}}
    ],
}
PUT_ANSWER = {
    "FailedRecordCount": 1,
    "EncryptionType": "NONE",
    "Records": [{"SequenceNumber": "1", "ShardId": "shardId-0"}, {"ErrorCode": "InternalFailure", "ErrorMessage": "m"}],
}
BODIES = {
    "json": [json_answer(ONE_ANSWER), json.dumps(PUT_ANSWER).encode(), b"<html>502 Bad Gateway</html>"],
    "cbor": [cbor_answer(ONE_ANSWER, lambda millis: cbor2.CBORTag(1, millis)), cbor2.dumps(PUT_ANSWER), b"<html>"],
}


@pytest.mark.parametrize("wire", ["json", "cbor"])
@pytest.mark.parametrize("way", ["decode", "put_record", "put_records", "get_records", "shard"])
def test_no_bytes_make_a_codec_raise_anything_but_value_error(wire: str, way: str) -> None:
    codec: Codec = JSON if wire == "json" else CBOR
    decode: Callable[[bytes], Any] = {
        "decode": codec.decode,
        "put_record": codec.decode_put_record,
        "put_records": codec.decode_put_records,
        "get_records": codec.decode_get_records,
        "shard": lambda body: codec.decode_as(Shard, body),
    }[way]
    rng = random.Random(f"{wire} {way}")
    refused = 0
    for i in range(FUZZED_INPUTS):
        body = rng.randbytes(rng.randrange(64)) if i % 5 == 0 else mutilated(rng, BODIES[wire][i % 3])
        try:
            decode(body)
        except ValueError:
            refused += 1
    assert refused > FUZZED_INPUTS / 2


@pytest.mark.parametrize("wire", ["json", "cbor"])
def test_every_truncated_response_is_refused(wire: str) -> None:
    codec: Codec = JSON if wire == "json" else CBOR
    body = BODIES[wire][0]
    for end in range(len(body)):
        with pytest.raises(ValueError):
            codec.decode_get_records(body[:end])


@given(st.sampled_from([JSON, CBOR]), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_number_that_is_not_finite_is_never_sent(codec: Codec, value: float) -> None:
    with pytest.raises(ValueError):
        codec.encode({"Limit": value})
