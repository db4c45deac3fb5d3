"""RecordBatch: the records of one shard that the application receives together."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import TYPE_CHECKING, overload

from kinstream.consume.deliver.arrow import arrow_batch
from kinstream.record import ReceivedRecord

if TYPE_CHECKING:
    import pyarrow


class RecordBatch(Sequence[ReceivedRecord[bytes]]):
    """A sequence of records of one shard, in the shard's order.

    Attributes:
        shard_id: The shard. If the consumer reads several streams, with the name of its stream before it, such as
            "orders:shardId-000000000000".
        stream_name: Name of the stream.
        millis_behind_latest: Milliseconds from these records to the shard's newest record when they were read. None: unknown.
    """

    __slots__ = ("_records", "millis_behind_latest", "shard_id", "stream_name")

    def __init__(
        self,
        records: list[ReceivedRecord[bytes]],
        shard_id: str,
        millis_behind_latest: int | None,
        *,
        stream_name: str = "",
    ) -> None:
        self._records = records
        self.shard_id: str = shard_id
        self.stream_name: str = stream_name
        self.millis_behind_latest: int | None = millis_behind_latest

    @overload
    def __getitem__(self, index: int) -> ReceivedRecord[bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[ReceivedRecord[bytes]]: ...
    def __getitem__(self, index: int | slice) -> ReceivedRecord[bytes] | list[ReceivedRecord[bytes]]:
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ReceivedRecord[bytes]]:
        return iter(self._records)

    def __repr__(self) -> str:
        return f"<RecordBatch of {len(self._records)} records from {self.shard_id}>"

    def checkpoint(self) -> Awaitable[None]:
        """Mark these records and all before them in the shard as completed, as `ReceivedRecord.checkpoint`."""
        return self._records[-1].checkpoint()

    def to_arrow(self) -> pyarrow.RecordBatch:
        """Return the records as an Apache Arrow record batch, for Polars, DuckDB, pandas and others.

        The columns are, in this order: partitionKey (string, null if the record was put without a key), data (binary), stream
        (string), shardId (string, as `shard_id`), sequenceNumber (string), approximateArrivalTimestamp (timestamp[us, UTC]) and
        subsequenceNumber (int32, null if the record was not aggregated).

        Raises:
            ModuleNotFoundError: pyarrow is not installed: pip install 'kinstream[arrow]'.

        Example:
            >>> from kinstream import ReceivedRecord, RecordBatch
            >>> record = ReceivedRecord(b"21.5", "495", 1_800_000_000.5, "sensor-7")
            >>> batch = RecordBatch([record], "shardId-000000000000", 0, stream_name="events")
            >>> batch.to_arrow().to_pylist()[0]["partitionKey"]
            'sensor-7'
        """
        return arrow_batch(self)
