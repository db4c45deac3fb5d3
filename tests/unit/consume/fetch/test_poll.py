"""PollingFetcher over a scripted network: iterators are renewed after the last record, and temporary failures are retried."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, Sent, answer, refusal

from kinstream import (
    AccessDenied,
    Client,
    ConnectionLost,
    Credentials,
    HashKeyRange,
    Polling,
    ResourceInUse,
    RetryPolicy,
    SequenceNumberRange,
    Shard,
    UnexpectedResponse,
)
from kinstream.aws.endpoint import Stream
from kinstream.aws.transport import Response
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.poll import LONGEST_BACKOFF, PollingFetcher
from kinstream.consume.fetch.position import LATEST, TRIM_HORIZON, Position
from kinstream.events import Event, FetchFailed

SHARD = Shard("shardId-000000000000", HashKeyRange("0", "1"), SequenceNumberRange("1"))


def place(name: str) -> Response:
    return answer({"ShardIterator": name})


def records(*numbers: int, next_place: str | None = "next", behind: int = 0, children: bool = False) -> Response:
    content: dict[str, Any] = {
        "Records": [
            {
                "SequenceNumber": str(number),
                "Data": base64.b64encode(b"x").decode(),
                "PartitionKey": "k",
                "ApproximateArrivalTimestamp": 1.0,
            }
            for number in numbers
        ],
        "MillisBehindLatest": behind,
    }
    if next_place is not None:
        content["NextShardIterator"] = next_place
    if children:
        content["ChildShards"] = [
            {
                "ShardId": "shardId-000000000001",
                "ParentShards": [SHARD.shard_id],
                "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
            }
        ]
    return answer(content)


class Poller:
    """A fetcher with scripted responses, and its requests."""

    def __init__(self, *script: Any, option: Polling | None = None) -> None:
        self.clock = VirtualClock()
        self.transport = ScriptedTransport(*script)
        self.events: list[Event] = []
        self.client = Client(
            region="us-east-1",
            credentials=Credentials("key", "secret"),
            endpoint_url="http://127.0.0.1:1",
            transport=self.transport,
            clock=self.clock,
            retry=RetryPolicy(max_attempts=1),
        )
        stream = Stream.parse("events")
        self.fetcher = PollingFetcher(self.client, stream, option or Polling(), self.events.append, lambda: 0.0)

    async def read(self, pages: int, position: Position = TRIM_HORIZON) -> list[Page]:
        found = []
        reading = self.fetcher.read(SHARD, position)
        async for page in reading:
            found.append(page)
            if len(found) == pages:
                break
        await reading.aclose()
        return found

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The requests, without the stream's name."""
        return [
            {k: v for k, v in sent.json.items() if k not in ("StreamName", "ShardId")} for sent in self.transport.sent
        ]


def numbers(pages: list[Page]) -> list[list[str]]:
    return [[record.sequence_number for record in page.records] for page in pages]


async def test_pages_follow_each_other_to_the_shards_end() -> None:
    poller = Poller(
        place("A"), records(1, 2, next_place="B"), records(next_place="C"), records(3, next_place=None, children=True)
    )
    pages = await poller.read(99)
    assert numbers(pages) == [["1", "2"], [], ["3"]]
    assert [page.ended for page in pages] == [False, False, True]
    assert [child.shard_id for child in pages[-1].child_shards] == ["shardId-000000000001"]
    assert poller.asked == [
        {"ShardIteratorType": "TRIM_HORIZON"}, {"ShardIterator": "A"}, {"ShardIterator": "B"}, {"ShardIterator": "C"},
    ]  # fmt: skip
    assert all(page.size_bytes > 10 for page in pages)


async def test_expired_iterator_is_renewed_after_the_last_record() -> None:
    poller = Poller(place("A"), records(1, 2), refusal("ExpiredIteratorException"), place("B"), records(3))
    assert numbers(await poller.read(2)) == [["1", "2"], ["3"]]
    assert poller.asked[3] == {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "2"}


async def test_iterator_that_expired_between_requests_is_not_used() -> None:
    poller = Poller(place("A"), records(1), place("B"), records(2))
    reading = poller.fetcher.read(SHARD, TRIM_HORIZON)
    await anext(reading)
    poller.clock.move(1000)
    assert numbers([await anext(reading)]) == [["2"]]
    assert poller.asked[2] == {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "1"}
    await reading.aclose()


async def test_latest_is_renewed_at_the_time_when_reading_began() -> None:
    poller = Poller(place("A"), refusal("ExpiredIteratorException"), place("B"), records(3))
    began = poller.clock.now
    await poller.read(1, LATEST)
    assert poller.asked[0] == {"ShardIteratorType": "LATEST"}
    assert poller.asked[2]["ShardIteratorType"] == "AT_TIMESTAMP"
    assert began - 10 < poller.asked[2]["Timestamp"] <= began


