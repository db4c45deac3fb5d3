"""Enhanced fan-out against the local Kinesis: nothing lost and nothing twice, whatever ends a subscription."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from kinstream import Client, ConnectionOptions, Credentials, WireFormat
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.config import EnhancedFanOut
from kinstream.consume.fetch.fanout import MAX_UNEXPECTED, FanOutFetcher
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import LATEST, TRIM_HORIZON, Position
from kinstream.errors import (
    AccessDenied,
    ConfigError,
    FanOutRefused,
    KinesisError,
    LimitExceeded,
    NotFound,
    RequestTimedOut,
    ResourceInUse,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from kinstream.events import ConsumerRegistered, Event, FetchFailed, Resubscribed, Subscribed
from kinstream.local import Server
from kinstream.record import Shard
from kinstream.testing.clock import ManualClock

STREAM = "orders"
Inject = Callable[[Any], Any]


class Story:
    """A stream of one server, a client of it, and a fetcher that reads it. They share a clock."""

    def __init__(self, server: Server, clock: ManualClock, client: Client) -> None:
        self.server = server
        self.clock = clock
        self.client = client
        self.events: list[Event] = []
        self.fetcher = self.fetcher_of("billing")

    def fetcher_of(self, name: str) -> FanOutFetcher:
        return FanOutFetcher(self.client, Stream.parse(STREAM), EnhancedFanOut(consumer_name=name), self.events.append)

    async def shards(self) -> list[Shard]:
        return await all_shards(self.client, Stream.parse(STREAM))

    async def put(self, *numbers: int, key: str = "k") -> None:
        for number in numbers:
            params = {"StreamName": STREAM, "Data": b"%d" % number, "PartitionKey": key}
            await self.client.call("PutRecord", params)

    async def passes(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, second by second, so that all timers in it fire."""
        for _ in range(round(seconds)):
            if until():
                return
            self.clock.advance(1)
            await self.client.call("DescribeStreamSummary", {"StreamName": STREAM})  # the server has seen the time
            await asyncio.sleep(0.005)

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


class Reading:
    """A task that reads a shard."""

    def __init__(self, story: Story, shard: Shard, position: Position = TRIM_HORIZON) -> None:
        self.numbers: list[int] = []
        self.pages: list[Page] = []
        self.story = story
        self.task = asyncio.ensure_future(self._read(shard, position))

    async def _read(self, shard: Shard, position: Position) -> None:
        async with aclosing(self.story.fetcher.read(shard, position)) as pages:
            async for page in pages:
                self.pages.append(page)
                self.numbers += [int(record.data) for record in page.records]

    async def has(self, count: int, *, within: float = 120) -> None:
        """Wait until `count` records were read."""
        await self.story.passes(within, lambda: len(self.numbers) >= count or self.task.done())
        async with asyncio.timeout(15):
            while len(self.numbers) < count and not self.task.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        if self.task.done():
            self.task.result()

    async def begins(self) -> None:
        """Wait until it is subscribed and has heard something."""
        while not self.pages:
            await asyncio.sleep(0.01)
            assert not self.task.done() or self.task.result() is None

    async def ends(self) -> None:
        await self.story.passes(600, self.task.done)
        await self.task

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def telling(
    *, shards: int = 1, scheme: str = "plain", wire: str = "json", **options: Any
) -> AsyncIterator[Story]:
    clock = ManualClock(tick=True)
    tls = {"tls_port": 0} if scheme == "tls" else {}
    given: dict[str, Any] = {"transition": 0, "clock": clock, **tls, **options}
    with Server(**given) as server:
        connection = ConnectionOptions(ca_bundle=server.ca_file)
        url = server.tls_url or server.url
        keys = Credentials(server.access_key_id, server.secret_access_key)
        async with Client(
            region=server.region,
            endpoint_url=url,
            credentials=keys,
            connection=connection,
            clock=clock,
            wire_format=WireFormat(wire),
        ) as client:
            await client.call("CreateStream", {"StreamName": STREAM, "ShardCount": shards})
            yield Story(server, clock, client)


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    """HTTP/2 and CBOR; tests of their own story have HTTP/1.1 and JSON."""
    async with telling(scheme="tls", wire="cbor") as story:
        yield story


# A subscription's end


