"""Canned responses of the benchmark endpoint, written to files in advance: pages of records, shard lists, event streams.

Data is ASCII text, so that clients that take `str` and clients that take bytes get the same. The sequence numbers of a page
have a gap for the page number, which the endpoint fills, so that the numbers of a shard increase as on AWS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2

ARRIVED = 1_787_036_486_712
"""Milliseconds since 1970 at which the canned records arrived."""
SEQUENCE_NUMBER = 49_671_532_811_004_187_563_129_803_617_842_091_563_287_410_296_118_304_770
"""56 digits, as the service's are."""
SHARD_HOLE, PAGE_HOLE, NEXT_PAGE_HOLE = "<SHARD-0000>", "<PAGE-00000>", "<NEXT-00000>"
SEQUENCE_BEGINNING = str(SEQUENCE_NUMBER)[:38]
HASH_KEYS = 2**128
AGGREGATE_BYTES = 51200
"""The KPL's default limit of an aggregate (KinesisProducerConfiguration, AggregationMaxSize)."""
AGGREGATES_IN_A_PAGE = 10
EVENT_RECORDS = 50
ACCOUNT = "123456789012"

Told = list[str]
"""Arguments on the endpoint's command line for each response."""


def text(source: random.Random, size: int) -> bytes:
    """Return `size` bytes that are ASCII text."""
    return base64.b64encode(source.randbytes(size))[:size]


def key(source: random.Random, keys: int) -> str:
    """Return one of `keys` partition keys."""
    return f"user-{source.randrange(keys):07}"


def shard_range(shard: int, shards: int) -> tuple[int, int]:
    """Return the lowest and the highest hash key of a shard, if `shards` divide them evenly."""
    return -(-shard * HASH_KEYS // shards), -(-(shard + 1) * HASH_KEYS // shards) - 1


def shard_iterator(size: int) -> str:
    """Return the iterator of pages with records of `size` bytes. It is as long as an iterator of the service."""
    return f"bench-{size}-".ljust(236, "A")


def produce_stream(shards: int) -> str:
    """Return the name of the stream with `shards` shards for producers."""
    return f"put-{shards:04}-shards"


def consume_stream(kind: str, size: int, shards: int) -> str:
    """Return the name of a stream for consumers.

    Args:
        kind: "plain", "packed" (aggregated), "idle" (nothing comes), or "pushed" (by fan-out).
        size: Bytes of data in a user record.
        shards: Number of its shards.
    """
    return f"{kind}-{size}-{shards:04}-shards"


def requests(place: Path, sizes: list[int], page: int) -> Told:
    """Write the answers to single requests, members in the service model's order."""
    told: Told = []
    results = [{"SequenceNumber": str(SEQUENCE_NUMBER + n), "ShardId": f"shardId-{n % 8:012}"} for n in range(500)]
    put = {"FailedRecordCount": 0, "Records": results, "EncryptionType": "NONE"}
    _write(place, told, "PutRecords", "", put)
    for size in sizes:
        source = random.Random(size)
        records = [
            (source.randbytes(size), f"user-{source.randrange(100_000):05}", str(SEQUENCE_NUMBER + n))
            for n in range(page)
        ]
        _write_page(place, told, f"bench-{size}-", records, shard_iterator(size), 0)
    return told


def for_producers(place: Path, shards: list[int]) -> Told:
    """Write the responses to a producer, for streams with each number of shards."""
    told: Told = []
    for count in shards:
        stream = produce_stream(count)
        _write_description(place, told, stream, count)
        told += [f"PutRecords:{wire}:{stream}:={count}" for wire in ("json", "cbor")]
    return told


def for_consumers(place: Path, sizes: list[int], shards: int, page: int, growth: list[int]) -> Told:
    """Write the responses to a consumer, for streams with plain, aggregated and no records."""
    told: Told = []
    for size in sizes:
        source = random.Random(size)
        records = [
            (text(source, size), key(source, 100_000), f"{SEQUENCE_BEGINNING}{PAGE_HOLE}{n:06}") for n in range(page)
        ]
        _write_page(place, told, f"plain-{size}-", records, _next("plain", size), 60_000)
        for count in sorted({shards, *growth}):
            stream = consume_stream("plain", size, count)
            _write_description(place, told, stream, count)
            _write(place, told, "GetShardIterator", stream, {"ShardIterator": _first("plain", size)})
        stream = consume_stream("packed", size, shards)
        _write_description(place, told, stream, shards)
        _write(place, told, "GetShardIterator", stream, {"ShardIterator": _first("packed", size)})
        for shard in range(shards):
            records = [
                (data, "a", f"{SEQUENCE_BEGINNING}{PAGE_HOLE}{n:06}")
                for n, data in enumerate(_aggregates(source, size, shard, shards))
            ]
            mark = f"packed-{size}-shardId-{shard:012}"
            _write_page(place, told, mark, records, _next("packed", size), 60_000)
    size = sizes[0]
    for count in growth:
        stream = consume_stream("idle", size, count)
        _write_description(place, told, stream, count)
        _write(place, told, "GetShardIterator", stream, {"ShardIterator": _first("idle", size)})
    _write_page(place, told, f"idle-{size}-", [], _next("idle", size), 0)
    return told


def for_fan_out(place: Path, size: int, megabytes: int) -> tuple[Told, int]:
    """Write an event stream of one shard, of about the given size, and the responses for its subscriber. Returns its records."""
    told: Told = []
    stream = consume_stream("pushed", size, 1)
    _write_description(place, told, stream, 1)
    arn = f"{_stream_arn(stream)}/consumer/bench:1787036486"
    about = {
        "ConsumerName": "bench",
        "ConsumerARN": arn,
        "ConsumerStatus": "ACTIVE",
        "ConsumerCreationTimestamp": 1_787_036_486,
    }
    _write(place, told, "RegisterStreamConsumer", stream, {"Consumer": about})
    described = {"ConsumerDescription": {**about, "StreamARN": _stream_arn(stream)}}
    _write(place, told, "DescribeStreamConsumer", "", described)
    _write(place, told, "ListStreamConsumers", stream, {"Consumers": [about]})
    _write(place, told, "DeregisterStreamConsumer", "", {})
    records = 0
    for wire in ("json", "cbor"):
        file = place / f"SubscribeToShard.{wire}"
        with file.open("wb") as into:
            for events, frame in _frames(wire, size):
                if into.tell() >= megabytes * 1_000_000:
                    break
                into.write(frame)
                records = events * EVENT_RECORDS if wire == "json" else records
        told.append(f"SubscribeToShard:stream-{wire}::{file}")
    return told, records


def consumer_arn(size: int) -> str:
    """Return the ARN of the registered consumer of the stream that pushes."""
    return f"{_stream_arn(consume_stream('pushed', size, 1))}/consumer/bench:1787036486"


def _stream_arn(stream: str) -> str:
    return f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}"


