"""Subscriptions over both versions of HTTP, plain and with TLS, JSON and CBOR, and clients that do not read or disconnect."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import h2.events
import h2.settings
import pytest
from botocore.eventstream import EventStreamBuffer
from hyperframe.frame import GoAwayFrame
from tests.contract.clients.http2 import Ended, Http2
from tests.contract.clients.subscriber import CBOR, SHARD, TRIM_HORIZON, Pushed, Subscriber, register
from tests.contract.servers.reach import JSON, Endpoint, Raw

from kinstream.local import Limits, Server

MIB = 1024 * 1024
NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with both ports."""
    with Server(tls_port=0, transition=0, quotas=False) as server:
        yield server


@pytest.fixture(scope="module")
def kinesis(server: Server) -> Any:
    return Endpoint("ours", server.url).boto3()


@pytest.fixture(params=["plain", "tls"])
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return server.url if request.param == "plain" else str(server.tls_url)


def make(kinesis: Any, shards: int = 1) -> str:
    name = f"stream-{next(NUMBERS)}"
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    return name


def request(consumer: str, shard: int = 0, kind: str = "TRIM_HORIZON") -> dict[str, Any]:
    return {"ConsumerARN": consumer, "ShardId": f"shardId-{shard:012}", "StartingPosition": {"Type": kind}}


def put(kinesis: Any, name: str, data: bytes) -> Any:
    return kinesis.put_record(StreamName=name, Data=data, PartitionKey="k")