async def test_five_minutes_end_again_and_again_without_an_effect_on_reading(story: Story) -> None:
    (shard,) = await story.shards()
    reading = Reading(story, shard)
    await reading.begins()
    numbers = iter(range(1000))
    put = 0
    for subscription in range(1, 4):
        while len(story.seen(Resubscribed)) < subscription:
            await story.put(next(numbers), next(numbers))
            put += 2
            story.clock.advance(4)
            await asyncio.sleep(0.005)
    await reading.has(put)
    await reading.stop()
    assert reading.numbers == list(range(put))
    again = story.seen(Resubscribed)
    assert [event.error for event in again] == [None] * 3
    assert max(event.gap for event in again) < 1.5 + 4  # seconds by which the clock was moved between the two
    assert len(story.seen(Subscribed)) == len(story.seen(ConsumerRegistered)) == 1
    assert story.seen(FetchFailed) == []


FAULTS: dict[str, tuple[Inject, type[KinesisError] | None]] = {
    "drop_connection": (lambda after: after.drop_connection(), TransportError),
    "corrupt": (lambda after: after.corrupt(), UnexpectedResponse),
    "corrupt prelude": (lambda after: after.corrupt(8), UnexpectedResponse),
    "fails": (lambda after: after.fail("InternalFailureException"), ServiceUnavailable),
    "in use": (lambda after: after.fail("ResourceInUseException"), ResourceInUse),
    "not found": (lambda after: after.fail("ResourceNotFoundException"), NotFound),
    "silent": (lambda after: after.silence(), RequestTimedOut),
    "ends early": (lambda after: after.end(), None),
}


@pytest.mark.parametrize("events", [0, 1, 3])
@pytest.mark.parametrize("fault", FAULTS)
async def test_after_a_failure_reading_continues_after_the_last_event(fault: str, events: int) -> None:
    inject, error = FAULTS[fault]
    async with telling() as story:
        (shard,) = await story.shards()
        interception = inject(story.server.next("SubscribeToShard").after_events(events))
        reading = Reading(story, shard)
        for number in range(10):
            await story.put(number)
            await story.passes(1)
        await reading.has(10)
        assert interception.count == 1
        await reading.stop()
        assert reading.numbers == list(range(10))
        failed = story.seen(FetchFailed)
        assert error is None or isinstance(failed[0].error, error)
        assert len(failed) <= 1
        assert len(story.seen(Resubscribed)) == 1


async def test_silence_counts_only_while_an_event_is_waited_for(story: Story) -> None:
    (shard,) = await story.shards()
    await story.put(1)
    async with aclosing(story.fetcher.read(shard, TRIM_HORIZON)) as pages:
        assert len((await anext(pages)).records) == 1
        await story.passes(200)  # the handler takes its time
        await anext(pages)
        assert story.seen(FetchFailed) == []


async def test_a_half_open_subscription_is_given_up_after_35_seconds() -> None:
    async with telling() as story:
        (shard,) = await story.shards()
        story.server.next("SubscribeToShard").after_events(1).silence()
        reading = Reading(story, shard)
        await reading.begins()
        began = story.clock.monotonic()
        await story.put(1)
        await reading.has(1)
        await reading.stop()
        assert reading.numbers == [1]
        assert 34 < story.clock.monotonic() - began < 38
        assert "no bytes of the response for 35 s" in story.seen(FetchFailed)[0].error.details


async def test_latest_that_breaks_before_its_first_event_misses_nothing(story: Story) -> None:
    (shard,) = await story.shards()
    await story.put(0)
    await story.passes(10)
    interception = story.server.next("SubscribeToShard").after_events(0).drop_connection()
    reading = Reading(story, shard, LATEST)
    await asyncio.to_thread(interception.wait)
    await story.put(1, 2)
    await reading.has(2)
    await reading.stop()
    assert reading.numbers == [1, 2]


async def test_a_reader_that_takes_a_subscription_over_loses_it_again(story: Story) -> None:
    (shard,) = await story.shards()
    reading = Reading(story, shard)
    await reading.begins()
    await story.put(1)
    await story.passes(6)
    arn = story.seen(ConsumerRegistered)[0].consumer_arn
    async with await story.client.subscribe(arn, shard.shard_id, "LATEST"):
        await story.passes(2)
        await story.put(2)
        await reading.has(2)
    await reading.stop()
    assert reading.numbers == [1, 2]
    assert [type(event.error) for event in story.seen(FetchFailed)] == [ResourceInUse]


