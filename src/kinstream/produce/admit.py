"""Admission of records that are put: checks them, encodes their data, and returns pending records.

Nothing else happens here, so that `put` returns as soon as the buffer has space for the record. `Admission` has a parameter for a
payload codec (compression, the framing of a schema registry).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from kinstream.config import BufferLimits
from kinstream.errors import InvalidRecord
from kinstream.kpl.container import is_container
from kinstream.kpl.message import MAGIC
from kinstream.produce.pending import KEYLESS, PendingRecord, WrappedRecord
from kinstream.record import DEFAULT_ENCODERS, Encoder, Record, text_or_json
from kinstream.service_quotas import PARTITION_KEY_MAX_CHARACTERS, RECORD_MAX_BYTES
from kinstream.speed import accelerated
from kinstream.validate import boto3_entry, checked

OVERHEAD = 256
"""Bytes that the buffer charges for a record in addition to its data and its key: about the memory of its Python objects."""

_MAGIC_BYTE = MAGIC[:1]
"""First byte of aggregated records. No UTF-8 text begins with it. Comparing it allocates nothing."""

PayloadCodec: TypeAlias = Callable[[bytes], bytes]
"""Returns the bytes to write in place of a record's bytes."""


class Admission:
    """Checks and encodes records that are put.

    Args:
        buffering: Limits of the buffer. A record larger than the whole buffer is refused.
        encoder: Encodes data that is not bytes-like, if its record has no encoder.
        payload_codec: Transforms each record's encoded bytes. None: they are written unchanged.

    Attributes:
        keyless: True once a record was put without a key.
        outgrown: Called, in any thread, when a record is refused that is too large for this stream, but not for all streams.
    """

    def __init__(
        self,
        buffering: BufferLimits,
        encoder: Encoder = text_or_json,
        payload_codec: PayloadCodec | None = None,
    ) -> None:
        self.keyless: bool = False
        self.outgrown: Callable[[], object] = lambda: None
        self._largest = buffering.max_bytes - OVERHEAD
        self.record_limit = RECORD_MAX_BYTES
        self._encoder = encoder
        self._guards_misuse = any(encoder is default for default in DEFAULT_ENCODERS)
        self._payload_codec = payload_codec

    @property
    def record_limit(self) -> int:
        """Maximum bytes of data and partition key of one record in the stream. The maximum of all streams until it is known."""
        return self._record_limit

    @record_limit.setter
    def record_limit(self, limit: int) -> None:
        self._record_limit = limit
        self._limit = min(limit, self._largest)

    def one(
        self, data: Any, partition_key: str | None, explicit_hash_key: str | None, admitted: float = 0.0
    ) -> PendingRecord:
        """Return the pending record for the arguments of `put`.

        Raises:
            InvalidRecord: The record cannot be put.
        """
        if explicit_hash_key is None and self._payload_codec is None:
            plain = admit_one(PendingRecord, data, partition_key, self._limit, PARTITION_KEY_MAX_CHARACTERS, admitted)
            if plain is not None:
                return plain
        delivery = self._checked(data, partition_key, explicit_hash_key, "record", 0)
        delivery.admitted = admitted
        return delivery

    def some(
        self, records: list[Any], first: int, admitted: float
    ) -> tuple[list[PendingRecord], int, InvalidRecord | None]:
        """Return pending records, the sum of their bytes, and the error of the first record that cannot be put.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs.
            first: Index, for errors, of the first of them among all records of the call.
            admitted: Time of admission, by the producer's monotonic clock.
        """
        if self._payload_codec is None:
            plain = admit_pairs(PendingRecord, records, self._limit, PARTITION_KEY_MAX_CHARACTERS, admitted)
            if plain is not None:
                return *plain, None
        deliveries: list[PendingRecord] = []
        for index, record in enumerate(records, first):
            try:
                deliveries.append(self._one_of_many(record, index, admitted))
            except InvalidRecord as error:
                return deliveries, sum(d.size for d in deliveries), error
        return deliveries, sum(d.size for d in deliveries), None

    def _one_of_many(self, record: Any, index: int, admitted: float) -> PendingRecord:
        """Return the pending record for a record or a pair. Raises InvalidRecord."""
        where = f"records[{index}]"
        if isinstance(record, Record):
            delivery = self._checked(record, None, None, where, index)
        elif not isinstance(record, tuple) or len(record) != 2:
            cure = ". Replace the form that boto3 takes by a pair" if boto3_entry(record) else ""
            raise InvalidRecord(
                f"{where}: must be a kinstream.Record or a pair (data, partition_key), with None for no key, not"
                f" {_given(record)}{cure}",
                index=index,
            )
        else:
            plain = None
            if self._payload_codec is None:
                plain = admit_one(PendingRecord, *record, self._limit, PARTITION_KEY_MAX_CHARACTERS, admitted)
            delivery = plain or self._checked(*record, None, where, index)
        delivery.admitted = admitted
        return delivery

    def _checked(self, data: Any, key: str | None, hash_key: str | None, where: str, index: int) -> PendingRecord:
        if isinstance(data, Record):
            if key is not None or hash_key is not None:
                raise InvalidRecord(f"{where}: a Record has its own keys. Pass none in addition to it", index=index)
            if data.prev_sequence_number is not None:
                raise InvalidRecord(
                    f"{where}.prev_sequence_number: only put_record orders a record by it. Producer(order='key') keeps the order"
                    " of each key",
                    index=index,
                )
            record = data
        elif self._guards_misuse and (misuse := _misuse(data)):
            raise InvalidRecord(f"{where}.data: {misuse}", index=index)
        else:
            record = Record(data, KEYLESS if key is None else key, hash_key)
        # Open shards take records without a key in turn. An explicit hash key selects the shard of a record without a key.
        keyless = key is None and not isinstance(data, Record)
        if keyless:
            self.keyless = True
        sound = checked(record, where, index=index, keyless=keyless, encoder=self._encoder)
        payload: bytes = sound.data if self._payload_codec is None else self._payload_codec(sound.data)
        key = KEYLESS if keyless else sound.partition_key
        size = len(payload) + len(key.encode())
        self._check_size(size, f"{where}: {size} bytes of data and partition key", index)
        if not is_container(payload):
            return PendingRecord(payload, key, sound.explicit_hash_key, size, 0.0)
        wrapped = WrappedRecord.of(payload, key, sound.explicit_hash_key)
        self._check_size(
            wrapped.size,
            f"{where}: the data is itself an aggregated record. In the container that readers need to return it unchanged, it has"
            f" {wrapped.size} bytes with its partition key (put_record writes it without a container)",
            index,
        )
        return wrapped

    def _check_size(self, size: int, problem: str, index: int) -> None:
        """Check the size of a record in the stream and in the buffer. Raises InvalidRecord."""
        if size > self.record_limit:
            if size <= RECORD_MAX_BYTES:
                self.outgrown()
            raise InvalidRecord(
                f"{problem}. The stream accepts {self.record_limit} (its MaxRecordSizeInKiB, API reference,"
                " UpdateMaxRecordSize)",
                index=index,
            )
        if size > self._largest:
            raise InvalidRecord(
                f"{problem}. The whole buffer has space for {self._largest} (BufferLimits.max_bytes)", index=index
            )


