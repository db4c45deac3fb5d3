"""Deaggregation: expands aggregated records (KPL format) lazily, and returns plain records unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeAlias

import msgspec

from kinstream.consume import boto3_record, lambda_event
from kinstream.errors import ConfigError
from kinstream.events import AggregateDamaged, Event, MisroutedAggregateDropped
from kinstream.kpl.container import BadIndex, Damaged, UserRecords, unpack
from kinstream.kpl.expand import intact_aggregates, user_records
from kinstream.kpl.message import MAGIC
from kinstream.record import NO_KEY, HashKeyRange, ReceivedRecord, Shard
from kinstream.sharding.hashkey import md5, parse_hash_key
from kinstream.speed import accelerated

KEYS_REMEMBERED = 20_000
"""Maximum number of partition keys for which the check against the shard's range is cached."""

_MAGIC_BYTE = MAGIC[:1]
_WHOLE_RANGE = HashKeyRange("0", str(2**128 - 1))
_put = msgspec.structs.force_setattr

RecordList: TypeAlias = list[ReceivedRecord[bytes]]
"""Records of one shard, in the shard's order."""


class Undeliverable(msgspec.Struct, frozen=True, gc=False):
    """A record that cannot be deaggregated, in place of a batch. The failure policy decides how it is handled.

    Attributes:
        record: The record as Kinesis stores it.
        error: The reason.
    """

    record: ReceivedRecord[bytes]
    error: BadIndex


class Deaggregator:
    """Splits the records of one shard into user records.

    An aggregate with any record outside the shard's hash-key range was written by a producer with an outdated shard map, which
    retries it. It is dropped completely, as in the Kinesis Client Library, unless `hash_key_range` is None.

    Args:
        shard_id: The shard.
        origin: Origin that is set in each record.
        hash_key_range: The shard's range of hash keys. None: aggregates are never dropped.
        batch_records: Maximum number of records in one batch.
        announce: Receives an event for each aggregate that is dropped or damaged.
        expand: Returns the user records of an ordinary aggregate at once, or None to expand it lazily.

    Attributes:
        dropped: Number of aggregates that were dropped.
        damaged: Number of records with the KPL magic bytes that are not valid aggregates.
    """

    def __init__(
        self,
        shard_id: str,
        origin: object,
        hash_key_range: HashKeyRange | None,
        batch_records: int,
        announce: Callable[[Event], None],
        expand: Callable[..., RecordList | None] = user_records,
    ) -> None:
        self.dropped: int = 0
        self.damaged: int = 0
        self._shard_id = shard_id
        self._origin = origin
        self._batch_records = batch_records
        self._announce = announce
        self._range = None if hash_key_range is None or hash_key_range == _WHOLE_RANGE else _bytes_of(hash_key_range)
        self._inside: dict[str, bool] = {}
        self._expand = expand

    def use_origin(self, origin: object) -> None:
        """Set the origin of records in pages from now on."""
        self._origin = origin

    def batches(self, records: RecordList) -> Iterator[RecordList | Undeliverable]:
        """Yield the user records of a page in batches, each created when it is requested. No batch is empty."""
        suspects = set_origin(records, self._origin)
        if not suspects:
            if len(records) <= self._batch_records:
                return iter((records,) if records else ())
            size = self._batch_records
            return (records[i : i + size] for i in range(0, len(records), size))
        return self._mixed(records, suspects)

    def _mixed(self, records: RecordList, suspects: list[int]) -> Iterator[RecordList | Undeliverable]:
        limit = self._batch_records
        batch: RecordList = []
        done = 0
        intact: Sequence[bool | None] = intact_aggregates(records, suspects) or (None,) * len(suspects)
        for index, is_intact in zip(suspects, intact, strict=True):
            batch += records[done:index]
            done = index + 1
            record = records[index]
            found = self._expand(record, self._origin, *(self._range or (None, None)), is_intact)
            if found is not None:
                batch += found
                if len(batch) >= limit:
                    *pieces, batch = _pieces(batch, limit)
                    yield from pieces
                    if len(batch) == limit:
                        yield batch
                        batch = []
                continue
            try:
                user_records = self._unpacked(record)
            except BadIndex as error:
                if batch:
                    yield from _pieces(batch, limit)
                    batch = []
                yield Undeliverable(record, error)
                continue
            if user_records is None:
                batch.append(record)
                continue
            sequence_number, arrival, encryption = record.sequence_number, record.arrival_time, record.encryption_type
            origin = self._origin
            numbered = enumerate(user_records)
            while chunk := [
                ReceivedRecord(data, sequence_number, arrival, None if key == NO_KEY else key, encryption, i, origin)
                for i, (key, _, data) in islice(numbered, limit)
            ]:
                batch += chunk
                if len(batch) >= limit:
                    *whole, batch = _pieces(batch, limit)
                    yield from whole
                    if len(batch) == limit:
                        yield batch
                        batch = []
        batch += records[done:]
        if batch:
            yield from _pieces(batch, limit)

    def expanded(self, record: ReceivedRecord[bytes]) -> Iterable[ReceivedRecord[bytes]]:
        """Return the user records in a record with the keys in the stream. The record itself if it is not a valid aggregate.

        User records are created when they are requested.
        """
        data = record.data
        if record.subsequence_number is not None or data.__class__ is not bytes or not data.startswith(MAGIC):
            return (record,)
        try:
            user_records = self._unpacked(record)
        except BadIndex:
            return (record,)
        if user_records is None:
            return (record,)
        sequence_number, arrival, encryption, origin = (
            record.sequence_number, record.arrival_time, record.encryption_type, record.origin,
        )  # fmt: skip
        return (
            ReceivedRecord(inner, sequence_number, arrival, key, encryption, index, origin)
            for index, (key, _, inner) in enumerate(user_records)
        )

    def _unpacked(self, record: ReceivedRecord[bytes]) -> UserRecords | tuple[()] | None:
        """Return the user records in a record: () if it was dropped, None if it is a plain record.

        Raises:
            BadIndex: The aggregate refers to a key that it does not have.
        """
        try:
            user_records = unpack(record.data)
        except Damaged as error:
            self.damaged += 1
            self._announce(AggregateDamaged(self._shard_id, record.sequence_number, str(error)))
            return None
        if user_records is None or self._range is None or self._all_inside(user_records, *self._range):
            return user_records
        self.dropped += 1
        self._announce(MisroutedAggregateDropped(self._shard_id, record.sequence_number, len(user_records)))
        return ()

    def _all_inside(self, user_records: UserRecords, low: bytes, high: bytes) -> bool:
        inside = self._inside
        for key, hash_key, _ in user_records:
            if hash_key is not None:
                number = parse_hash_key(hash_key)
                if number is None or not low <= number.to_bytes(16, "big") <= high:
                    return False
                continue
            known = inside.get(key)
            if known is None:
                if len(inside) >= KEYS_REMEMBERED:
                    inside.clear()
                known = inside[key] = low <= md5(key.encode()).digest() <= high
            if not known:
                return False
        return True


