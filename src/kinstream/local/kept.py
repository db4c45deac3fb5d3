"""What is kept of streams, shards, consumers and the account: values, and the events that tell of their changes. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from kinstream import service_quotas
from kinstream.local import sequence
from kinstream.local.resharding import Reshard
from kinstream.sharding.hashkey import MAX_HASH_KEY

ACCOUNT = "000000000000"
"""The account that every stream belongs to."""

_GOLDEN = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""The golden part of all hash keys: its multiples lie evenly among them, however many there are."""


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
    trimmed: int = 0
    """The newest record's place again, once it and all before it are past the stream's retention and given up."""

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


class Change(msgspec.Struct, omit_defaults=True, tag="change"):
    """New settings of a stream; None leaves one as it is."""

    shards: int | None = None
    """How many open shards of equal size there will be."""
    on_demand: bool | None = None
    retention_hours: int | None = None
    max_record_kib: int | None = None
    metrics: list[str] | None = None
    key_id: str | None = None
    """KMS key; "" ends encryption."""
    warm_mibps: int | None = None


class Encryption(msgspec.Struct, array_like=True):
    """With which key records are encrypted from a moment on."""

    since: int
    """Milliseconds: records that arrive then or later."""
    key_id: str
    """"" for none."""


class Consumer(msgspec.Struct, omit_defaults=True):
    """A registered consumer of a stream (enhanced fan-out)."""

    name: str
    created: int
    """Milliseconds. The whole seconds are part of its ARN."""
    status: Status
    until: float | None = None
    """When the state ends by itself, in seconds."""
    tags: dict[str, str] = {}
    policy: str | None = None


class Account(msgspec.Struct, omit_defaults=True):
    """What is kept of the account: its commitment to a minimum throughput (On-demand Advantage). Times are milliseconds."""

    started: int | None = None
    ends: int | None = None
    """When the commitment ends; None while nobody has asked for its end."""

    def committed(self, now: float) -> bool:
        """Return whether the commitment holds."""
        return self.started is not None and (self.ends is None or now * 1000 < self.ends)


class Settings(msgspec.Struct, omit_defaults=True):
    """What is kept of a stream besides its shards."""

    name: str
    created: int
    status: Status
    until: float | None = None
    """When the state ends by itself, in seconds."""
    pending: Reshard | Change | None = None
    """What happens then."""
    on_demand: bool = False
    retention_hours: int = service_quotas.RETENTION_DEFAULT_HOURS
    lost: int = 0
    """Records that arrived before this were trimmed; a longer retention does not bring them back. Milliseconds."""
    max_record_kib: int = service_quotas.RECORD_DEFAULT_MAX_KIB
    metrics: list[str] = []
    """Shard-level metrics that are on."""
    encryptions: list[Encryption] = []
    """The changes of encryption that records may have seen, oldest first."""
    warm_mibps: int | None = None
    """Warm throughput of an on-demand stream."""
    spread: bool = False
    """Whether records are spread over the shards whatever their keys (RecordDistributionStrategy AUTO)."""
    counted: list[int] = []
    """When UpdateShardCount was done during the last day, in milliseconds."""
    switched: list[int] = []
    """When the mode was changed during the last day, in milliseconds."""
    tags: dict[str, str] = {}
    policy: str | None = None
    consumers: dict[str, Consumer] = {}

    @property
    def key_id(self) -> str | None:
        """Return the KMS key of records that are written now; None where they are not encrypted."""
        return self.encryptions[-1].key_id or None if self.encryptions else None

    def encrypted(self, arrival: int) -> bool:
        """Return whether the records that arrived at this moment are encrypted."""
        for encryption in reversed(self.encryptions):
            if arrival >= encryption.since:
                return bool(encryption.key_id)
        return False


class Stream:
    """A stream: its settings, all its shards, and its open ones in the order of their hash keys."""

    __slots__ = ("_spread", "ends", "open", "settings", "shards")

    def __init__(self, settings: Settings, shards: list[Shard]) -> None:
        self.settings: Settings = settings
        self.shards: list[Shard] = shards
        self._spread = 0
        self.reindex()

    def reindex(self) -> None:
        """Sort the open shards anew, after one was made or closed."""
        self.open: list[Shard] = sorted((s for s in self.shards if s.closed is None), key=lambda s: s.start)
        self.ends: list[bytes] = [shard.end for shard in self.open]

    @property
    def name(self) -> str:
        """Return its name."""
        return self.settings.name

    def spread_key(self) -> bytes:
        """Return a hash key for a record whose own does not count: one after the other, they fill all shards evenly."""
        self._spread = (self._spread + _GOLDEN) & MAX_HASH_KEY
        return self._spread.to_bytes(16, "big")

    def horizon(self, now: float) -> int:
        """Return the arrival time from which its records are kept, in milliseconds."""
        settings = self.settings
        return max(settings.created, settings.lost, int(now * 1000) - settings.retention_hours * 3_600_000)

    def expired(self, shard: Shard, now: float) -> bool:
        """Return whether a shard was closed so long ago that all of its records are past the retention: it is not shown."""
        return shard.closed is not None and shard.closed < self.horizon(now)

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


class AccountKept(NamedTuple):
    """The account's settings changed."""

    account: Account


class RecordsExpired(NamedTuple):
    """The records of a shard that arrived before a moment are past the retention."""

    number: int
    """The shard's."""
    horizon: int
    """Milliseconds."""


Event: TypeAlias = StreamKept | ShardKept | StreamGone | AccountKept | RecordsExpired


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
