"""Probes of the features of a local Kinesis server: each sends requests and returns a finding."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import botocore.exceptions
import botocore.session
import cbor2
import h2.config
import h2.connection
import h2.events
from bench.ground import NotPossible
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer
from tests.contract.servers.processes import Running, running
from tests.contract.servers.reach import Endpoint, Raw

RIGHT, PARTLY, WRONG, UNKNOWN = "right", "partly", "wrong", "not probed"

NAMES = (f"probe-{number}" for number in count())
MIDDLE = 2**127
FIRST = "shardId-000000000000"
CBOR = "application/x-amz-cbor-1.1"
NEW_OPERATIONS = ("Queue", "Channel", "DeadLetter", "UpdateStreamRecordDistributionStrategy")
"""Words in the names of operations that came to the service model late in 2026; not counted."""

EXPIRY_SECONDS = 301
"""How old an iterator is when it must have expired."""


@dataclass(frozen=True)
class Cell:
    """Finding of a probe.

    Attributes:
        said: In a few words.
        grade: RIGHT if it is as AWS has it, PARTLY, WRONG, or UNKNOWN.
    """

    said: str
    grade: str


class Subject:
    """A running server, and how it is asked.

    Args:
        server: The server.
        options: More of its settings, for probes that start another process of it.
    """

    def __init__(self, server: Running, options: dict[str, Any]) -> None:
        self.server = server
        self.options = options
        self.endpoint = Endpoint(server.name, server.url)
        self.raw = Raw(self.endpoint)
        patient = Config(retries={"mode": "standard", "total_max_attempts": 5}, read_timeout=30)
        self.kinesis = self.endpoint.boto3(config=patient)
        self.impatient = self.endpoint.boto3()

    def stream(self, shards: int = 1) -> str:
        """Make a stream and wait until it is ACTIVE."""
        name = next(NAMES)
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self.until_active(name)
        return name

    def until_active(self, name: str) -> None:
        deadline = time.monotonic() + 10
        while self.kinesis.describe_stream(StreamName=name)["StreamDescription"]["StreamStatus"] != "ACTIVE":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not become ACTIVE")
            time.sleep(0.02)

    def split(self, name: str) -> None:
        """Split the only shard of a stream at the middle of its range."""
        self.kinesis.split_shard(StreamName=name, ShardToSplit=FIRST, NewStartingHashKey=str(MIDDLE))
        self.until_active(name)

    def iterator(self, name: str, shard_id: str = FIRST, kind: str = "TRIM_HORIZON") -> str:
        found = self.kinesis.get_shard_iterator(StreamName=name, ShardId=shard_id, ShardIteratorType=kind)
        return str(found["ShardIterator"])

    def listed(self, name: str, **options: Any) -> list[int]:
        """Return the shards that ListShards gives, by their numbers."""
        return sorted(int(s["ShardId"][-12:]) for s in self.kinesis.list_shards(StreamName=name, **options)["Shards"])


def operations(subject: Subject) -> Cell:
    """Which of the API's operations are answered otherwise than one that does not exist."""
    model = botocore.session.get_session().get_service_model("kinesis")
    names = [name for name in model.operation_names if not any(word in name for word in NEW_OPERATIONS)]

    def answer(operation: str) -> tuple[int, str]:
        status, _, body = subject.raw.send(subject.raw.sign(operation, b"{}"), b"{}")
        with contextlib.suppress(ValueError, AttributeError):
            return status, str(json.loads(body).get("__type", ""))
        return status, ""

    unknown = answer("MakeBelieve")
    missing = []
    for name in names:
        found = answer(name)
        if found == unknown or found[0] in (404, 501):
            missing.append(name)
    said = f"{len(names) - len(missing)} of {len(names)}"
    return Cell(said, RIGHT if not missing else PARTLY)


