"""Errors in logs and error trackers. An error shown in full, with all variables, contains no data and no secret."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.doubles.frames import event
from tests.doubles.server import Peer, serving

import kinstream
from kinstream import (
    Batching,
    BufferLimits,
    Client,
    ConsumeError,
    Consumer,
    Credentials,
    DeliveryPolicy,
    EnhancedFanOut,
    ErrorPolicy,
    Event,
    HandlerFailed,
    KinesisError,
    ProduceError,
    Producer,
    Record,
    RecordsFailed,
    RequestTimedOut,
    RetryPolicy,
    Timeouts,
    Undelivered,
    WireFormat,
    blocking,
    callbacks,
)
from kinstream.local import Server

CANARY = "-".join(("no", "canary", "sings"))  # put together, for tracebacks show source lines
TOLD = (
    CANARY,
    base64.b64encode(b"   " + CANARY.encode())[4:-4].decode(),
    base64.b64encode(CANARY.encode())[:-4].decode(),
)
NOWHERE: dict[str, Any] = {
    "endpoint_url": "http://127.0.0.1:1",
    "region": "us-east-1",
    "credentials": Credentials("AKID", CANARY, CANARY),
    "retry": RetryPolicy(max_attempts=1),
}


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it holds: causes, contexts, members."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and one not in found:
            found.append(one)
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return found


def shown(error: BaseException) -> str:
    """Return all that can be shown of an error, but for the variables of this file's own frames."""
    text = []
    for one in chain(error):
        text += [repr(one), str(one)]
        whole = traceback.TracebackException.from_exception(one, capture_locals=True)
        assert "".join(whole.format())
        for frame in whole.stack:
            if frame.filename != __file__:
                text.append(f"{frame.name}: {frame.locals}")
    return "\n".join(text)


def check(error: BaseException) -> None:
    text = shown(error)
    lines = [line[:400] for line in text.splitlines() if any(told in line for told in TOLD)]
    assert not lines, lines


def caught(function: Callable[[], object]) -> BaseException:
    """Return the error that a function raises, or that its coroutine raises when awaited."""
    try:
        result = function()
        if asyncio.iscoroutine(result):
            asyncio.run(result)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


# Records that are put


class Odd:
    def __repr__(self) -> str:
        return CANARY


ODD: Any = Odd()


def failing(data: object) -> str:
    raise RuntimeError(f"{data!r} {CANARY}")


class Bad(str):
    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        raise UnicodeEncodeError("utf-8", CANARY, 0, 1, CANARY)


def circular() -> list[Any]:
    data: list[Any] = [CANARY]
    data.append(data)
    return data


def released() -> memoryview:
    view = memoryview(CANARY.encode())
    view.release()
    return view


RECORDS: dict[str, Callable[[], Any]] = {
    "json with a lone surrogate": lambda: Record({"name": f"{CANARY} \ud800"}, "k"),
    "json of an unknown type": lambda: Record({CANARY: Odd()}, "k"),
    "json with a value that is not a number": lambda: Record({CANARY: float("nan")}, "k"),
    "json that is circular": lambda: Record(circular(), "k"),
    "text with a lone surrogate": lambda: Record(f"{CANARY} \ud800", "k"),
    "encoder that fails": lambda: Record({CANARY: 1}, "k", encoder=failing),
    "encoder that gives a lone surrogate": lambda: Record([CANARY], "k", encoder=lambda data: f"{data} \ud800"),
    "encoder that gives something else": lambda: Record([CANARY], "k", encoder=lambda data: data),
    "encoder that is not callable": lambda: Record([CANARY], "k", encoder=ODD),
    "text that cannot be encoded": lambda: Record([1], "k", encoder=lambda _: Bad("x")),
    "memory that was released": lambda: Record(released(), "k"),
    "key with a lone surrogate": lambda: Record(CANARY.encode(), "k \ud800"),
    "key that is too long": lambda: Record(CANARY.encode(), "k" * 257),
    "wrong hash key": lambda: Record(CANARY.encode(), "k", "-1"),
    "too large": lambda: Record(CANARY.encode() * 1_000_000, "k"),
}
PIECES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "text with a lone surrogate": lambda: (f"{CANARY} \ud800", "k"),
    "something else": lambda: ({CANARY: ODD}, "k"),
    "a tuple": lambda: ((CANARY, "k"), None),
    "the boto3 form": lambda: ({"Data": CANARY, "PartitionKey": "k"}, None),
    "too large": lambda: (CANARY * 1_000_000, "k"),
    "key with a lone surrogate": lambda: (CANARY, "k \ud800"),
    "wrong key": lambda: (CANARY, 1),
    "record with a separate key": lambda: (Record(CANARY, "k"), "k"),
}