def _first(kind: str, size: int) -> str:
    return f"{kind}-{size}-shardId-{SHARD_HOLE}-page-{0:012}-".ljust(236, "A")


def _next(kind: str, size: int) -> str:
    return f"{kind}-{size}-shardId-{SHARD_HOLE}-page-{NEXT_PAGE_HOLE}-".ljust(236, "A")


def _write(place: Path, told: Told, operation: str, marks: str, answer: Any) -> None:
    for wire, written in (("json", _json), ("cbor", _cbor)):
        _write_bytes(place, told, operation, wire, marks, written(answer))


def _write_bytes(place: Path, told: Told, operation: str, wire: str, marks: str, body: bytes) -> None:
    file = place / f"{len(told)}.{operation}.{marks or 'any'}.{wire}"
    file.write_bytes(body)
    told.append(f"{operation}:{wire}:{marks}:{file}")


def _write_page(
    place: Path, told: Told, mark: str, records: list[tuple[bytes, str, str]], iterator: str, behind: int
) -> None:
    rest = {"NextShardIterator": iterator, "MillisBehindLatest": behind}
    as_json = [
        _received(base64.b64encode(data).decode(), key, number, (ARRIVED + n) / 1000)
        for n, (data, key, number) in enumerate(records)
    ]
    as_cbor = [
        _received(data, key, number, cbor2.CBORTag(1, ARRIVED + n)) for n, (data, key, number) in enumerate(records)
    ]
    _write_bytes(place, told, "GetRecords", "json", mark, _json({"Records": as_json, **rest}))
    _write_bytes(place, told, "GetRecords", "cbor", mark, _cbor({"Records": as_cbor, **rest}))


