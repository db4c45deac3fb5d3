"""End, throughput and idle events of a subscription, by the clock of the server, which the cases advance."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from tests.contract.clients.subscriber import SHARD, TRIM_HORIZON, Events, Subscriber, records, register, until
from tests.contract.servers.reach import Endpoint

from kinstream.local import Limits, Server
from kinstream.testing import ManualClock

LATEST = {"Type": "LATEST"}
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["memory", "disk"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data") if request.param == "disk" else None
    with Server(transition=0, data_dir=data) as server:
        yield server


@pytest.fixture(scope="module")
def kinesis(server: Server) -> Any:
    return Endpoint("ours", server.url).boto3()


NUMBERS = count()


@pytest.fixture
def name(kinesis: Any, server: Server) -> str:
    """A stream of one shard. Quotas are on, and are full again for each case."""
    server.advance(60)
    name = f"stream-{next(NUMBERS)}"
    kinesis.create_stream(StreamName=name, ShardCount=1)
    return name


def put(kinesis: Any, name: str, *datas: bytes) -> None:
    for data in datas:
        kinesis.put_record(StreamName=name, Data=data, PartitionKey="k")


def failure(events: Events) -> tuple[str, str]:
    with pytest.raises(botocore.exceptions.EventStreamError) as caught:
        until(events, lambda _: False)
    error = caught.value.response["Error"]
    return str(error["Code"]), str(error["Message"])


def code(call: Any, *arguments: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(*arguments)
    return str(caught.value.response["Error"]["Code"])


def test_subscription_ends_after_five_minutes(server: Server, kinesis: Any, name: str, subscribe: Subscriber) -> None:
    events = subscribe(kinesis, register(kinesis, name))
    next(events)
    server.advance(298)
    put(kinesis, name, b"1")
    assert records(events, 1)[0]["Data"] == b"1"
    server.advance(3)
    assert until(events, lambda _: False) == []


def test_later_subscription_replaces_the_old_one_and_the_old_one_gets_an_error(
    server: Server, kinesis: Any, name: str, subscribe: Subscriber
) -> None:
    consumer = register(kinesis, name)
    old = subscribe(kinesis, consumer)
    next(old)
    server.advance(4.5)
    assert code(subscribe, kinesis, consumer) == "ResourceInUseException"
    server.advance(1.5)
    new = subscribe(kinesis, consumer)
    text = f"Another active subscription exists for this consumer: 000000000000:{name}:{SHARD}:app"
    assert failure(old) == ("ResourceInUseException", text)
    put(kinesis, name, b"1")
    assert records(new, 1)[0]["Data"] == b"1"


def test_five_seconds_apply_after_the_first_subscription_has_ended(
    server: Server, kinesis: Any, name: str, subscribe: Subscriber
) -> None:
    consumer = register(kinesis, name)
    subscribe(kinesis, consumer)
    subscribe.close()
    assert code(subscribe, kinesis, consumer) == "ResourceInUseException"
    server.advance(5)
    assert next(subscribe(kinesis, consumer))["Records"] == []


def test_call_soon_after_a_refused_one_exceeds_the_limit(
    server: Server, kinesis: Any, name: str, subscribe: Subscriber
) -> None:
    consumer = register(kinesis, name)
    subscribe(kinesis, consumer)
    server.advance(4.6)
    assert code(subscribe, kinesis, consumer) == "ResourceInUseException"
    server.advance(0.5)
    assert code(subscribe, kinesis, consumer) == "LimitExceededException"
    server.advance(1)
    subscribe(kinesis, consumer)


def test_each_shard_of_each_consumer_can_be_subscribed_immediately(kinesis: Any, subscribe: Subscriber) -> None:
    kinesis.create_stream(StreamName="wide", ShardCount=5)
    for consumer in [register(kinesis, "wide", app) for app in ("first", "second")]:
        for shard in range(5):
            subscribe(kinesis, consumer, f"shardId-{shard:012}")


def test_idle_subscription_is_pushed_an_empty_event_every_five_seconds(
    server: Server, kinesis: Any, name: str, subscribe: Subscriber
) -> None:
    put(kinesis, name, b"1")
    events = subscribe(kinesis, register(kinesis, name), position=LATEST)
    first = next(events)
    for _ in range(3):
        server.advance(5)
        assert next(events) == first
    number = {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": first["ContinuationSequenceNumber"]}
    assert records(subscribe(kinesis, register(kinesis, name, "b"), position=number), 1)[0]["Data"] == b"1"


def test_consumer_receives_at_most_two_mebibytes_a_second(subscribe: Subscriber) -> None:
    clock = ManualClock()
    with Server(clock=clock, transition=0) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        kinesis.create_stream(StreamName="events", ShardCount=1)
        consumers = [register(kinesis, "events", app) for app in ("a", "b", "c")]
        put(kinesis, "events", *[bytes(MIB - 1)] * 9)
        # Each consumer has a quota of its own, and its first second's worth at once: the clock stands still.
        a, *_ = all_events = [subscribe(kinesis, consumer) for consumer in consumers]
        assert [len(next(events)["Records"]) for events in all_events] == [2, 2, 2]
        came: list[float] = []
        reading = threading.Thread(
            target=lambda: came.extend(clock.monotonic() for _ in zip(range(3), a, strict=False))
        )
        began = clock.monotonic()
        reading.start()
        while reading.is_alive():
            clock.advance(0.1)
            reading.join(0.02)
    assert [moment - began > 0.99 * number for number, moment in enumerate(came, 1)] == [True] * 3


def test_shard_that_closes_without_a_request_ends_its_subscription(subscribe: Subscriber) -> None:
    """No other request arrives, so the subscription itself must notice."""
    with Server(transition=0.2) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        kinesis.create_stream(StreamName="events", ShardCount=1)
        time.sleep(0.25)
        events = subscribe(kinesis, register(kinesis, "events"))
        next(events)
        kinesis.split_shard(StreamName="events", ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
        assert len(until(events, lambda _: False)[-1]["ChildShards"]) == 2


def test_consumer_that_is_not_active_cannot_subscribe() -> None:
    with Server(transition=3600, clock=ManualClock(tick=True)) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        kinesis.create_stream(StreamName="events", ShardCount=1)
        server.advance(3600)
        consumer = kinesis.register_stream_consumer(
            StreamARN="arn:aws:kinesis:us-east-1:000000000000:stream/events", ConsumerName="app"
        )["Consumer"]["ConsumerARN"]
        ask = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": TRIM_HORIZON}
        with pytest.raises(kinesis.exceptions.ResourceInUseException, match=r"app .* is not in ACTIVE status"):
            kinesis.subscribe_to_shard(**ask)
        server.advance(3600)
        kinesis.subscribe_to_shard(**ask)["EventStream"].close()
        kinesis.deregister_stream_consumer(ConsumerARN=consumer)
        with pytest.raises(kinesis.exceptions.ResourceInUseException):
            kinesis.subscribe_to_shard(**ask)


def test_advanced_clock_ends_and_paces_subscriptions(subscribe: Subscriber) -> None:
    clock = ManualClock()
    with Server(clock=clock, transition=0) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        kinesis.create_stream(StreamName="events", ShardCount=1)
        events = subscribe(kinesis, register(kinesis, "events"))
        assert next(events) == next(_advanced(clock, 5, events))
        clock.advance(300)
        assert until(events, lambda _: False) == []


def _advanced(clock: ManualClock, seconds: float, events: Events) -> Events:
    clock.advance(seconds)
    return events


def test_stopping_ends_all_subscriptions_immediately(tmp_path: Path, subscribe: Subscriber) -> None:
    server = Server(
        transition=0, data_dir=tmp_path, limits=Limits(stop_timeout=3600)
    ).start()  # no client is waited for
    kinesis = Endpoint("ours", server.url).boto3()
    kinesis.create_stream(StreamName="events", ShardCount=20)
    consumer = register(kinesis, "events")
    all_events = [subscribe(kinesis, consumer, f"shardId-{shard:012}") for shard in range(20)]
    for events in all_events:
        next(events)
    server.stop()
    assert [until(events, lambda _: False) for events in all_events] == [[]] * 20


def test_records_survive_a_restart_and_are_pushed_after_it(tmp_path: Path, subscribe: Subscriber) -> None:
    with Server(transition=0, data_dir=tmp_path) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        kinesis.create_stream(StreamName="events", ShardCount=1)
        consumer = register(kinesis, "events")
        put(kinesis, "events", b"1")
        last = records(subscribe(kinesis, consumer), 1)[0]["SequenceNumber"]
        put(kinesis, "events", b"2")
    with Server(transition=0, data_dir=tmp_path) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        position = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": last}
        events = subscribe(kinesis, consumer, position=position)
        assert records(events, 1)[0]["Data"] == b"2"
        writing = threading.Thread(target=put, args=(kinesis, "events", b"3"))
        writing.start()
        assert records(events, 1)[0]["Data"] == b"3"
        writing.join()