async def in_asyncio(act: Callable[[Any], Any], **options: Any) -> None:
    options = {"delivery": DeliveryPolicy(timeout=0.2), **options}
    async with Producer("s", **NOWHERE, **options) as producer:
        await act(producer)


def in_threads(act: Callable[[Any], Any], **options: Any) -> None:
    options = {"delivery": DeliveryPolicy(timeout=0.2), **options}
    with blocking.Producer("s", **NOWHERE, **options) as producer:
        act(producer)


def in_callbacks(act: Callable[[Any, Any], Any], **options: Any) -> None:
    options = {"delivery": DeliveryPolicy(timeout=0.2), **options}
    outcome: list[Any] = []
    told = threading.Event()

    def callback(error: Any, *_: object) -> None:
        outcome.append(error)
        told.set()

    with callbacks.Producer(
        "us-east-1", "AKID", CANARY, "s", endpoint_url=NOWHERE["endpoint_url"], **options
    ) as producer:
        act(producer, callback)
        told.wait()
    if outcome[0] is not None:
        raise outcome[0]


WAYS: dict[str, Callable[[Any], Any]] = {
    "asyncio put_record": lambda record: in_asyncio(lambda p: p.put_record(record())),
    "asyncio put_records": lambda record: in_asyncio(lambda p: p.put_records([Record(b"x", "k"), record()])),
    "asyncio put": lambda record: in_asyncio(lambda p: p.put(record())),
    "asyncio put_many": lambda record: in_asyncio(lambda p: p.put_many([record()])),
    "asyncio put_and_wait": lambda record: in_asyncio(lambda p: p.put_and_wait(record())),
    "blocking put_and_wait": lambda record: in_threads(lambda p: p.put_and_wait(record())),
    "blocking put_record": lambda record: in_threads(lambda p: p.put_record(record())),
    "blocking put_records": lambda record: in_threads(lambda p: p.put_records([Record(b"x", "k"), record()])),
    "blocking put": lambda record: in_threads(lambda p: p.put(record())),
    "blocking put_many": lambda record: in_threads(lambda p: p.put_many([record()])),
    "callbacks put_record": lambda record: in_callbacks(lambda p, c: p.put_record(record(), c)),
    "callbacks put_records": lambda record: in_callbacks(lambda p, c: p.put_records([record()], c)),
    "callbacks put": lambda record: in_callbacks(lambda p, c: p.put(record(), None, c)),
}
WAYS_OF_PIECES: dict[str, Callable[[Any], Any]] = {
    "asyncio put": lambda pair: in_asyncio(lambda p: p.put(*pair())),
    "asyncio put_and_wait": lambda pair: in_asyncio(lambda p: p.put_and_wait(*pair())),
    "blocking put_and_wait": lambda pair: in_threads(lambda p: p.put_and_wait(*pair())),
    "asyncio put_many": lambda pair: in_asyncio(lambda p: p.put_many([("x", "k"), pair()])),
    "blocking put": lambda pair: in_threads(lambda p: p.put(*pair())),
    "blocking put_many": lambda pair: in_threads(lambda p: p.put_many([("x", "k"), pair()])),
    "callbacks put": lambda pair: in_callbacks(lambda p, c: p.put(*pair(), c)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("record", RECORDS)
def test_record_that_cannot_be_put_is_not_shown(way: str, record: str) -> None:
    error = caught(lambda: WAYS[way](RECORDS[record]))
    assert isinstance(error, KinesisError)
    check(error)


@pytest.mark.parametrize("way", WAYS_OF_PIECES)
@pytest.mark.parametrize("pair", PIECES)
def test_data_that_cannot_be_put_is_not_shown(way: str, pair: str) -> None:
    error = caught(lambda: WAYS_OF_PIECES[way](PIECES[pair]))
    assert isinstance(error, KinesisError)
    check(error)


@pytest.mark.parametrize("style", ["asyncio", "blocking", "callbacks"])
@pytest.mark.parametrize("many", [False, True])
def test_refusal_by_a_full_buffer_shows_no_data(style: str, many: bool) -> None:
    options: dict[str, Any] = {
        "buffer": BufferLimits(max_records=1, max_bytes=2000, when_full="raise"),
        "delivery": DeliveryPolicy(timeout=0.2),
    }
    text = CANARY * 50

    async def put(producer: Any) -> None:
        for _ in range(3):
            await (producer.put_many([(text, "k")]) if many else producer.put(text, "k"))

    def put_blocking(producer: Any) -> None:
        for _ in range(3):
            producer.put_many([(text, "k")]) if many else producer.put(text, "k")

    def put_callbacks(producer: Any, callback: Any) -> None:
        for _ in range(3):
            producer.put(text, "k", callback)

    ways: dict[str, Callable[[], object]] = {
        "asyncio": lambda: in_asyncio(put, **options),
        "blocking": lambda: in_threads(put_blocking, **options),
        "callbacks": lambda: in_callbacks(put_callbacks, **options),
    }
    error = caught(ways[style])
    assert isinstance(error, KinesisError)
    check(error)


@pytest.mark.parametrize("act", ["put", "put_many", "put_record", "put_records"])
@pytest.mark.parametrize("style", ["asyncio", "blocking"])
def test_producer_that_is_closed_shows_no_data(style: str, act: str) -> None:
    arguments: dict[str, Any] = {
        "put": (CANARY, "k"),
        "put_many": ([(CANARY, "k")],),
        "put_record": (Record(CANARY, "k"),),
        "put_records": ([Record(CANARY, "k")],),
    }

    async def in_a_loop() -> None:
        producer = Producer("s", **NOWHERE)
        await producer.close()
        await getattr(producer, act)(*arguments[act])

    def in_a_thread() -> None:
        producer = blocking.Producer("s", **NOWHERE)
        producer.close()
        getattr(producer, act)(*arguments[act])

    check(caught(in_a_loop if style == "asyncio" else in_a_thread))


def test_records_that_are_not_delivered_are_not_shown() -> None:
    async def write() -> None:
        async with Producer("s", delivery=DeliveryPolicy(timeout=0.2), **NOWHERE) as producer:
            for n in range(3):
                await producer.put(CANARY, f"k{n}")

    async def wait() -> None:
        async with Producer("s", delivery=DeliveryPolicy(timeout=0.2), **NOWHERE) as producer:
            await (await producer.put(CANARY, "k"))

    check(caught(write))
    check(caught(wait))


# Requests


@pytest.mark.parametrize("wire", ["json", "cbor"])
@pytest.mark.parametrize(
    "params",
    [{"Data": f"{CANARY} \ud800"}, {"Data": CANARY, "More": Odd()}, {CANARY: float("nan")}, {"Data": [CANARY] * 3}],
)
@pytest.mark.parametrize("style", ["asyncio", "blocking"])
def test_parameters_are_not_shown(style: str, params: dict[str, Any], wire: str) -> None:
    async def ask() -> None:
        async with Client(wire_format=WireFormat(wire), **NOWHERE) as client:
            await client.call("PutRecord", params)

    def ask_blocking() -> None:
        with blocking.Client(wire_format=WireFormat(wire), **NOWHERE) as client:
            client.call("PutRecord", params)

    error = caught(ask if style == "asyncio" else ask_blocking)
    assert isinstance(error, KinesisError)
    check(error)


def page(data: str, more: bytes = b"") -> bytes:
    return (
        b'{"Records":[{"Data":"%b","SequenceNumber":"1","ApproximateArrivalTimestamp":1.5}]%b,"MillisBehindLatest":0}'
        % (
            base64.b64encode(data.encode()),
            more,
        )
    )


def response(
    body: bytes, status: int = 200, kind: str = "application/x-amz-json-1.1", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, kind.encode(), size, body)


RESPONSES: dict[str, bytes] = {
    "broken off": response(page(CANARY), length=1000),
    "no json": response(page(CANARY)[:-5]),
    "wrong shape": response(page(CANARY, b',"NextShardIterator":7')),
    "no utf-8": response(page(CANARY, b',"NextShardIterator":"\xff"')),
    "text": response(CANARY.encode(), kind="text/html"),
    "no cbor": response(b"\xa1" + CANARY.encode(), kind="application/x-amz-cbor-1.1"),
    "refusal": response(json.dumps({"__type": "Foo", "message": "no", "Data": CANARY}).encode(), 400),
    "fault": response(CANARY.encode(), 500, "text/html"),
    "no http": CANARY.encode() + b"\r\n\r\n",
}


async def ask_behind(reply: bytes, ask: Callable[[Client], Awaitable[object]], **options: Any) -> BaseException:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)

    async with serving(script) as server:
        given = {**NOWHERE, "endpoint_url": f"http://127.0.0.1:{server.port}", **options}
        async with Client(timeouts=Timeouts(progress=2, call=5), **given) as client:
            try:
                await ask(client)
            except KinesisError as error:
                return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("reply", RESPONSES)
@pytest.mark.parametrize("wire", ["json", "cbor"])
async def test_responses_are_not_shown(reply: str, wire: str) -> None:
    async def read(client: Client) -> object:
        return await Consumer("s", client=client).get_records("iterator")

    async def ask(client: Client) -> object:
        return await client.call("GetRecords", {"ShardIterator": "i"})

    for way in (read, ask):
        if way is ask and reply == "wrong shape":
            continue
        if wire == "cbor" and "cbor" not in reply:
            continue
        check(await ask_behind(RESPONSES[reply], way, wire_format=wire))


@pytest.mark.parametrize("reply", RESPONSES)
async def test_requests_are_not_shown(reply: str) -> None:
    async def put(client: Client) -> object:
        producer = Producer("s", client=client)
        return await producer.put_records([Record(CANARY, "k")])

    check(await ask_behind(RESPONSES[reply], put))


EVENT = event({
    "Records": [{"Data": base64.b64encode(CANARY.encode()).decode(), "SequenceNumber": "1", "ApproximateArrivalTimestamp": 1.0}],
    "ContinuationSequenceNumber": "1", "MillisBehindLatest": 0,
})  # fmt: skip
WRONG_SHAPE = event({"Records": [{"Data": base64.b64encode(CANARY.encode()).decode()}]})
SUBSCRIPTIONS = {
    "broken off": EVENT[:-9],
    "damaged": EVENT[:-6] + b"oops" + EVENT[-2:],
    "wrong shape": WRONG_SHAPE,
    "no events": CANARY.encode() * 3,
    "no json": EVENT[:0] + event([CANARY]),
    "large": struct.pack("!III", 2**31, 0, 0) + CANARY.encode(),
}


@pytest.mark.parametrize("stream", SUBSCRIPTIONS)
async def test_events_are_not_shown(stream: str) -> None:
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:1"

    async def read(client: Client) -> object:
        async with await client.subscribe(arn, "shardId-000000000000", "LATEST") as events:
            return [item async for item in events]

    reply = response(SUBSCRIPTIONS[stream], kind="application/vnd.amazon.eventstream", length=10_000)
    check(await ask_behind(reply, read))


@pytest.mark.parametrize(
    "data", [f"{CANARY}", f'{{"a": "{CANARY}", "b": NaN}}', f'{{"a": {"9" * 5000}, "{CANARY}": 1}}']
)
def test_data_that_is_no_json_is_not_shown(data: str) -> None:
    record = kinstream.ReceivedRecord(data.encode(), "1", 1.0)
    check(caught(record.json))


async def test_data_that_is_no_json_is_not_shown_by_callbacks() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(page(CANARY)))

    outcome: list[Any] = []
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def callback(error: Any, *_: object) -> None:
        outcome.append(error)
        loop.call_soon_threadsafe(told.set)

    async with serving(script) as server:
        consumer = callbacks.Consumer("us-east-1", "AKID", CANARY, "s", endpoint_url=f"http://127.0.0.1:{server.port}")
        consumer.get_records({"shard_iterator": "i"}, callback)
        await told.wait()
        await asyncio.to_thread(consumer.close)
    assert isinstance(outcome[0], KinesisError)
    check(outcome[0])


