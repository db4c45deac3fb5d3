"""State of streams, shards and consumers: each command returns events to store. Pure, so that simulations can drive it.

Every command takes `now`, in seconds since 1970, changes the state and returns the events that a store must persist, in order.
An impossible command raises `RequestError` and changes nothing. Records are not part of the state: `place` decides their shards
and sequence numbers, and the store persists them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import msgspec

from kinstream.local.state import resharding
from kinstream.local.state.model import (
    ACCOUNT,
    Account,
    AccountChanged,
    Change,
    Consumer,
    Encryption,
    Event,
    Placement,
    RecordsExpired,
    Settings,
    Shard,
    ShardChanged,
    Status,
    Stream,
    StreamChanged,
    StreamDeleted,
)
from kinstream.local.state.request_error import in_use, invalid, limit_exceeded, not_found, validation
from kinstream.local.state.resharding import Reshard
from kinstream.sharding.hashkey import even_ranges, parse_hash_key

TRIM_SECONDS = 60.0
"""Seconds between two searches for records past their retention."""

SHARD_LIMIT = 20_000
"""Open shards of all streams together (quotas: the default of the largest regions)."""

MAX_SHARD_COUNT = 10_000
"""Maximum shards that UpdateShardCount creates (API reference, `UpdateShardCount`)."""

SHARD_COUNTS_A_DAY = 10
"""Maximum UpdateShardCount calls for a stream in 24 hours (API reference, `UpdateShardCount`)."""

ON_DEMAND_STREAMS = 50
"""On-demand streams of an account (quotas)."""

CONSUMERS = 20
"""Registered consumers of a stream (API reference, `RegisterStreamConsumer`)."""

CONSUMERS_ON_DEMAND_ADVANTAGE = 50
"""Registered consumers of an on-demand stream if the account has a minimum throughput billing commitment."""

STREAMS_CREATING_OR_DELETING = 5
"""Streams of an account that may be CREATING or DELETING at the same time (API reference, `CreateStream`). That DELETING
counts too follows from the error message of AWS."""

CONSUMERS_CREATING = 5
"""Consumers of a stream that may be CREATING at the same time (API reference, `RegisterStreamConsumer`)."""

DAY_MILLIS = 24 * 3_600_000
"""Period over which some operations are counted."""

SLACK = 1.0
"""Seconds by which a clock may be adjusted without ending a transition early."""

ON_DEMAND_SHARDS = 4
"""Shards with which an on-demand stream starts (developer guide, "Choose the data stream capacity mode")."""


Admit: TypeAlias = Callable[[Shard, list[int]], list[int]]
"""Returns the records of a put, by index, that a shard accepts."""


class State:
    """The state of all streams.

    Args:
        transition: Seconds for which a stream is CREATING, UPDATING or DELETING.
    """

    def __init__(self, *, transition: float = 0.0) -> None:
        self.transition = transition
        self.streams: dict[str, Stream] = {}
        self.account: Account = Account()
        # End times of the transitions of streams and consumers, by stream name and consumer name.
        self._transitions: dict[tuple[str, str], float] = {}
        # Creation times of deleted streams, and the last second in their sequence numbers. A new stream of the same name reuses
        # neither.
        self._deleted: dict[str, tuple[int, int]] = {}
        self._next_number = 1
        self._trim_due = 0.0

    def restore(self, streams: Iterable[Stream], next_number: int, account: Account | None = None) -> None:
        """Restore the state from a store. `last_place` and `arrival` of each shard must be those of its newest record."""
        self._next_number = next_number
        self.account = account or self.account
        for stream in streams:
            self.streams[stream.name] = stream
            if stream.settings.until is not None:
                self._transitions[stream.name, ""] = stream.settings.until
            for consumer in stream.settings.consumers.values():
                if consumer.until is not None:
                    self._transitions[stream.name, consumer.name] = consumer.until

    def stream(self, name: str) -> Stream:
        """Return a stream in any status. Raises RequestError if it does not exist."""
        try:
            return self.streams[name]
        except KeyError:
            raise not_found(f"Stream {name} under account {ACCOUNT} not found.") from None

    def active(self, name: str) -> Stream:
        """Return a stream that is ACTIVE. Raises RequestError."""
        stream = self.stream(name)
        _check_active(stream)
        return stream

    def open_shards(self) -> int:
        """Return the number of open shards of all streams."""
        return sum(len(stream.open) for stream in self.streams.values())

    def creating_or_deleting(self) -> int:
        """Return the number of streams that are CREATING or DELETING."""
        moving = (self.streams[name] for name, consumer in self._transitions if not consumer)
        return sum(stream.settings.status is not Status.UPDATING for stream in moving)

    def readable(self, name: str) -> Stream:
        """Return a stream that can be read and written. Raises RequestError."""
        stream = self.stream(name)
        if stream.settings.status not in (Status.ACTIVE, Status.UPDATING):
            raise not_found(f"Stream {name} under account {ACCOUNT} not found.")
        return stream

    def shard(self, stream: Stream, name: str) -> Shard:
        """Return a shard by its id, or by the number in it, which AWS accepts too. Raises RequestError."""
        digits = name.removeprefix("shardId-")
        index = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 12 else -1
        if not 0 <= index < len(stream.shards):
            raise not_found(f"Could not find shard {name} in stream {stream.name} under account {ACCOUNT}.")
        return stream.shards[index]

    def advance(self, now: float) -> list[Event]:
        """End the transitions that are due, each at its own time.

        A transition that seems longer than any is was started with another clock, or before the clock was set back. It ends too.
        """
        if not self._transitions:
            return []
        events: list[Event] = []
        for key, due in sorted(self._transitions.items(), key=lambda item: item[1]):
            if now < due <= now + self.transition + SLACK:
                continue
            events.extend(self._end_transition(key, min(due, now), now))
        return events

    def complete(self, name: str, now: float) -> list[Event]:
        """End the transition of a stream before its time. Does nothing if it has none."""
        return self._end_transition((name, ""), now, now) if (name, "") in self._transitions else []

    def _end_transition(self, key: tuple[str, str], due: float, now: float) -> list[Event]:
        """End a transition.

        Args:
            key: Name of the stream, and name of the consumer or "".
            due: End of the transition in seconds since 1970.
            now: Seconds since 1970.
        """
        del self._transitions[key]
        name, consumer = key
        stream = self.streams[name]
        if consumer:
            return [self._end_consumer_transition(stream, consumer)]
        if stream.settings.status is not Status.DELETING:
            return self._become_active(stream, due)
        del self.streams[name]
        self._remember(stream, now)
        return [StreamDeleted(name, [shard.number for shard in stream.shards])]

    def due(self, name: str) -> float:
        """Return the end of the next transition of a stream or of one of its consumers, or infinity."""
        return min((until for (stream, _), until in self._transitions.items() if stream == name), default=float("inf"))

    def trim(self, now: float) -> list[Event]:
        """Trim records that are past their retention: all at the first call, then every `TRIM_SECONDS`.

        Readers do not see them before that either. A shard remains in the list even if all of its records are trimmed, because
        its index is its position in that list.
        """
        if now < self._trim_due:
            return []
        self._trim_due = now + TRIM_SECONDS
        events: list[Event] = []
        for stream in self.streams.values():
            horizon = stream.horizon(now)
            for shard in stream.shards:
                if shard.last_place == shard.trimmed or shard.created >= horizon:
                    continue
                if shard.arrival < horizon:
                    # Once no record has the last sequence number, the shard itself must remember it.
                    shard.trimmed = shard.last_place
                    events.append(ShardChanged(stream.name, shard))
                events.append(RecordsExpired(shard.number, horizon))
        return events

    def create(self, name: str, shard_count: int, now: float, **settings: Any) -> list[Event]:
        """Create a stream with shards of equal size.

        Args:
            name: Name of the stream.
            shard_count: Number of shards.
            now: Seconds since 1970.
            settings: Fields of `Settings` that differ from their defaults.
        """
        if name in self.streams:
            raise in_use(f"Stream {name} under account {ACCOUNT} already exists.")
        self._check_limit(shard_count)
        if settings.get("on_demand"):
            self._check_on_demand_limit()
        before, last_second = self._deleted.get(name, (-1, -1))
        created = max(int(now * 1000), before + 1)
        shards = [
            Shard(
                number=self._next_number + index,
                index=index,
                start=low.to_bytes(16, "big"),
                end=high.to_bytes(16, "big"),
                created=created,
                origin=max(created // 1000, last_second + 1),
            )
            for index, (low, high) in enumerate(even_ranges(shard_count))
        ]
        self._next_number += shard_count
        stream = Stream(Settings(name=name, created=created, status=Status.CREATING, **settings), shards)
        self.streams[name] = stream
        return [self._begin(stream, Status.CREATING, now), *(ShardChanged(name, shard) for shard in shards)]

    def delete(self, name: str, now: float, *, with_consumers: bool = False) -> list[Event]:
        """Delete a stream in any status. If it has consumers, `with_consumers` must be set."""
        stream = self.stream(name)
        if stream.settings.status is Status.DELETING:
            return []
        consumers = stream.settings.consumers
        if consumers and not with_consumers:
            # Wording of AWS: terraform-provider-aws issue 8420.
            raise in_use(
                f"DeleteStream can't delete {ACCOUNT}:{name} because there are consumers associated with this data stream. "
                f"To delete {name} anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all "
                "the consumers that are associated with it."
            )
        for key in consumers:
            self._transitions.pop((name, key), None)
        deleting = {key: msgspec.structs.replace(c, status=Status.DELETING, until=None) for key, c in consumers.items()}
        stream.settings = msgspec.structs.replace(stream.settings, consumers=deleting)
        return [self._begin(stream, Status.DELETING, now)]

    def update(self, name: str, **settings: Any) -> list[Event]:
        """Change settings of an ACTIVE stream immediately."""
        stream = self.active(name)
        stream.settings = msgspec.structs.replace(stream.settings, **settings)
        return [StreamChanged(stream.settings)]

    def change(self, name: str, change: Change, now: float, **noted: Any) -> list[Event]:
        """Start a change of settings. The stream is UPDATING, and the change takes effect once it is ACTIVE again.

        Args:
            name: Name of the stream, which must be ACTIVE.
            change: The new settings.
            now: Seconds since 1970.
            noted: Settings that take effect immediately.
        """
        stream = self.active(name)
        if change.shards is not None:
            self._check_limit(max(0, change.shards - len(stream.open)))
        if change.on_demand and not stream.settings.on_demand:
            self._check_on_demand_limit()
        stream.settings = msgspec.structs.replace(stream.settings, **noted)
        return [self._begin(stream, Status.UPDATING, now, change)]

    def scale(self, name: str, target: int, now: float) -> list[Event]:
        """Start resharding to `target` shards of equal size. It takes effect once the stream is ACTIVE again."""
        stream = self.active(name)
        _check_provisioned(stream)
        current = len(stream.open)
        counts = f"Current open shard count: {current} Target shard count: {target}"
        if target > MAX_SHARD_COUNT:
            raise limit_exceeded(f"UpdateShardCount cannot scale to more than {MAX_SHARD_COUNT} shards. {counts}")
        if target > current * 2:
            raise limit_exceeded(
                f"UpdateShardCount cannot scale up over double your current open shard count. {counts}"
            )
        if target * 2 < current:
            raise limit_exceeded(
                f"UpdateShardCount cannot scale down below half your current open shard count. {counts}"
            )
        counted = within_a_day(stream.settings.counted, now)
        if len(counted) >= SHARD_COUNTS_A_DAY:
            raise limit_exceeded(
                f"Stream {name} under account {ACCOUNT} has reached the limit of {SHARD_COUNTS_A_DAY} UpdateShardCount "
                "operations in a rolling 24-hour period."
            )
        return self.change(name, Change(shards=target), now, counted=[*counted, int(now * 1000)])

    def split(self, name: str, shard_name: str, new_starting_hash_key: str, now: float) -> list[Event]:
        """Start splitting a shard in two. It takes effect once the stream is ACTIVE again."""
        stream = self.active(name)
        _check_provisioned(stream)
        shard = self._open_shard(stream, shard_name)
        self._check_limit(1)
        at = parse_hash_key(new_starting_hash_key)
        low, high = int.from_bytes(shard.start, "big"), int.from_bytes(shard.end, "big")
        if at is None or not low + 1 < at < high:
            raise invalid(
                f"NewStartingHashKey {new_starting_hash_key} used in SplitShard() on shard {shard.id} in stream {name} "
                f"under account {ACCOUNT} is not both greater than one plus the shard's StartingHashKey {low} and "
                f"less than the shard's EndingHashKey {high}."
            )
        return [self._begin(stream, Status.UPDATING, now, Reshard(shard=shard.index, at=at.to_bytes(16, "big")))]

    def merge(self, name: str, shard_name: str, adjacent_name: str, now: float) -> list[Event]:
        """Start merging two adjacent shards. It takes effect once the stream is ACTIVE again."""
        stream = self.active(name)
        _check_provisioned(stream)
        shard = self._open_shard(stream, shard_name)
        adjacent = self._open_shard(stream, adjacent_name)
        low, high = sorted((shard, adjacent), key=lambda s: s.start)
        if int.from_bytes(low.end, "big") + 1 != int.from_bytes(high.start, "big"):
            raise invalid(
                f"Shards {shard.id} and {adjacent.id} in stream {name} under account {ACCOUNT} "
                "are not an adjacent pair of shards eligible for merging"
            )
        return [self._begin(stream, Status.UPDATING, now, Reshard(shard=shard.index, adjacent=adjacent.index))]

    def place(
        self, stream: Stream, hash_keys: Sequence[bytes], now: float, admit: Admit | None = None
    ) -> list[Placement]:
        """Decide the shard and the sequence number of each record of a put.

        Args:
            stream: Stream that receives the records.
            hash_keys: Hash key of each record as 16 bytes.
            now: Seconds since 1970.
            admit: Returns the records that a shard accepts. Others are left out of the placements. None accepts all.
        """
        shards, ends = stream.open, stream.ends
        if len(shards) == 1:
            members = {0: list(range(len(hash_keys)))}
        else:
            members = {}
            for member, hash_key in enumerate(hash_keys):
                owner = bisect_left(ends, hash_key)
                if owner in members:
                    members[owner].append(member)
                else:
                    members[owner] = [member]
        moment = int(now * 1000)
        placements = []
        for owner, chosen in members.items():
            shard = shards[owner]
            if admit is not None:
                chosen = admit(shard, chosen)
                if not chosen:
                    continue
            # Arrival times must not decrease if the clock is set back.
            shard.arrival = max(moment, shard.arrival, shard.created)
            placements.append(Placement(shard, shard.last_place + 1, shard.arrival, chosen))
            shard.last_place += len(chosen)
        return placements

    def set_account(self, account: Account) -> list[Event]:
        """Change the settings of the account."""
        self.account = account
        return [AccountChanged(account)]

    def register(self, name: str, consumer_name: str, now: float, tags: dict[str, str]) -> list[Event]:
        """Register a consumer with a stream."""
        stream = self.stream(name)
        if stream.settings.status in (Status.CREATING, Status.DELETING):
            _check_active(stream)
        consumers = stream.settings.consumers
        if consumer_name in consumers:
            raise in_use(f"Consumer {consumer_name} under stream {name} already exists for account {ACCOUNT}.")
        advantage = stream.settings.on_demand and self.account.committed(now)
        limit = CONSUMERS_ON_DEMAND_ADVANTAGE if advantage else CONSUMERS
        if len(consumers) >= limit:
            raise limit_exceeded(
                f"Stream {name} under account {ACCOUNT} has reached its limit of {limit} registered consumers."
            )
        if sum(consumer.status is Status.CREATING for consumer in consumers.values()) >= CONSUMERS_CREATING:
            raise limit_exceeded(
                f"Stream {name} under account {ACCOUNT} has reached its limit of {CONSUMERS_CREATING} consumers in "
                "CREATING status."
            )
        until = now + self.transition
        self._transitions[name, consumer_name] = until
        return [self._replace_consumer(stream, Consumer(consumer_name, int(now * 1000), Status.CREATING, until, tags))]

    def deregister(self, stream: Stream, consumer: Consumer, now: float) -> list[Event]:
        """Deregister a consumer in any status."""
        if consumer.status is Status.DELETING:
            return []
        until = now + self.transition
        self._transitions[stream.name, consumer.name] = until
        return [self._replace_consumer(stream, msgspec.structs.replace(consumer, status=Status.DELETING, until=until))]

    def update_consumer(self, stream: Stream, consumer: Consumer, **settings: Any) -> list[Event]:
        """Change settings of an ACTIVE consumer."""
        if consumer.status is not Status.ACTIVE:
            raise in_use(
                f"Consumer {consumer.name} with creation timestamp {consumer.created // 1000} under stream "
                f"{stream.name} and account {ACCOUNT} is not in ACTIVE status."
            )
        return [self._replace_consumer(stream, msgspec.structs.replace(consumer, **settings))]

    def _remember(self, stream: Stream, now: float) -> None:
        """Remember the times used by a deleted stream, and forget those of others that have passed."""
        self._deleted = {name: used for name, used in self._deleted.items() if used[1] >= int(now)}
        self._deleted[stream.name] = stream.settings.created, max((shard.origin for shard in stream.shards), default=0)

    def _replace_consumer(self, stream: Stream, consumer: Consumer) -> Event:
        consumers = stream.settings.consumers | {consumer.name: consumer}
        stream.settings = msgspec.structs.replace(stream.settings, consumers=consumers)
        return StreamChanged(stream.settings)

    def _end_consumer_transition(self, stream: Stream, name: str) -> Event:
        """End the transition of a consumer."""
        consumer = stream.settings.consumers[name]
        if consumer.status is Status.CREATING:
            return self._replace_consumer(stream, msgspec.structs.replace(consumer, status=Status.ACTIVE, until=None))
        others = {key: other for key, other in stream.settings.consumers.items() if key != name}
        stream.settings = msgspec.structs.replace(stream.settings, consumers=others)
        return StreamChanged(stream.settings)

    def _become_active(self, stream: Stream, due: float) -> list[Event]:
        """End CREATING or UPDATING of a stream, and apply its pending change."""
        events: list[Event] = []
        pending = stream.settings.pending
        stream.settings = msgspec.structs.replace(stream.settings, status=Status.ACTIVE, until=None, pending=None)
        if isinstance(pending, Reshard):
            events.extend(self._reshard(stream, [pending], due))
        elif pending is not None:
            if pending.shards is not None:
                spans = [(shard.index, int.from_bytes(shard.start, "big")) for shard in stream.open]
                events.extend(self._reshard(stream, resharding.equal(spans, len(stream.shards), pending.shards), due))
            stream.settings = _changed(stream, pending, due)
        events.append(StreamChanged(stream.settings))
        return events

    def _begin(self, stream: Stream, status: Status, now: float, pending: Reshard | Change | None = None) -> Event:
        until = now + self.transition
        stream.settings = msgspec.structs.replace(stream.settings, status=status, until=until, pending=pending)
        self._transitions[stream.name, ""] = until
        return StreamChanged(stream.settings)

    def _check_on_demand_limit(self) -> None:
        count = sum(stream.settings.on_demand for stream in self.streams.values())
        if count >= ON_DEMAND_STREAMS:
            raise limit_exceeded(
                f"This request would exceed the limit on the number of On-Demand streams for the account {ACCOUNT}. "
                f"Current On-Demand streams count: {count}. Limit: {ON_DEMAND_STREAMS}."
            )

    def _check_limit(self, more: int) -> None:
        count = self.open_shards()
        if count + more > SHARD_LIMIT:
            raise limit_exceeded(
                f"This request would exceed the shard limit for the account {ACCOUNT}. Current shard count for the "
                f"account: {count}. Limit: {SHARD_LIMIT}. Number of additional shards that would have resulted from "
                f"this request: {more}."
            )

    def _open_shard(self, stream: Stream, name: str) -> Shard:
        shard = self.shard(stream, name)
        if shard.closed is not None:
            # Wording of AWS: kinesalite issue 109.
            raise invalid(
                f"Shard {shard.id} in stream {stream.name} under account {ACCOUNT} has already been merged or split, and "
                "thus is not eligible for merging or splitting."
            )
        return shard

    def _reshard(self, stream: Stream, steps: Sequence[Reshard], due: float) -> list[Event]:
        """Apply splits and merges in order. Each may refer to the shards created by earlier ones."""
        touched: dict[int, Shard] = {}
        for step in steps:
            first = stream.shards[step.shard]
            if step.adjacent is None:
                parents = [first]
                before = (int.from_bytes(step.at, "big") - 1).to_bytes(16, "big")
                ranges = [(first.start, before), (step.at, first.end)]
            else:
                second = stream.shards[step.adjacent]
                parents = [first, second]
                ranges = [(min(first.start, second.start), max(first.end, second.end))]
            moment = max([int(due * 1000), *(p.arrival for p in parents), *(p.created for p in parents)])
            for parent in parents:
                parent.closed = moment
                parent.ending_place = parent.last_place + 1
            children = [
                Shard(
                    number=self._next_number + offset,
                    index=len(stream.shards) + offset,
                    start=start,
                    end=end,
                    created=moment,
                    origin=max([moment // 1000, *(p.origin + 1 for p in parents)]),
                    parent=first.index,
                    adjacent=step.adjacent,
                    arrival=max(p.arrival for p in parents),
                )
                for offset, (start, end) in enumerate(ranges)
            ]
            self._next_number += len(children)
            stream.shards.extend(children)
            touched |= {shard.index: shard for shard in (*parents, *children)}
        stream.reindex()
        return [ShardChanged(stream.name, shard) for shard in touched.values()]


def within_a_day(moments: list[int], now: float) -> list[int]:
    """Return the times, in milliseconds, that lie in the 24 hours before `now`."""
    return [moment for moment in moments if moment > now * 1000 - DAY_MILLIS]


def _check_active(stream: Stream) -> None:
    status = stream.settings.status
    if status is not Status.ACTIVE:
        raise in_use(f"Stream {stream.name} under account {ACCOUNT} not ACTIVE, instead in state {status.value}")


def _check_provisioned(stream: Stream) -> None:
    if stream.settings.on_demand:
        raise validation(f"Request is invalid. Stream {stream.name} under account {ACCOUNT} is in On-Demand mode.")


def _changed(stream: Stream, change: Change, due: float) -> Settings:
    """Return the settings of a stream with a change applied."""
    settings = stream.settings
    fields: dict[str, Any] = {
        name: value
        for name in ("on_demand", "retention_hours", "max_record_kib", "metrics", "warm_mibps")
        if (value := getattr(change, name)) is not None
    }
    if change.retention_hours is not None:
        fields["lost"] = stream.horizon(due)
    if change.on_demand is False:
        fields |= {"warm_mibps": None, "spread": False}
    if change.key_id is not None:
        # The arrival time of a record determines its encryption, so new records must not share a time with earlier ones.
        since = max([int(due * 1000), *(shard.arrival + 1 for shard in stream.open)])
        for shard in stream.open:
            shard.arrival = since
        horizon = stream.horizon(due)
        kept = [e for e, after in pairwise([*settings.encryptions, None]) if after is None or after.since >= horizon]
        fields["encryptions"] = [*kept, Encryption(since, change.key_id)]
    return msgspec.structs.replace(settings, **fields)
