"""A record is expanded into its user records as a consumer delivers them, and never raises for its data."""

from __future__ import annotations

import hashlib

import pytest
from tests.doubles.memory import peak_traced

from kinstream import EncryptionType, ReceivedRecord
from kinstream.kpl import expand
from kinstream.kpl.builder import Builder
from kinstream.kpl.expand import expanded
from kinstream.kpl.message import MAGIC
from kinstream.speed import TWINS


@pytest.fixture(params=["pure", "bound"], autouse=True)
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pure":
        monkeypatch.setattr(expand, "user_records", TWINS["user_records"].pure)


def aggregate(*keys: str) -> bytes:
    builder = Builder(1 << 20, 100_000)
    for number, key in enumerate(keys):
        builder.add(key, "5" if key == "kinstream-no-key" else None, b"data %d" % number)
    return builder.finish()


def sealed(message: bytes) -> bytes:
    return MAGIC + message + hashlib.md5(message).digest()


def received(data: bytes, key: str | None = "outer") -> ReceivedRecord[bytes]:
    return ReceivedRecord(data, "7", 5.0, key, EncryptionType.KMS, None, "origin")


def test_plain_record_is_returned_itself() -> None:
    record = received(b"plain")
    assert list(expanded(record)) == [record]
    assert next(iter(expanded(record))) is record


def test_user_records_have_their_keys_and_indexes_and_the_rest_of_the_record() -> None:
    assert list(expanded(received(aggregate("a", "b", "kinstream-no-key")))) == [
        ReceivedRecord(b"data 0", "7", 5.0, "a", EncryptionType.KMS, 0, "origin"),
        ReceivedRecord(b"data 1", "7", 5.0, "b", EncryptionType.KMS, 1, "origin"),
        ReceivedRecord(b"data 2", "7", 5.0, None, EncryptionType.KMS, 2, "origin"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + b"x" * 40,
        aggregate("a", "b")[:-1] + b"\0",
        sealed(b"\xff\xff\xff\xff"),
        sealed(b"\x0a\x01k\x1a\x05\x08\x01\x1a\x01x"),
    ],
    ids=["empty", "short", "no digest", "damaged", "not a message", "bad index"],
)
def test_data_that_is_not_a_valid_aggregate_is_returned_whole(data: bytes) -> None:
    record = received(data)
    (found,) = expanded(record)
    assert found is record


def test_record_that_was_put_without_a_key_has_none() -> None:
    assert list(expanded(received(b"plain", "kinstream-no-key"))) == [received(b"plain", None)]


def test_aggregate_inside_an_aggregate_is_not_expanded() -> None:
    builder = Builder(1 << 20, 10)
    builder.add("outer", None, aggregate("a", "b"))
    (once,) = expanded(received(builder.finish()))
    assert once.data == aggregate("a", "b")
    assert list(expanded(once)) == [once]


def test_aggregate_without_records_is_expanded_to_none() -> None:
    assert list(expanded(received(sealed(b"\x0a\x01k")))) == []


def test_large_aggregate_is_expanded_lazily() -> None:
    data = sealed(b"\x0a\x01a" + b"\x1a\x04\x08\x00\x1a\x00" * 100_000)
    assert peak_traced(lambda: next(iter(expanded(received(data))))) < 2 * len(data)
    found = iter(expanded(received(data)))
    assert next(found).subsequence_number == 0
    assert sum(1 for _ in found) == 99_999
