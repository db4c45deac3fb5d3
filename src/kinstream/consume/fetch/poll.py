"""PollingFetcher: reads shards with GetRecords requests, each shard at its own pace, and recovers from temporary failures."""

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
from kinstream.consume.fetch.fetcher import Page, data_bytes
from kinstream.consume.fetch.page_size import PageSize
from kinstream.consume.fetch.polling_pace import ReadPace
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, PROMPT_START, TOO_EARLY_DELAY, Position, too_early
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
from kinstream.record import GetRecordsResult, Shard

MAX_REQUESTS_IN_FLIGHT = 64
"""Maximum requests in flight for all shards, so that a thousand shards do not open a thousand connections at the start."""

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 10.0
"""Seconds until the next request after the retries of one have failed, and the maximum. Each further delay is doubled."""

MAX_UNEXPECTED = 5
"""Maximum consecutive invalid responses or missing credentials that are retried."""

EXPIRY_MARGIN = 240.0
"""Seconds after which an iterator is replaced. The service's limit is five minutes."""

FIRST_PAGE_BYTES = 14 << 20
"""Bytes of the first page of a shard that lags: 10 MiB of data (API reference, `GetRecords`), plus JSON."""

IN_USE_TIMEOUT = 30.0
"""Maximum seconds to wait for a stream that is being created."""

_BROKEN = (ConnectionLost, RequestTimedOut, UnexpectedResponse)
"""Errors of a response that may have been too large for its connection."""

_log = logging.getLogger("kinstream.consumer")


class PollingFetcher:
    """Reads shards by polling.

    Args:
        client: Sends requests, and has the clock.
        stream: The stream.
        option: Quotas and intervals.
        announce: Receives an event when reading fails temporarily.
        jitter: Returns numbers from 0 to 1, so that shards do not send requests at the same time.
        awaits_time: True to wait until a start time that the service refuses is no longer in its future. False to raise
            `InvalidArgument`.

    Attributes:
        first_page_bytes: As in `Fetcher`.
    """

    def __init__(
        self,
        client: Client,
        stream: Stream,
        option: Polling,
        announce: Callable[[Event], None],
        jitter: Callable[[], float] = random.random,
        *,
        awaits_time: bool = True,
    ) -> None:
        self.first_page_bytes: int = FIRST_PAGE_BYTES
        self._client = client
        self._stream = stream
        self._option = option
        self._announce = announce
        self._jitter = jitter
        self._awaits_time = awaits_time
        self._turns = asyncio.Semaphore(MAX_REQUESTS_IN_FLIGHT)

    async def close(self) -> None:
        """Do nothing: requests in flight end with their readers."""

    async def read(self, shard: Shard, position: Position, pace: ReadPace | None = None) -> AsyncGenerator[Page, None]:
        """Yield pages, as `Fetcher.read`.

        Args:
            shard: The shard.
            position: The position.
            pace: Pace of all requests for the shard, if it is read from several positions. None: a pace of its own.
        """
        clock = self._client.clock
        pace = ReadPace(self._option, self._jitter()) if pace is None else pace
        size = PageSize(self._option.max_records)
        begun = clock.monotonic()
        resume = position.since(self._client.service_time() - LATEST_MARGIN)
        iterator: str | None = None
        iterator_since = 0.0
        in_use_since: float | None = None
        failures = unexpected = 0
        while True:
            if (delay := pace.delay(clock.monotonic())) > 0:
                await clock.sleep(delay)
            try:
                async with self._turns:
                    pace.requested(clock.monotonic())
                    if iterator is None or clock.monotonic() - iterator_since > EXPIRY_MARGIN:
                        iterator = await self._iterator(shard, position)
                        if position == LATEST and clock.monotonic() - begun > PROMPT_START:
                            iterator = await self._iterator(shard, resume)  # records that arrived since must be read
                        iterator_since, position = clock.monotonic(), resume
                    as_of = self._client.service_time()
                    response, size_bytes, attempts = await self._records(iterator, size.limit)
            except ExpiredIterator:
                iterator = None
                continue
            except KinesisError as error:
                refused = isinstance(error, InvalidArgument) and too_early(position, self._client.service_time())
                if refused and self._awaits_time:
                    await clock.sleep(TOO_EARLY_DELAY)
                    continue
                if isinstance(error, ResourceInUse):  # the stream is being created
                    in_use_since = clock.monotonic() if in_use_since is None else in_use_since
                smaller = iterator is not None and isinstance(error, _BROKEN) and size.broke()
                unexpected = unexpected + 1 if isinstance(error, (UnexpectedResponse, CredentialsError)) else 0
                waits = in_use_since is not None and clock.monotonic() - in_use_since < IN_USE_TIMEOUT
                if unexpected > MAX_UNEXPECTED or not (unexpected or waits or error.throttled or error.retry_safe):
                    raise
                if error.throttled:
                    pace.throttled(clock.monotonic())
                if smaller:  # a different request than the one that failed
                    failures = unexpected = 0
                delay = min(FIRST_BACKOFF * 2.0 ** min(failures, 9), LONGEST_BACKOFF) * (0.5 + 0.5 * self._jitter())
                failures += 1
                _log.debug("%s: reading failed, and is retried in %.1f s: %s", shard.shard_id, delay, error.details)
                self._announce(FetchFailed(shard.shard_id, error, delay))
                await clock.sleep(delay)
                continue
            failures = unexpected = 0
            in_use_since = None
            size.arrived()
            now = iterator_since = clock.monotonic()
            records, behind = response.records, response.millis_behind_latest
            # The estimate must not exceed the size of the response.
            pace.responded(now, len(records), min(data_bytes(records), size_bytes), behind)
            if attempts > 1:
                pace.throttled(now)
            if records:
                position = resume = Position.after(records[-1].sequence_number)
            iterator = response.next_shard_iterator
            ended = iterator is None
            yield Page(records, behind, size_bytes, ended, response.child_shards, as_of, attempts - 1)
            if ended:
                return

    async def _iterator(self, shard: Shard, position: Position) -> str:
        kind, number, moment = position.iterator_arguments
        return await self._client.send(
            kinesis.get_shard_iterator(self._client.codec, self._stream, shard.shard_id, kind, number, moment)
        )

    async def _records(self, iterator: str, most: int) -> tuple[GetRecordsResult[bytes], int, int]:
        """Return the response, the length of its body, and the number of requests that it took."""
        request = kinesis.get_records(self._client.codec, self._stream, iterator, most if most < 10_000 else None)
        size = attempts = 1

        def parse(body: bytes) -> GetRecordsResult[bytes]:
            nonlocal size
            size = len(body)
            return request.parse(body)

        def counted(response: GetRecordsResult[bytes], sent: int, _: bool) -> GetRecordsResult[bytes]:
            nonlocal attempts
            attempts = sent
            return response

        response = await self._client.send(replace(request, parse=parse, counted=counted))
        return response, size, attempts
