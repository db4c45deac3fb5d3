import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream.local.operations import requests, responses
from kinstream.local.state.request_error import RequestError
from kinstream.local.wire.formats import CBOR, JSON, WireFormat

# The bytes of a Timestamp as the AWS SDK for Java v2 puts them on the wire (floci, issue 2368).
JAVA_TIMESTAMP = bytes.fromhex("a1 69 54696d657374616d70 c1 1b 000001a013accc38")


def test_timestamp_of_the_java_sdk_is_milliseconds() -> None:
    assert CBOR.decode(JAVA_TIMESTAMP, requests.GetShardIterator).timestamp == 1787036486.712


def test_response_timestamp_has_the_form_of_the_java_sdk() -> None:
    record = responses.ReadRecord("1", 1787036486.712, b"", "k", "NONE")
    assert bytes.fromhex("c1 1b 000001a013accc38") in CBOR.encode(responses.GetRecords([record], 0))


def test_json_timestamp_is_fractional_seconds_and_data_base64() -> None:
    record = responses.ReadRecord("1", 1787036486.712, b"\xff\xfe", "k", "NONE")
    assert JSON.encode(responses.GetRecords([record], 5)) == (
        b'{"Records":[{"SequenceNumber":"1","ApproximateArrivalTimestamp":1787036486.712,"Data":"//4=",'
        b'"PartitionKey":"k","EncryptionType":"NONE"}],"MillisBehindLatest":5}'
    )


def test_member_names_are_those_of_aws() -> None:
    names = {
        field.encode_name
        for shape in vars(requests).values()
        if isinstance(shape, type) and issubclass(shape, msgspec.Struct)
        for field in msgspec.structs.fields(shape)
    }
    assert {"StreamARN", "StreamName", "MaxRecordSizeInKiB", "ShardIteratorType", "ExclusiveStartShardId"} <= names
    assert not [name for name in names if "Arn" in name or not name[0].isupper()]


@pytest.mark.parametrize("wire", [JSON, CBOR])
@given(st.binary(max_size=200))
def test_any_bytes_raise_at_most_a_serialization_error(wire: WireFormat, body: bytes) -> None:
    try:
        wire.decode(body, requests.PutRecords)
    except RequestError as refused:
        code = refused.code
    else:
        code = "SerializationException"
    assert code == "SerializationException"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Records", "Data", "Limit", "x"]), inner)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_cbor_value_raises_at_most_a_serialization_error(value: object) -> None:
    body = cbor2.dumps(value)
    for shape in (requests.PutRecords, requests.PutRecord, requests.GetRecords, requests.ListShards):
        try:
            assert isinstance(CBOR.decode(body, shape), shape)
        except RequestError as refused:
            assert refused.code == "SerializationException"  # noqa: PT017, most values are refused and some are not
