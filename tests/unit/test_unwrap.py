"""Formats of AWS services: documented samples are parsed, and every invalid field is named without the data."""

from __future__ import annotations

import copy
import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from tests.doubles.memory import peak_traced
from tests.doubles.wrapped import (
    CLOUDEVENT,
    CLOUDWATCH_CONTROL,
    CLOUDWATCH_LOGS,
    DMS,
    DMS_CONTROL,
    DYNAMODB,
    EVENTBRIDGE,
    encoded,
)

from kinstream import ConfigError, ErrorType, KinesisError, UnwrapError
from kinstream.unwrap import (
    MAX_BYTES,
    MAX_NESTING,
    cloudevent,
    cloudwatch_logs,
    decompress,
    dms_change,
    dynamodb_change,
    eventbridge_event,
)

ALL: list[Callable[[Any], Any]] = [
    cloudevent,
    cloudwatch_logs,
    decompress,
    dms_change,
    dynamodb_change,
    eventbridge_event,
]


def zstd_compressed(content: bytes) -> bytes:
    module = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    found: bytes = module.compress(content)
    return found


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zlib fastest": lambda content: zlib.compress(content, 1),
    "zlib best": lambda content: zlib.compress(content, 9),
    "Zstandard": zstd_compressed,
}


@pytest.fixture(params=COMPRESSIONS)
def compress(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return COMPRESSIONS[request.param]


# Compressed data


@pytest.mark.parametrize(
    "content", [b"", b"21.5", random.Random(0).randbytes(3_000_000)], ids=["empty", "short", "long"]
)
def test_compressed_data_is_recognized_by_its_first_bytes(compress: Callable[[bytes], bytes], content: bytes) -> None:
    assert decompress(compress(content)) == content
    assert decompress(memoryview(bytearray(compress(content)))) == content  # type: ignore[arg-type]


@pytest.mark.parametrize("compress", [gzip.compress, zstd_compressed])
def test_all_members_of_gzip_and_all_frames_of_zstandard_are_decompressed(compress: Callable[[bytes], bytes]) -> None:
    parts = [b"one", b"", random.Random(1).randbytes(70_000), b"four"]
    assert decompress(b"".join(map(compress, parts))) == b"".join(parts)


def test_zeros_may_follow_gzip_only() -> None:
    assert decompress(gzip.compress(b"x") + gzip.compress(b"y") + bytes(1000)) == b"xy"
    for compress in (zlib.compress, zstd_compressed):
        with pytest.raises(UnwrapError, match=r"^data: (damaged Zstandard|7 bytes after the end of zlib)$"):
            decompress(compress(b"x") + bytes(7))
    with pytest.raises(UnwrapError, match=r"^data: damaged gzip$"):
        decompress(gzip.compress(b"x") + bytes(7) + b"x")


def test_many_short_members_take_time_in_proportion_to_their_number() -> None:
    assert decompress(gzip.compress(b"") * 20_000) == b""


def test_content_of_exactly_the_maximum_is_accepted_and_one_byte_more_is_not(
    compress: Callable[[bytes], bytes],
) -> None:
    data = compress(bytes(5000))
    assert decompress(data, max_bytes=5000) == bytes(5000)
    with pytest.raises(UnwrapError, match=r"^data: its content is larger than 4999 bytes \(max_bytes\)$"):
        decompress(data, max_bytes=4999)
    assert decompress(compress(b""), max_bytes=0) == b""


def test_maximum_applies_to_all_members_together() -> None:
    with pytest.raises(UnwrapError, match="larger than 50 bytes"):
        decompress(gzip.compress(bytes(30)) * 2, 50)
    assert decompress(gzip.compress(bytes(30)) * 2, 60) == bytes(60)


def test_bomb_is_stopped_at_the_maximum_without_being_expanded(compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(bytes(200_000_000))
    assert len(bomb) < 1_000_000

    def expand() -> None:
        with pytest.raises(UnwrapError, match="larger than 1000000 bytes"):
            decompress(bomb, max_bytes=1_000_000)

    assert peak_traced(expand) < 10_000_000
    with pytest.raises(UnwrapError, match=f"larger than {MAX_BYTES} bytes"):
        decompress(bomb)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, zstd_compressed])