@pytest.mark.parametrize("content_type", [JSON, CBOR], ids=["json", "cbor"])
def test_events_are_encoded_in_the_format_of_the_request(
    server: Server, kinesis: Any, url: str, content_type: str
) -> None:
    name = make(kinesis)
    consumer = register(kinesis, name)
    number = put(kinesis, name, bytes(range(256)))["SequenceNumber"]
    kinesis.split_shard(StreamName=name, ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
    with Http2(url, server.ca_file) as client:
        first, last = list(Pushed(client, Raw(Endpoint("http/2", url)), content_type, request(consumer)))
    kind = "application/json" if content_type == JSON else CBOR
    headers = {":message-type": "event", ":content-type": kind}
    assert first == (headers | {":event-type": "initial-response"}, {})
    assert last[0] == headers | {":event-type": "SubscribeToShardEvent"}
    (record,) = last[1].pop("Records")
    arrived = record.pop("ApproximateArrivalTimestamp")
    assert abs((arrived if content_type == JSON else arrived / 1000) - time.time()) < 60
    data = bytes(range(256))
    assert record.pop("Data") == (data if content_type == CBOR else base64.b64encode(data).decode())
    assert record == {"SequenceNumber": number, "PartitionKey": "k", "EncryptionType": "NONE"}
    assert [child["ShardId"] for child in last[1].pop("ChildShards")] == [f"shardId-{n:012}" for n in (1, 2)]
    assert last[1] == {"MillisBehindLatest": 0}


@pytest.mark.parametrize("content_type", [JSON, CBOR], ids=["json", "cbor"])
def test_exception_event_is_encoded_in_the_format_of_the_request(
    server: Server, kinesis: Any, url: str, content_type: str
) -> None:
    name = make(kinesis)
    consumer = register(kinesis, name)
    with Http2(url, server.ca_file) as client:
        messages = iter(Pushed(client, Raw(Endpoint("http/2", url)), content_type, request(consumer)))
        assert [next(messages)[0][":event-type"] for _ in range(2)] == ["initial-response", "SubscribeToShardEvent"]
        kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
        ((headers, payload),) = list(messages)
    kind = "application/json" if content_type == JSON else CBOR
    expected = {":message-type": "exception", ":exception-type": "ResourceNotFoundException", ":content-type": kind}
    assert headers == expected
    assert payload == {"message": f"Stream {name} under account 000000000000 not found."}


def test_refused_subscription_has_a_plain_error_response(server: Server, kinesis: Any, url: str) -> None:
    raw = Raw(Endpoint("http/2", url))
    body = json.dumps(request(register(kinesis, make(kinesis)), shard=9)).encode()
    with Http2(url, server.ca_file) as client:
        status, headers, answer = client.ask(raw.sign("SubscribeToShard", body), body)
    assert (status, headers["content-type"]) == (400, JSON)
    assert json.loads(answer)["__type"] == "ResourceNotFoundException"


def test_many_subscriptions_share_a_connection(server: Server, kinesis: Any, url: str) -> None:
    """A connection has 100 streams: 2 x 100 shards, each written to while all are read."""
    name = make(kinesis, 200)
    consumer = register(kinesis, name)
    raw = Raw(Endpoint("http/2", url))
    with Http2(url, server.ca_file) as one, Http2(url, server.ca_file) as two:
        clients = [one] * 100 + [two] * 100
        pushed = [Pushed(client, raw, JSON, request(consumer, shard)) for shard, client in enumerate(clients)]
        readers = [iter(one_of_them) for one_of_them in pushed]
        for reader in readers:
            assert next(reader)[0][":event-type"] == "initial-response"
            assert next(reader)[1]["Records"] == []
        shards = kinesis.list_shards(StreamName=name)["Shards"]
        keys = [shard["HashKeyRange"]["StartingHashKey"] for shard in shards]
        records = [{"Data": key.encode(), "PartitionKey": "k", "ExplicitHashKey": key} for key in keys]
        kinesis.put_records(StreamName=name, Records=records)
        found = [next(reader)[1]["Records"] for reader in readers]
        assert [len(records) for records in found] == [1] * 200
        assert _subscriptions(server) >= 200
    _until(lambda: _subscriptions(server) == 0)


def _subscriptions(server: Server) -> int:
    """Return how many subscriptions a server has, each of which is a task with all that it holds."""
    return len(server._subscriptions or ())


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_disconnected_client_frees_its_subscription(server: Server, kinesis: Any, url: str) -> None:
    consumer = register(kinesis, make(kinesis, 4))
    raw = Raw(Endpoint("http/2", url))
    with Http2(url, server.ca_file) as staying, Http2(url, server.ca_file) as going:
        reset = Pushed(staying, raw, JSON, request(consumer, 0))
        stays = iter(Pushed(staying, raw, JSON, request(consumer, 1)))
        goes = iter(Pushed(going, raw, JSON, request(consumer, 2)))
        http_1 = raw.connection()
        body = json.dumps(request(consumer, 3)).encode()
        http_1.request("POST", "/", body, raw.sign("SubscribeToShard", body))
        answer = http_1.getresponse()
        assert (answer.headers["Transfer-Encoding"], answer.headers["Content-Length"]) == ("chunked", None)
        for reader in (iter(reset), stays, goes):
            next(reader)
        assert _subscriptions(server) == 4
        staying.h2.reset_stream(reset.stream)
        staying.flush()
        going.socket.close()
        answer.close()
        http_1.close()
        _until(lambda: _subscriptions(server) == 1)
        assert next(stays)[1]["Records"] == []
    _until(lambda: _subscriptions(server) == 0)


def test_client_that_sent_goaway_receives_its_subscription_to_the_end(server: Server, kinesis: Any, url: str) -> None:
    """The AWS SDK for JavaScript says GOAWAY as soon as its subscription has begun."""
    name = make(kinesis)
    consumer = register(kinesis, name)
    with Http2(url, server.ca_file) as client:
        reader = iter(Pushed(client, Raw(Endpoint("http/2", url)), JSON, request(consumer)))
        next(reader), next(reader)
        client.socket.sendall(GoAwayFrame(last_stream_id=0).serialize())
        put(kinesis, name, b"1")
        assert len(next(reader)[1]["Records"]) == 1
        kinesis.split_shard(StreamName=name, ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
        assert [len(event["ChildShards"]) for _, event in reader] == [2]
        with pytest.raises(Ended):
            client.receive()


def test_client_that_sent_goaway_without_a_request_in_flight_is_disconnected(server: Server, url: str) -> None:
    for code in (0, 1):
        with Http2(url, server.ca_file) as client:
            client.ask(Raw(Endpoint("http/2", url)).sign("ListStreams", b"{}"), b"{}")
            client.socket.sendall(GoAwayFrame(last_stream_id=0, error_code=code).serialize())
            with pytest.raises(Ended):  # noqa: PT012
                while True:
                    client.receive()


class Lazy(Http2):
    """A client with a small window that it does not enlarge."""

    def __init__(self, url: str, ca_file: Any, window: int) -> None:
        super().__init__(url, ca_file)
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.flush()

    def receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise Ended
        self.events += self.h2.receive_data(data)
        self.flush()


def test_client_that_does_not_read_costs_one_event(server: Server, kinesis: Any, url: str) -> None:
    """24 MiB are ready. The server buffers only the event that its client does not read."""
    name = make(kinesis)
    consumer = register(kinesis, name)
    for _ in range(24):
        put(kinesis, name, bytes(MIB - 1))
    raw = Raw(Endpoint("http/2", url))
    with server.every("SubscribeToShard").watch(), Lazy(url, server.ca_file, 1000) as client:
        before = _resident()
        pushed = Pushed(client, raw, JSON, request(consumer))
        while sum(len(event.data) for event in client.events if hasattr(event, "data")) < 1000:
            client.receive()
        for _ in range(200):
            put(kinesis, name, b"awake")  # each is a reason to look again
        assert _resident() - before < 20 * MIB
        assert _subscriptions(server) == 1
        # It reads at its own pace. No event is lost, and it continues at its position.
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        client.h2.increment_flow_control_window(2**31 - 1 - 65535)
        client.flush()
        records = 0
        buffer = EventStreamBuffer()
        while records < 224:
            for event in client.events:
                if isinstance(event, h2.events.DataReceived) and event.stream_id == pushed.stream:
                    client.h2.increment_flow_control_window(len(event.data))
                    buffer.add_data(event.data)
            client.events.clear()
            records += sum(len(json.loads(message.payload).get("Records", [])) for message in buffer)
            if records < 224:
                client.receive()
    _until(lambda: _subscriptions(server) == 0)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def test_subscription_of_a_client_that_does_not_read_ends_without_others(kinesis: Any) -> None:
    """At the end the client has a moment to read. Then the stream is reset, and others on the connection continue."""
    with Server(transition=0, quotas=False, limits=Limits(response_timeout=0.2)) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        name = make(kinesis, 2)
        consumer = register(kinesis, name)
        keys = [shard["HashKeyRange"]["StartingHashKey"] for shard in kinesis.list_shards(StreamName=name)["Shards"]]
        put_record = {"StreamName": name, "PartitionKey": "k"}
        kinesis.put_record(Data=bytes(100_000), ExplicitHashKey=keys[0], **put_record)
        with Lazy(server.url, None, 4000) as client:
            raw = Raw(Endpoint("http/2", server.url))
            stuck = Pushed(client, raw, JSON, request(consumer, 0))
            other = iter(Pushed(client, raw, JSON, request(consumer, 1)))
            next(other), next(other)
            server.advance(6)
            taking = iter(Pushed(client, raw, JSON, request(consumer, 0, "LATEST")))
            next(taking), next(taking)
            with pytest.raises(Ended):
                list(stuck)
            kinesis.put_record(Data=b"1", ExplicitHashKey=keys[1], **put_record)
            kinesis.put_record(Data=b"2", ExplicitHashKey=keys[0], **put_record)
            for reader in (other, taking):
                while not next(reader)[1]["Records"]:
                    continue  # it is pushed empty events too
            assert _subscriptions(server) == 2


def test_http_1_client_that_does_not_read_is_disconnected_after_its_subscription(subscribe: Subscriber) -> None:
    with Server(transition=0, quotas=False, limits=Limits(response_timeout=0.2)) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        name = make(kinesis)
        consumer = register(kinesis, name)
        for _ in range(10):
            put(kinesis, name, bytes(MIB - 1))
        raw = Raw(Endpoint("http/1.1", server.url))
        body = json.dumps(request(consumer)).encode()
        connection = raw.connection()
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.request("POST", "/", body, raw.sign("SubscribeToShard", body))
        _until(lambda: _subscriptions(server) == 1)
        time.sleep(0.3)
        assert _subscriptions(server) == 1  # the limit for responses does not apply while it is open
        kinesis.deregister_stream_consumer(ConsumerARN=consumer)
        _until(lambda: _subscriptions(server) == 0)
        connection.close()


def test_stopping_ends_each_stream(tmp_path: Path) -> None:
    with Server(transition=0, limits=Limits(stop_timeout=3600), data_dir=tmp_path) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        consumer = register(kinesis, make(kinesis, 3))
        client = Http2(server.url)
        raw = Raw(Endpoint("http/2", server.url))
        readers = [iter(Pushed(client, raw, JSON, request(consumer, shard))) for shard in range(3)]
        for reader in readers:
            next(reader), next(reader)
    with client, pytest.raises(Ended):  # noqa: PT012
        while True:
            client.receive()
    assert sum(isinstance(event, h2.events.StreamEnded) for event in client.events) == 3


def test_server_stops_while_a_client_does_not_read() -> None:
    with Server(transition=0, quotas=False, limits=Limits(response_timeout=3600, stop_timeout=3600)) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        name = make(kinesis)
        put(kinesis, name, bytes(MIB - 1))
        client = Lazy(server.url, None, 100)
        Pushed(client, Raw(Endpoint("http/2", server.url)), JSON, request(register(kinesis, name)))
        client.receive()
    client.socket.close()


def test_subscription_is_not_idle_for_its_connection(kinesis: Any) -> None:
    with Server(transition=0, quotas=False, limits=Limits(idle_timeout=1, saturated_idle_timeout=1)) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        name = make(kinesis)
        consumer = register(kinesis, name)
        raw = Raw(Endpoint("http/2", server.url))
        with Http2(server.url) as client:
            reader = iter(Pushed(client, raw, JSON, request(consumer)))
            next(reader), next(reader)
            time.sleep(1.5)
            put(Endpoint("ours", server.url).boto3(), name, b"1")
            assert len(next(reader)[1]["Records"]) == 1


def _curl_speaks_http_2() -> bool:
    curl = shutil.which("curl")
    return curl is not None and "HTTP2" in subprocess.run([curl, "--version"], capture_output=True, text=True).stdout


@pytest.mark.skipif(not _curl_speaks_http_2(), reason="no curl that speaks HTTP/2")
@pytest.mark.parametrize("option", ["--http1.1", "--http2", "--http2-prior-knowledge"])
def test_curl_reads_a_subscription(server: Server, kinesis: Any, url: str, option: str) -> None:
    name = make(kinesis)
    consumer = register(kinesis, name)
    put(kinesis, name, b"1")
    kinesis.split_shard(StreamName=name, ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
    body = json.dumps({"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": TRIM_HORIZON}).encode()
    headers = Raw(Endpoint("curl", url)).sign("SubscribeToShard", body)
    arguments = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = ["curl", "-s", "--cacert", str(server.ca_file), option, *arguments, "--data-binary", "@-", f"{url}/"]
    told = subprocess.run(command, input=body, capture_output=True, timeout=50, check=True)
    buffer = EventStreamBuffer()
    buffer.add_data(told.stdout)
    payloads = [json.loads(message.payload) for message in buffer]
    assert payloads[0] == {}
    assert payloads[1]["Records"][0]["Data"] == "MQ=="
    assert len(payloads[1]["ChildShards"]) == 2