def closed_parent(subject: Subject) -> Cell:
    """A shard that was split takes no more records, gives those that it has, and ends with its children's names."""
    name, kinesis = subject.stream(), subject.kinesis
    put = {"StreamName": name, "PartitionKey": "k", "ExplicitHashKey": "1"}
    kinesis.put_record(Data=b"before", **put)
    subject.split(name)
    after = kinesis.put_record(Data=b"after", **put)
    faults = ["puts still go to it"] if after["ShardId"] == FIRST else []
    try:
        iterator = subject.iterator(name)
    except kinesis.exceptions.ResourceNotFoundException:
        return Cell("deleted, its records too", WRONG)
    records, children = [], None
    for _ in range(20):
        answer = kinesis.get_records(ShardIterator=iterator)
        records += [record["Data"] for record in answer["Records"]]
        iterator = answer.get("NextShardIterator")
        if not iterator:
            children = answer.get("ChildShards") or []
            break
    if b"before" not in records:
        faults.append("its records are gone")
    if children is None:
        faults.append("it never ends")
    if faults:
        return Cell("; ".join(faults), WRONG)
    return Cell("ends, with ChildShards", RIGHT) if children else Cell("ends, no ChildShards", PARTLY)


def shard_filters(subject: Subject) -> Cell:
    """ListShards' filters, on a stream with one shard that was split."""
    name = subject.stream()
    time.sleep(1.1)
    before = datetime.now(UTC)
    time.sleep(1.1)  # some compare whole seconds
    subject.split(name)
    expected: list[tuple[str, list[int], dict[str, Any]]] = [
        ("FROM_TRIM_HORIZON", [0, 1, 2], {}),
        ("AT_TRIM_HORIZON", [0], {}),
        ("AT_LATEST", [1, 2], {}),
        ("AT_TIMESTAMP", [0], {"Timestamp": before}),
        ("FROM_TIMESTAMP", [0, 1, 2], {"Timestamp": before}),
        ("AFTER_SHARD_ID", [1, 2], {"ShardId": FIRST}),
    ]
    answers, wrong = set(), []
    for kind, shards, more in expected:
        found = subject.listed(name, ShardFilter={"Type": kind, **more})
        answers.add(tuple(found))
        if found != shards:
            wrong.append(kind)
    if not wrong:
        return Cell("right", RIGHT)
    if len(answers) == 1:
        return Cell("ignored", WRONG)
    return Cell(f"right but for {', '.join(wrong)}", PARTLY)


def paging(subject: Subject) -> Cell:
    """ListShards in pages of two: each shard once, the token alone with MaxResults."""
    name = subject.stream(5)
    page = subject.kinesis.list_shards(StreamName=name, MaxResults=2)
    pages = [[int(shard["ShardId"][-12:]) for shard in page["Shards"]]]
    try:
        while page.get("NextToken") and len(pages) < 9:
            page = subject.kinesis.list_shards(NextToken=page["NextToken"], MaxResults=2)
            pages.append([int(shard["ShardId"][-12:]) for shard in page["Shards"]])
    except botocore.exceptions.ClientError:
        return Cell("its own token is refused", WRONG)
    if pages == [[0, 1], [2, 3], [4]]:
        return Cell("right", RIGHT)
    return Cell("ignored" if len(pages) == 1 else "broken", WRONG)


def sequence_numbers(subject: Subject) -> Cell:
    """How long they are, and whether they grow."""
    name = subject.stream()
    entries = [{"Data": b"x", "PartitionKey": "k"}] * 20
    numbers = [r["SequenceNumber"] for r in subject.kinesis.put_records(StreamName=name, Records=entries)["Records"]]
    digits = {len(number) for number in numbers}
    if [int(number) for number in numbers] != sorted({int(number) for number in numbers}):
        return Cell("do not grow", WRONG)
    if max(digits) < 10:
        return Cell(", ".join(numbers[:3]), WRONG)
    said = f"{min(digits)} digits" if len(digits) == 1 else f"{min(digits)} to {max(digits)} digits"
    return Cell(said, RIGHT if digits == {56} else PARTLY)