# Secrets


@pytest.mark.parametrize(
    "arguments",
    [("AKID", f"{CANARY} x"), ("AKID", f"{CANARY}\n"), ("AKID", "x", f"{CANARY} x"), (f"{CANARY} x", "x"), (1, CANARY),
     ("A", [CANARY]), ("A", CANARY, None, "soon"), ("A", CANARY, CANARY, -1)],
)  # fmt: skip
def test_credentials_that_are_wrong_are_not_shown(arguments: tuple[Any, ...]) -> None:
    error = caught(lambda: Credentials(*arguments))
    assert isinstance(error, KinesisError)
    check(error)


@pytest.mark.parametrize(
    "wrong", [("us-east-1", "AKID", f"{CANARY} x", "s"), ("us-east-1", "AKID", CANARY, ""), ("", "A", CANARY, "s")]
)
@pytest.mark.parametrize("kind", ["producer", "consumer"])
def test_account_of_callbacks_is_not_shown(wrong: tuple[str, str, str, str], kind: str) -> None:
    outcome: list[Any] = []
    told = threading.Event()

    def callback(error: Any, *_: object) -> None:
        outcome.append(error)
        told.set()

    if kind == "producer":
        with callbacks.Producer(*wrong) as producer:
            producer.put_record(Record("x", "k"), callback)
            told.wait()
    else:
        with callbacks.Consumer(*wrong) as consumer:
            consumer.get_shards(callback)
            told.wait()
    check(outcome[0])


