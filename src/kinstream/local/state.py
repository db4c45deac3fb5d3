"""Streams and shards: commands in, events out. Pure, so that simulations can drive it alone.

Every command takes `now`, in seconds since 1970, changes the state and returns the events that a store must keep, in order. A
command that cannot be done raises `Refused` and changes nothing. Records do not live here: `place` decides their shards and
numbers, and the store keeps them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from kinstream import service_quotas
from kinstream.local import sequence
from kinstream.local.refusal import Refused, in_use, invalid, not_found
from kinstream.sharding.hashkey import even_ranges, parse_hash_key

ACCOUNT = "000000000000"
"""The account that every stream belongs to."""

SHARD_LIMIT = 20_000
"""Open shards of all streams together (quotas: the default of the largest regions)."""

ON_DEMAND_SHARDS = 4
"""Shards with which an on-demand stream starts (developer guide, "Choose the data stream capacity mode")."""


class Status(StrEnum):
    """A stream's state."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    DELETING = "DELETING"


class Shard(msgspec.Struct, omit_defaults=True):
    """One shard. Hash keys are 16 bytes, big-endian: they compare as their numbers do. Times are milliseconds."""

    number: int
    """Its key in the store, never shared with another shard of any stream."""
    index: int
    """Its place in the stream, the digits of its id."""
    start: bytes
    end: bytes
    created: int
    origin: int
    """The second of its making as its sequence numbers have it; always later than its parents'."""
    parent: int | None = None
    adjacent: int | None = None
    closed: int | None = None
    ending_place: int | None = None
    """The place after its last record, once it is closed."""
    last_place: int = 0
    """Place of the newest record."""
    arrival: int = 0
    """When the newest record arrived; from its parents before there is one."""

    @property
    def id(self) -> str:
        """Return its id, such as "shardId-000000000000"."""
        return shard_id(self.index)

    @property
    def starting_number(self) -> str:
        """Return the sequence number before its first record."""
        return str(sequence.number(self.origin, 0, self.origin, self.index))

    @property
    def ending_number(self) -> str | None:
        """Return the sequence number after its last record; None while it is open."""
        if self.ending_place is None or self.closed is None:
            return None
        return str(sequence.number(self.origin, self.ending_place, self.closed // 1000, self.index))


class Reshard(msgspec.Struct, omit_defaults=True):
    """A split or a merge that is under way."""

    shard: int
    """Index of the shard to split, or of the first to merge."""
    adjacent: int | None = None
    """Index of the second shard to merge; None for a split."""
    at: bytes = b""
    """Where the second child of a split starts."""


class Settings(msgspec.Struct, omit_defaults=True):
    """What is kept of a stream besides its shards."""

    name: str
    created: int
    status: Status
    until: float | None = None
    """When the state ends by itself, in seconds."""
    pending: Reshard | None = None
    """What happens then."""
    on_demand: bool = False
    retention_hours: int = service_quotas.RETENTION_DEFAULT_HOURS
    max_record_kib: int = service_quotas.RECORD_DEFAULT_MAX_KIB


class Stream:
    """A stream: its settings, all its shards, and its open ones in the order of their hash keys."""

    __slots__ = ("ends", "open", "settings", "shards")

    def __init__(self, settings: Settings, shards: list[Shard]) -> None:
        self.settings = settings
        self.shards = shards
        self.reindex()

    def reindex(self) -> None:
        """Sort the open shards anew, after one was made or closed."""
        self.open = sorted((s for s in self.shards if s.closed is None), key=lambda s: s.start)
        self.ends = [shard.end for shard in self.open]

    @property
    def name(self) -> str:
        """Return its name."""
        return self.settings.name

    def horizon(self, now: float) -> int:
        """Return the arrival time from which its records are kept, in milliseconds."""
        return max(self.settings.created, int(now * 1000) - self.settings.retention_hours * 3_600_000)

    def children(self, shard: Shard) -> list[Shard]:
        """Return the shards that a closed shard was split or merged into."""
        if shard.closed is None:
            return []
        return [s for s in self.shards[shard.index + 1 :] if shard.index in (s.parent, s.adjacent)]


class StreamKept(NamedTuple):
    """A stream is new, or its settings changed."""

    settings: Settings


class ShardKept(NamedTuple):
    """A shard is new, or was closed."""

    stream: str
    shard: Shard


class StreamGone(NamedTuple):
    """A stream was deleted, with the shards of these numbers."""

    name: str
    numbers: list[int]


Event: TypeAlias = StreamKept | ShardKept | StreamGone


class Placement(NamedTuple):
    """The records of one put that go to one shard."""

    shard: Shard
    first: int
    """Place of the first; the others follow without a gap."""
    arrival: int
    """Milliseconds; the same for all of them."""
    members: list[int]
    """Which of the put's records they are."""


def shard_id(index: int) -> str:
    """Return the id of the shard with this index."""
    return f"shardId-{index:012d}"


class State:
    """All streams.

    Args:
        transition: Seconds for which a stream is CREATING, UPDATING or DELETING.
    """

    def __init__(self, *, transition: float = 0.0) -> None:
        self.transition = transition
        self.streams: dict[str, Stream] = {}
        self._moving: dict[str, float] = {}
        self._next_number = 1

    def restore(self, streams: Iterable[Stream], next_number: int) -> None:
        """Take over what a store kept. `last_place` and `arrival` of each shard must be those of its newest record."""
        self._next_number = next_number
        for stream in streams:
            self.streams[stream.name] = stream
            if stream.settings.until is not None:
                self._moving[stream.name] = stream.settings.until

    def stream(self, name: str) -> Stream:
        """Return a stream in whatever state. Raises Refused where there is none."""
        try:
            return self.streams[name]
        except KeyError:
            raise not_found(f"Stream {name} under account {ACCOUNT} not found.") from None

    def readable(self, name: str) -> Stream:
        """Return a stream whose records can be read and written. Raises Refused."""
        stream = self.stream(name)
        if stream.settings.status not in (Status.ACTIVE, Status.UPDATING):
            raise not_found(f"Stream {name} under account {ACCOUNT} not found.")
        return stream

    def shard(self, stream: Stream, name: str) -> Shard:
        """Return a shard by its id, or by its number alone as AWS allows. Raises Refused."""
        digits = name.removeprefix("shardId-")
        index = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 12 else -1
        if not 0 <= index < len(stream.shards):
            raise not_found(f"Could not find shard {name} in stream {stream.name} under account {ACCOUNT}.")
        return stream.shards[index]

    def advance(self, now: float) -> list[Event]:
        """End the states whose time is over, each at its own moment."""
        if not self._moving:
            return []
        events: list[Event] = []
        for name, due in sorted(self._moving.items(), key=lambda item: item[1]):
            if due > now:
                break
            del self._moving[name]
            stream = self.streams[name]
            if stream.settings.status is Status.DELETING:
                del self.streams[name]
                events.append(StreamGone(name, [s.number for s in stream.shards]))
                continue
            pending = stream.settings.pending
            stream.settings = msgspec.structs.replace(stream.settings, status=Status.ACTIVE, until=None, pending=None)
            if pending is not None:
                events.extend(self._reshard(stream, pending, due))
            events.append(StreamKept(stream.settings))
        return events

    def create(
        self, name: str, shard_count: int, now: float, *, on_demand: bool = False, max_record_kib: int | None = None
    ) -> list[Event]:
        """Make a stream with shards of equal size."""
        if name in self.streams:
            raise in_use(f"Stream {name} under account {ACCOUNT} already exists.")
        self._check_limit(shard_count)
        created = int(now * 1000)
        shards = [
            Shard(
                number=self._next_number + index,
                index=index,
                start=low.to_bytes(16, "big"),
                end=high.to_bytes(16, "big"),
                created=created,
                origin=created // 1000,
            )
            for index, (low, high) in enumerate(even_ranges(shard_count))
        ]
        self._next_number += shard_count
        settings = Settings(
            name=name,
            created=created,
            status=Status.CREATING,
            on_demand=on_demand,
            max_record_kib=max_record_kib or service_quotas.RECORD_DEFAULT_MAX_KIB,
        )
        stream = self.streams[name] = Stream(settings, shards)
        return [self._begin(stream, Status.CREATING, now), *(ShardKept(name, shard) for shard in shards)]

    def delete(self, name: str, now: float) -> list[Event]:
        """Delete a stream, in whatever state it is."""
        stream = self.stream(name)
        if stream.settings.status is Status.DELETING:
            return []
        return [self._begin(stream, Status.DELETING, now)]

    def split(self, name: str, shard_name: str, new_starting_hash_key: str, now: float) -> list[Event]:
        """Split a shard in two; it is done when the stream is ACTIVE again."""
        stream = self.stream(name)
        self._check_active(stream)
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
        """Merge two adjacent shards; it is done when the stream is ACTIVE again."""
        stream = self.stream(name)
        self._check_active(stream)
        shard = self._open_shard(stream, shard_name)
        adjacent = self._open_shard(stream, adjacent_name)
        low, high = sorted((shard, adjacent), key=lambda s: s.start)
        if int.from_bytes(low.end, "big") + 1 != int.from_bytes(high.start, "big"):
            raise invalid(
                f"Shards {shard.id} and {adjacent.id} in stream {name} under account {ACCOUNT} "
                "are not an adjacent pair of shards eligible for merging"
            )
        return [self._begin(stream, Status.UPDATING, now, Reshard(shard=shard.index, adjacent=adjacent.index))]

    def place(self, stream: Stream, hash_keys: Sequence[bytes], now: float) -> list[Placement]:
        """Decide the shard and the number of each record of a put, by its hash key as 16 bytes."""
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
            # A clock that was set back must not take arrival times back.
            shard.arrival = max(moment, shard.arrival, shard.created)
            placements.append(Placement(shard, shard.last_place + 1, shard.arrival, chosen))
            shard.last_place += len(chosen)
        return placements

    def _begin(self, stream: Stream, status: Status, now: float, pending: Reshard | None = None) -> Event:
        until = now + self.transition
        stream.settings = msgspec.structs.replace(stream.settings, status=status, until=until, pending=pending)
        self._moving[stream.name] = until
        return StreamKept(stream.settings)

    def _check_active(self, stream: Stream) -> None:
        status = stream.settings.status
        if status is not Status.ACTIVE:
            raise in_use(f"Stream {stream.name} under account {ACCOUNT} not ACTIVE, instead in state {status.value}")

    def _check_limit(self, more: int) -> None:
        count = sum(len(stream.open) for stream in self.streams.values())
        if count + more > SHARD_LIMIT:
            raise Refused(
                "LimitExceededException",
                f"This request would exceed the shard limit for the account {ACCOUNT}. Current shard count for the "
                f"account: {count}. Limit: {SHARD_LIMIT}. Number of additional shards that would have resulted from "
                f"this request: {more}.",
            )

    def _open_shard(self, stream: Stream, name: str) -> Shard:
        shard = self.shard(stream, name)
        if shard.closed is not None:
            raise invalid(f"Shard {shard.id} in stream {stream.name} under account {ACCOUNT} is closed")
        return shard

    def _reshard(self, stream: Stream, reshard: Reshard, due: float) -> list[Event]:
        first = stream.shards[reshard.shard]
        if reshard.adjacent is None:
            parents = [first]
            before = (int.from_bytes(reshard.at, "big") - 1).to_bytes(16, "big")
            ranges = [(first.start, before), (reshard.at, first.end)]
        else:
            second = stream.shards[reshard.adjacent]
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
                adjacent=reshard.adjacent,
                arrival=max(p.arrival for p in parents),
            )
            for offset, (start, end) in enumerate(ranges)
        ]
        self._next_number += len(children)
        stream.shards.extend(children)
        stream.reindex()
        return [ShardKept(stream.name, shard) for shard in (*parents, *children)]
