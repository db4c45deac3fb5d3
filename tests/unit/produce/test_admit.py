from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from kinstream import Record
from kinstream.aws.codec import JsonCodec
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import put_record, put_records
from kinstream.config import BufferLimits
from kinstream.errors import InvalidRecord
from kinstream.produce.admit import Admission
from kinstream.produce.pending import KEYLESS
from kinstream.record import json_text
from kinstream.validate import checked

STREAM = Stream("events")


class Text(str):
    """Text of another type."""

    __slots__ = ()


def admission(**buffering: Any) -> Admission:
    return Admission(BufferLimits(**buffering))


@pytest.mark.parametrize("data", [b"h\xc3\xa9", bytearray(b"h\xc3\xa9"), memoryview(b"h\xc3\xa9"), "hé"])
def test_data_is_bytes_like_or_text_that_goes_as_utf8(data: Any) -> None:
    made = admission().one(data, "key", None)
    assert (made.data, made.partition_key, made.explicit_hash_key, made.size) == (b"h\xc3\xa9", "key", None, 6)
    assert made.data.__class__ is bytes


@pytest.mark.parametrize(
    ("data", "written"),
    [
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        (MappingProxyType({"a": OrderedDict(b=1)}), '{"a":{"b":1}}'),
        (["x", None], '["x",null]'),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
        ("", ""),
        ("null", "null"),
        ({"PartitionKey": "k"}, '{"PartitionKey":"k"}'),
    ],
)
def test_other_data_goes_as_json_and_text_as_utf8_in_a_record_too(data: Any, written: str) -> None:
    of = admission()
    assert of.one(data, "key", None).data == written.encode()
    assert of.one(Record(data, "key"), None, None).data == written.encode()
    (made,), _, _ = of.some([(data, None)], 0, 1.0)
    assert made.data == written.encode()


def test_a_record_with_the_boto3_form_as_its_data_is_json() -> None:
    assert admission().one(Record({"Data": "x", "PartitionKey": "k"}, "key"), None, None).data.startswith(b"{")


def test_an_encoder_gets_everything_that_is_not_bytes_like_and_a_records_own_one_comes_first() -> None:
    seen: list[Any] = []

    def encode(data: Any) -> str:
        seen.append(data)
        return f"<{type(data).__name__}>"

    of = Admission(BufferLimits(), encode)
    given = ["text", None, (1, 2), {"Data": 1, "PartitionKey": 2}, Decimal(1)]
    assert [of.one(data, "key", None).data for data in given] == [
        b"<str>",
        b"<NoneType>",
        b"<tuple>",
        b"<dict>",
        b"<Decimal>",
    ]
    assert of.one(Record("text", "key"), None, None).data == b"<str>"
    assert seen == [*given, "text"]
    for data in (b"x", bytearray(b"x"), memoryview(b"x"), Record(b"x", "key")):
        assert of.one(data, None, None).data == b"x"
    assert of.one(Record("text", "key", encoder=lambda data: data + "!"), None, None).data == b"text!"
    assert len(seen) == 6


def test_the_encoder_of_the_callbacks_style_writes_text_as_json() -> None:
    of = Admission(BufferLimits(), json_text)
    assert of.one("text", "key", None).data == b'"text"'
    assert of.one(Record("text", "key"), None, None).data == b'"text"'
    assert of.one(Record(None, "key"), None, None).data == b"null"
    assert of.one(Record((1, 2), "key"), None, None).data == b"[1,2]"
    with pytest.raises(InvalidRecord, match="must not be a tuple"):
        of.one((b"x", "key"), None, None)


def test_a_record_brings_its_keys_and_its_encoder() -> None:
    made = admission().one(Record({"a": 1}, "schlüssel", "5"), None, None)
    assert (made.data, made.partition_key, made.explicit_hash_key, made.size) == (b'{"a":1}', "schlüssel", "5", 7 + 10)


def test_no_key_means_any_shard() -> None:
    assert admission().one(b"data", None, None).partition_key is KEYLESS
    assert admission().one(b"data", None, "9").explicit_hash_key == "9"
    assert admission().one(b"data", None, None).partition_key == "kinstream-no-key"


@pytest.mark.parametrize("key", [KEYLESS, "".join(KEYLESS), Text(KEYLESS)])
@pytest.mark.parametrize("hash_key", [None, "5"])
def test_reserved_key_is_refused_by_name(key: str, hash_key: str | None) -> None:
    of = admission()
    refusals: list[Callable[[], object]] = [
        lambda: of.one(b"data", key, hash_key),
        lambda: of.one(Record(b"data", key, hash_key), None, None),
        lambda: checked(Record(b"data", key, hash_key), "record"),
        lambda: put_records(JsonCodec(), STREAM, [Record(b"data", key, hash_key)]),
        lambda: put_record(JsonCodec(), STREAM, Record(b"data", key, hash_key)),
    ]
    for refused in refusals:
        with pytest.raises(InvalidRecord, match=r"partition_key='kinstream-no-key': reserved"):
            refused()
    made, _, wrong = of.some([(b"data", "key"), (b"data", key)], 0, 1.0)
    assert [one.partition_key for one in made] == ["key"]
    assert isinstance(wrong, InvalidRecord)
    assert wrong.index == 1


