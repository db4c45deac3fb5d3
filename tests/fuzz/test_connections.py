"""Ten thousand requests over sockets, plain and TLS, HTTP/1.1 and HTTP/2: answered or ended; nothing is left behind or lost.

The server has a process of its own and keeps its data on disk, so that its memory is its own and would be flat for ever.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.contract.clients.http2 import Ended, Http2
from tests.fuzz import http_1, http_2
from tests.fuzz.child import Child, serving
from tests.fuzz.damage import spoil, spoil_body
from tests.fuzz.nonsense import PUSHED, Nonsense
from tests.fuzz.signing import CBOR, JSON, sign

REQUESTS = int(os.environ.get("KINSTREAM_FUZZED_REQUESTS", "100000")) // 10
"""`make fuzz-local` has a million, of which these are a tenth too."""
FIRST_SEED = int(os.environ.get("KINSTREAM_SEED", "0"))
BATCH = 500
"""Requests of one seed."""
LIMITS = {
    "idle_timeout": 2.0,
    "saturated_idle_timeout": 1.0,
    "handshake_timeout": 2.0,
    "body_timeout": 2.0,
    "response_timeout": 2.0,
    "body_bytes": 1_048_576,
}
SOON = 15.0
"""Seconds after which a connection should long have been answered or ended."""
KEPT = "kept-whatever-is-asked"
ROOM = 48 * 2**20
FAILED = re.compile(rb"(?:^|\r\n)HTTP/1\.[01] 5(?!01|05)")
"""A failure. 501 and 505 are right for an encoding or a version that does not exist."""


class Clients:
    """Good and bad clients of one server, in one batch.

    Args:
        child: The server.
        seed: Of the batch.
        silent: Idle connections with the bytes that they sent, oldest first. The server must close them.
    """

    def __init__(self, child: Child, seed: int, silent: list[tuple[socket.socket, bytes]]) -> None:
        self.child = child
        self.random = random.Random(seed)
        self.cbor = seed % 2 == 1
        self.nonsense = Nonsense(seed, [f"fuzz-{n}" for n in range(4)], cbor=self.cbor, kept=KEPT, pushed=True)
        self.statuses: Counter[int] = Counter()
        self.ended = 0
        self.unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.unchecked.check_hostname = False
        self.unchecked.verify_mode = ssl.CERT_NONE
        self.http_2 = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.http_2.check_hostname = False
        self.http_2.verify_mode = ssl.CERT_NONE
        self.http_2.set_alpn_protocols(["h2"])
        self.silent = silent

    def run(self, requests: int) -> None:
        """Make `requests` requests, and perhaps a few more."""
        kinds = [self.steady_1, self.steady_2, self.damaged_1, self.damaged_2, self.no_tls]
        while self.made < requests:
            kind = self.random.choices(kinds, [10, 10, 100, 100, 5])[0]
            kind(self.child.tls_url if self.random.random() < 0.25 else self.child.url)

    @property
    def made(self) -> int:
        """Requests that were answered, and connections that were ended instead."""
        return self.statuses.total() + self.ended

    def request(self, host: str) -> tuple[dict[str, str], bytes]:
        """Return headers and body of a request, signed, with a body that may be damaged."""
        operation, params = self.nonsense.call()
        body = self.nonsense.encode(params)
        if self.random.random() < 0.3:
            body = spoil_body(self.random, body, cbor=self.cbor)
        return sign(operation, body, content_type=CBOR if self.cbor else JSON, host=host, now=time.time()), body

    def note(self, status: int, told: Any = None) -> None:
        """Count an answer."""
        assert status < 500 or status in (501, 505), told
        self.statuses[status] += 1

    def steady_1(self, url: str) -> None:
        """Make requests that are HTTP/1.1 on one connection: all are answered."""
        client = connected(url, self.unchecked)
        host = urlsplit(url).netloc
        for _ in range(20):
            signed, body = self.request(host)
            client.request("POST", "/", body, signed, encode_chunked=self.random.random() < 0.2)
            answer = client.getresponse()
            content = answer.read()
            self.note(answer.status, (signed, body[:1000], content))
            if answer.status == 200 and content and answer.headers["Content-Type"] == JSON:
                self.nonsense.learn(json.loads(content))
        client.close()

    def steady_2(self, url: str) -> None:
        """Make requests that are HTTP/2, several at once: all are answered."""
        with Http2(url, self.child.ca_file) as client:
            for _ in range(4):
                asked = []
                for _ in range(5):
                    signed, body = self.request(client.authority)
                    stream = client.start(signed, end=not body)
                    if body:
                        client.send(stream, body)
                    asked.append((stream, signed, body))
                self.random.shuffle(asked)
                for stream, signed, body in asked:
                    try:
                        status, _, content = client.finish(stream)
                    except Ended:
                        raise AssertionError(("it was not answered", signed, body[:1000])) from None
                    self.note(status, (signed, body[:1000], content))

    def damaged_1(self, url: str) -> None:
        """Send bytes that are not HTTP/1.1, or are hard to parse."""
        signed, body = self.request(urlsplit(url).netloc)
        received = self.talk(url, self.unchecked, http_1.damaged(self.random, signed, body))
        assert FAILED.search(received) is None, (signed, body[:1000], received[:1000])
        statuses = re.findall(rb"(?:^|[}\n>])HTTP/1\.[01] (\d{3})", received)
        for status in statuses:
            self.note(int(status))
        self.ended += not statuses

    def damaged_2(self, url: str) -> None:
        """Send bytes that are not HTTP/2, or are rare in it."""
        signed, body = self.request(urlsplit(url).netloc)
        said = http_2.Conversation(self.random, signed, body[:16_384], urlsplit(url).scheme).said()
        statuses = http_2.statuses(self.talk(url, self.http_2, said))
        for status in statuses:
            self.note(status, (signed, body[:1000], said[:3000].hex()))
        self.ended += not statuses

    def no_tls(self, url: str) -> None:
        """Send bytes that are not TLS, or are incomplete, to the TLS port."""
        signed, body = self.request(urlsplit(url).netloc)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self.unchecked.wrap_bio(incoming, outgoing).do_handshake()
        except ssl.SSLWantReadError:
            hello = outgoing.read()
        said = self.random.choice(
            [spoil(self.random, hello), hello, hello * 2, http_1.whole(signed, body), b"\x16\x03"]
        )
        self.talk(self.child.tls_url, None, said)
        self.ended += 1

    def talk(self, url: str, tls: ssl.SSLContext | None, said: bytes) -> bytes:
        """Say something in pieces, and hear the server out, or go away without a word."""
        parts = urlsplit(url)
        connection: socket.socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=SOON)
        if parts.scheme == "https" and tls is not None:
            connection = tls.wrap_socket(connection, server_hostname=parts.hostname)
        try:
            at = self.random.randrange(len(said) + 1) if self.random.random() < 0.3 else 0
            for piece in (said[:at], said[at:]):
                connection.sendall(piece)
        except OSError:
            return hear(connection, said)  # it has heard enough
        chance = self.random.random()
        if chance < 0.05:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            return b""
        if chance < 0.07:
            self.silent.append((connection, said))
            if len(self.silent) > 50:
                assert FAILED.search(hear(*self.silent.pop(0))) is None
            return b""
        try:
            if isinstance(connection, ssl.SSLSocket):
                socket.socket.shutdown(connection, socket.SHUT_WR)
            else:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return hear(connection, said)


def hear(connection: socket.socket, said: bytes) -> bytes:
    """Return all that a server says until it ends the connection, and close it. A server that does neither hangs."""
    received = b""
    connection.settimeout(SOON)
    with connection:
        try:
            while part := connection.recv(65536):
                received += part
        except TimeoutError:
            raise AssertionError(("neither answered nor ended", said[:3000], received[-1000:])) from None
        except OSError:
            pass
    return received


def connected(url: str, tls: ssl.SSLContext) -> HTTPConnection:
    """Return a client of HTTP/1.1."""
    host = urlsplit(url).netloc
    return (
        HTTPSConnection(host, timeout=SOON, context=tls)
        if url.startswith("https")
        else HTTPConnection(host, timeout=SOON)
    )


def ask(child: Child, operation: str, params: dict[str, Any]) -> Any:
    """Make a good request."""
    client = HTTPConnection(urlsplit(child.url).netloc, timeout=SOON)
    body = json.dumps(params).encode()
    client.request(
        "POST",
        "/",
        body,
        sign(operation, body, content_type=JSON, host=client.host + f":{client.port}", now=time.time()),
    )
    answer = client.getresponse()
    content = answer.read()
    client.close()
    assert answer.status == 200, content
    return json.loads(content or b"null")


def shorten(child: Child) -> None:
    """Let subscriptions end after an event, not after 5 minutes."""
    client = HTTPConnection(urlsplit(child.url).netloc, timeout=SOON)
    body = json.dumps({"operation": PUSHED, "after_events": 1, "end": {}})
    client.request("POST", "/_control/every", body, {"Authorization": "Bearer local"})
    assert client.getresponse().status == 201
    client.close()


def keep(child: Child) -> dict[str, list[tuple[str, str]]]:
    """Make the stream that must be the same afterwards; return its records by shard."""
    ask(child, "CreateStream", {"StreamName": KEPT, "ShardCount": 3})
    kept: dict[str, list[tuple[str, str]]] = {}
    for put in range(5):
        records = [{"Data": f"AA{put}{n:03}AA", "PartitionKey": f"{put}-{n}"} for n in range(100)]
        answer = ask(child, "PutRecords", {"StreamName": KEPT, "Records": records})
        for record, result in zip(records, answer["Records"], strict=True):
            kept.setdefault(result["ShardId"], []).append((result["SequenceNumber"], record["Data"]))
    return kept


def kept(child: Child) -> dict[str, list[tuple[str, str]]]:
    """Read it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for shard in ask(child, "ListShards", {"StreamName": KEPT})["Shards"]:
        place = {"StreamName": KEPT, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = ask(child, "GetShardIterator", place)["ShardIterator"]
        records = ask(child, "GetRecords", {"ShardIterator": iterator})["Records"]
        found[shard["ShardId"]] = [(record["SequenceNumber"], record["Data"]) for record in records]
    return found


def at_rest(child: Child, least: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the resources of a server after its last connections have closed. Waits until they are at most `least`."""
    until = time.monotonic() + SOON
    while True:
        held = child.held()
        enough = least is None or all(held[name] <= least[name] for name in ("tasks", "descriptors"))
        if enough or time.monotonic() > until:
            return held
        time.sleep(0.2)


@pytest.mark.timeout(600 + REQUESTS / 50)
def test_any_bytes_on_a_socket_get_a_response_or_close_it_and_leave_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    statuses: Counter[int] = Counter()
    ended = 0
    silent: list[tuple[socket.socket, bytes]] = []
    batches = max(1, REQUESTS // BATCH)
    with serving(tmp_path / "data", tls_port=0, transition=0, quotas=False, limits=LIMITS) as child:
        shorten(child)
        records = keep(child)
        fresh = at_rest(child)
        early: dict[str, Any] = fresh
        for number in range(batches):
            seed = FIRST_SEED + number
            clients = Clients(child, seed, silent)
            try:
                clients.run(BATCH)
                logged = "\n".join(child.held()["logged"])
                assert not logged, logged
            except BaseException:
                print(
                    f"seed {seed}: KINSTREAM_SEED={seed} begins with it; busy: {child.held()['busy']}", file=sys.stderr
                )
                raise
            statuses.update(clients.statuses)
            ended += clients.ended
            assert child.process.poll() is None
            if number == min(batches // 2, 40):
                early = child.held()
            if number % 20 == 19:
                print(f"seed {seed} done after {time.monotonic() - started:.0f} s", flush=True)
        for connection, said in silent:
            hear(connection, said)
        late = at_rest(child, fresh)
        assert kept(child) == records
    seeds = f"seeds {FIRST_SEED} to {FIRST_SEED + batches - 1}"
    told = f"{statuses.total()} answers, {ended} connections without one, {seeds}: {dict(sorted(statuses.items()))}"
    sizes = f"memory {early['memory'] // 2**20} then {late['memory'] // 2**20} MiB"
    print(f"{told}; {time.monotonic() - started:.0f} s; tasks {fresh['tasks']} then {late['tasks']}, {sizes}")
    assert statuses[200] > statuses.total() / 20, told
    assert (late["tasks"], late["descriptors"]) <= (fresh["tasks"], fresh["descriptors"]), (fresh, late)
    assert late["memory"] - early["memory"] < ROOM, told