def _write_description(place: Path, told: Told, stream: str, shards: int) -> None:
    """Write the responses of ListShards, DescribeStreamSummary and DescribeStream for a stream."""
    listed = [
        {
            "ShardId": f"shardId-{n:012}",
            "HashKeyRange": dict(
                zip(("StartingHashKey", "EndingHashKey"), map(str, shard_range(n, shards)), strict=True)
            ),
            "SequenceNumberRange": {"StartingSequenceNumber": str(SEQUENCE_NUMBER - 10**40)},
        }
        for n in range(shards)
    ]
    about: dict[str, Any] = {
        "StreamName": stream,
        "StreamARN": _stream_arn(stream),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_787_036_486,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }
    summary = {**about, "OpenShardCount": shards, "ConsumerCount": 1, "MaxRecordSizeInKiB": 1024}
    _write(place, told, "ListShards", stream, {"Shards": listed})
    _write(place, told, "DescribeStreamSummary", stream, {"StreamDescriptionSummary": summary})
    described = {**about, "Shards": listed, "HasMoreShards": False}
    _write(place, told, "DescribeStream", stream, {"StreamDescription": described})


def _received(data: object, key: object, number: object, arrived: object) -> dict[str, object]:
    return {"SequenceNumber": number, "ApproximateArrivalTimestamp": arrived, "Data": data, "PartitionKey": key}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _cbor(value: Any) -> bytes:
    # The service's timestamps: tag 1 and milliseconds.
    if isinstance(value, dict) and value:
        value = {name: _with_times(name, member) for name, member in value.items()}
    return cbor2.dumps(value)


def _with_times(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _with_times(inner, member) for inner, member in value.items()}
    if name.endswith("CreationTimestamp"):
        return cbor2.CBORTag(1, value * 1000)
    if isinstance(value, list) and name == "Consumers":
        return [_with_times("", member) for member in value]
    return value


def _aggregates(source: random.Random, size: int, shard: int, shards: int) -> Iterator[bytes]:
    """Yield a page of records in the KPL's format (its aggregation-format.md). All keys belong to one shard."""
    low, high = shard_range(shard, shards)
    for _ in range(AGGREGATES_IN_A_PAGE):
        keys: dict[str, int] = {}
        records: list[bytes] = []
        length = 20
        while True:
            chosen = key(source, 100_000)
            if not low <= int.from_bytes(hashlib.md5(chosen.encode()).digest(), "big") <= high:
                continue
            new = chosen not in keys
            inner = b"\x08" + _varint(keys.setdefault(chosen, len(keys))) + b"\x1a" + _varint(size) + text(source, size)
            record = b"\x1a" + _varint(len(inner)) + inner
            length += len(record) + (len(chosen) + 2 if new else 0)
            if length > AGGREGATE_BYTES:
                if new:
                    del keys[chosen]
                break
            records.append(record)
        table = b"".join(b"\x0a" + _varint(len(name)) + name.encode() for name in keys)
        message = table + b"".join(records)
        yield b"\xf3\x89\x9a\xc2" + message + hashlib.md5(message).digest()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _frames(wire: str, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the frames of a subscription without end, each with the number of events up to it."""
    source = random.Random(size)
    records = [
        (text(source, size), key(source, 100_000), f"{SEQUENCE_BEGINNING}{PAGE_HOLE}{n:06}")
        for n in range(EVENT_RECORDS)
    ]
    last = {"ContinuationSequenceNumber": records[-1][2], "MillisBehindLatest": 60_000}
    encode: Callable[[Any], bytes]
    if wire == "json":
        members = [_received(base64.b64encode(d).decode(), k, n, ARRIVED / 1000) for d, k, n in records]
        encode = _json
    else:
        members = [_received(d, k, n, cbor2.CBORTag(1, ARRIVED)) for d, k, n in records]
        encode = _cbor
    payload = encode({"Records": members, **last})
    content = f"application/x-amz-{wire}-1.1"
    yield 0, frame({":message-type": "event", ":event-type": "initial-response", ":content-type": content}, encode({}))
    headers = {":message-type": "event", ":event-type": "SubscribeToShardEvent", ":content-type": content}
    number = 0
    while True:
        number += 1
        yield number, frame(headers, payload.replace(PAGE_HOLE.encode(), b"%012d" % number))


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Return one message in the event-stream encoding (Smithy, `application/vnd.amazon.eventstream`)."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack(">I", zlib.crc32(message))
