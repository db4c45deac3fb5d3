"""Subscriptions (SubscribeToShard): events of one shard, pushed to one consumer for 5 minutes.

The sender (`push`) requests the next event only after the last one has been written, so a client that does not read costs one
buffered event. A subscription sleeps until it is woken: by a record of its shard, by a change of its stream or consumer, by a
subscription that replaces it, or at a time of the server's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from kinstream import service_quotas
from kinstream.clock import Clock
from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import (
    CallContext,
    check_dry_run,
    consumer_not_found,
    find_consumer,
    parse_consumer_arn,
)
from kinstream.local.operations.shard_operations import child_response
from kinstream.local.operations.shard_reader import ShardReader, Start
from kinstream.local.state import sequence
from kinstream.local.state.model import ACCOUNT, Consumer, Shard, Status, Stream
from kinstream.local.state.quotas import Bucket, Quotas
from kinstream.local.state.request_error import RequestError, in_use, invalid, limit_exceeded, not_found
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import Chunk, Store, Write

HEARTBEAT_SECONDS = 5.0
"""Seconds between events without records if a shard is idle. AWS does not document the interval. Clients wait longer."""

EVENT_BYTES = service_quotas.SUBSCRIPTION_BYTES_PER_SECOND
"""Maximum bytes of data and partition keys in one event, unless a single record is larger. This is the quota of a consumer for
one second. The API reference has no separate limit. In base64 even a record of 10 MiB stays within the 16 MiB of the event
stream specification."""

EVENT_RECORDS = service_quotas.GET_RECORDS_MAX_RECORDS
"""Maximum records in one event, the same as in a GetRecords response."""

_KEPT_CALLS = 1024
"""Successful calls remembered before those no longer needed are removed."""


class _SubscriptionKey(NamedTuple):
    """Key of a subscription: there is at most one for each shard and consumer."""

    shard: int
    """Number of the shard in the store."""
    consumer: str
    created: int
    """Registration time of the consumer in milliseconds."""


class Subscriptions:
    """The operation SubscribeToShard, and the open subscriptions.

    Args:
        state: State of the streams.
        store: Store of the records. It notifies of writes.
        clock: Source of time.
        quotas: Counts calls and limits throughput. None disables quotas.
        catch_up: Applies the changes that are due by time.
    """

    def __init__(
        self,
        state: State,
        store: Store,
        clock: Clock,
        quotas: Quotas | None,
        catch_up: Callable[[float], Awaitable[None]],
    ) -> None:
        self.state = state
        self.store = store
        self.clock = clock
        self.catch_up = catch_up
        self.reader: ShardReader = ShardReader(store)
        self._quotas = quotas
        self._closed = False
        self._open: dict[int, set[Subscription]] = {}
        """Subscriptions by the number of their shard, including replaced ones."""
        self._current: dict[_SubscriptionKey, Subscription] = {}
        self._called: dict[_SubscriptionKey, float] = {}
        self._called_threshold = _KEPT_CALLS
        store.on_write = self._written

    def __len__(self) -> int:
        """Return the number of subscriptions, including those with a last event still to be read."""
        return sum(map(len, self._open.values()))

    async def subscribe(self, request: requests.SubscribeToShard, call: CallContext) -> Subscription:
        """SubscribeToShard."""
        arn, position = request.consumer_arn or "", request.starting_position or requests.StartingPosition()
        found = parse_consumer_arn(arn)
        if found is None:
            raise invalid(f"ConsumerARN {arn} is invalid.")
        stream = self.state.readable(found.stream)
        _, consumer = find_consumer(self.state, found)
        if consumer.status is not Status.ACTIVE:
            # Wording of AWS: awslabs/kinesis-hot-shard-advisor issue 37.
            raise in_use(
                f"Consumer {consumer.name} with creation timestamp {found.created} under stream: {stream.name}, "
                f"account {ACCOUNT} is not in ACTIVE status."
            )
        shard = self.state.shard(stream, request.shard_id or "")
        if stream.expired(shard, call.now):
            raise not_found(f"Shard {shard.id} in stream {stream.name} under account {ACCOUNT} does not exist")
        start = Start(position.type, position.sequence_number, position.timestamp, "SubscribeToShard")
        first = self.reader.start_position(stream, shard, start, call.now)
        check_dry_run(request)
        key = _SubscriptionKey(shard.number, consumer.name, consumer.created)
        self._check_pace(key, stream, shard, consumer, call.now)
        earlier = self._current.get(key)
        if earlier is not None:
            earlier.end_replaced()
        subscription = Subscription(self, stream, consumer, shard, first, paced=self._quotas is not None)
        self._current[key] = subscription
        self._open.setdefault(shard.number, set()).add(subscription)
        if self._closed:
            subscription.close()
        return subscription

    def wake(self) -> None:
        """Wake all subscriptions, after the clock was advanced."""
        for subscriptions in self._open.values():
            for subscription in subscriptions:
                subscription.wake()

    def close(self) -> None:
        """End all subscriptions, and any that is still requested."""
        self._closed = True
        for subscription in [one for some in self._open.values() for one in some]:
            subscription.close()

    def forget(self, subscription: Subscription) -> None:
        """Remove a subscription that is over."""
        shard = subscription.shard.number
        others = self._open.get(shard, set())
        others.discard(subscription)
        if not others:
            self._open.pop(shard, None)
        key = _SubscriptionKey(shard, subscription.consumer.name, subscription.consumer.created)
        if self._current.get(key) is subscription:
            del self._current[key]

    def _check_pace(self, key: _SubscriptionKey, stream: Stream, shard: Shard, consumer: Consumer, now: float) -> None:
        """Refuse a call that follows another too soon, or else record it.

        Within 5 seconds of a successful call the error is always ResourceInUse, as documented in the API reference. The rate
        limit applies to the remaining calls, such as one soon after a refused call.
        """
        moment = self.clock.monotonic()
        allowed = self._quotas is None or self._quotas.may_subscribe(key.shard, f"{key.consumer}:{key.created}", now)
        called = self._called.get(key)
        if called is not None and moment - called < service_quotas.SUBSCRIBE_AGAIN_SECONDS:
            raise _active(stream, shard, consumer)
        if not allowed:
            raise limit_exceeded(
                f"Rate exceeded for consumer {consumer.name} on shard {shard.id} in stream {stream.name} "
                f"under account {ACCOUNT}."
            )
        if len(self._called) >= self._called_threshold:
            recent = moment - service_quotas.SUBSCRIBE_AGAIN_SECONDS
            self._called = {other: at for other, at in self._called.items() if at > recent}
            self._called_threshold = max(_KEPT_CALLS, 2 * len(self._called))
        self._called[key] = moment

    def _written(self, writes: Sequence[Write]) -> None:
        """Wake the subscriptions that a write may affect."""
        if not self._open:
            return
        for write in writes:
            if not isinstance(write, Chunk):
                self.wake()  # a change of a stream, which is rare
                return
            for subscription in self._open.get(write.number, ()):
                subscription.wake()


class Subscription:
    """A subscription of one consumer to one shard.

    Args:
        subscriptions: The open subscriptions, which contain it.
        stream: The stream of the shard.
        consumer: The registered consumer.
        shard: The shard to read.
        position: Position of the first record to push.
        paced: True to limit the throughput to the quota of a consumer.

    Attributes:
        closed: Set once it has no reader any more.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        stream: Stream,
        consumer: Consumer,
        shard: Shard,
        position: int,
        *,
        paced: bool,
    ) -> None:
        now = subscriptions.clock.monotonic()
        self.shard = shard
        self.consumer = consumer
        self.closed: asyncio.Event = asyncio.Event()
        self._subscriptions = subscriptions
        self._clock = subscriptions.clock
        self._stream = stream
        self._position = position
        # No burst is granted: each event is followed by the delay that corresponds to its size.
        self._bucket = Bucket(service_quotas.SUBSCRIPTION_BYTES_PER_SECOND, 0, now) if paced else None
        self._until = now + service_quotas.SUBSCRIPTION_SECONDS
        self._heartbeat = now
        self._ended = False
        self._replaced = False
        self._woken = asyncio.Event()

    async def next(self) -> responses.SubscribeToShardEvent | None:
        """Wait for the next event and return it, or None if the subscription is over.

        Raises:
            RequestError: It is over for a reason that the client is notified of.
            OSError: The store failed.
        """
        while not await self._over():
            now = self._clock.monotonic()
            pause = (
                0.0 if self._bucket is None else -self._bucket.level(now) / service_quotas.SUBSCRIPTION_BYTES_PER_SECOND
            )
            if pause <= 0:
                event = self._event(now)
                if event is not None:
                    return event
                pause = self._heartbeat - now
            await self._wait(pause)
        return None

    async def wait_while_open(self, sending: asyncio.Future[None]) -> bool:
        """Wait until `sending` completes. Return False if the subscription was over before."""
        sending.add_done_callback(lambda _: self.wake())
        while not sending.done():
            try:
                if await self._over():
                    return False
            except (RequestError, OSError):
                return False
            await self._wait(service_quotas.SUBSCRIPTION_SECONDS)
        return True

    def wake(self) -> None:
        """Wake the subscription, so that it checks for events."""
        self._woken.set()

    def end_replaced(self) -> None:
        """End it because another subscription replaces it."""
        self._replaced = True
        self.wake()

    def close(self) -> None:
        """End it because its client has disconnected or the server stops."""
        self._subscriptions.forget(self)
        self.closed.set()
        self.wake()

    async def _over(self) -> bool:
        """Return True if it is over. Raises RequestError if the client is notified of the reason."""
        self._woken.clear()
        await self._subscriptions.catch_up(self._clock.wall())
        if self.closed.is_set() or self._ended:
            return True
        stream = self._stream
        if self._replaced:
            raise _active(stream, self.shard, self.consumer)
        if self._subscriptions.state.readable(stream.name) is not stream:
            raise not_found(f"Stream {stream.name} under account {ACCOUNT} not found.")
        consumer = stream.settings.consumers.get(self.consumer.name)
        if consumer is None or consumer.created != self.consumer.created or consumer.status is not Status.ACTIVE:
            raise consumer_not_found(self.consumer.name, stream)
        return self._clock.monotonic() >= self._until

    def _event(self, now: float) -> responses.SubscribeToShardEvent | None:
        """Return the event to push now, or None."""
        shard = self.shard
        newest = self._subscriptions.store.newest(shard.number)
        at_end = shard.ending_place is not None and self._position >= shard.ending_place
        if self._position > newest.position and not at_end and now < self._heartbeat:
            return None
        found = self._subscriptions.reader.read(
            self._stream, shard, self._position, self._clock.wall(), limit=EVENT_RECORDS, size=EVENT_BYTES
        )
        self._position, self._ended = found.position, found.ended
        self._heartbeat = now + HEARTBEAT_SECONDS
        if self._bucket is not None and found.size:
            self._bucket.use(found.size)
        event = responses.SubscribeToShardEvent(found.records, found.millis_behind)
        if found.ended:
            event.child_shards = [child_response(child) for child in self._stream.children(shard)]
        elif found.records:
            event.continuation_sequence_number = found.records[-1].sequence_number
        else:
            # The record before this position, which may have been trimmed.
            second = max(shard.origin, newest.arrival // 1000)
            number = sequence.number(shard.origin, self._position - 1, second, shard.index)
            event.continuation_sequence_number = str(number)
        return event

    async def _wait(self, seconds: float) -> None:
        """Wait until it is woken, at most `seconds`, and not beyond its own end or a transition of its stream."""
        due = self._subscriptions.state.due(self._stream.name) - self._clock.wall()
        seconds = min(seconds, due, self._until - self._clock.monotonic())
        with suppress(TimeoutError):
            async with self._clock.timeout(max(0.0, seconds)):
                await self._woken.wait()


def _active(stream: Stream, shard: Shard, consumer: Consumer) -> RequestError:
    # Wording of AWS: awslabs/amazon-kinesis-client issue 391.
    which = f"{ACCOUNT}:{stream.name}:{shard.id}:{consumer.name}"
    return in_use(f"Another active subscription exists for this consumer: {which}")