@pytest.mark.parametrize(
    "options", [{"proxy": f"http://u:{CANARY}@proxy:port"}, {"proxy": f"http://u:{CANARY}@p", "max_idle": -1}]
)
def test_proxy_with_a_password_is_not_shown(options: dict[str, Any]) -> None:
    check(caught(lambda: kinstream.ConnectionOptions(**options)))


@pytest.mark.parametrize("url", [f"https://user:{CANARY}@host", f"https://user:{CANARY}@host:port"])
def test_endpoint_with_a_password_is_not_quoted(url: str) -> None:
    error = caught(lambda: Client(endpoint_url=url))
    assert not [one for one in chain(error) if CANARY in repr(one)]


async def test_credentials_of_a_process_that_talks_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    told = tmp_path / "told"
    for said in (
        CANARY,
        f'{{"Version": 1, "SecretAccessKey": "{CANARY}"}}',
        f'{{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "{CANARY} x"}}',
        f'{{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "x", "SessionToken": "{CANARY}", "Expiration": "soon"}}',
        f'{{"Version": 9, "AccessKeyId": "A", "SecretAccessKey": "{CANARY}"}}',
    ):
        told.write_text(said)
        config.write_text(f"[default]\ncredential_process = cat {told}\n")
        async with Client(region="us-east-1", endpoint_url="http://127.0.0.1:1") as client:
            with pytest.raises(KinesisError) as raised:
                await client.call("ListStreams", {})
        error = raised.value
        text = shown(error)
        assert CANARY not in text.replace(str(told), "")


