"""Records as lines of JSON, in both directions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream.cli.put.records import rule
from kinstream.cli.records.line import BadLine, Extras, json_line, record_of
from kinstream.record import ReceivedRecord, Record


@given(data=st.binary() | st.text().map(str.encode), key=st.none() | st.text(min_size=1))
def test_data_and_key_of_a_line_are_those_of_the_record(data: bytes, key: str | None) -> None:
    line = json_line("events", "shardId-000000000000", ReceivedRecord(data, "495", 1.5, key))
    assert record_of(line.removesuffix(b"\n"), None) == (data, key)
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    "text", ["\x00", "\x1b[2J", "\x7f", "\u0085", "\u009b31m", "\u202e", "\u2028", "\ufeff", "\u200b"]
)
def test_characters_that_a_terminal_obeys_are_escaped(text: str) -> None:
    line = json_line("events", None, ReceivedRecord(text.encode(), "495", 1.5, text), Extras(error=text))
    assert text not in line.decode()
    assert [json.loads(line)[name] for name in ("data", "partitionKey", "error")] == [text] * 3


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"not JSON", "not a JSON object: "),
        (b"", "not a JSON object: "),
        (b"[]", "not a JSON object: "),
        (b"\xff", "not a JSON object: "),
        (b'"' + b"[" * 5000, "not a JSON object: "),
        (b"[" * 100_000, "not a JSON object: "),
        (b"{}", "data, dataBase64: must have one of both"),
        (b'{"data": "a", "dataBase64": ""}', "data, dataBase64: must have one of both"),
        (b'{"data": 7}', "data: must be text"),
        (b'{"data": "\\ud800"}', "not a JSON object: "),
        (b'{"dataBase64": "a"}', "dataBase64: must be text in base64"),
        (b'{"dataBase64": 7}', "dataBase64: must be text in base64"),
        (b'{"data": "a", "partitionKey": 7}', "partitionKey: must be text or null"),
        (
            b'{"data": "a", "partitionKey": "k", "explicitHashKey": 7}',
            "explicitHashKey: must be decimal text from 0 to 34",
        ),
        (
            b'{"data": "a", "partitionKey": "k", "explicitHashKey": "07"}',
            "explicitHashKey: must be decimal text from 0 to",
        ),
        (b'{"data": "a", "explicitHashKey": "7"}', "explicitHashKey: a record without a partition key cannot have one"),
    ],
    ids=range(16),
)
def test_line_that_is_not_a_record_is_refused_with_the_member(line: bytes, problem: str) -> None:
    with pytest.raises(BadLine) as error:
        record_of(line, None)
    assert str(error.value).startswith(problem)


@pytest.mark.parametrize("hash_key", ["0", str(2**128 - 1)])
def test_explicit_hash_key_of_a_line_is_that_of_the_record(hash_key: str) -> None:
    received = ReceivedRecord(b"a", "495", 1.5, "k", subsequence_number=0)
    line = json_line("events", None, received, Extras(explicit_hash_key=hash_key))
    assert json.loads(line)["explicitHashKey"] == hash_key
    assert record_of(line, None) == Record(b"a", "k", hash_key)
    assert record_of(b'{"data": "a", "partitionKey": "k", "explicitHashKey": null}', None) == (b"a", "k")


def test_key_of_a_line_is_that_of_the_command_if_it_has_none() -> None:
    of_json = rule(key="k", key_field=None, json=True)
    assert of_json(b'{"data": "a"}') == (b"a", "k")
    assert of_json(b'{"data": "a", "partitionKey": "own"}') == (b"a", "own")
    assert rule(key=None, key_field=None, json=False)(b"\xff") == (b"\xff", None)


@pytest.mark.parametrize(("value", "key"), [('"ada"', "ada"), ("7", "7"), ("1.5", "1.5"), ("true", "true")])
def test_key_field_is_a_member_of_the_line(value: str, key: str) -> None:
    line = f'{{"user": {value}}}'.encode()
    assert rule(key=None, key_field="user", json=False)(line) == (line, key)


@pytest.mark.parametrize("value", ["null", "[]", "{}"])
def test_key_field_that_cannot_be_a_key_is_refused(value: str) -> None:
    with pytest.raises(BadLine, match="member 'user': must be text, a number or a boolean"):
        rule(key=None, key_field="user", json=False)(f'{{"user": {value}}}'.encode())
    with pytest.raises(BadLine, match="has no member 'user' for the partition key"):
        rule(key=None, key_field="user", json=False)(b"{}")