def test_truncated_and_damaged_data_is_refused(compress: Callable[[bytes], bytes]) -> None:
    whole = compress(random.Random(2).randbytes(500))
    for cut in range(4, len(whole)):
        with pytest.raises(UnwrapError, match=r"^data: (truncated|damaged) "):
            decompress(whole[:cut])
    with pytest.raises(UnwrapError, match=r"^data: (damaged|5 bytes after the end of) "):
        decompress(whole + b"later")


@pytest.mark.parametrize("data", [b"", b"\x1f", b"x", b"{}", b"\xf3\x89\x9a\xc2", b"\x78\x00", b"BZh91AY&SY"])
def test_data_that_is_not_compressed_is_refused(data: bytes) -> None:
    with pytest.raises(UnwrapError, match=r"^data: not gzip, zlib or Zstandard by its first bytes$"):
        decompress(data)


@pytest.mark.parametrize("limit", [-1, 1.5, True, None, "5", 2**40 + 1])
def test_invalid_maximum_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigError, match=r"^max_bytes=.*: must be a whole number from 0 to 2\*\*40$"):
        decompress(gzip.compress(b""), max_bytes=limit)


def test_zstandard_without_its_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zstd_compressed(b"x")
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnwrapError, match=r"needs Python 3\.14"):
        decompress(data)


