"""PollingFetcher: reads shards by GetRecords, each at its own pace, and goes on after whatever passes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import Polling
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.pace import ReadPace
from kinstream.consume.fetch.page_size import PageSize
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, PROMPT, TOO_EARLY_PAUSE, Position, too_early
from kinstream.errors import (
    ConnectionLost,
    CredentialsError,
    ExpiredIterator,
    InvalidArgument,
    KinesisError,
    RequestTimedOut,
    ResourceInUse,
    UnexpectedResponse,
)
from kinstream.events import Event, FetchFailed
from kinstream.record import GetRecordsResult, ReceivedRecord, Shard

REQUESTS_AT_ONCE = 64
"""Requests under way at a time, of all shards together: a thousand shards that begin must not open a thousand connections."""

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 10.0
"""Seconds until reading goes on after a request that failed for good; each further pause is twice as long, to a limit."""

PATIENCE = 5
"""So often in a row an answer may be none, and credentials may be missing, before that is taken to be lasting."""

EXPIRY_MARGIN = 240.0
"""Seconds after which an iterator is not used any more; the service gives it five minutes."""

FIRST_PAGE_BYTES = 14 << 20
"""What the first page of a shard that lags weighs: 10 MiB of data (API reference, `GetRecords`), and JSON around it."""

IN_USE_FOR = 30.0
"""Seconds for which a stream that is being created is waited for."""

_BROKEN = (ConnectionLost, RequestTimedOut, UnexpectedResponse)
"""Errors of a response that may have been too large for its connection."""

_log = logging.getLogger("kinstream.consumer")


class PollingFetcher:
    """Reads shards by polling.

    Args:
        client: Asks, and has the clock.
        stream: The stream.
        option: The pace.
        announce: Is given an event when reading fails for now.
        jitter: Gives numbers from 0 to 1, so that shards do not ask in step.

    Attributes:
        first_page_bytes: As `Fetcher` has it.
    """

    def __init__(
        self,
        client: Client,
        stream: Stream,
        option: Polling,
        announce: Callable[[Event], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.first_page_bytes: int = FIRST_PAGE_BYTES
        self._client = client
        self._stream = stream
        self._option = option
        self._announce = announce
        self._jitter = jitter
        self._turns = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def close(self) -> None:
        """Do nothing: what is under way ends with its reader."""

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        """Yield page after page, as `Fetcher.read`."""
        clock = self._client.clock
        pace = ReadPace(self._option)
        size = PageSize(self._option.max_records)
        begun = clock.monotonic()
        resume = position.since(self._client.service_time() - LATEST_MARGIN)
        iterator: str | None = None
        had_at = 0.0
        in_use_since: float | None = None
        failures = strange = 0
        while True:
            # The jitter is a tenth of the wait: it spreads a thousand idle shards, and slows nobody down.
            if (delay := pace.delay(clock.monotonic())) > 0:
                await clock.sleep(delay * (1 + 0.1 * self._jitter()))
            try:
                async with self._turns:
                    pace.asked(clock.monotonic())
                    if iterator is None or clock.monotonic() - had_at > EXPIRY_MARGIN:
                        iterator = await self._iterator(shard, position)
                        if position == LATEST and clock.monotonic() - begun > PROMPT:
                            iterator = await self._iterator(shard, resume)  # what came meanwhile must not be missed
                        had_at, position = clock.monotonic(), resume
                    as_of = self._client.service_time()
                    answer, size_bytes, attempts = await self._records(iterator, size.limit)
            except ExpiredIterator:
                iterator = None
                continue
            except KinesisError as error:
                if isinstance(error, InvalidArgument) and too_early(position, self._client.service_time()):
                    await clock.sleep(TOO_EARLY_PAUSE)
                    continue
                if isinstance(error, ResourceInUse):  # the stream is being created
                    in_use_since = clock.monotonic() if in_use_since is None else in_use_since
                smaller = iterator is not None and isinstance(error, _BROKEN) and size.broke()
                strange = strange + 1 if isinstance(error, (UnexpectedResponse, CredentialsError)) else 0
                waits = in_use_since is not None and clock.monotonic() - in_use_since < IN_USE_FOR
                if strange > PATIENCE or not (strange or waits or error.throttled or error.retry_safe):
                    raise
                if error.throttled:
                    pace.throttled(clock.monotonic())
                if smaller:  # another request than the one that failed
                    failures = strange = 0
                pause = min(FIRST_BACKOFF * 2.0 ** min(failures, 9), LONGEST_BACKOFF) * (0.5 + 0.5 * self._jitter())
                failures += 1
                _log.debug("%s: reading fails, and goes on in %.1f s: %s", shard.shard_id, pause, error.details)
                self._announce(FetchFailed(shard.shard_id, error, pause))
                await clock.sleep(pause)
                continue
            failures = strange = 0
            in_use_since = None
            size.arrived()
            now = had_at = clock.monotonic()
            records, behind = answer.records, answer.millis_behind_latest
            # What is guessed from some of the records is never more than the whole answer.
            pace.answered(now, len(records), min(_data_bytes(records), size_bytes), behind)
            if attempts > 1:
                pace.throttled(now)
            if records:
                position = resume = Position.after(records[-1].sequence_number)
            iterator = answer.next_shard_iterator
            ended = iterator is None
            yield Page(records, behind, size_bytes, ended, answer.child_shards, as_of, attempts - 1)
            if ended:
                return

    async def _iterator(self, shard: Shard, position: Position) -> str:
        kind, number, moment = position.starting
        return await self._client.send(
            kinesis.get_shard_iterator(self._client.codec, self._stream, shard.shard_id, kind, number, moment)
        )

    async def _records(self, iterator: str, most: int) -> tuple[GetRecordsResult[bytes], int, int]:
        """Return the answer, the length of its body, and how many requests it took."""
        request = kinesis.get_records(self._client.codec, self._stream, iterator, most if most < 10_000 else None)
        size = attempts = 1

        def parse(body: bytes) -> GetRecordsResult[bytes]:
            nonlocal size
            size = len(body)
            return request.parse(body)

        def counted(answer: GetRecordsResult[bytes], sent: int, _: bool) -> GetRecordsResult[bytes]:
            nonlocal attempts
            attempts = sent
            return answer

        answer = await self._client.send(replace(request, parse=parse, counted=counted))
        return answer, size, attempts


def _data_bytes(records: list[ReceivedRecord[bytes]]) -> int:
    """Return how much data is in records, from every hundredth of many: exact enough to pace by, and free."""
    step = 1 + len(records) // 100
    some = records[::step]
    return sum([len(record.data) for record in some]) * len(records) // max(len(some), 1)