async def test_provider_that_fails_can_be_shown() -> None:
    async def provider() -> Credentials:
        raise RuntimeError("no")

    async with Client(**{**NOWHERE, "credentials": provider}) as client:
        with pytest.raises(KinesisError) as raised:
            await client.call("ListStreams", {})
    check(raised.value)


async def test_subscription_that_cannot_connect_can_be_shown() -> None:
    async with Client(**NOWHERE) as client:
        with pytest.raises(KinesisError) as raised:
            await client.subscribe(
                "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:1", "shardId-000000000000", "LATEST"
            )
        check(raised.value)
        async with Consumer("s", client=client, fetch=EnhancedFanOut(consumer_name="c")) as consumer:
            with pytest.raises(KinesisError) as raised:
                await consumer.get_shards()
        check(raised.value)


@pytest.mark.parametrize("wrong", ["", 1, None])
@pytest.mark.parametrize(
    "make",
    [
        lambda wrong: Client(region=wrong or "?"),
        lambda wrong: Client(endpoint_url=wrong or "?", region="us-east-1"),
        lambda wrong: blocking.Client(region=wrong or "?"),
        Producer,
        Consumer,
        blocking.Producer,
        blocking.Consumer,
        kinstream.SQLiteLeaseStore,
        lambda wrong: Server(host=wrong),
        lambda wrong: kinstream.ConnectionOptions(proxy=wrong or "?"),
        lambda wrong: blocking.Producer("s", region=wrong or "?"),
        lambda wrong: Consumer("s", application=wrong or "?"),
        lambda wrong: Batching(linger=wrong or -1),
    ],
)
def test_error_of_a_constructor_can_be_shown(make: Callable[[Any], object], wrong: Any) -> None:
    try:
        make(wrong)
    except Exception as error:
        check(error)


