"""Conversion of a batch of records to Apache Arrow, for data frames, query engines and lake writers."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from kinstream.extra import missing_extra

if TYPE_CHECKING:
    import pyarrow

    from kinstream.consume.deliver.record_batch import RecordBatch


def arrow_batch(batch: RecordBatch) -> pyarrow.RecordBatch:
    """Return the records of a batch in the columns of `arrow_schema`.

    Raises:
        ExtraMissing: pyarrow is not installed.
    """
    schema = arrow_schema()
    import pyarrow
    import pyarrow.compute

    records = list(batch)
    types = dict(zip(schema.names, schema.types, strict=True))
    # A double has seconds to less than half a microsecond until the year 2096.
    compute: Any = pyarrow.compute  # its functions are created when it is imported
    seconds = pyarrow.array([record.arrival_time for record in records], pyarrow.float64())
    micros = compute.round(compute.multiply(seconds, 1e6)).cast(pyarrow.int64())
    columns = [
        pyarrow.array([record.partition_key for record in records], types["partitionKey"]),
        pyarrow.array([record.data for record in records], types["data"]),
        pyarrow.repeat(pyarrow.scalar(batch.stream_name, types["stream"]), len(records)),
        pyarrow.repeat(pyarrow.scalar(batch.shard_id, types["shardId"]), len(records)),
        pyarrow.array([record.sequence_number for record in records], types["sequenceNumber"]),
        micros.cast(types["approximateArrivalTimestamp"]),
        pyarrow.array([record.subsequence_number for record in records], types["subsequenceNumber"]),
    ]
    return pyarrow.RecordBatch.from_arrays(columns, schema=schema)


@cache
def arrow_schema() -> pyarrow.Schema:
    """Return the schema of records: the names of the Kinesis API, in the order in which engines show them.

    Raises:
        ExtraMissing: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise missing_extra("RecordBatch.to_arrow", "pyarrow", "arrow") from error
    return pyarrow.schema(
        [
            ("partitionKey", pyarrow.string()),
            ("data", pyarrow.binary()),
            ("stream", pyarrow.string()),
            ("shardId", pyarrow.string()),
            ("sequenceNumber", pyarrow.string()),
            ("approximateArrivalTimestamp", pyarrow.timestamp("us", tz="UTC")),
            ("subsequenceNumber", pyarrow.int32()),
        ]
    )