def quotas(subject: Subject) -> Cell:
    """Whether a shard refuses 10,000 records, 40 MiB and 12 reads, each as fast as they can be sent."""
    kinesis, throttled = subject.impatient, subject.impatient.exceptions.ProvisionedThroughputExceededException
    small = [{"Data": b"x", "PartitionKey": "k"}] * 500
    large = [{"Data": bytes(1_000_000), "PartitionKey": "k"}] * 4

    def written(entries: list[dict[str, Any]], times: int) -> bool:
        name, deadline = subject.stream(), time.monotonic() + 10
        for _ in range(times):
            try:
                if kinesis.put_records(StreamName=name, Records=entries)["FailedRecordCount"]:
                    return True
            except throttled:
                return True
            if time.monotonic() > deadline:
                break
        return False

    def read() -> bool:
        iterator = subject.iterator(subject.stream())
        try:
            for _ in range(12):
                kinesis.get_records(ShardIterator=iterator)
        except throttled:
            return True
        return False

    held = [
        what
        for what, holds in (("records", written(small, 20)), ("bytes", written(large, 10)), ("reads", read()))
        if holds
    ]
    if len(held) == 3:
        return Cell("records, bytes, reads", RIGHT)
    return Cell(", ".join(held) or "none", PARTLY if held else WRONG)


def expiry(subject: Subject, iterator: str) -> Cell:
    """Whether an iterator that is EXPIRY_SECONDS old is refused."""
    try:
        subject.kinesis.get_records(ShardIterator=iterator)
    except botocore.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        return Cell("after 5 minutes", RIGHT) if code == "ExpiredIteratorException" else Cell(f"{code}", PARTLY)
    return Cell("never", WRONG)


def subscribe(subject: Subject) -> Cell:
    """SubscribeToShard: a record of an open shard, then a closed shard to its end."""
    name, kinesis = subject.stream(), subject.kinesis
    kinesis.put_record(StreamName=name, Data=b"event", PartitionKey="k")
    summary = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    try:
        consumer = kinesis.register_stream_consumer(StreamARN=summary["StreamARN"], ConsumerName="probe")["Consumer"]
    except botocore.exceptions.ClientError:
        return Cell("no", WRONG)
    time.sleep(1)  # until it is ACTIVE
    opened, _ = _subscription(subject, consumer["ConsumerARN"])
    if opened is None:
        return Cell("no", WRONG)
    subject.split(name)
    time.sleep(5.1)  # a new call takes a subscription over from then on
    closed, ended = _subscription(subject, consumer["ConsumerARN"])
    faults = []
    if not opened or opened[0][0] != "initial-response":
        faults.append("no initial-response")
    if not any(event.get("Records") for _, event in opened):
        faults.append("no records")
    if closed is None:
        faults.append("no closed shards")
    else:
        if not any(event.get("ChildShards") for _, event in closed):
            faults.append("no ChildShards")
        if not ended:
            faults.append("a closed shard never ends")
    return Cell("; ".join(faults), PARTLY) if faults else Cell("right, closed shards too", RIGHT)


def _subscription(subject: Subject, consumer: str) -> tuple[list[tuple[str, dict[str, Any]]] | None, bool]:
    """Return the events that come within 2 seconds (None: it is refused), and whether the stream ended."""
    asked = {"ConsumerARN": consumer, "ShardId": FIRST, "StartingPosition": {"Type": "TRIM_HORIZON"}}
    body = json.dumps(asked).encode()
    connection = subject.raw.connection(timeout=2)
    try:
        connection.request("POST", "/", body, subject.raw.sign("SubscribeToShard", body))
        answer = connection.getresponse()
        if answer.status != 200 or "eventstream" not in answer.headers.get("Content-Type", ""):
            return None, False
        buffer, events, ended = EventStreamBuffer(), [], False
        deadline = time.monotonic() + 2
        with contextlib.suppress(TimeoutError):
            while not ended and time.monotonic() < deadline:
                part = answer.read1(65536)
                ended = not part
                buffer.add_data(part)
                for message in buffer:
                    kind = str(message.headers.get(":event-type", ""))
                    events.append((kind, json.loads(message.payload or b"{}")))
    except OSError:
        return None, False
    else:
        return events, ended
    finally:
        connection.close()