@pytest.mark.parametrize("key", [KEYLESS[:-1], KEYLESS + "x", KEYLESS.upper(), " " + KEYLESS[1:], "kïnstream-no-key"])
def test_keys_that_resemble_the_reserved_one_are_keys_like_any_other(key: str) -> None:
    assert admission().one(b"data", key, None).partition_key == key
    put_records(JsonCodec(), STREAM, [Record(b"data", key)])


@pytest.mark.parametrize(
    ("data", "key", "hash_key", "said"),
    [
        (None, "key", None, "record.data: None is not data. Put b'' for an empty record"),
        (
            (b"x", "key"),
            None,
            None,
            "record.data: must not be a tuple. Call put(data, partition_key), or put_many with",
        ),
        (
            {"Data": b"x", "PartitionKey": "k"},
            None,
            None,
            "the form in which boto3 takes a record. Call put(data, partition",
        ),
        (
            Decimal(1),
            "k",
            None,
            "record.data: Decimal cannot be written without an encoder (Decimal is not a JSON type)",
        ),
        (
            [Decimal(1)],
            "k",
            None,
            "list cannot be written without an encoder (Decimal is not a JSON type). Use bytes, str",
        ),
        (object(), "k", None, "or pass Record(encoder=...) or Producer(encoder=...)"),
        (b"x", "", None, "0 characters"),
        (b"x", "k" * 257, None, "257 characters"),
        (b"x", 7, None, "must be text, not int"),
        (b"x", "k", "-1", "explicit_hash_key='-1'"),
        (b"x", "k", str(2**128), "explicit_hash_key"),
        (b"x", "\ud800", None, "lone surrogate"),
        ("\ud800", "k", None, "lone surrogate"),
        (Record(b"x", "k"), "k", None, "its own keys"),
        (Record(b"x", "k", prev_sequence_number="1"), None, None, "only put_record orders"),
        (Record(object(), "k"), None, None, "record.data: object cannot be written without an encoder"),
        (Record(None, "k"), None, None, "use b'' for an empty record, or b'null' for null in JSON"),
        (Record((1, 2), "k"), None, None, "use a list for an array in JSON"),
        (
            Record(1, "k", encoder=lambda _: 1 / 0),  # type: ignore[arg-type, return-value]
            None,
            None,
            "the encoder failed on data of type int: ZeroDivisionError",
        ),
    ],
)
def test_invalid_record_is_refused_before_anything_is_sent(data: Any, key: Any, hash_key: Any, said: str) -> None:
    with pytest.raises(InvalidRecord) as refused:
        admission().one(data, key, hash_key)
    assert said in str(refused.value)


def test_record_larger_than_the_limit_of_the_stream_or_the_buffer_is_refused() -> None:
    of = admission()
    of.record_limit = 100
    assert of.one(b"x" * 97, "key", None).size == 100
    with pytest.raises(InvalidRecord, match=r"101 bytes .* The stream accepts 100"):
        of.one(b"x" * 98, "key", None)
    with pytest.raises(InvalidRecord, match="The whole buffer has space for 768"):
        admission(max_bytes=1024).one(b"x" * 800, "key", None)


def test_many_are_admitted_at_once_and_the_first_wrong_one_is_named() -> None:
    of = admission()
    made, size, wrong = of.some([(b"a", "k"), (b"bc", "k")], 0, 7.0)
    assert ([one.data for one in made], size, wrong, {one.admitted for one in made}) == ([b"a", b"bc"], 5, None, {7.0})
    made, size, wrong = of.some(
        [(b"a", "k"), ("ä", "ö"), Record([1], "k"), (b"x", None), (b"x", ""), (b"y", "k")], 500, 7.0
    )
    assert [one.data for one in made] == [b"a", "ä".encode(), b"[1]", b"x"]
    assert made[3].partition_key is KEYLESS
    assert size == 2 + 4 + 4 + 1 + len(KEYLESS)
    assert wrong is not None
    assert wrong.index == 504
    assert "records[504]" in str(wrong)


@pytest.mark.parametrize(
    ("record", "given"),
    [
        ((b"x",), "a tuple of 1"),
        ((b"x", "key", None), "a tuple of 3"),
        ([b"x", "key"], "list"),
        ("ab", "str"),
        (b"x", "bytes"),
        (None, "NoneType"),
        ({"Data": b"x", "PartitionKey": "k"}, "dict. Replace the form that boto3 takes by a pair"),
    ],
)
def test_an_entry_that_is_neither_a_record_nor_a_pair_is_refused_with_the_form_of_a_pair(
    record: Any, given: str
) -> None:
    made, _, wrong = admission().some([(b"x", "key"), record], 0, 1.0)
    assert len(made) == 1
    assert wrong is not None
    assert wrong.index == 1
    expected = "records[1]: must be a kinstream.Record or a pair (data, partition_key), with None for no key, not "
    assert str(wrong) == expected + given


def test_a_payload_codec_changes_what_is_written() -> None:
    of = Admission(BufferLimits(), payload_codec=lambda data: b"<" + data + b">")
    assert of.one(b"data", "key", None).data == b"<data>"
    made, size, _ = of.some([(b"data", "key")], 0, 1.0)
    assert (made[0].data, size) == (b"<data>", 9)
