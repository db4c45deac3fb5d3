"""iter_deaggregate_records: the same dicts as aws-kinesis-agg 1.2.3 in all formats, except for its two bugs."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import io
import subprocess
import sys
from typing import Any

import pytest
from aws_kinesis_agg import deaggregator, messages_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.lambda_events import event_record

from kinstream import ConfigError, iter_deaggregate_records
from kinstream.kpl.message import MAGIC

FORMATS = ["Lambda", "Boto3", "Firehose", "Analytics"]
METADATA = {
    "sequenceNumber": "4959",
    "subsequenceNumber": 0,
    "partitionKey": "outer",
    "approximateArrivalTimestamp": 1545084650987,
    "shardId": "shardId-000000000000",
}


def record(form: str, data: bytes) -> dict[str, Any]:
    """Return a record with some data in one of the formats."""
    if form == "Lambda":
        return event_record(data)
    if form == "Boto3":
        return {
            "SequenceNumber": "4959",
            "PartitionKey": "outer",
            "ApproximateArrivalTimestamp": 1545084650.987,
            "Data": data,
            "EncryptionType": "NONE",
        }
    name = "kinesisRecordMetadata" if form == "Firehose" else "kinesisStreamRecordMetadata"
    return {"recordId": "record-1", "data": base64.b64encode(data).decode(), name: dict(METADATA)}


def option(form: str) -> Any:
    return "Boto3" if form == "Boto3" else None


def theirs(form: str, *records: dict[str, Any]) -> list[dict[str, Any]]:
    with contextlib.redirect_stderr(io.StringIO()):
        return list(deaggregator.iter_deaggregate_records(copy.deepcopy(list(records)), option(form)))


def ours(form: str, *records: dict[str, Any]) -> list[dict[str, Any]]:
    given = copy.deepcopy(list(records))
    found = list(iter_deaggregate_records(given, option(form)))
    assert given == list(records)  # unchanged
    return found


def whole(form: str, data: bytes) -> dict[str, Any]:
    """Return the dict of a record that is not expanded: that of a plain record, with its data."""
    (plain,) = theirs(form, record(form, b"plain"))
    content = record(form, data)
    if form == "Boto3":
        plain["kinesis"]["data"] = content["Data"]
    else:
        plain["kinesis"]["data"] = (content if "data" in content else content["kinesis"])["data"]
    return plain


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """Aggregates, some of which have the index of a key that does not exist."""
    message = messages_pb2.AggregatedRecord()
    message.partition_key_table.extend(draw(st.lists(st.text(max_size=3), max_size=3)))
    message.explicit_hash_key_table.extend(draw(st.lists(st.integers(0, 9).map(str), max_size=2)))
    for _ in range(draw(st.integers(0, 5))):
        new = message.records.add()
        known = len(message.partition_key_table)
        new.partition_key_index = draw(st.integers(0, max(known - 1, 0)) | st.just(2**64 - 1) | st.just(known))
        if draw(st.booleans()):
            new.explicit_hash_key_index = draw(st.integers(0, 2))
        new.data = draw(st.binary(max_size=6))
        for value in draw(st.lists(st.text(max_size=3), max_size=1)):
            new.tags.add(key=value)
    return message


def sealed(message: bytes) -> bytes:
    return MAGIC + message + hashlib.md5(message).digest()


@pytest.mark.parametrize("form", FORMATS)
@given(message=messages())
def test_aggregates_are_expanded_to_the_same_dicts(form: str, message: Any) -> None:
    data = sealed(message.SerializeToString())
    keys, hash_keys = len(message.partition_key_table), len(message.explicit_hash_key_table)
    bad = any(
        each.partition_key_index >= keys
        or (each.HasField("explicit_hash_key_index") and each.explicit_hash_key_index >= hash_keys)
        for each in message.records
    )
    if bad or len(data) <= 20:
        assert ours(form, record(form, data)) == [whole(form, data)]
        return
    expected = theirs(form, record(form, data))
    assert len(expected) == len(message.records)
    for found, each in zip(expected, message.records, strict=True):
        if not each.HasField("explicit_hash_key_index"):
            found["kinesis"]["explicitHashKey"] = None  # theirs has the first hash key of the aggregate
    expanded = ours(form, record(form, data))
    assert expanded == expected
    assert [list(each["kinesis"]) for each in expanded] == [list(each["kinesis"]) for each in expected]  # also as JSON


@pytest.mark.parametrize("form", FORMATS)
@given(payload=st.binary(max_size=40), magic=st.booleans(), digest=st.booleans())
def test_all_other_payloads_are_returned_whole_as_the_same_dicts(
    form: str, payload: bytes, magic: bool, digest: bool
) -> None:
    data = (MAGIC if magic else b"") + payload + (hashlib.md5(payload).digest() if digest else b"")
    found, errors = ours(form, record(form, data)), io.StringIO()
    with contextlib.redirect_stderr(errors):
        expected = list(deaggregator.iter_deaggregate_records([record(form, data)], option(form)))
    if errors.getvalue():
        expected = [whole(form, data)]  # it cut the aggregate at a bad index
    for each in [*found, *expected]:
        each["kinesis"].pop("explicitHashKey", None)
    assert found == expected


def test_explicit_hash_key_is_none_for_a_record_without_one() -> None:
    message = messages_pb2.AggregatedRecord(partition_key_table=["a", "b"], explicit_hash_key_table=["7"])
    message.records.add(partition_key_index=0, explicit_hash_key_index=0, data=b"1")
    message.records.add(partition_key_index=1, data=b"2")
    given = record("Lambda", sealed(message.SerializeToString()))
    assert [each["kinesis"]["explicitHashKey"] for each in ours("Lambda", given)] == ["7", None]
    assert [each["kinesis"]["explicitHashKey"] for each in theirs("Lambda", given)] == ["7", "7"]


def test_aggregate_with_a_bad_index_is_returned_whole() -> None:
    message = messages_pb2.AggregatedRecord(partition_key_table=["a"])
    for index in 0, 5, 0:
        message.records.add(partition_key_index=index, data=b"%d" % index)
    given = record("Lambda", sealed(message.SerializeToString()))
    assert ours("Lambda", given) == [given]
    assert [each["kinesis"]["data"] for each in theirs("Lambda", given)] == [b"MA=="]  # it loses two records


@pytest.mark.parametrize("form", FORMATS)
def test_a_single_record_and_several_are_accepted_lazily(form: str) -> None:
    one = record(form, b"x")
    assert list(iter_deaggregate_records(one, option(form))) == theirs(form, one)
    assert ours(form, one, one) == theirs(form, one, one)
    iterator = iter_deaggregate_records(iter([one, {}]), option(form))
    assert next(iterator) == whole(form, b"x")
    with pytest.raises(ConfigError, match=r"records\[1\].kinesis: missing"):
        next(iterator)


def test_boto3_record_without_a_partition_key_has_none() -> None:
    without = record("Boto3", b"x")
    del without["PartitionKey"]
    assert ours("Boto3", without)[0]["kinesis"]["partitionKey"] is None


@pytest.mark.parametrize(
    ("records", "data_format", "error"),
    [
        (5, None, "records: must be records as dicts, not int"),
        ([5], None, "records[0]: must be a record as a dict, not int"),
        ([], "boto3", "data_format='boto3': must be 'Boto3' or None"),
        ([record("Boto3", b"x")], None, "records[0].kinesis: missing: pass data_format='Boto3' for records of boto3"),
        ([{"Data": b"x"}], "Boto3", "records[0].SequenceNumber: missing"),
        ([{"kinesis": {}}], None, "records[0].kinesis.data: missing"),
        ([{"kinesis": {"data": "x"}}], None, "records[0].kinesis.data: must be base64, as text or bytes"),
        ([{"kinesis": {"data": 5}}], None, "records[0].kinesis.data: must be base64, as text or bytes"),
        ([{"data": "", "kinesisRecordMetadata": {}}], None, "records[0].kinesisRecordMetadata.sequenceNumber: missing"),
        ([{"data": "", "kinesisRecordMetadata": 5}], None, "records[0].kinesisRecordMetadata: must be a dict, not int"),
    ],
)
def test_invalid_arguments_are_named(records: Any, data_format: Any, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        list(iter_deaggregate_records(records, data_format))
    assert raised.value.details == error


@pytest.mark.parametrize("name", ["deaggregate", "iter_deaggregate_records"])
def test_function_needs_neither_asyncio_nor_the_client(name: str) -> None:
    code = f"import sys; from kinstream import {name}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"asyncio", "ssl", "pyreqwest", "botocore", "sqlite3", "cbor2", "google.protobuf", "aws_kinesis_agg"}
    assert heavy & set(loaded) == set()
