"""Selection of the compiled hot path (`kinstream._speed`). The pure Python next to each call defines the behavior.

`kinstream._speed` is built with the package if a C compiler is available. All features work without it. The environment variable
`KINSTREAM_PURE=1` disables it, and `kinstream --version` shows which of the two is used.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Protocol, TypeVar

from kinstream.record import PutRecordResult, ReceivedRecord, Record

D = TypeVar("D")


class Compiled(Protocol):
    """Functions of `kinstream._speed` (src/_speed/).

    A function returns None for input outside its fast path. The caller then continues in pure Python, which also raises the
    errors. The functions themselves raise only MemoryError, and TypeError for arguments of a wrong type.
    """

    def plain_size(self, records: list[Record], longest_key: int, /) -> int | None:
        """Return the bytes of data and characters of keys if each record can be sent unchanged."""

    def put_records_to_json(self, records: list[Any], rest: bytes, omitted: str | None, /) -> bytes | None:
        """Return the body of PutRecords. `rest` is the text after the list of records, from its comma on.

        Records with the partition key `omitted`, compared by identity, are written without keys.
        """

    def put_records_to_cbor(self, records: list[Any], rest: bytes, omitted: str | None, /) -> bytes | None:
        """Return the body of PutRecords. `rest` is the encoded name and value of the only other member."""

    def results_from_json(self, body: bytes, /) -> tuple[list[PutRecordResult], bytes] | None:
        """Return the results of a PutRecords response, and the response with an empty list in their place."""

    def results_from_cbor(self, body: bytes, /) -> tuple[list[PutRecordResult], bytes] | None:
        """Return the results of a PutRecords response, and the response with an empty list in their place."""

    def page_from_json(self, body: bytes, /) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
        """Return the records of a GetRecords response, and the response with an empty list in their place."""

    def page_from_cbor(self, body: bytes, /) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
        """Return the records of a GetRecords response, and the response with an empty list in their place."""

    def count_failed(self, results: list[PutRecordResult], /) -> int:
        """Return the number of failed results, or -1 if a successful one lacks its shard or its sequence number."""

    def find_shards(self, entries: list[Any], ends: list[bytes], /) -> list[int] | None:
        """Return the index of each entry's shard. `ends` are the last hash keys of the shards, in order and without gaps."""

    def admit_pairs(
        self, delivery: type[D], records: list[Any], limit: int, longest_key: int, admitted: float, /
    ) -> tuple[list[D], int] | None:
        """Return pending records for pairs of data and partition key, and their total bytes."""

    def admit_one(
        self, delivery: type[D], data: Any, key: Any, limit: int, longest_key: int, admitted: float, /
    ) -> D | None:
        """Return the pending record for data and partition key."""

    def distribute(self, entries: list[Any], ends: list[bytes], queues: list[list[Any]], /) -> list[int] | None:
        """Append each entry to its shard's queue. Returns the indexes of the queues that received entries."""

    def total_size(self, entries: list[Any], start: int, stop: int, /) -> int | None:
        """Return the total bytes of a slice of the entries."""

    def as_meant(self, results: list[PutRecordResult], spans: list[Any], /) -> bool | None:
        """Return True if each result names the shard of its span's lane. A span is lane, first index, index after the last."""

    def pack(self, entries: list[Any], start: int, max_bytes: int, max_records: int, /) -> tuple[bytes, int] | None:
        """Return an aggregated record of the entries that fit, from `start` on, and their number."""

    def mark_written(self, entries: list[Any], results: list[PutRecordResult], /) -> tuple[int, int, list[Any]]:
        """Settle each record as written. Returns their number, their total bytes, and the records with waiters."""

    def first_unsettled(self, deliveries: list[Any], start: int, /) -> int:
        """Return the index of the first delivery that is not settled, or their number if all are settled."""

    def values(self, deliveries: list[Any], /) -> list[Any]:
        """Return the value of each delivery. All of them must be settled."""

    def set_origin(self, records: list[ReceivedRecord[bytes]], origin: object, /) -> list[int] | None:
        """Set the origin of records, and remove the reserved partition key. Returns the indexes of possible aggregates."""

    def user_records(
        self, record: ReceivedRecord[bytes], origin: object, low: bytes | None, high: bytes | None, /
    ) -> list[ReceivedRecord[bytes]] | None:
        """Return the user records of a valid aggregate if all are in the hash-key range. A bound of None means unlimited."""


def _load() -> Compiled | None:
    if os.environ.get("KINSTREAM_PURE"):
        return None
    try:
        found: Any = importlib.import_module("kinstream._speed")
    except ImportError:
        return None
    # In a checkout the build may be older than this file, and is then ignored.
    promised = [name for name in vars(Compiled) if not name.startswith("_")]
    return found if all(hasattr(found, name) for name in promised) else None


compiled: Compiled | None = _load()
"""The compiled hot path, or None if the pure Python is used."""
