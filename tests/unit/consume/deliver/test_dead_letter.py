"""Dead letters: their content, and a form that always fits the stream."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
from typing import Any

import pytest

from kinstream import ConnectionLost, InvalidArgument, InvalidRecord, KinesisError, ReceivedRecord, Record
from kinstream.consume.deliver.dead_letter import ERROR_CHARACTERS, DeadLetters, error_text, letter_fields
from kinstream.consume.shard.origin import Origin
from kinstream.errors import ServiceError

SHARD = Origin("shardId-000000000007")
RANDOM = random.Random(1).randbytes(300_000)


class Box:
    """Stores dead letters up to a size.

    Attributes:
        sizes: Sizes of all letters that were tried.
        letters: Those that were taken.
    """

    def __init__(self, limit: int, refusal: KinesisError | None = None) -> None:
        self.limit = limit
        self.refusal = refusal or InvalidArgument("too large")
        self.sizes: list[int] = []
        self.letters: list[Record] = []

    async def put_record(self, record: Record) -> None:
        self.sizes.append(len(record.data) + len(record.partition_key.encode()))
        if self.sizes[-1] > self.limit:
            raise self.refusal
        self.letters.append(record)


async def letter_of(box: Box, data: bytes, error: Exception | None = None, **fields: Any) -> dict[str, Any]:
    record = ReceivedRecord(data, "57", 12.5, **{"partition_key": "key", "origin": SHARD, **fields})
    await DeadLetters("orders").write(box, record, error or ValueError("why"), time=99.25, attempts=3)
    letter: dict[str, Any] = json.loads(box.letters[-1].data)
    return letter


async def test_dead_letter_has_the_record_its_error_and_its_data() -> None:
    box = Box(1 << 20)
    assert await letter_of(box, b"\xff\x00", subsequence_number=4) == {
        "error": "ValueError: why",
        "time": 99.25,
        "attempts": 3,
        "stream": "orders",
        "shard_id": "shardId-000000000007",
        "sequence_number": "57",
        "subsequence_number": 4,
        "partition_key": "key",
        "arrival_time": 12.5,
        "data_bytes": 2,
        "data_sha256": hashlib.sha256(b"\xff\x00").hexdigest(),
        "data": "/wA=",
    }
    assert box.letters[0].partition_key == "key"


@pytest.mark.parametrize(
    "refusal",
    [InvalidArgument("x"), InvalidRecord("x"), ServiceError("x", http_status=413)],
    ids=["400", "local", "413"],
)
async def test_data_that_does_not_fit_is_compressed(refusal: KinesisError) -> None:
    data = b"abc" * 300_000
    letter = await letter_of(Box(1 << 20, refusal), data)
    assert "data" not in letter
    assert gzip.decompress(base64.b64decode(letter["data_gzip"])) == data


@pytest.mark.parametrize("data", [RANDOM, b"\x00" * 10_000_000], ids=["incompressible", "large"])
async def test_data_that_does_not_fit_compressed_is_left_out(data: bytes) -> None:
    letter = await letter_of(Box(2000), data)
    assert letter.keys().isdisjoint({"data", "data_gzip"})
    assert (letter["data_bytes"], letter["data_sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert (letter["stream"], letter["shard_id"], letter["sequence_number"]) == ("orders", SHARD.shard_id, "57")


async def test_refused_size_is_not_tried_again() -> None:
    box = Box(100_000)
    letters = DeadLetters("orders")
    for number in range(3):
        record = ReceivedRecord(RANDOM, str(number), 1.0, "key", origin=SHARD)
        await letters.write(box, record, ValueError("why"), time=1.0, attempts=1)
    assert len(box.letters) == 3
    assert len([size for size in box.sizes if size > box.limit]) == 1


async def test_dead_letter_that_fails_otherwise_or_never_fits_is_an_error() -> None:
    lost = Box(0, ConnectionLost("lost"))
    with pytest.raises(ConnectionLost):
        await letter_of(lost, b"data")
    assert len(lost.sizes) == 1, "another form does not help"
    with pytest.raises(InvalidArgument):
        await letter_of(Box(10), b"data")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("x" * 3_000_000), f"ValueError: {'x' * ERROR_CHARACTERS}... (3000000 characters)"),
        (ValueError("a\ud800b\x00\n"), "ValueError: a\\ud800b\x00\n"),
        (Unprintable(), "Unprintable: (its text cannot be shown: RuntimeError)"),
    ],
    ids=["long", "surrogate", "unprintable"],
)
async def test_text_of_any_error_fits(error: Exception, shown: str) -> None:
    assert error_text(error) == shown
    assert (await letter_of(Box(60_000), b"data", error))["error"] == shown


@pytest.mark.parametrize(
    ("key", "letters_key"), [(None, "57"), ("", "57"), ("\N{PILE OF POO}" * 5000, "\N{PILE OF POO}" * 256)]
)
async def test_dead_letter_has_a_valid_partition_key(key: str | None, letters_key: str) -> None:
    """A record from an aggregate may have an empty key, or one of any length."""
    box = Box(60_000)
    letter = await letter_of(box, b"data", partition_key=key)
    assert box.letters[0].partition_key == letters_key
    assert letter["partition_key"] == (letters_key if key else key)


def test_dead_letter_has_the_stream_and_the_shard_as_requests_have_them() -> None:
    record = ReceivedRecord(b"data", "1", 1.0, "key", origin=Origin("orders:shardId-7", None, "orders"))
    fields = letter_fields("orders", record, ValueError("bad"), time=2.0, attempts=1)
    assert (fields["stream"], fields["shard_id"]) == ("orders", "shardId-7")
