"""Takes aggregated records apart, lazily, and passes plain ones on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from kinstream.errors import ConfigError
from kinstream.events import AggregateDamaged, Event, MisroutedAggregateDropped
from kinstream.kpl.container import BadIndex, Damaged, UserRecords, unpack
from kinstream.kpl.message import MAGIC
from kinstream.record import NO_KEY, HashKeyRange, ReceivedRecord, Shard
from kinstream.sharding.hashkey import md5, parse_hash_key
from kinstream.speed import Compiled, compiled

KEYS_REMEMBERED = 20_000
"""Of so many partition keys it is remembered whether they belong to the shard."""

_MAGIC_BYTE = MAGIC[:1]
_WHOLE_RANGE = HashKeyRange("0", str(2**128 - 1))
_put = msgspec.structs.force_setattr


class Undeliverable(msgspec.Struct, frozen=True, gc=False):
    """Stands in a batch's place for a record that cannot be taken apart: what becomes of it, the failure policy says.

    Attributes:
        record: The record as Kinesis keeps it.
        error: What is wrong with it.
    """

    record: ReceivedRecord[bytes]
    error: BadIndex


class Deaggregator:
    """Makes the user records of one shard out of its records.

    An aggregate in which any record lies outside the shard's hash-key range was written by a producer that took the shard for
    another one, and that sends it again: it is dropped whole, as the Kinesis Client Library does, unless it is to be kept.

    Args:
        shard_id: The shard.
        origin: What each record is given as its origin.
        hash_key_range: The shard's; None: aggregates are never dropped.
        batch_records: The most records in one batch.
        announce: Is given an event where something was dropped or is damaged.
        compiled: The compiled hot path; None does without.

    Attributes:
        dropped: Aggregates that were dropped.
        damaged: Records that begin as an aggregate but are none.
    """

    def __init__(
        self,
        shard_id: str,
        origin: object,
        hash_key_range: HashKeyRange | None,
        batch_records: int,
        announce: Callable[[Event], None],
        compiled: Compiled | None = compiled,
    ) -> None:
        self.dropped: int = 0
        self.damaged: int = 0
        self._shard_id = shard_id
        self.origin: object = origin
        self._batch_records = batch_records
        self._announce = announce
        self._range = None if hash_key_range in (None, _WHOLE_RANGE) else _bytes_of(hash_key_range)
        self._inside: dict[str, bool] = {}
        self._compiled = compiled

    def batches(self, records: list[ReceivedRecord[bytes]]) -> Iterator[list[ReceivedRecord[bytes]] | Undeliverable]:
        """Yield the user records of a page in batches, none of them empty, each made when it is asked for."""
        suspects = None if self._compiled is None else self._compiled.set_origin(records, self.origin)
        if suspects is None:
            suspects = set_origin(records, self.origin)
        if not suspects:
            if len(records) <= self._batch_records:
                return iter((records,) if records else ())
            size = self._batch_records
            return (records[i : i + size] for i in range(0, len(records), size))
        return self._mixed(records, suspects)

    def _mixed(
        self, records: list[ReceivedRecord[bytes]], suspects: list[int]
    ) -> Iterator[list[ReceivedRecord[bytes]] | Undeliverable]:
        most = self._batch_records
        batch: list[ReceivedRecord[bytes]] = []
        done = 0
        for index in suspects:
            batch += records[done:index]
            done = index + 1
            record = records[index]
            if self._compiled is not None:
                found = self._compiled.user_records(record, self.origin, *(self._range or (None, None)))
                if found is not None:
                    batch += found
                    if len(batch) >= most:
                        *pieces, batch = _pieces(batch, most)
                        yield from pieces
                        if len(batch) == most:
                            yield batch
                            batch = []
                    continue
            try:
                user_records = self._unpacked(record)
            except BadIndex as error:
                if batch:
                    yield from _pieces(batch, most)
                    batch = []
                yield Undeliverable(record, error)
                continue
            if user_records is None:
                batch.append(record)
                continue
            sequence_number, arrival, encryption = record.sequence_number, record.arrival_time, record.encryption_type
            origin = self.origin
            numbered = enumerate(user_records)
            while chunk := [
                ReceivedRecord(data, sequence_number, arrival, None if key == NO_KEY else key, encryption, i, origin)
                for i, (key, _, data) in islice(numbered, most)
            ]:
                batch += chunk
                if len(batch) >= most:
                    *whole, batch = _pieces(batch, most)
                    yield from whole
                    if len(batch) == most:
                        yield batch
                        batch = []
        batch += records[done:]
        if batch:
            yield from _pieces(batch, most)

    def expanded(self, record: ReceivedRecord[bytes]) -> list[ReceivedRecord[bytes]]:
        """Return the user records in a record with the keys in the stream; itself if it is not a valid aggregate."""
        data = record.data
        if record.subsequence_number is not None or data.__class__ is not bytes or not data.startswith(MAGIC):
            return [record]
        try:
            user_records = self._unpacked(record)
        except BadIndex:
            return [record]
        if user_records is None:
            return [record]
        common = (record.sequence_number, record.arrival_time)
        return [
            ReceivedRecord(inner, *common, key, record.encryption_type, index, record.origin)
            for index, (key, _, inner) in enumerate(user_records)
        ]

    def _unpacked(self, record: ReceivedRecord[bytes]) -> UserRecords | tuple[()] | None:
        """Return the user records in a record; none where it was dropped, None where it is a plain one.

        Raises:
            BadIndex: It was written wrongly.
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