async def test_damage_that_does_not_end_is_an_error_in_the_end() -> None:
    async with telling() as story:
        (shard,) = await story.shards()
        interception = story.server.every("SubscribeToShard").after_events(0).corrupt()
        with pytest.raises(UnexpectedResponse, match="damaged at frame 1"):
            await Reading(story, shard).ends()
        assert interception.count == MAX_UNEXPECTED + 1


# The end of a shard


@pytest.mark.parametrize("wire", ["json", "cbor"])
async def test_a_split_shard_ends_with_its_children_and_they_are_read(wire: str) -> None:
    async with telling(wire=wire) as story:
        (shard,) = await story.shards()
        reading = Reading(story, shard)
        await reading.begins()
        await story.put(1, 2, 3)
        split = {"StreamName": STREAM, "ShardToSplit": shard.shard_id, "NewStartingHashKey": str(2**127)}
        await story.client.call("SplitShard", split)
        await story.put(4, 5, key="a")
        await reading.ends()
        last = reading.pages[-1]
        assert reading.numbers == [1, 2, 3]
        assert last.ended
        assert len(last.child_shards) == 2
        assert all(child.parent_shards == [shard.shard_id] for child in last.child_shards)
        assert not any(page.ended for page in reading.pages[:-1])
        children = [Reading(story, child) for child in await story.shards() if child.parent_shard_id == shard.shard_id]
        await story.passes(60, lambda: sum(len(child.numbers) for child in children) == 2)
        assert sorted(number for child in children for number in child.numbers) == [4, 5]
        for child in children:
            await child.stop()


async def test_a_closed_shard_is_read_to_its_end(story: Story) -> None:
    (shard,) = await story.shards()
    await story.put(1, 2)
    split = {"StreamName": STREAM, "ShardToSplit": shard.shard_id, "NewStartingHashKey": str(2**127)}
    await story.client.call("SplitShard", split)
    reading = Reading(story, shard)
    await reading.ends()
    assert reading.numbers == [1, 2]
    assert reading.pages[-1].ended


async def test_reading_starts_at_the_configured_position(story: Story) -> None:
    (shard,) = await story.shards()
    await story.put(1, 2, 3)
    first = Reading(story, shard)
    await first.has(3)
    await first.stop()
    numbers = [record.sequence_number for page in first.pages for record in page.records]
    await story.passes(6)
    for position, expected in [(Position.at(numbers[1]), [2, 3]), (Position.after(numbers[1]), [3])]:
        reading = Reading(story, shard, position)
        await reading.has(len(expected))
        await reading.stop()
        assert reading.numbers == expected
        await story.passes(6)


# The consumer