@pytest.mark.parametrize(
    "fault",
    [
        refusal("ProvisionedThroughputExceededException"),
        refusal("InternalFailure", 500),
        ConnectionLost("cut"),
        answer("not what it should be"),
        refusal("KMSThrottlingException"),
    ],
)
async def test_reading_continues_after_a_temporary_failure_without_loss(fault: Any) -> None:
    poller = Poller(place("A"), records(1, next_place="B"), fault, fault, records(2))
    assert numbers(await poller.read(2)) == [["1"], ["2"]]
    assert [sent["ShardIterator"] for sent in poller.asked[2:]] == ["B", "B", "B"]
    assert [type(event) for event in poller.events] == [FetchFailed, FetchFailed]


async def test_delays_grow_while_the_service_is_down() -> None:
    down = refusal("InternalFailure", 503)
    poller = Poller(place("A"), *[down] * 12, records(1))
    await poller.read(1)
    pauses = [event.delay for event in poller.events if isinstance(event, FetchFailed)]
    assert pauses[0] < 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_BACKOFF / 2  # without jitter


async def test_permanent_refusal_is_raised() -> None:
    poller = Poller(place("A"), refusal("AccessDeniedException"))
    with pytest.raises(AccessDenied):
        await poller.read(1)


async def test_endpoint_that_never_responds_as_kinesis_ends_reading() -> None:
    poller = Poller(answer("something else"))
    with pytest.raises(UnexpectedResponse):
        await poller.read(1)
    assert 3 <= len(poller.transport.sent) < 10


async def test_page_limit_is_requested() -> None:
    poller = Poller(place("A"), records(1), option=Polling(max_records=7))
    await poller.read(1)
    assert poller.asked[1] == {"ShardIterator": "A", "Limit": 7}


async def test_idle_shard_is_polled_once_a_second() -> None:
    poller = Poller(place("A"), records())
    began = poller.clock.now
    await poller.read(30)
    assert 25 < poller.clock.now - began < 30


async def test_reading_inside_an_aggregate_begins_at_the_aggregate() -> None:
    poller = Poller(place("A"), records(5))
    await poller.read(1, Position.after("5", 3))
    assert poller.asked[0] == {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "5"}


async def test_iterators_that_expire_at_once_are_not_renewed_faster_than_a_shard_may_be_read() -> None:
    expired = refusal("ExpiredIteratorException")
    script = [step for _ in range(20) for step in (place("A"), expired)]
    poller = Poller(*script, place("A"), records(1))
    begun = poller.clock.monotonic()
    assert numbers(await poller.read(1)) == [["1"]]
    assert poller.clock.monotonic() - begun == pytest.approx(20 / 5)


async def test_bytes_of_a_page_are_not_estimated_from_one_large_record() -> None:
    content = [
        {
            "SequenceNumber": str(number),
            "Data": base64.b64encode(bytes(1_000_000 if number == 0 else 10)).decode(),
            "PartitionKey": "k",
            "ApproximateArrivalTimestamp": 1.0,
        }
        for number in range(2000)
    ]
    large = answer({"Records": content, "MillisBehindLatest": 1000, "NextShardIterator": "B"})
    poller = Poller(place("A"), large, records(5000))
    begun = poller.clock.monotonic()
    await poller.read(2)
    assert poller.clock.monotonic() - begun < 1


async def test_slow_start_at_latest_begins_at_the_time_when_reading_began() -> None:
    async def slow(sent: Sent) -> Response:
        await poller.clock.sleep(3)
        return place("late")

    poller = Poller(slow, place("A"), records(1))
    await poller.read(1, LATEST)
    assert [request.get("ShardIteratorType") for request in poller.asked] == ["LATEST", "AT_TIMESTAMP", None]
    assert poller.asked[1]["Timestamp"] < poller.clock.wall() - 3


async def test_broken_response_is_followed_by_smaller_pages_that_grow_again() -> None:
    lost = ConnectionLost("the connection broke")
    poller = Poller(
        place("A"), lost, lost, *(records(number) for number in range(1, 9)), option=Polling(max_records=100)
    )
    pages = await poller.read(8)
    assert numbers(pages) == [[str(number)] for number in range(1, 9)]
    limits = [asked["Limit"] for asked in poller.asked[1:]]
    assert limits == [100, 25, 6, 12, 24, 24, 48, 48, 48, 48]
    pauses = [event.delay for event in poller.events if isinstance(event, FetchFailed)]
    assert pauses == [0.25, 0.25], "a smaller page is another request: the delay does not grow"


async def test_stream_that_is_being_created_is_retried_for_half_a_minute() -> None:
    busy = refusal("ResourceInUseException")
    poller = Poller(*[busy] * 4, place("A"), records(1))
    assert numbers(await poller.read(1)) == [["1"]]
    poller = Poller(*[busy] * 99)
    began = poller.clock.now
    with pytest.raises(ResourceInUse):
        await poller.read(1)
    assert 30 <= poller.clock.now - began < 60
