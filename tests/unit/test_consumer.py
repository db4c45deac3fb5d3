"""Consumer over a scripted network: pages of shards, start positions, and options that are refused before any I/O."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from tests.doubles.transport import ScriptedTransport, answer

from kinstream import (
    ClosedError,
    ConfigError,
    Consumer,
    Credentials,
    EnhancedFanOut,
    ErrorPolicy,
    MemoryLeaseStore,
    Polling,
    Position,
    Producer,
    ShardIteratorType,
    UnexpectedResponse,
    UsageError,
    blocking,
)
from kinstream.aws.transport import Response

FIRST = "shardId-000000000000"


def consumer_on(*script: Response | Exception, **changes: Any) -> tuple[Consumer, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    consumer = Consumer(
        "events",
        region="us-east-1",
        credentials=Credentials("key", "secret"),
        endpoint_url="http://127.0.0.1:1",
        transport=transport,
        **changes,
    )
    return consumer, transport


def page(first: int, last: int, token: str | None) -> Response:
    shards = [
        {
            "ShardId": f"shardId-{n:012}",
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"} | ({"EndingSequenceNumber": "2"} if n % 2 else {}),
        }
        for n in range(first, last)
    ]
    return answer({"Shards": shards} | ({"NextToken": token} if token else {}))


async def test_get_shards_asks_for_page_after_page() -> None:
    consumer, transport = consumer_on(page(0, 1000, "one"), page(1000, 2000, "two"), page(2000, 2345, None))
    shards = await consumer.get_shards()
    assert [shard.shard_id for shard in shards] == [f"shardId-{n:012}" for n in range(2345)]
    assert [shard.closed for shard in shards[:4]] == [False, True, False, True]
    assert [sent.json for sent in transport.sent] == [
        {"StreamName": "events"}, {"NextToken": "one"}, {"NextToken": "two"},
    ]  # fmt: skip


async def test_page_that_names_itself_is_an_error_not_a_hang() -> None:
    consumer, transport = consumer_on(page(0, 10, "same"))
    with pytest.raises(UnexpectedResponse, match="NextToken"):
        await consumer.get_shards()
    assert len(transport.sent) == 2


@pytest.mark.parametrize(
    ("type_", "options", "sent"),
    [
        (ShardIteratorType.TRIM_HORIZON, {}, {}),
        ("LATEST", {}, {}),
        ("AT_SEQUENCE_NUMBER", {"starting_sequence_number": "7"}, {"StartingSequenceNumber": "7"}),
        ("AFTER_SEQUENCE_NUMBER", {"starting_sequence_number": "0"}, {"StartingSequenceNumber": "0"}),
        ("AT_TIMESTAMP", {"timestamp": 1.5}, {"Timestamp": 1.5}),
        ("AT_TIMESTAMP", {"timestamp": 0}, {"Timestamp": 0}),
        ("AT_TIMESTAMP", {"timestamp": datetime(1970, 1, 1, 0, 1, tzinfo=UTC)}, {"Timestamp": 60}),
        (
            "AT_TIMESTAMP",
            {"timestamp": datetime(1970, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=1)))},
            {"Timestamp": 0},
        ),
    ],
)
async def test_place_to_read_from_is_said_in_the_apis_words(
    type_: Any, options: dict[str, Any], sent: dict[str, Any]
) -> None:
    consumer, transport = consumer_on(answer({"ShardIterator": "A"}))
    assert await consumer.get_shard_iterator(FIRST, type_, **options) == "A"
    expected = {"StreamName": "events", "ShardId": FIRST, "ShardIteratorType": str(type_), **sent}
    assert transport.sent[0].json == expected


@pytest.mark.parametrize(
    ("shard_id", "type_", "options"),
    [
        (None, "LATEST", {}),
        ("", "LATEST", {}),
        ("a b", "LATEST", {}),
        (FIRST, "NEWEST", {}),
        (FIRST, None, {}),
        (FIRST, "LATEST", {"timestamp": 1}),
        (FIRST, "TRIM_HORIZON", {"starting_sequence_number": "1"}),
        (FIRST, "AT_SEQUENCE_NUMBER", {}),
        (FIRST, "AT_SEQUENCE_NUMBER", {"starting_sequence_number": "1", "timestamp": 1}),
        (FIRST, "AFTER_SEQUENCE_NUMBER", {"starting_sequence_number": 1}),
        (FIRST, "AFTER_SEQUENCE_NUMBER", {"starting_sequence_number": "1x"}),
        (FIRST, "AT_TIMESTAMP", {}),
        (FIRST, "AT_TIMESTAMP", {"timestamp": "now"}),
        (FIRST, "AT_TIMESTAMP", {"timestamp": True}),
        (FIRST, "AT_TIMESTAMP", {"timestamp": -1}),
        (FIRST, "AT_TIMESTAMP", {"timestamp": float("nan")}),
        (FIRST, "AT_TIMESTAMP", {"timestamp": float("inf")}),
        (FIRST, "AT_TIMESTAMP", {"timestamp": 1e12}),
        (FIRST, "AT_TIMESTAMP", {"timestamp": datetime(2026, 1, 1)}),  # noqa: DTZ001 - no time zone is the point
    ],
)
async def test_wrong_place_to_read_from_is_refused_before_any_io(
    shard_id: Any, type_: Any, options: dict[str, Any]
) -> None:
    consumer, transport = consumer_on(answer({"ShardIterator": "A"}))
    with pytest.raises(ConfigError):
        await consumer.get_shard_iterator(shard_id, type_, **options)
    assert transport.sent == []


@pytest.mark.parametrize(
    ("iterator", "limit"),
    [(None, None), ("", None), (5, None), *(("A", limit) for limit in (0, -1, 10_001, 1.0, "1", True))],
)
async def test_wrong_read_is_refused_before_any_io(iterator: Any, limit: Any) -> None:
    consumer, transport = consumer_on(answer({"Records": [], "MillisBehindLatest": 0}))
    with pytest.raises(ConfigError):
        await consumer.get_records(iterator, limit)
    assert transport.sent == []


async def test_end_of_a_closed_shard_is_a_value() -> None:
    child = {
        "ShardId": "shardId-000000000003",
        "ParentShards": ["shardId-000000000001", FIRST],
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "9"},
    }
    consumer, transport = consumer_on(answer({"Records": [], "MillisBehindLatest": 0, "ChildShards": [child]}))
    read = await consumer.get_records("A", 10)
    assert (read.records, read.next_shard_iterator) == ([], None)
    assert read.child_shards[0].parent_shards == ["shardId-000000000001", FIRST]
    assert read.child_shards[0].hash_key_range.ending_hash_key == "9"
    assert transport.sent[0].json == {"ShardIterator": "A", "Limit": 10}


async def test_closed_is_closed() -> None:
    consumer, transport = consumer_on(answer({"ShardIterator": "A"}))
    async with consumer:
        await consumer.get_shard_iterator(FIRST, "LATEST")
    for asking in (
        consumer.get_shards(),
        consumer.get_shard_iterator(FIRST, "LATEST"),
        consumer.get_records("A"),
    ):
        with pytest.raises(ClosedError):
            await asking
    assert len(transport.sent) == 1


class Nothing:
    """Is no store."""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"observer": 5}, "observer: must be a function of an event or None, not int"),
        ({"application": "app", "lease_store": Nothing()}, "lease_store: must be a store such as"),
        ({"application": "app", "lease_store": MemoryLeaseStore}, "lease_store: must be a store such as"),
        ({"application": "app"}, "application, lease_store: must be given together"),
        (
            {"application": "my app", "lease_store": MemoryLeaseStore(), "fetch": EnhancedFanOut()},
            "EnhancedFanOut.consumer_name='my app': must be 1 to 128",
        ),
        ({"start": {}}, "start={}: must name at least one shard"),
        ({"start": {FIRST: "TRIM_HORIZON", "*": "at 5"}}, "start['*']='at 5/0': is a position in one shard"),
        ({"start": {FIRST: "TRIM_HORIZON", "*": "SHARD_END"}}, "start['*']='SHARD_END': is a position in one shard"),
        ({"start": {FIRST: "after 5/x"}}, f"start[{FIRST!r}]='after 5/x': must be the text of a position"),
        ({"start": {FIRST: Position("OLDEST")}}, "sequence_number='OLDEST': must be decimal"),
        ({"start": {FIRST: Position("5", -1)}}, "subsequence_number=-1: must be"),
        ({"start": Position("AT_TIMESTAMP")}, "AT_TIMESTAMP requires a timestamp"),
        ({"start": Position("TRIM_HORIZON", timestamp=5.0)}, "AT_TIMESTAMP requires a timestamp"),
        ({"start": Position("LATEST", timestamp=-5.0)}, "start=-5.0: must be seconds since 1970"),
        (
            {"start": "OLDEST"},
            "start='OLDEST': must be the text of a position: 'TRIM_HORIZON', 'LATEST', 'SHARD_END', 'at SEQ",
        ),
        ({"until": "tomorrow"}, "until='tomorrow': must be 'now', seconds since 1970, or a datetime"),
        ({"until": True}, "until=True: must be"),
        (
            {"start": 20.0, "until": 10.0},
            "until: 1970-01-01 00:00:10.000+00:00 is before start, 1970-01-01 00:00:20",
        ),
        (
            {"start": {FIRST: 5.0, "b": 20.0}, "until": 10.0},
            "00:00:10.000+00:00 is before start, 1970-01-01 00:00:20",
        ),
        ({"misrouted": None}, "misrouted=None: must be 'drop' or 'keep'"),
        ({"checkpoints": "auto"}, "checkpoints='auto': must be a kinstream.Checkpoints or 'manual'"),
        (
            {"fetch": Polling},
            "fetch: must be a kinstream.Polling, a kinstream.EnhancedFanOut or a kinstream.PreferFanOut, not type",
        ),
    ],
)
def test_wrong_option_is_refused_at_once_and_the_message_says_what_goes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        Consumer("events", **options)


CHOICES = {
    "fleet": "a kinstream.Fleet",
    "fetch": "a kinstream.Polling, a kinstream.EnhancedFanOut or a kinstream.PreferFanOut",
    "handling": "a kinstream.Handling",
    "errors": "a kinstream.ErrorPolicy",
    "checkpoints": "a kinstream.Checkpoints or 'manual'",
    "misrouted": "'drop' or 'keep'",
}
"""The options that cannot be turned off, and the values that they accept."""


@pytest.mark.parametrize("kind", [Consumer, blocking.Consumer])
def test_option_without_an_off_state_refuses_none_and_lists_its_choices(kind: Any) -> None:
    options = {name: p.default for name, p in inspect.signature(kind).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert {name for name, default in options.items() if default is not None} == CHOICES.keys()
    for name, choices in CHOICES.items():
        with pytest.raises(ConfigError, match=f"^{re.escape(f'{name}=None: must be {choices}')}$"):
            kind("events", **{name: None})
    kind("events", region="eu-central-1", **{name: None for name in options if name not in CHOICES})


async def test_handler_that_is_no_function_is_refused_before_any_io() -> None:
    consumer, transport = consumer_on(answer({}))
    for run in consumer.run, consumer.run_batches:
        with pytest.raises(ConfigError, match="handler: must be a function, not int"):
            await run(5)  # type: ignore[arg-type]
    assert transport.sent == []


def _generator(record: object) -> Iterator[None]:
    yield


async def _async_generator(record: object) -> AsyncIterator[None]:
    yield


async def _coroutine(event: object) -> None:
    pass


class _Generator:
    def __call__(self, record: object) -> Iterator[None]:
        yield


NEVER_RUN: list[Any] = [_generator, _async_generator, _Generator(), functools.partial(_generator, None)]


@pytest.mark.parametrize("handler", NEVER_RUN)
async def test_handler_whose_body_would_never_run_is_refused_before_any_io(handler: Any) -> None:
    consumer, transport = consumer_on(answer({}))
    for run in consumer.run, consumer.run_batches:
        with pytest.raises(ConfigError, match=r"^handler: must be a function, not a generator function, whose body"):
            await run(handler)
    with pytest.raises(ConfigError, match=r"^ErrorPolicy\.then: must be .*, not a generator function, whose body"):
        ErrorPolicy(then=handler)
    assert transport.sent == []


@pytest.mark.parametrize("kind", [Consumer, Producer])
@pytest.mark.parametrize("observer", [*NEVER_RUN, _coroutine, functools.partial(_coroutine, None)])
def test_observer_whose_body_would_never_run_is_refused(kind: Any, observer: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^observer: must be a function of an event or None, not a (gen|cor)\w+ function"
    ):
        kind("events", region="eu-central-1", observer=observer)


def test_coroutine_function_can_receive_dead_letters() -> None:
    async def dead(record: object, error: Exception) -> None:
        pass

    assert ErrorPolicy(then=dead).then == dead


@pytest.mark.parametrize(
    ("streams", "options", "said"),
    [
        ([], {}, "stream=[]: must be the name or ARN of a stream, or a list of at least one"),
        (["orders", "or/ders"], {}, "stream='or/ders': must be a stream name"),
        (["orders", 5], {}, "stream=5: must be a stream name"),
        (["orders", "orders"], {}, "stream: the streams of one consumer must have different names, not orders, orders"),
        (["orders"], {"application": None, "lease_store": None}, "must be given with a list of streams"),
        (["orders"], {"start": {FIRST: "LATEST"}}, "must be the name of one of the streams, a colon and a shard's id"),
        (["orders"], {"start": {f"clicks:{FIRST}": "LATEST"}}, f"such as 'orders:{FIRST}'"),
        (["orders", "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"], {}, "eu-west-1"),
    ],
)
def test_wrong_list_of_streams_is_refused(streams: Any, options: dict[str, Any], said: str) -> None:
    given = {"application": "app", "lease_store": MemoryLeaseStore(), "region": "us-east-1", **options}
    with pytest.raises(ConfigError, match=re.escape(said)):
        Consumer(streams, **given)


async def test_single_requests_are_refused_by_a_consumer_of_a_list() -> None:
    options: dict[str, Any] = {"application": "app", "lease_store": MemoryLeaseStore(), "region": "us-east-1"}
    async with Consumer(["orders", "clicks"], **options) as consumer:
        assert repr(consumer) == "Consumer(['orders', 'clicks'])"
        for request in (
            consumer.get_shards(),
            consumer.get_shard_iterator(FIRST, "LATEST"),
            consumer.get_records("iterator"),
        ):
            with pytest.raises(UsageError, match=r"^get_\w+: this Consumer reads a list of streams"):
                await request