def _given(record: Any) -> str:
    """Return the type of an entry of `put_many` that is neither a record nor a pair."""
    return f"a tuple of {len(record)}" if isinstance(record, tuple) else type(record).__name__


def _misuse(data: Any) -> str:
    """Return how to put data that is most likely a mistake. Empty for all other data."""
    if data is None:
        return "None is not data. Put b'' for an empty record, or b'null' for null in JSON"
    if isinstance(data, tuple):
        return "must not be a tuple. Call put(data, partition_key), or put_many with (data, partition_key) pairs"
    if boto3_entry(data):
        return (
            "has the form in which boto3 takes a record. Call put(data, partition_key), or put the dict in a Record to write it"
            " as JSON"
        )
    return ""


@accelerated
def admit_one(
    delivery: type[PendingRecord], data: Any, key: Any, limit: int, longest_key: int, admitted: float, /
) -> PendingRecord | None:
    """Return a pending record if its data is bytes and its key is ASCII text, which need no encoding. Else return None."""
    if (
        data.__class__ is not bytes
        or key.__class__ is not str
        or not 0 < (length := len(key)) <= longest_key
        or not key.isascii()
        or (size := len(data) + length) > limit
        or data[:1] == _MAGIC_BYTE
        or key == KEYLESS
    ):
        return None
    return delivery(data, key, None, size, admitted)


@accelerated
def admit_pairs(
    delivery: type[PendingRecord], records: list[Any], limit: int, longest_key: int, admitted: float, /
) -> tuple[list[PendingRecord], int] | None:
    """Return pending records and the sum of their bytes if all are pairs of bytes and an ASCII key. Else return None.

    Nearly all records are, and this loop is the whole cost of their admission.
    """
    deliveries: list[PendingRecord] = []
    append = deliveries.append
    total = 0
    for record in records:
        if record.__class__ is not tuple or len(record) != 2:
            return None
        data, key = record
        if (
            data.__class__ is not bytes
            or key.__class__ is not str
            or not 0 < (length := len(key)) <= longest_key
            or not key.isascii()
            or (size := len(data) + length) > limit
            or data[:1] == _MAGIC_BYTE
            or key == KEYLESS
        ):
            return None
        total += size
        append(delivery(data, key, None, size, admitted))
    return deliveries, total
