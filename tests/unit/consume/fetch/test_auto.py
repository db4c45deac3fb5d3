"""AutoFetcher: fan-out, or polling after the last record if fan-out is refused, with one event for all shards."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tests.doubles.clock import VirtualClock

from kinstream import FanOutRefused, HashKeyRange, Position, ReceivedRecord, SequenceNumberRange, Shard
from kinstream.consume.fetch.auto import AutoFetcher
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import LATEST, TRIM_HORIZON
from kinstream.events import Event, FellBackToPolling

SHARD = Shard("shardId-000000000000", HashKeyRange("0", "1"), SequenceNumberRange("1"))


class Fetch:
    """Yields pages of one record each, then raises the configured exception."""

    first_page_bytes = 1 << 20

    def __init__(self, *numbers: int, error: Exception | None = None) -> None:
        self.numbers = numbers
        self.error = error
        self.read_from: list[Position] = []
        self.closed = 0

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        self.read_from.append(position)
        for number in self.numbers:
            yield Page([ReceivedRecord(b"", str(number), 0.0)])
        if self.error is not None:
            raise self.error
        yield Page([], ended=True)

    async def close(self) -> None:
        self.closed += 1


async def numbers(fetcher: AutoFetcher, position: Position = TRIM_HORIZON) -> list[str]:
    return [record.sequence_number async for page in fetcher.read(SHARD, position) for record in page.records]


async def test_polling_is_not_used_if_fan_out_works() -> None:
    poll, seen = Fetch(9), list[Event]()
    fetcher = AutoFetcher(Fetch(1, 2), poll, seen.append, VirtualClock().wall)
    assert await numbers(fetcher) == ["1", "2"]
    assert poll.read_from == []
    assert seen == []


async def test_after_a_refusal_polling_continues_after_the_last_record() -> None:
    error = FanOutRefused("no consumer is left")
    fan_out, poll, seen = Fetch(1, 2, error=error), Fetch(3), list[Event]()
    fetcher = AutoFetcher(fan_out, poll, seen.append, VirtualClock().wall)
    assert await numbers(fetcher) == ["1", "2", "3"]
    assert await numbers(fetcher) == ["3"]
    assert fan_out.read_from == [TRIM_HORIZON]
    assert poll.read_from == [Position.after("2"), TRIM_HORIZON]
    assert seen == [FellBackToPolling(error)]
    await fetcher.close()
    assert (fan_out.closed, poll.closed) == (1, 1)


async def test_records_written_during_the_attempt_of_fan_out_are_read_from_latest() -> None:
    clock = VirtualClock()
    poll = Fetch(3)
    fetcher = AutoFetcher(Fetch(error=FanOutRefused("no")), poll, print, clock.wall)
    began = clock.now
    await numbers(fetcher, LATEST)
    (position,) = poll.read_from
    assert position.timestamp is not None
    assert position.timestamp <= began