def cbor(subject: Subject) -> Cell:
    """The other wire form: bytes as bytes both ways, times as integer milliseconds."""
    name, data = subject.stream(), bytes(range(256))

    def call(operation: str, params: dict[str, Any]) -> Any:
        body = cbor2.dumps(params)
        status, headers, answer = subject.raw.send(subject.raw.sign(operation, body, content_type=CBOR), body)
        if status != 200 or headers.get("Content-Type") != CBOR:
            raise ValueError(f"HTTP {status}")
        return cbor2.loads(answer, semantic_decoders={1: lambda value, immutable: ("time", value)})

    try:
        call("PutRecord", {"StreamName": name, "Data": data, "PartitionKey": "k"})
        where = {"StreamName": name, "ShardId": FIRST, "ShardIteratorType": "TRIM_HORIZON"}
        iterator = call("GetShardIterator", where)["ShardIterator"]
        (record,) = call("GetRecords", {"ShardIterator": iterator})["Records"]
    except ValueError as error:
        return Cell("no", WRONG) if "HTTP" in str(error) else Cell("broken", WRONG)
    faults = []
    found = record["Data"]
    if found != data:
        as_text = isinstance(found, str) and found == base64.b64encode(data).decode()
        faults.append("Data as base64 text" if as_text else "Data as text" if isinstance(found, str) else "broken Data")
    try:
        (stored,) = subject.kinesis.get_records(ShardIterator=subject.iterator(name))["Records"]
        same = stored["Data"] == data
    except TypeError:  # boto3 finds no text in the place of base64
        same = False
    if not same:
        faults.append("JSON reads other bytes")
    arrival = record.get("ApproximateArrivalTimestamp")
    if not isinstance(arrival, tuple):
        faults.append("times without their tag")
    elif not (isinstance(arrival[1], int) and arrival[1] > 10**12):
        faults.append("times in seconds")
    return Cell("; ".join(faults), PARTLY) if faults else Cell("right", RIGHT)


def http2(subject: Subject) -> Cell:
    """A request over HTTP/2, without TLS (prior knowledge) and with it (ALPN)."""
    spoken = []
    with socket.create_connection(("127.0.0.1", subject.server.port), timeout=3) as plain:
        if _speaks_http2(plain):
            spoken.append("h2c")
    with contextlib.suppress(OSError, NotPossible), _tls_port(subject) as port:
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=3) as bare,
            context.wrap_socket(bare, server_hostname="localhost") as wrapped,
        ):
            if wrapped.selected_alpn_protocol() == "h2" and _speaks_http2(wrapped):
                spoken.append("TLS")
    return Cell(" and ".join(spoken) or "no", RIGHT if len(spoken) == 2 else PARTLY if spoken else WRONG)


def _speaks_http2(connection: socket.socket) -> bool:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    headers = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "127.0.0.1")]
    client.send_headers(1, [*headers, ("content-type", "application/x-amz-json-1.1")], end_stream=True)
    try:
        connection.sendall(client.data_to_send())
        while part := connection.recv(65536):
            for event in client.receive_data(part):
                if isinstance(event, h2.events.ResponseReceived):
                    return True
            connection.sendall(client.data_to_send())
    except (OSError, h2.exceptions.ProtocolError):
        pass
    return False