def deaggregate(
    records: Iterable[ReceivedRecord[bytes] | Mapping[str, Any]], shard: Shard | None = None
) -> Iterator[ReceivedRecord[bytes]]:
    """Expand aggregated records (KPL format) into their user records, one after another, when they are requested.

    A record that is not a valid aggregate is returned whole and unchanged, whatever its data is, with `subsequence_number` None.
    This includes an aggregate with the index of a key that does not exist. Aggregates inside aggregates are not expanded.
    Partition keys are those in the stream. `async for`, `batches`, `run` and `read_range` deaggregate by themselves.

    Args:
        records: Records of `get_records`, of boto3's `get_records`, or of an event of AWS Lambda (`event["Records"]`), in their
            order. Dicts are converted. A record of an event has its `shard_id` and `stream_name`.
        shard: The shard that they were read from. An aggregate with a record outside its range of hash keys is then dropped
            completely, as in the Kinesis Client Library: its producer retries these records. None: no aggregate is dropped.

    Raises:
        ConfigError: An argument is invalid, or, when it is reached, a record. The text names the invalid member.

    Example:
        >>> from kinstream import ReceivedRecord, deaggregate
        >>> for record in deaggregate([ReceivedRecord(b"21.5", "1", 0.0, "sensor-7")]):
        ...     print(record.partition_key, record.data)
        sensor-7 b'21.5'
    """
    if shard is not None and not isinstance(shard, Shard):
        raise ConfigError(
            f"shard: must be a kinstream.Shard, as get_shards returns it, or None, not {type(shard).__name__}"
        )
    if isinstance(records, Mapping):
        raise ConfigError(
            "records: must be a list of records, such as event['Records'] or response['Records'], not a dict"
        )
    if not isinstance(records, Iterable):
        raise ConfigError(f"records: must be the records that get_records returned, not {type(records).__name__}")
    deaggregator = Deaggregator("", None, None if shard is None else shard.hash_key_range, 1, lambda event: None)
    return chain.from_iterable(deaggregator.expanded(_received(record, i)) for i, record in enumerate(records))


def _received(record: Any, index: int) -> ReceivedRecord[bytes]:
    if isinstance(record, ReceivedRecord):
        return record
    if not isinstance(record, Mapping):
        raise ConfigError(
            f"records[{index}]: must be a kinstream.ReceivedRecord or a dict, not {type(record).__name__}"
        )
    if "Data" in record:
        return boto3_record.received(record, f"records[{index}]")
    return lambda_event.received(record, f"records[{index}]")


@accelerated(may_decline=True)
def set_origin(records: RecordList, origin: object) -> list[int]:
    """Set the origin of records, and remove the key of records put without one, and return the indexes of possible aggregates."""
    for record in records:
        _put(record, "origin", origin)
        if record.partition_key == NO_KEY:
            _put(record, "partition_key", None)
    # The first byte identifies nearly all plain records without an allocation.
    return [i for i, record in enumerate(records) if record.data[:1] == _MAGIC_BYTE]


def _pieces(batch: RecordList, limit: int) -> list[RecordList]:
    return [batch[i : i + limit] for i in range(0, len(batch), limit)] if len(batch) > limit else [batch]


def _bytes_of(hash_keys: HashKeyRange) -> tuple[bytes, bytes] | None:
    low, high = (parse_hash_key(text) for text in (hash_keys.starting_hash_key, hash_keys.ending_hash_key))
    # Invalid ranges in a listing cannot show that a record is misrouted.
    return None if low is None or high is None else (low.to_bytes(16, "big"), high.to_bytes(16, "big"))