def deaggregate(records: Iterable[ReceivedRecord[bytes]], *, shard: Shard | None = None) -> list[ReceivedRecord[bytes]]:
    """Expand aggregated records (KPL format), as `get_records` returns them, into their user records.

    All other records are returned unchanged, and so is a record that begins like an aggregated one but is not valid. Partition
    keys are those in the stream. `async for`, `batches` and `run` deaggregate by themselves.

    Args:
        records: From `get_records`, in their order.
        shard: The shard that they were read from. An aggregate with a record outside its range of hash keys is then dropped
            whole, as the Kinesis Client Library does: its producer sends these records again. None: nothing is dropped.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> from kinstream import ReceivedRecord, deaggregate
        >>> deaggregate([ReceivedRecord(b"21.5", "1", 0.0, "sensor-7")])[0].partition_key
        'sensor-7'
    """
    if shard is not None and not isinstance(shard, Shard):
        raise ConfigError(
            f"shard: must be a kinstream.Shard, as get_shards returns it, or None, not {type(shard).__name__}"
        )
    if not isinstance(records, Iterable):
        raise ConfigError(f"records: must be the records that get_records returned, not {type(records).__name__}")
    hash_key_range = None if shard is None else shard.hash_key_range
    deaggregator = Deaggregator("", None, hash_key_range, 1, lambda event: None, compiled=None)
    expanded: list[ReceivedRecord[bytes]] = []
    for index, record in enumerate(records):
        if not isinstance(record, ReceivedRecord):
            raise ConfigError(f"records[{index}]: must be a kinstream.ReceivedRecord, not {type(record).__name__}")
        expanded += deaggregator.expanded(record)
    return expanded


def set_origin(records: list[ReceivedRecord[bytes]], origin: object) -> list[int]:
    """Set the origin of records, and take the key off those put without one; return the indexes of possible aggregates."""
    for record in records:
        _put(record, "origin", origin)
        if record.partition_key == NO_KEY:
            _put(record, "partition_key", None)
    # One byte tells nearly all plain records apart, and costs no allocation.
    return [i for i, record in enumerate(records) if record.data[:1] == _MAGIC_BYTE]


def _pieces(batch: list[ReceivedRecord[bytes]], most: int) -> list[list[ReceivedRecord[bytes]]]:
    return [batch[i : i + most] for i in range(0, len(batch), most)] if len(batch) > most else [batch]


def _bytes_of(hash_keys: HashKeyRange | None) -> tuple[bytes, bytes] | None:
    if hash_keys is None:
        return None
    low, high = (parse_hash_key(text) for text in (hash_keys.starting_hash_key, hash_keys.ending_hash_key))
    # A listing whose ranges are none says nothing about what belongs where.
    return None if low is None or high is None else (low.to_bytes(16, "big"), high.to_bytes(16, "big"))