@pytest.mark.parametrize("style", ["asyncio", "blocking"])
def test_errors_of_objects_that_are_not_made_whole_can_be_shown(style: str) -> None:
    made = Producer if style == "asyncio" else blocking.Producer
    with pytest.raises(KinesisError) as raised:
        made("a stream")
    check(raised.value)


# Records that are read


@pytest.mark.parametrize("style", ["asyncio", "batches", "blocking", "iterated"])
def test_record_that_a_handler_fails_on_is_not_shown(style: str) -> None:
    with Server(transition=0, quotas=False) as server:
        given: dict[str, Any] = {
            "region": server.region, "endpoint_url": server.url, "credentials": Credentials("local", "local"),
        }  # fmt: skip
        with blocking.Client(**given) as client:
            client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        with blocking.Producer("s", aggregate=kinstream.Aggregation(), **given) as producer:
            producer.put_many([(CANARY, "k")] * 20).results()
        reading: dict[str, Any] = {
            "start": "TRIM_HORIZON",
            "until": "now",
            "errors": ErrorPolicy(max_attempts=1),
            **given,
        }

        def handle(_: object) -> None:
            raise RuntimeError("no")

        async def consume() -> None:
            async with Consumer("s", **reading) as consumer:
                await (consumer.run_batches(handle) if style == "batches" else consumer.run(handle))

        async def iterate() -> None:
            async with Consumer("s", **reading) as consumer:
                async for record in consumer:
                    record.json()

        def in_a_thread() -> None:
            with blocking.Consumer("s", **reading) as consumer:
                consumer.run(handle)

        ways: dict[str, Callable[[], object]] = {
            "asyncio": consume, "batches": consume, "blocking": in_a_thread, "iterated": iterate,
        }  # fmt: skip
        check(caught(ways[style]))