async def test_a_consumer_that_is_there_is_found_and_not_registered_again(story: Story) -> None:
    (shard,) = await story.shards()
    summary = await story.client.call("DescribeStreamSummary", {"StreamName": STREAM})
    arn = summary["StreamDescriptionSummary"]["StreamARN"]
    await story.client.call("RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "billing"})
    reading = Reading(story, shard)
    await reading.begins()
    await reading.stop()
    assert story.seen(ConsumerRegistered) == []


async def test_a_consumer_in_the_making_is_waited_for() -> None:
    async with telling(transition=20) as story:
        await story.passes(21)
        (shard,) = await story.shards()
        reading = Reading(story, shard)
        await story.passes(30, lambda: bool(reading.pages))
        await reading.begins()
        await reading.stop()


async def test_what_is_written_while_the_consumer_is_made_is_later_than_the_latest() -> None:
    async with telling(transition=20) as story:
        await story.passes(21)
        (shard,) = await story.shards()
        reading = Reading(story, shard, LATEST)
        await story.passes(5)
        await story.put(1)
        await reading.has(1)
        await reading.stop()
        assert reading.numbers == [1]


async def test_a_consumer_that_somebody_deregistered_is_registered_again(story: Story) -> None:
    (shard,) = await story.shards()
    reading = Reading(story, shard)
    await reading.begins()
    await story.put(1)
    await reading.has(1)
    arn = story.seen(ConsumerRegistered)[0].consumer_arn
    await story.client.call("DeregisterStreamConsumer", {"ConsumerARN": arn})
    await story.put(2)
    await reading.has(2)
    await reading.stop()
    assert reading.numbers == [1, 2]
    assert len({event.consumer_arn for event in story.seen(ConsumerRegistered)}) == 2


@pytest.mark.parametrize("operation", ["DescribeStreamConsumer", "RegisterStreamConsumer", "SubscribeToShard"])
async def test_fan_out_without_permission_is_refused(operation: str) -> None:
    async with telling() as story:
        (shard,) = await story.shards()
        story.server.next(operation).fail("AccessDeniedException")
        with pytest.raises(FanOutRefused, match="grant kinesis:") as caught:
            await Reading(story, shard).ends()
        assert isinstance(caught.value.__cause__, AccessDenied)


async def test_a_stream_with_all_its_consumers_refuses_another() -> None:
    async with telling() as story:
        (shard,) = await story.shards()
        story.server.every("RegisterStreamConsumer").fail("LimitExceededException")
        with pytest.raises(FanOutRefused, match="deregister an unused consumer") as caught:
            await Reading(story, shard).ends()
        assert isinstance(caught.value.__cause__, LimitExceeded)


async def test_a_service_without_fan_out_refuses_it() -> None:
    async with telling() as story:
        (shard,) = await story.shards()
        story.server.next("DescribeStreamConsumer").fail("UnknownOperationException")
        with pytest.raises(FanOutRefused, match="does not offer enhanced fan-out"):
            await Reading(story, shard).ends()


async def test_a_shard_or_stream_that_is_not_there_is_an_error(story: Story) -> None:
    (shard,) = await story.shards()
    unknown = Shard("shardId-000000000009", shard.hash_key_range, shard.sequence_number_range)
    with pytest.raises(NotFound, match="shardId-000000000009"):
        await Reading(story, unknown).ends()
    reading = Reading(story, shard)
    await reading.begins()
    await story.client.call("DeleteStream", {"StreamName": STREAM, "EnforceConsumerDeletion": True})
    with pytest.raises(NotFound):
        await reading.ends()


def test_a_consumer_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="consumer_name"):
        FanOutFetcher(Client(), Stream.parse(STREAM), EnhancedFanOut(), print)
    FanOutFetcher(Client(), Stream.parse(STREAM), EnhancedFanOut(), print, application="billing")
    for name in ("", "a b", "x" * 129, 5):
        with pytest.raises(ConfigError, match=r"EnhancedFanOut\.consumer_name"):
            EnhancedFanOut(consumer_name=name)  # type: ignore[arg-type]


# Many shards


async def test_64_shards_with_handlers_that_do_not_come_back() -> None:
    async with telling(shards=64, scheme="tls", quotas=False) as story:
        shards = await story.shards()
        ranges = {shard.shard_id: shard.hash_key_range.starting_hash_key for shard in shards}
        slow, quick = shards[:16], shards[16:]
        data = bytes(1_000_000)
        for shard in slow:
            for _ in range(3):
                await story.client.call(
                    "PutRecord",
                    {
                        "StreamName": STREAM,
                        "Data": data,
                        "PartitionKey": "k",
                        "ExplicitHashKey": ranges[shard.shard_id],
                    },
                )
        stuck = [story.fetcher.read(shard, TRIM_HORIZON) for shard in slow]
        first = await asyncio.gather(*(anext(pages) for pages in stuck))
        readings = [Reading(story, shard) for shard in quick]
        for reading in readings:
            await reading.begins()
        for number in range(3):
            for shard in quick:
                await story.client.call(
                    "PutRecord",
                    {
                        "StreamName": STREAM,
                        "Data": b"%d" % number,
                        "PartitionKey": "k",
                        "ExplicitHashKey": ranges[shard.shard_id],
                    },
                )
            await story.passes(150)  # half a subscription's life
        for reading in readings:
            await reading.has(3, within=0)
            assert reading.numbers == [0, 1, 2]
            await reading.stop()
        for pages, page in zip(stuck, first, strict=True):
            count = len(page.records)
            while count < 3:
                count += len((await anext(pages)).records)
            assert count == 3
            await pages.aclose()