def test_error_without_zstandard_names_the_extra() -> None:
    code = f"""
import sys
sys.modules["compression.zstd"] = sys.modules["backports.zstd"] = None
from kinstream.unwrap import UnwrapError, decompress
try: decompress({zstd_compressed(b"x")!r})
except UnwrapError as error: print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == (
        "data: compressed with Zstandard, which needs Python 3.14 or: pip install 'kinstream[zstd]'\n"
    )


# CloudWatch Logs


def test_documented_record_of_cloudwatch_logs() -> None:
    events = cloudwatch_logs(CLOUDWATCH_LOGS)
    assert [(event.log_group, event.log_stream, event.id, event.time) for event in events] == [
        ("testLogGroup", "testLogStream", "eventId1", 1440442987.0),
        ("testLogGroup", "testLogStream", "eventId2", 1440442987.001),
    ]
    assert [event.message for event in events] == ["[ERROR] First test message", "[ERROR] Second test message"]
    assert cloudwatch_logs(gzip.decompress(CLOUDWATCH_LOGS)) == events
    assert cloudwatch_logs(zstd_compressed(gzip.decompress(CLOUDWATCH_LOGS))) == events
    assert cloudwatch_logs(zlib.compress(gzip.decompress(CLOUDWATCH_LOGS))) == events


def test_control_message_of_cloudwatch_logs_has_no_lines() -> None:
    assert cloudwatch_logs(gzip.compress(encoded(CLOUDWATCH_CONTROL))) == []


# DynamoDB


def test_every_attribute_type_of_dynamodb() -> None:
    change = dynamodb_change(encoded(DYNAMODB))
    assert (change.event, change.table, change.time) == ("MODIFY", "Music", 1640276115.917)
    assert change.keys == change.old == {"Artist": "No One You Know", "Year": Decimal(1999)}
    assert change.new == {
        "Artist": "No One You Know",
        "Year": Decimal(1999),
        "Price": Decimal("-12.50"),
        "Large": Decimal("1.2345678901234567890123456789012345678E+125"),
        "Cover": b"\x00\xffsecret",
        "Live": False,
        "Label": None,
        "Tags": {"rock", "pop"},
        "Scores": {Decimal(3), Decimal("-0.00007")},
        "Hashes": {b"\x00", b"\xff"},
        "Tracks": ["one", {"n": Decimal(2), "none": []}],
        "More": {},
    }
    assert type(change.new["Year"]) is Decimal
    assert type(change.new["Cover"]) is bytes


@pytest.mark.parametrize("event", ["INSERT", "REMOVE"])
def test_images_that_a_change_does_not_have_are_none(event: str) -> None:
    document = {**DYNAMODB, "eventName": event}
    document["dynamodb"] = {"Keys": DYNAMODB["dynamodb"]["Keys"]}
    change = dynamodb_change(encoded(document))
    assert (change.event, change.new, change.old, change.time) == (event, None, None, None)


@pytest.mark.parametrize(
    ("time", "precision", "seconds"),
    [
        (1640276115917, None, 1640276115.917),
        (1640276115917, "MILLISECOND", 1640276115.917),
        (1640276115917123, "MICROSECOND", 1640276115.917123),
        (1640276115917123, None, 1640276115.917123),
        (5_000_000, "MICROSECOND", 5.0),
    ],
)
def test_time_of_a_change_has_the_precision_of_the_destination(
    time: int, precision: str | None, seconds: float
) -> None:
    document = copy.deepcopy(DYNAMODB)
    document["dynamodb"]["ApproximateCreationDateTime"] = time
    if precision is not None:
        document["dynamodb"]["ApproximateCreationDateTimePrecision"] = precision
    assert dynamodb_change(encoded(document)).time == seconds


UNFIT = "an attribute has a type that DynamoDB does not have, or a value that does not fit its type"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"N": "NaN"}, "a number is not one of DynamoDB"),
        ({"N": "Infinity"}, "a number is not one of DynamoDB"),
        ({"N": "1_000"}, "a number is not one of DynamoDB"),
        ({"N": "٣"}, "a number is not one of DynamoDB"),
        ({"N": "1E+131"}, "a number is not one of DynamoDB"),
        ({"N": "1E-131"}, "a number is not one of DynamoDB"),
        ({"N": "1e99999999999999999999"}, "a number is not one of DynamoDB"),
        ({"N": "1" * 201}, "a number is not one of DynamoDB"),
        ({"N": ""}, "a number is not one of DynamoDB"),
        ({"N": " 1"}, "a number is not one of DynamoDB"),
        ({"N": 1}, "a string or number must be given as text"),
        ({"NS": ["1", 2]}, "a string or number must be given as text"),
        ({"S": None}, "a string or number must be given as text"),
        ({"SS": [["x"]]}, "a string or number must be given as text"),
        ({"SS": "ab"}, UNFIT),
        ({"B": "secret"}, "a binary value: must be text in base64"),
        ({"B": 7}, "a binary value: must be text in base64"),
        ({"BS": ["ä"]}, "a binary value: must be text in base64"),
        ({"BOOL": "true"}, UNFIT),
        ({"NULL": False}, UNFIT),
        ({"L": {}}, UNFIT),
        ({"M": []}, UNFIT),
        ({"secret": "secret"}, UNFIT),
        ({}, "the value of an attribute must be an object with one member, its type"),
        ({"S": "a", "N": "1"}, "the value of an attribute must be an object with one member, its type"),
        ("secret", "the value of an attribute must be an object with one member, its type"),
        (None, "the value of an attribute must be an object with one member, its type"),
    ],
)
def test_invalid_attribute_is_refused(value: Any, said: str) -> None:
    document = copy.deepcopy(DYNAMODB)
    document["dynamodb"]["NewImage"]["secret"] = value
    with pytest.raises(UnwrapError) as raised:
        dynamodb_change(encoded(document))
    assert str(raised.value) == f"dynamodb.NewImage: {said}"


@pytest.mark.parametrize("number", ["0", "-0", "0E+9999", "9.99E+125", "1E-130", ".5", "5.", "+7", "00012"])
def test_numbers_within_the_range_of_dynamodb_are_exact(number: str) -> None:
    document = copy.deepcopy(DYNAMODB)
    document["dynamodb"]["NewImage"] = {"n": {"N": number}}
    assert dynamodb_change(encoded(document)).new == {"n": Decimal(number)}


def test_lists_and_maps_are_nested_up_to_a_limit() -> None:
    def nested(levels: int) -> bytes:
        document = copy.deepcopy(DYNAMODB)
        value: dict[str, Any] = {"N": "7"}
        for level in range(levels):
            value = {"L": [value]} if level % 2 else {"M": {"inner": value}}
        document["dynamodb"]["NewImage"] = {"deep": value}
        return encoded(document)

    assert dynamodb_change(nested(32)).new is not None
    assert dynamodb_change(nested(MAX_NESTING)).new is not None
    with pytest.raises(UnwrapError, match=rf"^dynamodb.NewImage: more than {MAX_NESTING} levels of lists and maps$"):
        dynamodb_change(nested(MAX_NESTING + 1))
    with pytest.raises(UnwrapError, match=r"^data: not JSON that can be parsed: nested too deeply$"):
        dynamodb_change(b'{"a":' * 100_000)


# DMS


def test_change_of_a_row_by_dms() -> None:
    change = dms_change(encoded(DMS) + b"\n")  # as in the format json-unformatted
    assert (change.operation, change.schema, change.table) == ("update", "testdb", "retail_trans")
    assert change.data == {"id": 42, "name": "John", "amount": 10.5}
    assert change.before == {"id": 42, "name": "Jon", "amount": 10.5}
    assert change.control is None
    assert change.time == 1647267491.104009
    assert change.metadata["transaction-id"] == 8590392498


def test_field_of_the_row_before_is_configurable_and_optional() -> None:
    renamed = {**DMS, "previous": {"id": 41}}
    del renamed["before-image"]
    assert dms_change(encoded(renamed)).before is None
    assert dms_change(encoded(renamed), before_field="previous").before == {"id": 41}


@pytest.mark.parametrize("field", [None, "", 5, ["before-image"]])
def test_invalid_name_of_the_field_of_the_row_before_is_refused(field: Any) -> None:
    with pytest.raises(ConfigError, match=r"^before_field=.*: must be text of at least 1 character$"):
        dms_change(encoded(DMS), before_field=field)


def test_change_of_a_table_by_dms() -> None:
    change = dms_change(encoded(DMS_CONTROL))
    assert (change.operation, change.table, change.data) == ("create-table", "foo", None)
    assert change.control == DMS_CONTROL["control"]


def test_metadata_of_dms_that_may_be_missing() -> None:
    change = dms_change(encoded({"data": {}, "metadata": {"operation": "load"}}))
    assert (change.operation, change.schema, change.table, change.data, change.time) == ("load", None, None, {}, None)


# EventBridge and CloudEvents


def test_event_of_eventbridge() -> None:
    event = eventbridge_event(encoded(EVENTBRIDGE))
    assert event.id == "6a7e8feb-b491-4cf7-a9f1-bf3703467718"
    assert (event.detail_type, event.source) == ("EC2 Instance State-change Notification", "aws.ec2")
    assert (event.account, event.region, event.time) == ("111122223333", "us-west-1", 1513968228.0)
    assert event.resources == ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"]
    assert event.detail == {"instance-id": "i-1234567890abcdef0", "state": "terminated"}


def test_cloudevent_in_structured_mode() -> None:
    event = cloudevent(encoded(CLOUDEVENT))
    assert (event.id, event.source, event.type) == ("C234-1234-1234", "/mycontext", "com.example.someevent")
    assert (event.subject, event.time, event.content_type) == (None, 1522949460.0, "application/json")
    assert event.data == {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True}
    assert event.extensions == {"comexampleextension1": "value", "comexampleothervalue": 5}
    assert event.schema is None


def test_cloudevent_with_binary_text_or_no_data() -> None:
    required = {"specversion": "1.0", "type": "a", "source": "b", "id": "c"}
    assert cloudevent(encoded({**required, "data_base64": "AP8="})).data == b"\x00\xff"
    assert cloudevent(encoded({**required, "datacontenttype": "text/xml", "data": "<a/>"})).data == "<a/>"
    event = cloudevent(encoded({**required, "subject": "123", "dataschema": "https://example.com/schema"}))
    assert (event.data, event.time, event.subject, event.schema) == (None, None, "123", "https://example.com/schema")


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2018-04-05T17:31:00Z", 1522949460.0),
        ("2018-04-05t17:31:00z", 1522949460.0),
        ("2018-04-05T19:31:00.123456789+02:00", 1522949460.123456),
    ],
)
def test_times_of_rfc_3339(time: str, seconds: float) -> None:
    assert cloudevent(encoded({**CLOUDEVENT, "time": time})).time == seconds


# Invalid fields

LOGS = {
    "messageType": "DATA_MESSAGE",
    "logGroup": "a",
    "logStream": "b",
    "logEvents": [{"id": "1", "timestamp": 1, "message": "secret"}],
}
NO_TIME = "must be an ISO 8601 time with its time zone"


@pytest.mark.parametrize(
    ("function", "document", "change", "said"),
    [
        (cloudwatch_logs, LOGS, {"messageType": None}, "messageType: missing: must be text"),
        (cloudwatch_logs, LOGS, {"messageType": "secret"}, "messageType: must be 'DATA_MESSAGE' or 'CONTROL_MESSAGE'"),
        (cloudwatch_logs, LOGS, {"logGroup": 7}, "logGroup: of type int: must be text"),
        (cloudwatch_logs, LOGS, {"logEvents": {}}, "logEvents: of type dict: must be a list"),
        (cloudwatch_logs, LOGS, {"logEvents": ["secret"]}, "logEvents[0]: must be an object, not str"),
        (cloudwatch_logs, LOGS, {"logEvents": [{}]}, "logEvents[0].timestamp: missing: must be a number below 1e18"),
        (
            cloudwatch_logs,
            LOGS,
            {"logEvents": [{"timestamp": True}]},
            "logEvents[0].timestamp: of type bool: must be a number below 1e18",
        ),
        (
            cloudwatch_logs,
            LOGS,
            {"logEvents": [{"timestamp": 10**400}]},
            "logEvents[0].timestamp: of type int: must be a number below 1e18",
        ),
        (cloudwatch_logs, LOGS, {"logEvents": [{"timestamp": 1}]}, "logEvents[0].id: missing: must be text"),
        (dynamodb_change, DYNAMODB, {"eventName": "secret"}, "eventName: must be 'INSERT', 'MODIFY' or 'REMOVE'"),
        (dynamodb_change, DYNAMODB, {"tableName": None}, "tableName: missing: must be text"),
        (dynamodb_change, DYNAMODB, {"dynamodb": None}, "dynamodb: missing: must be an object"),
        (dynamodb_change, DYNAMODB, {"dynamodb": []}, "dynamodb: of type list: must be an object"),
        (dynamodb_change, DYNAMODB, {"dynamodb": {}}, "dynamodb.Keys: missing: must be an object"),
        (dynamodb_change, DYNAMODB, {"dynamodb": {"Keys": 1}}, "dynamodb.Keys: of type int: must be an object"),
        (
            dynamodb_change,
            DYNAMODB,
            {"dynamodb": {"Keys": {}, "ApproximateCreationDateTime": "secret"}},
            "dynamodb.ApproximateCreationDateTime: of type str: must be a number below 1e18",
        ),
        (dms_change, DMS, {"metadata": None}, "metadata: missing: must be an object"),
        (dms_change, DMS, {"metadata": {}}, "metadata.operation: missing: must be text"),
        (dms_change, DMS, {"data": "secret"}, "data: of type str: must be an object"),
        (dms_change, DMS, {"data": None}, "data: missing: must be an object, unless the record has 'control'"),
        (dms_change, DMS, {"before-image": []}, "before-image: of type list: must be an object"),
        (
            dms_change,
            DMS,
            {"metadata": {"operation": "insert", "timestamp": "secret"}},
            f"metadata.timestamp: {NO_TIME}",
        ),
        (
            dms_change,
            DMS,
            {"metadata": {"operation": "a", "table-name": 1}},
            "metadata.table-name: of type int: must be text",
        ),
        (eventbridge_event, EVENTBRIDGE, {"detail-type": None}, "detail-type: missing: must be text"),
        (eventbridge_event, EVENTBRIDGE, {"detail": None}, "detail: missing: must be an object"),
        (eventbridge_event, EVENTBRIDGE, {"resources": None}, "resources: missing: must be a list"),
        (eventbridge_event, EVENTBRIDGE, {"resources": [1]}, "resources: must be a list of text"),
        (eventbridge_event, EVENTBRIDGE, {"time": "2017-12-22T18:43:48"}, f"time: {NO_TIME}"),
        (eventbridge_event, EVENTBRIDGE, {"time": "0001-01-01T00:00:00+23:59"}, None),
        (cloudevent, CLOUDEVENT, {"specversion": "0.3"}, "specversion: must be '1.0'"),
        (cloudevent, CLOUDEVENT, {"specversion": None}, "specversion: missing: must be text"),
        (cloudevent, CLOUDEVENT, {"id": ""}, "id: must not be empty"),
        (cloudevent, CLOUDEVENT, {"type": 5}, "type: of type int: must be text"),
        (cloudevent, CLOUDEVENT, {"time": "secret"}, f"time: {NO_TIME}"),
        (cloudevent, CLOUDEVENT, {"data_base64": "AA=="}, "data_base64: an event has either 'data' or 'data_base64'"),
    ],
)
def test_invalid_field_is_named(
    function: Callable[[bytes], Any], document: dict[str, Any], change: dict[str, Any], said: str | None
) -> None:
    data = encoded({**document, **change})
    if said is None:
        assert function(data).time < -60_000_000_000
        return
    with pytest.raises(UnwrapError) as raised:
        function(data)
    assert str(raised.value) == said


def test_invalid_base64_of_a_cloudevent_is_named() -> None:
    document = {"specversion": "1.0", "type": "a", "source": "b", "id": "c", "data_base64": "secret"}
    with pytest.raises(UnwrapError, match=r"^data_base64: must be text in base64$"):
        cloudevent(encoded(document))


@pytest.mark.parametrize("function", [one for one in ALL if one is not decompress])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "data: not JSON: Expecting value at character 0"),
        (b"secret", "data: not JSON: Expecting value at character 0"),
        (b"\xff\xfe", "data: not JSON: not UTF-8 at byte 0"),
        (b"[]", "data: must be an object in JSON, not list"),
        (b'{"a": NaN}', "data: not JSON that can be parsed: NaN is not a JSON value"),
    ],
)
def test_data_that_is_not_a_json_object_is_refused(function: Callable[[Any], Any], data: bytes, said: str) -> None:
    with pytest.raises(UnwrapError) as raised:
        function(data)
    assert str(raised.value) == said


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("data", [None, "{}", {}, 5, [b"x"]])
def test_data_that_is_not_bytes_is_refused(function: Callable[[Any], Any], data: Any) -> None:
    with pytest.raises(UnwrapError, match=f"^data: must be bytes, not {type(data).__name__}$") as raised:
        function(data)
    assert isinstance(raised.value, KinesisError)
    assert isinstance(raised.value, ValueError)
    assert raised.value.type is ErrorType.UNEXPECTED_RESPONSE
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("function", ALL)
def test_released_memoryview_is_refused(function: Callable[[Any], Any]) -> None:
    data = memoryview(b"{}")
    data.release()
    with pytest.raises(UnwrapError, match=r"^data: is a memoryview that was released$"):
        function(data)


def test_payloads_are_not_in_a_repr() -> None:
    values = [
        *cloudwatch_logs(encoded(LOGS)),
        dynamodb_change(encoded(DYNAMODB)),
        dms_change(encoded(DMS)),
        dms_change(encoded(DMS_CONTROL)),
        eventbridge_event(encoded(EVENTBRIDGE)),
        cloudevent(encoded(CLOUDEVENT)),
    ]
    shown = repr(values)
    assert "LogEvent(log_group='a', log_stream='b', id='1', time=0.001)" in shown
    assert "DynamoDBChange(event='MODIFY', table='Music', time=1640276115.917)" in shown
    for payload in ("secret", "No One You Know", "John", "terminated", "appinfo", "nullable", "value"):
        assert payload not in shown


def test_import_loads_no_client_and_no_zstandard() -> None:
    code = "import sys, kinstream.unwrap; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert {
        "pyreqwest",
        "botocore",
        "asyncio",
        "ssl",
        "cbor2",
        "backports.zstd",
        "compression.zstd",
        "gzip",
    } & loaded == set()