# Events


def check_event(seen: Event) -> None:
    assert CANARY not in repr(seen)
    error = getattr(seen, "error", None)
    if error is None:
        return
    assert isinstance(error, BaseException)
    for one in chain(error):
        assert one.__traceback__ is None, one
        assert not isinstance(one, ProduceError), one
        assert getattr(one, "http_response", None) is None
        assert not [name for name, value in vars(one).items() if CANARY in repr(value)]
    check(error)


@pytest.mark.parametrize("order", ["key", None])
async def test_events_of_records_that_are_not_written_have_the_cause_without_data(order: Literal["key"] | None) -> None:
    seen: list[Event] = []
    quick = DeliveryPolicy(timeout=0.2)
    async with Client(**NOWHERE) as client:
        producer = Producer("s", order=order, delivery=quick, client=client, observer=seen.append)
        for _ in range(3):
            await producer.put(CANARY, "k")
        with pytest.raises(Undelivered):
            await producer.close()
    failures = [one for one in seen if isinstance(one, RecordsFailed)]
    assert {type(one.error) for one in failures} == {RequestTimedOut}
    for one in seen:
        check_event(one)


@pytest.mark.parametrize("reply", RESPONSES)
async def test_events_of_failed_requests_have_the_error_without_data(reply: str) -> None:
    seen: list[Event] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(RESPONSES[reply])

    async with serving(script) as server:
        given = {**NOWHERE, "endpoint_url": f"http://127.0.0.1:{server.port}"}
        async with Client(timeouts=Timeouts(progress=1, call=2), **given) as client:
            quick = DeliveryPolicy(timeout=0.5)
            producer = Producer("s", order=None, delivery=quick, client=client, observer=seen.append)
            await producer.put(CANARY, "k")
            with pytest.raises(Undelivered):
                await producer.close()
    assert [one for one in seen if isinstance(one, RecordsFailed)]
    for one in seen:
        check_event(one)


@pytest.mark.parametrize("then", ["stop", "skip", "dead letter"])
@pytest.mark.parametrize("style", ["run", "run_batches"])
async def test_events_of_failed_handlers_have_the_exception_without_data(style: str, then: str) -> None:
    seen: list[Event] = []

    def refuse(record: Any, _: object) -> None:
        raise ProduceError("refused", Record(record.data, "k")) from RuntimeError("no space")

    def handle(argument: Any) -> None:
        (record,) = list(argument) if style == "run_batches" else [argument]
        error = caught(lambda: refuse(record, None))
        assert isinstance(error, ProduceError)
        raise ExceptionGroup("two", [error, ValueError("one")]) from error

    with Server(transition=0, quotas=False) as server:
        given: dict[str, Any] = {
            "region": server.region, "endpoint_url": server.url, "credentials": Credentials("local", "local"),
        }  # fmt: skip
        async with Client(**given) as client:
            await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
            async with Producer("s", client=client) as producer:
                await producer.put(CANARY, "k")
            failing_twice: Any = refuse if then == "dead letter" else then
            async with Consumer(
                "s", client=client, start="TRIM_HORIZON", until="now", observer=seen.append,
                errors=ErrorPolicy(max_attempts=1, then=failing_twice),
            ) as consumer:  # fmt: skip
                with nullcontext() if then == "skip" else pytest.raises(ConsumeError) as raised:
                    await getattr(consumer, style)(handle)
                if raised is not None:
                    assert raised.value.__cause__ is not None
                    assert raised.value.__cause__.__traceback__ is not None  # the caller still sees where it was raised
    (failed,) = [one for one in seen if isinstance(one, HandlerFailed)]
    assert type(failed.error) is (RuntimeError if then == "dead letter" else ExceptionGroup)
    assert "no space" in repr(chain(failed.error))
    for one in seen:
        check_event(one)
