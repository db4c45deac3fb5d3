"""A page that is read by its first record's pattern is what the general way reads, for any bytes."""

from __future__ import annotations

import io
from typing import Any

import cbor2
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kinstream.aws.cbor_pattern import FEW, read_page, read_results
from kinstream.aws.wire import CborCodec, _load
from kinstream.record import GetRecordsResult, PutRecordsResult

CBOR = CborCodec(None)
SIZES = (0, 1, 23, 24, 255, 256, 257, 65535, 65536)
digits = st.integers(10**55, 10**56 - 1).map(str)


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    encryption = draw(st.sampled_from([None, "NONE", "KMS"]))
    records = []
    for _ in range(draw(st.integers(FEW, FEW + 3))):
        data = draw(st.one_of(st.binary(max_size=40), st.sampled_from([bytes(size) for size in SIZES])))
        record: dict[str, Any] = {
            "SequenceNumber": draw(digits),
            "ApproximateArrivalTimestamp": cbor2.CBORTag(1, draw(st.integers(2**33, 2**52))),
            "Data": draw(st.sampled_from([data, b"gRecords\x98\x20" + data, b"dData\x41" + data])),
            "PartitionKey": draw(
                st.one_of(st.text(min_size=1, max_size=8), st.sampled_from(["k" * 24, "k" * 256, "é" * 256]))
            ),
        }
        if encryption:
            record["EncryptionType"] = encryption
        records.append(record)
    members = draw(st.permutations(list(records[0])))
    records = [{name: record[name] for name in members} for record in records]
    rest: dict[str, Any] = {
        "MillisBehindLatest": 0,
        "NextShardIterator": draw(st.sampled_from(["A" * 200, "gRecords\x1f"])),
    }
    order = [("Records", records), *rest.items()]
    return cbor2.dumps(dict(draw(st.permutations(order))))


def general(body: bytes) -> GetRecordsResult[bytes] | None:
    try:
        return msgspec.convert(_load(body), GetRecordsResult[bytes])
    except ValueError:
        return None


def chosen(body: bytes) -> GetRecordsResult[bytes] | None:
    try:
        return CBOR.decode_get_records(body)
    except ValueError:
        return None


@given(pages())
def test_a_page_is_what_the_general_way_reads(body: bytes) -> None:
    assert chosen(body) == general(body) is not None


@given(pages())
def test_a_page_is_read_by_its_pattern(body: bytes) -> None:
    # The pattern must be the way that is really taken.
    assert read_page(body) is not None


@given(pages(), st.data())
def test_a_damaged_page_is_what_the_general_way_makes_of_it(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = data.draw(st.sampled_from([body[:at], body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], body + b"\0"]))
    assert chosen(damaged) == general(damaged)


@given(pages(), st.sampled_from(["Unknown", "EncryptionType"]))
def test_a_page_with_other_members_takes_the_general_way(body: bytes, member: str) -> None:
    value = cbor2.CBORDecoder(io.BytesIO(body), semantic_decoders={1: lambda ms, *_: cbor2.CBORTag(1, ms)}).decode()
    value["Records"] = [{member: "KMS" if n else "NONE"} | record for n, record in enumerate(value["Records"])]
    changed = cbor2.dumps(value)
    assert chosen(changed) == general(changed) is not None


@st.composite
def put_answers(draw: st.DrawFn) -> bytes:
    shards = draw(st.lists(st.from_regex(r"shardId-0000000000[0-9]{2}", fullmatch=True), min_size=1, max_size=3))
    odd = draw(
        st.sampled_from(
            [None, None, {"ErrorCode": "InternalFailure", "ErrorMessage": "x"}, {"ShardId": 'a"b'}, {"ShardId": ""}]
        )
    )
    count = draw(st.integers(FEW - 1, FEW + 4))
    entries: list[dict[str, Any]] = [
        {"SequenceNumber": draw(digits), "ShardId": draw(st.sampled_from(shards))} for _ in range(count)
    ]
    if odd is not None:
        entries[draw(st.integers(0, count - 1))] |= odd
    members = [
        ("Records", entries),
        ("FailedRecordCount", 0),
        ("EncryptionType", draw(st.sampled_from(["NONE", "KMS"]))),
    ]
    return cbor2.dumps(dict(draw(st.permutations(members))))


def chosen_results(body: bytes) -> PutRecordsResult | None:
    try:
        return CBOR.decode_put_records(body)
    except ValueError:
        return None


def general_results(body: bytes) -> PutRecordsResult | None:
    try:
        return msgspec.convert(_load(body), PutRecordsResult)
    except ValueError:
        return None


@given(put_answers())
def test_results_are_what_the_general_way_reads(body: bytes) -> None:
    assert chosen_results(body) == general_results(body) is not None


@given(put_answers(), st.data())
def test_damaged_results_are_what_the_general_way_makes_of_them(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    change = data.draw(st.integers(1, 255))
    damaged = data.draw(
        st.sampled_from([body[:at], body[:at] + bytes([body[at] ^ change]) + body[at + 1 :], body + b"\0"])
    )
    assert chosen_results(damaged) == general_results(damaged)


def test_results_without_failures_are_read_by_their_pattern() -> None:
    entries = [{"SequenceNumber": f"{n:056}", "ShardId": "shardId-000000000000"} for n in range(500)]
    found = read_results(cbor2.dumps({"FailedRecordCount": 0, "Records": entries}))
    assert found is not None
    assert [result.sequence_number for result in found[0]] == [entry["SequenceNumber"] for entry in entries]