@contextlib.contextmanager
def _tls_port(subject: Subject) -> Iterator[int]:
    """A port with TLS: the second one of the server, or that of another process."""
    if subject.server.has_tls_port:
        yield subject.server.tls_port
        return
    with running(subject.server.name, tls=True, **subject.options) as other:
        yield other.port


def signatures(subject: Subject) -> Cell:
    """Whether wrong signatures are refused, by default or if configured."""
    if _checks(subject.raw):
        stale = subject.raw.sign("ListStreams", b"{}", now=time.time() - 1000)
        late = subject.raw.send(stale, b"{}")[0] != 200
        return Cell("yes, and its date" if late else "yes, not its date", RIGHT if late else PARTLY)
    if subject.server.name in ("moto", "ministack"):
        with running(subject.server.name, check_signatures=True, **subject.options) as strict:
            raw = Raw(Endpoint(strict.name, strict.url))
            changes: list[tuple[dict[str, Any], str]] = [
                ({"secret_access_key": "wrong"}, ""),
                ({"access_key_id": "wrong"}, ", the key id only"),
            ]
            for change, what in changes:
                status, _, body = raw.send(raw.sign("ListStreams", b"{}", **change), b"{}")
                if status != 200:
                    form = ", XML error" if body.lstrip().startswith(b"<") else ""
                    return Cell(f"if asked{what}{form}", PARTLY)
    bare = subject.raw.sign("ListStreams", b"{}")
    del bare["Authorization"]
    there = subject.raw.send(bare, b"{}")[0] != 200
    return Cell("that there is one" if there else "no", WRONG)


def _checks(raw: Raw) -> bool:
    wrong = raw.sign("ListStreams", b"{}", secret_access_key="wrong")
    return raw.send(wrong, b"{}")[0] != 200


def killed(subject: Subject) -> Cell:
    """How many of 200 acknowledged records are there after SIGKILL: half of them put 6 seconds before the others."""
    if subject.server.name == "moto":
        return Cell("keeps nothing", WRONG)
    with tempfile.TemporaryDirectory(prefix="kinstream-kill-") as folder:
        settings = {**subject.options, "data": Path(folder)}
        with running(subject.server.name, **settings) as server:
            first = Subject(server, {})
            first.kinesis.create_stream(StreamName="kept", ShardCount=1)
            first.until_active("kept")
            for pause in (6, 0):
                entries = [{"Data": b"x", "PartitionKey": "k"}] * 100
                first.kinesis.put_records(StreamName="kept", Records=entries)
                time.sleep(pause)
            server.kill()
        with running(subject.server.name, **settings) as server:
            again = Subject(server, {})
            try:
                found = len(again.kinesis.get_records(ShardIterator=again.iterator("kept"))["Records"])
            except botocore.exceptions.ClientError:
                found = 0
    if found == 200:
        return Cell("yes", RIGHT)
    return Cell("no" if found == 0 else f"{found} of 200 records: writes at times", PARTLY if found else WRONG)


PROBES: dict[str, Callable[[Subject], Cell]] = {
    "operations of the API": operations,
    "closed parent after a split": closed_parent,
    "ListShards filters": shard_filters,
    "ListShards paging": paging,
    "sequence numbers": sequence_numbers,
    "shard quotas": quotas,
    "SubscribeToShard": subscribe,
    "CBOR": cbor,
    "HTTP/2": http2,
    "signature checked": signatures,
    "survives SIGKILL": killed,
}
EXPIRY = "iterators expire"


def probed(probe: Callable[[Subject], Cell], subject: Subject) -> Cell:
    """Return the finding of a probe. An error in it is a finding too."""
    try:
        return probe(subject)
    except botocore.exceptions.ClientError as error:
        return Cell(f"fails: {error.response['Error']['Code']}", WRONG)
    except (OSError, botocore.exceptions.BotoCoreError, NotPossible, KeyError) as error:
        return Cell(f"fails: {type(error).__name__}", WRONG)
