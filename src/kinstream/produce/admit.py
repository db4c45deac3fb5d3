"""Admit: what is put becomes a delivery, checked and encoded; and the buffer's room, which it is charged with.

Nothing else is done here: `put` returns as soon as a record has room. A payload codec (compression, a schema registry's framing)
has its place in `Admission.encode`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from kinstream.aws.kinesis import checked
from kinstream.config import BufferLimits
from kinstream.errors import InvalidRecord
from kinstream.kpl.container import is_container
from kinstream.kpl.message import MAGIC
from kinstream.produce.pending import KEYLESS, PendingRecord, WrappedRecord
from kinstream.record import Record
from kinstream.service_quotas import PARTITION_KEY_MAX_CHARACTERS, RECORD_MAX_BYTES
from kinstream.speed import Compiled, compiled

OVERHEAD = 256
"""Bytes that a record is charged with beside its data and its key: what keeping it costs in Python, about."""

_MAGIC_BYTE = MAGIC[:1]
"""The first byte of aggregated records, and of no UTF-8 text. Comparing it allocates nothing."""

PayloadCodec: TypeAlias = Callable[[bytes], bytes]
"""Makes of a record's bytes what is written in their place."""


class Admission:
    """Makes deliveries of what is put.

    Args:
        buffering: A record that the whole buffer has no room for is refused.
        encode: Makes of each record's bytes what is written in their place; None: they are written as they are.

    Attributes:
        keyless: Whether any record came without a key so far.
        outgrown: Called, in whichever thread that is, when a record is refused that another stream would take.
    """

    def __init__(self, buffering: BufferLimits, encode: PayloadCodec | None = None) -> None:
        self.keyless: bool = False
        self.outgrown: Callable[[], object] = lambda: None
        self._largest = buffering.max_bytes - OVERHEAD
        self.record_limit = RECORD_MAX_BYTES
        self._encode = encode

    @property
    def record_limit(self) -> int:
        """Bytes of data and partition key that the stream takes in one record; the largest there is until it is known."""
        return self._record_limit

    @record_limit.setter
    def record_limit(self, limit: int) -> None:
        self._record_limit = limit
        self._limit = min(limit, self._largest)

    def one(
        self, data: Any, partition_key: str | None, explicit_hash_key: str | None, admitted: float = 0.0
    ) -> PendingRecord:
        """Return the delivery for what `put` was given.

        Raises:
            InvalidRecord: It cannot be put.
        """
        if explicit_hash_key is None and self._encode is None:
            plain = plain_one(PendingRecord, data, partition_key, self._limit, PARTITION_KEY_MAX_CHARACTERS, admitted)
            if plain is not None:
                return plain
        delivery = self._checked(data, partition_key, explicit_hash_key, "record", 0)
        delivery.admitted = admitted
        return delivery

    def some(
        self, records: list[Any], first: int, admitted: float
    ) -> tuple[list[PendingRecord], int, InvalidRecord | None]:
        """Return deliveries for records or pairs, their bytes in sum, and what is wrong with the first that cannot be put.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs.
            first: The index of the first of them in all that was given, for errors.
            admitted: When they are admitted, in seconds of the producer's clock.
        """
        if self._encode is None:
            plain = plain_pairs(records, self._limit, admitted)
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
        """Return the delivery for a record or a pair. Raises InvalidRecord."""
        where = f"records[{index}]"
        if not isinstance(record, tuple) or len(record) != 2:
            delivery = self._checked(record, None, None, where, index)
        else:
            plain = None
            if self._encode is None:
                plain = plain_one(PendingRecord, *record, self._limit, PARTITION_KEY_MAX_CHARACTERS, admitted)
            delivery = plain or self._checked(*record, None, where, index)
        delivery.admitted = admitted
        return delivery

    def _checked(self, data: Any, key: str | None, hash_key: str | None, where: str, index: int) -> PendingRecord:
        if isinstance(data, Record):
            if key is not None or hash_key is not None:
                raise InvalidRecord(f"{where}: a Record has its own keys; give no others", index=index)
            if data.prev_sequence_number is not None:
                raise InvalidRecord(
                    f"{where}.prev_sequence_number: only put_record can order a record by it; order='key' keeps the order"
                    " of each key",
                    index=index,
                )
            record = data
        elif isinstance(data, str):
            encoded = _utf8(data)
            if encoded is None:
                raise InvalidRecord(f"{where}: text with a lone surrogate, which UTF-8 cannot write", index=index)
            record = Record(encoded, "" if key is None else key, hash_key)
        elif isinstance(data, (bytes, bytearray, memoryview)):
            record = Record(data, "" if key is None else key, hash_key)
        else:
            hint = "; put_many takes pairs: (data, partition_key)" if isinstance(data, (tuple, list)) else ""
            raise InvalidRecord(
                f"{where}: must be bytes-like, str, or a kinstream.Record with its encoder, not {type(data).__name__}{hint}",
                index=index,
            )
        # Without a key, the open shards take it in turn; an explicit hash key chooses a shard without one.
        keyless = key is None and not isinstance(data, Record)
        if keyless:
            self.keyless = True
            record = Record(record.data, KEYLESS, record.explicit_hash_key)
        sound = checked(record, where, index=index, keyless=keyless)
        payload: bytes = sound.data if self._encode is None else self._encode(sound.data)
        key = KEYLESS if keyless else sound.partition_key
        size = len(payload) + len(key.encode())
        self._check_size(size, f"{where}: {size} bytes of data and partition key", index)
        if not is_container(payload):
            return PendingRecord(payload, key, sound.explicit_hash_key, size, 0.0)
        wrapped = WrappedRecord.of(payload, key, sound.explicit_hash_key)
        self._check_size(
            wrapped.size,
            f"{where}: the data is itself an aggregated record; in the container that readers need to return it whole, it has"
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
                f"{problem}; the stream takes {self.record_limit} (its MaxRecordSizeInKiB; API reference,"
                " UpdateMaxRecordSize)",
                index=index,
            )
        if size > self._largest:
            raise InvalidRecord(
                f"{problem}; the whole buffer has space for {self._largest} (BufferLimits.max_bytes)", index=index
            )


def _utf8(text: str) -> bytes | None:
    """Return a text in UTF-8; None if it has a lone surrogate. The codec's own error holds the text."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def plain_one_in_python(
    delivery: type[PendingRecord], data: Any, key: Any, limit: int, longest_key: int, admitted: float, /
) -> PendingRecord | None:
    """Return a delivery, if it is of bytes and an ASCII key that can go just as they are."""
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


# Bound here and not called through a function of this file: for each call of `put`, that would be most of its cost.
plain_one: Callable[[type[PendingRecord], Any, Any, int, int, float], PendingRecord | None] = (
    plain_one_in_python if compiled is None else compiled.admit_one
)


def plain_pairs(
    records: list[Any], limit: int, admitted: float, compiled: Compiled | None = compiled
) -> tuple[list[PendingRecord], int] | None:
    """Return deliveries and their bytes in sum, if all are pairs of bytes and an ASCII key that can go just as they are.

    Nearly all records can, and this loop is all that admitting them costs.
    """
    if compiled is not None:
        return compiled.admit_pairs(PendingRecord, records, limit, PARTITION_KEY_MAX_CHARACTERS, admitted)
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
            or not 0 < (length := len(key)) <= PARTITION_KEY_MAX_CHARACTERS
            or not key.isascii()
            or (size := len(data) + length) > limit
            or data[:1] == _MAGIC_BYTE
            or key == KEYLESS
        ):
            return None
        total += size
        append(PendingRecord(data, key, None, size, admitted))
    return deliveries, total
