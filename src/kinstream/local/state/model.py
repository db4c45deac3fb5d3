"""Persistent values for streams, shards, consumers and the account, and the events that report their changes. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from kinstream import service_quotas
from kinstream.local.state import sequence
from kinstream.local.state.resharding import Reshard
from kinstream.sharding.hashkey import MAX_HASH_KEY

ACCOUNT = "000000000000"
"""Id of the account that owns all streams."""

_GOLDEN = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""The range of hash keys divided by the golden ratio. Any number of its multiples is distributed evenly over that range."""


class Status(StrEnum):
    """Status of a stream or consumer."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    DELETING = "DELETING"


class Shard(msgspec.Struct, omit_defaults=True):
    """One shard. Hash keys are 16 bytes, big-endian, so that they compare like their numbers. Times are milliseconds."""

    number: int
    """Its key in the store, unique among the shards of all streams."""
    index: int
    """Its index in the stream, which forms the digits of its id."""
    start: bytes
    end: bytes
    created: int
    origin: int
    """Second of its creation as encoded in its sequence numbers, always later than that of its parents."""
    parent: int | None = None
    adjacent: int | None = None
    closed: int | None = None
    ending_place: int | None = None
    """Position after its last record. Set once it is closed."""
    last_place: int = 0
    """Position of the newest record."""
    arrival: int = 0
    """Arrival time of the newest record, taken from its parents before there is one."""
    trimmed: int = 0
    """Position of the newest record, once this record and all before it have been trimmed."""

    @property
    def id(self) -> str:
        """Return the shard id, such as "shardId-000000000000"."""
        return shard_id(self.index)

    @property
    def starting_number(self) -> str:
        """Return the sequence number before its first record."""
        return str(sequence.number(self.origin, 0, self.origin, self.index))

    @property
    def ending_number(self) -> str | None:
        """Return the sequence number after its last record, or None if the shard is open."""
        if self.ending_place is None or self.closed is None:
            return None
        return str(sequence.number(self.origin, self.ending_place, self.closed // 1000, self.index))


class Change(msgspec.Struct, omit_defaults=True, tag="change"):
    """New settings of a stream. None leaves a setting unchanged."""

    shards: int | None = None
    """Target number of open shards, of equal size."""
    on_demand: bool | None = None
    retention_hours: int | None = None
    max_record_kib: int | None = None
    metrics: list[str] | None = None
    key_id: str | None = None
    """KMS key id, or "" to stop encryption."""
    warm_mibps: int | None = None


class Encryption(msgspec.Struct, array_like=True):
    """The key with which records are encrypted from a point in time onward."""

    since: int
    """Time in milliseconds from which arriving records are encrypted with it."""
    key_id: str
    """"" if records are not encrypted."""


class Consumer(msgspec.Struct, omit_defaults=True):
    """A registered consumer of a stream (enhanced fan-out)."""

    name: str
    created: int
    """Registration time in milliseconds. Its whole seconds are part of the ARN."""
    status: Status
    until: float | None = None
    """When the state ends by itself, in seconds."""
    tags: dict[str, str] = {}
    policy: str | None = None


class Account(msgspec.Struct, omit_defaults=True):
    """Settings of the account: its minimum throughput billing commitment (On-demand Advantage). Times are milliseconds."""

    started: int | None = None
    ends: int | None = None
    """End of the commitment, or None if its end was not requested."""

    def committed(self, now: float) -> bool:
        """Return True if the commitment is in effect."""
        return self.started is not None and (self.ends is None or now * 1000 < self.ends)


class Settings(msgspec.Struct, omit_defaults=True):
    """Persistent values of a stream, except its shards."""

    name: str
    created: int
    status: Status
    until: float | None = None
    """When the state ends by itself, in seconds."""
    pending: Reshard | Change | None = None
    """The change that takes effect at the end of the transition."""
    on_demand: bool = False
    retention_hours: int = service_quotas.RETENTION_DEFAULT_HOURS
    lost: int = 0
    """Time in milliseconds before which records were trimmed. A longer retention does not restore them."""
    max_record_kib: int = service_quotas.RECORD_DEFAULT_MAX_KIB
    metrics: list[str] = []
    """Enabled shard-level metrics."""
    encryptions: list[Encryption] = []
    """Changes of encryption that apply to retained records, oldest first."""
    warm_mibps: int | None = None
    """Warm throughput of an on-demand stream."""
    spread: bool = False
    """True to distribute records over the shards regardless of their keys (RecordDistributionStrategy AUTO)."""
    counted: list[int] = []
    """Times of UpdateShardCount within the last day, in milliseconds."""
    switched: list[int] = []
    """Times of changes of the mode within the last day, in milliseconds."""
    tags: dict[str, str] = {}
    policy: str | None = None
    consumers: dict[str, Consumer] = {}

    @property
    def key_id(self) -> str | None:
        """Return the KMS key id for records that are written now, or None if they are not encrypted."""
        return self.encryptions[-1].key_id or None if self.encryptions else None

    def encrypted(self, arrival: int) -> bool:
        """Return True if records with this arrival time are encrypted."""
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
        """Rebuild the list of open shards after one was created or closed."""
        self.open: list[Shard] = sorted((s for s in self.shards if s.closed is None), key=lambda s: s.start)
        self.ends: list[bytes] = [shard.end for shard in self.open]

    @property
    def name(self) -> str:
        """Return the name of the stream."""
        return self.settings.name

    def spread_key(self) -> bytes:
        """Return the next hash key for a record with AUTO distribution. Successive keys fill all shards evenly."""
        self._spread = (self._spread + _GOLDEN) & MAX_HASH_KEY
        return self._spread.to_bytes(16, "big")

    def horizon(self, now: float) -> int:
        """Return the arrival time, in milliseconds, before which records are past the retention."""
        settings = self.settings
        return max(settings.created, settings.lost, int(now * 1000) - settings.retention_hours * 3_600_000)

    def expired(self, shard: Shard, now: float) -> bool:
        """Return True if a shard was closed longer ago than the retention. It is then hidden from responses."""
        return shard.closed is not None and shard.closed < self.horizon(now)

    def children(self, shard: Shard) -> list[Shard]:
        """Return the shards that a closed shard was split or merged into."""
        if shard.closed is None:
            return []
        return [s for s in self.shards[shard.index + 1 :] if shard.index in (s.parent, s.adjacent)]


class StreamChanged(NamedTuple):
    """A stream was created, or its settings changed."""

    settings: Settings


class ShardChanged(NamedTuple):
    """A shard was created or closed."""

    stream: str
    shard: Shard


class StreamDeleted(NamedTuple):
    """A stream was deleted, with the shards of these numbers."""

    name: str
    numbers: list[int]


class AccountChanged(NamedTuple):
    """The settings of the account changed."""

    account: Account


class RecordsExpired(NamedTuple):
    """The records of a shard that arrived before a point in time are past the retention."""

    number: int
    """Number of the shard."""
    horizon: int
    """The point in time in milliseconds."""


Event: TypeAlias = StreamChanged | ShardChanged | StreamDeleted | AccountChanged | RecordsExpired


class Placement(NamedTuple):
    """The records of one put that belong to one shard."""

    shard: Shard
    first: int
    """Position of the first record. The others follow without a gap."""
    arrival: int
    """Arrival time of all of these records in milliseconds."""
    members: list[int]
    """Their indexes in the put."""


def shard_id(index: int) -> str:
    """Return the id of the shard with this index."""
    return f"shardId-{index:012d}"
