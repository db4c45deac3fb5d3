"""FanOutFetcher: reads shards by enhanced fan-out, in consecutive subscriptions without lost or repeated records."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.subscription import Subscription
from kinstream.config import EnhancedFanOut
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, PROMPT_START, TOO_EARLY_DELAY, Position, too_early
from kinstream.consume.fetch.registration import Registration, refused
from kinstream.consume.fetch.subscribing_pace import SubscribingPace
from kinstream.errors import (
    ConfigError,
    CredentialsError,
    InvalidArgument,
    KinesisError,
    LimitExceeded,
    NotFound,
    ResourceInUse,
    ServiceError,
    UnexpectedResponse,
)
from kinstream.events import Event, FetchFailed, Resubscribed, Subscribed
from kinstream.record import Shard, SubscribeToShardEvent

STALE_AFTER = 3.0
"""Seconds of waiting after which all buffered events are read, and the next event is a new one. Buffers hold at most HTTP/2's
window and one event, 3 MiB. After a shorter time without reading, the same time of waiting is enough."""

MAX_UNEXPECTED = 5
"""Maximum consecutive invalid responses or missing credentials that are retried."""

FIRST_PAGE_BYTES = 2 << 20
"""Approximate bytes of the first event of a shard that lags."""

_log = logging.getLogger("kinstream.consumer")


class FanOutFetcher:
    """Reads shards by enhanced fan-out.

    A subscription lasts up to five minutes. The next one starts after the continuation sequence number of the last event,
    immediately if the subscription expired, after a backoff if it failed. While the reader does not request the next page,
    HTTP/2 flow control stops the service, which later ends the subscription. No record is lost.

    Args:
        client: Sends requests, and has the clock.
        stream: The stream.
        option: The consumer's name and the idle timeout.
        announce: Receives an event when a subscription begins or fails.
        jitter: Returns numbers from 0 to 1, so that shards do not subscribe at the same time.
        application: The consumer's name if the option has none.

    Attributes:
        first_page_bytes: As in `Fetcher`. An event is small, and an idle shard sends one only every few seconds.

    Raises:
        ConfigError: The consumer has no name, or the application's name is not a valid consumer name.
    """

    def __init__(
        self,
        client: Client,
        stream: Stream,
        option: EnhancedFanOut,
        announce: Callable[[Event], None],
        jitter: Callable[[], float] = random.random,
        *,
        application: str | None = None,
    ) -> None:
        name = option.consumer_name or application
        if name is None:
            raise ConfigError(
                "EnhancedFanOut.consumer_name: is required if `application` is not given. Choose a name that no other "
                "application uses: each registered consumer receives all records of the stream"
            )
        self.first_page_bytes: int = FIRST_PAGE_BYTES
        self._client = client
        self._option = replace(option, consumer_name=name)
        self._announce = announce
        self._jitter = jitter
        self._registration = Registration(client, stream, name, announce)

    async def close(self) -> None:
        """Do nothing: requests in flight end with their readers, and the consumer stays registered."""

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        """Yield pages, as `Fetcher.read`.

        Raises:
            FanOutRefused: Enhanced fan-out is not available. Polling may work.
        """
        clock = self._client.clock
        pace = SubscribingPace()
        begun = clock.monotonic()
        since = position.since(self._client.service_time() - LATEST_MARGIN)
        ended_at: float | None = None
        cause: KinesisError | None = None
        unexpected = 0
        while True:
            if (delay := pace.delay(clock.monotonic())) > 0:
                await clock.sleep(delay)
            subscription: Subscription | None = None
            try:
                await self._registration.arn()
                if position == LATEST and clock.monotonic() - begun > PROMPT_START:
                    position = since  # such as after registering the consumer
                subscription = await self._subscribe(shard, position, pace)
                if subscription is None:
                    continue  # retry with the new consumer
                async with subscription:
                    if ended_at is not None:
                        self._announce(Resubscribed(shard.shard_id, clock.monotonic() - ended_at, cause))
                        ended_at = cause = None
                    else:
                        self._announce(Subscribed(shard.shard_id))
                        if subscription.started is not None:
                            since = position.since(subscription.started)
                    if position == LATEST:
                        position = since  # records that arrive before the first event must be read
                    unread = 0.0  # seconds in which events may have been buffered unread
                    waiting_since = clock.monotonic()
                    async for event in subscription:
                        pace.event_received()
                        unexpected = 0
                        arrived_at = clock.monotonic()
                        unread = max(unread - (arrived_at - waiting_since), 0.0)
                        as_of = None if unread else self._client.service_time()
                        position = _after(event) or position
                        ended = bool(event.child_shards)
                        behind, size_bytes = event.millis_behind_latest, subscription.size_bytes
                        yield Page(event.records, behind, size_bytes, ended, event.child_shards, as_of)
                        if ended:
                            return
                        waiting_since = clock.monotonic()
                        unread = min(unread + waiting_since - arrived_at, STALE_AFTER)
            except KinesisError as error:
                if isinstance(error, InvalidArgument) and too_early(position, self._client.service_time()):
                    await clock.sleep(TOO_EARLY_DELAY)
                    continue
                unexpected = unexpected + 1 if isinstance(error, (UnexpectedResponse, CredentialsError)) else 0
                in_use = isinstance(error, ResourceInUse)
                # Deregistering a consumer ends its subscriptions with NotFound: the next call finds the reason.
                deregistered = isinstance(error, NotFound) and subscription is not None
                if unexpected > MAX_UNEXPECTED or not (
                    unexpected or in_use or deregistered or error.throttled or error.retry_safe
                ):
                    raise
                cause = error
                delay = pace.failed(clock.monotonic(), self._jitter(), in_use=in_use)
                _log.debug("%s: the subscription ended, and is retried in %.1f s: %s", shard.shard_id, delay, error)
                self._announce(FetchFailed(shard.shard_id, error, delay, "SubscribeToShard"))
                if position == LATEST:
                    position = since
            if ended_at is None:
                ended_at = clock.monotonic()

    async def _subscribe(self, shard: Shard, position: Position, pace: SubscribingPace) -> Subscription | None:
        """Return a new subscription. None if its consumer was deregistered and has been replaced."""
        clock = self._client.clock
        arn = await self._registration.arn()
        kind, number, moment = position.iterator_arguments
        pace.called(clock.monotonic())
        try:
            subscription = await self._client.subscribe(
                arn,
                shard.shard_id,
                kind,
                starting_sequence_number=number,
                timestamp=moment,
                idle_timeout=self._option.idle_timeout,
            )
        except NotFound:
            if await self._registration.lost(arn):
                return None
            raise
        except LimitExceeded:
            raise  # too many calls per second
        except ServiceError as error:
            refusal = None if error.code.startswith("KMS") else refused(error)
            if refusal is None:
                raise
            raise refusal from error
        pace.subscribed(clock.monotonic())
        return subscription


def _after(event: SubscribeToShardEvent[bytes]) -> Position | None:
    """Return the start position of the next subscription. None if the event does not have one."""
    number = event.continuation_sequence_number
    if number is None or not number.isdecimal():
        if not event.records:
            return None
        number = event.records[-1].sequence_number
    return Position.after(number)
