"""Contents of records in the formats of AWS services."""

from __future__ import annotations

import gzip
import json

import pytest

from kinstream.cli.records.line import NO_EXTRAS
from kinstream.cli.records.unwrapped import FORMATS, contents


def test_data_without_a_format_is_its_own_content() -> None:
    assert list(contents(b"\x1f\x8b", None)) == [(b"\x1f\x8b", NO_EXTRAS)]


def test_compressed_data_is_decompressed() -> None:
    assert list(contents(gzip.compress(b"21.5"), "gzip")) == [(b"21.5", NO_EXTRAS)]


def test_change_of_a_table_is_a_json_object() -> None:
    keys = {"Id": {"N": "101.50"}, "Tags": {"SS": ["b", "a"]}, "Raw": {"B": "/w=="}}
    change = {"eventName": "INSERT", "tableName": "Items", "dynamodb": {"Keys": keys}}
    ((data, _),) = contents(json.dumps(change).encode(), "dynamodb")
    assert json.loads(data)["keys"] == {"Id": 101.5, "Tags": ["a", "b"], "Raw": "/w=="}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"\x1f\x8b\x08", b'"\\ud800"', b"[" * 100_000], ids=range(6))
def test_data_in_another_format_is_shown_with_the_reason(name: str, data: bytes) -> None:
    ((shown, extras),) = contents(data, name)
    assert shown == data
    assert extras.error is not None
    assert extras.error.startswith(f"{name}: ")


def test_whole_number_of_any_size_is_kept() -> None:
    event = {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data": 10**4000}
    ((data, extras),) = contents(json.dumps(event).encode(), "cloudevents")
    assert (json.loads(data)["data"], extras) == (10**4000, NO_EXTRAS)


@pytest.mark.parametrize("field", ["logGroup", "message"])
def test_text_that_is_not_unicode_is_shown_with_the_reason(field: str) -> None:
    line = {"id": "1", "timestamp": 1, "message": "m"}
    log = {"messageType": "DATA_MESSAGE", "logGroup": "g", "logStream": "s", "logEvents": [line]}
    (line if field in line else log)[field] = "\ud800"
    data = json.dumps(log).encode()
    ((shown, extras),) = contents(data, "cloudwatch-logs")
    assert shown == data
    assert extras.error == "cloudwatch-logs: text with a lone surrogate, which is not valid Unicode"
