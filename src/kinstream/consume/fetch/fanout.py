"""FanOutFetcher: reads shards by enhanced fan-out, subscription after subscription, with no record lost or twice in between."""

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
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, PROMPT, TOO_EARLY_PAUSE, Position, too_early
from kinstream.consume.fetch.registration import Registration, refused
from kinstream.consume.fetch.subscribing import SubscribingPace
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
"""Seconds of waiting after which whatever had gathered on the way is read, and the next event is a new one. What gathers is at
most HTTP/2's window and one event, 3 MiB; a shorter pause needs only as much waiting as it had."""

PATIENCE = 5
"""So often in a row a stream may be damaged, and credentials may be missing, before that is taken to be lasting."""

FIRST_PAGE_BYTES = 2 << 20
"""What the first event of a shard that lags weighs, about."""

_log = logging.getLogger("kinstream.consumer")


class FanOutFetcher:
    """Reads shards by enhanced fan-out.

    A subscription lasts five minutes at most. When it has ended, however it ended, the next one goes on after the last event's
    continuation sequence number, at once if it had its time, after a pause if it failed. While nobody asks for the next page, the
    service is held up by HTTP/2's windows and ends the subscription in its time; nothing is lost by that.

    Args:
        client: Asks, and has the clock.
        stream: The stream.
        option: The consumer's name, and what silence means.
        announce: Is given an event when a subscription begins or fails.
        jitter: Gives numbers from 0 to 1, so that shards do not subscribe in step.
        application: The consumer's name where the option has none.

    Attributes:
        first_page_bytes: As `Fetcher` has it. An event is small, and an idle shard's may be long in coming.

    Raises:
        ConfigError: The consumer has no name, or the application's is none for it.
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
                "EnhancedFanOut.consumer_name: must be given where there is no application to name the consumer after; "
                "each name gets all records of the stream"
            )
        self.first_page_bytes: int = FIRST_PAGE_BYTES
        self._client = client
        self._option = replace(option, consumer_name=name)
        self._announce = announce
        self._jitter = jitter
        self._registration = Registration(client, stream, name, announce)

    async def close(self) -> None:
        """Do nothing: what is under way ends with its reader, and the consumer stays registered."""

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        """Yield page after page, as `Fetcher.read`.

        Raises:
            FanOutRefused: Enhanced fan-out cannot be had; polling may work.
        """
        clock = self._client.clock
        pace = SubscribingPace()
        begun = clock.monotonic()
        since = position.since(self._client.service_time() - LATEST_MARGIN)
        broken_off: float | None = None
        why: KinesisError | None = None
        strange = 0
        while True:
            if (delay := pace.delay(clock.monotonic())) > 0:
                await clock.sleep(delay)
            subscription: Subscription | None = None
            try:
                await self._registration.arn()
                if position == LATEST and clock.monotonic() - begun > PROMPT:
                    position = since  # the consumer had to be registered
                subscription = await self._subscribe(shard, position, pace)
                if subscription is None:
                    continue  # in the name of another consumer
                async with subscription:
                    if broken_off is not None:
                        self._announce(Resubscribed(shard.shard_id, clock.monotonic() - broken_off, why))
                        broken_off = why = None
                    else:
                        self._announce(Subscribed(shard.shard_id))
                        if subscription.started is not None:
                            since = position.since(subscription.started)
                    if position == LATEST:
                        position = since  # what comes until the first event must not be missed
                    unread = 0.0  # seconds in which events may have gathered that nobody asked for
                    asked = clock.monotonic()
                    async for event in subscription:
                        pace.heard()
                        strange = 0
                        heard = clock.monotonic()
                        unread = max(unread - (heard - asked), 0.0)
                        as_of = None if unread else self._client.service_time()
                        position = _after(event) or position
                        ended = bool(event.child_shards)
                        behind, size_bytes = event.millis_behind_latest, subscription.size_bytes
                        yield Page(event.records, behind, size_bytes, ended, event.child_shards, as_of)
                        if ended:
                            return
                        asked = clock.monotonic()
                        unread = min(unread + asked - heard, STALE_AFTER)
            except KinesisError as error:
                if isinstance(error, InvalidArgument) and too_early(position, self._client.service_time()):
                    await clock.sleep(TOO_EARLY_PAUSE)
                    continue
                strange = strange + 1 if isinstance(error, (UnexpectedResponse, CredentialsError)) else 0
                in_use = isinstance(error, ResourceInUse)
                # A consumer that is deregistered ends its subscriptions by "not found": the next call finds out.
                deregistered = isinstance(error, NotFound) and subscription is not None
                if strange > PATIENCE or not (strange or in_use or deregistered or error.throttled or error.retry_safe):
                    raise
                why = error
                pause = pace.failed(clock.monotonic(), self._jitter(), in_use=in_use)
                _log.debug("%s: the subscription ends, another follows in %.1f s: %s", shard.shard_id, pause, error)
                self._announce(FetchFailed(shard.shard_id, error, pause, "SubscribeToShard"))
                if position == LATEST:
                    position = since
            if broken_off is None:
                broken_off = clock.monotonic()

    async def _subscribe(self, shard: Shard, position: Position, pace: SubscribingPace) -> Subscription | None:
        """Return a new subscription; None where its consumer was deregistered, and there is another now."""
        clock = self._client.clock
        arn = await self._registration.arn()
        kind, number, moment = position.starting
        pace.called(clock.monotonic())
        try:
            subscription = await self._client.subscribe(
                arn,
                shard.shard_id,
                kind,
                starting_sequence_number=number,
                timestamp=moment,
                silence=self._option.idle_timeout,
            )
        except NotFound:
            if await self._registration.lost(arn):
                return None
            raise
        except LimitExceeded:
            raise  # too many calls a second
        except ServiceError as error:
            refusal = None if error.code.startswith("KMS") else refused(error)
            if refusal is None:
                raise
            raise refusal from error
        pace.answered(clock.monotonic())
        return subscription


def _after(event: SubscribeToShardEvent[bytes]) -> Position | None:
    """Return where the next subscription goes on; None where the event does not say."""
    number = event.continuation_sequence_number
    if number is None or not number.isdecimal():
        if not event.records:
            return None
        number = event.records[-1].sequence_number
    return Position.after(number)
