"""Picks the compiled hot path where it is installed; the pure Python beside each use of it says what it must do.

`kinstream._speed` is built with the package where there is a C compiler, and nothing needs it. `KINSTREAM_PURE=1` in the
environment leaves it out, and `kinstream --version` tells which of the two runs.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Protocol, TypeVar

from kinstream.record import PutRecordResult, ReceivedRecord, Record

D = TypeVar("D")


class Compiled(Protocol):
    """What `kinstream._speed` offers (src/_speed/).

    A function that returns None was given something unusual: its caller goes on in pure Python, which alone says what is
    right and what is wrong. None of them raises anything but MemoryError, and TypeError for arguments of another type.
    """

    def plain_size(self, records: list[Record], longest_key: int, /) -> int | None:
        """Return the bytes of data and characters of keys if each record can go just as it is."""

    def put_records_to_json(self, records: list[Any], rest: bytes, omitted: str | None, /) -> bytes | None:
        """Return the body of PutRecords; `rest` is the text after the list of records, from its comma on.

        Records with the partition key `omitted`, the same object, are written without keys.
        """

    def put_records_to_cbor(self, records: list[Any], rest: bytes, omitted: str | None, /) -> bytes | None:
        """Return the body of PutRecords; `rest` is the one other member, name and value. `omitted` as above."""

    def results_from_json(self, body: bytes, /) -> tuple[list[PutRecordResult], bytes] | None:
        """Return the results in an answer to PutRecords, and the answer with none in their place."""

    def results_from_cbor(self, body: bytes, /) -> tuple[list[PutRecordResult], bytes] | None:
        """Return the results in an answer to PutRecords, and the answer with none in their place."""

    def page_from_json(self, body: bytes, /) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
        """Return the records in an answer to GetRecords, and the answer with none in their place."""

    def page_from_cbor(self, body: bytes, /) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
        """Return the records in an answer to GetRecords, and the answer with none in their place."""

    def count_failed(self, results: list[PutRecordResult], /) -> int:
        """Return how many results are failures; -1 where one that is none lacks its shard or its number."""

    def find_shards(self, entries: list[Any], ends: list[bytes], /) -> list[int] | None:
        """Return the index of each entry's shard among the shards' last hash keys, which are in order and leave no hole."""

    def admit_pairs(
        self, delivery: type[D], records: list[Any], limit: int, longest_key: int, admitted: float, /
    ) -> tuple[list[D], int] | None:
        """Return deliveries for pairs of data and partition key, and their bytes in sum."""

    def admit_one(
        self, delivery: type[D], data: Any, key: Any, limit: int, longest_key: int, admitted: float, /
    ) -> D | None:
        """Return a delivery for data and partition key."""

    def distribute(self, entries: list[Any], ends: list[bytes], queues: list[list[Any]], /) -> list[int] | None:
        """Put each entry at the end of its shard's queue; return the indexes of the queues that got any."""

    def total_size(self, entries: list[Any], start: int, stop: int, /) -> int | None:
        """Return the bytes of a part of the entries in sum."""

    def as_meant(self, results: list[PutRecordResult], spans: list[Any], /) -> bool | None:
        """Return whether each result names the shard of the lane in its span: lane, first index, index after the last."""

    def pack(self, entries: list[Any], start: int, max_bytes: int, max_records: int, /) -> tuple[bytes, int] | None:
        """Return the aggregated record of as many entries as fit, from `start` on, and how many they are."""

    def mark_written(self, entries: list[Any], results: list[PutRecordResult], /) -> tuple[int, int, list[Any]]:
        """Tell each record that it is written; return how many, their bytes in sum, and those that somebody waits for."""

    def first_unsettled(self, deliveries: list[Any], start: int, /) -> int:
        """Return the index of the first delivery that is not settled; their number where all are."""

    def values(self, deliveries: list[Any], /) -> list[Any]:
        """Return the value of each delivery; all of them are settled."""

    def set_origin(self, records: list[ReceivedRecord[bytes]], origin: object, /) -> list[int] | None:
        """Set the origin of records, and take the key off those put without one; return the indexes of possible aggregates."""

    def user_records(
        self, record: ReceivedRecord[bytes], origin: object, low: bytes | None, high: bytes | None, /
    ) -> list[ReceivedRecord[bytes]] | None:
        """Return the user records in an aggregated record that is sound, and of which all lie in the range; None: any."""


def _load() -> Compiled | None:
    if os.environ.get("KINSTREAM_PURE"):
        return None
    try:
        found: Any = importlib.import_module("kinstream._speed")
    except ImportError:
        return None
    # In a checkout a build may be older than this file: as good as none.
    promised = [name for name in vars(Compiled) if not name.startswith("_")]
    return found if all(hasattr(found, name) for name in promised) else None


compiled: Compiled | None = _load()
"""The compiled hot path; None where the pure one runs."""
