"""Writers of rows into a stream, for batches and for streaming queries. They are at least once: a retried task writes again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow
from pyspark.sql.datasource import DataSourceArrowWriter, DataSourceStreamWriter, WriterCommitMessage

from kinstream import blocking
from kinstream.errors import ConfigError, InvalidRecord
from kinstream.record import Record
from kinstream.spark.options import Connection

if TYPE_CHECKING:
    from pyspark.sql.datasource import DataSourceStreamArrowWriter
    from pyspark.sql.types import StructType

TYPES: dict[str, tuple[str, ...]] = {
    "data": ("binary", "string"),
    "partitionKey": ("string",),
    "explicitHashKey": ("string",),
}
"""The types of each column, by Spark's short names. The last column is optional."""

CHUNK = 10_000
"""Number of rows whose results are awaited together. It bounds the memory of a task."""

if not TYPE_CHECKING:
    try:
        from pyspark.sql.datasource import DataSourceStreamArrowWriter
    except ImportError:  # Spark before 4.1 passes rows instead of Arrow batches
        DataSourceStreamArrowWriter = DataSourceStreamWriter


def checked_columns(schema: StructType) -> None:
    """Check the columns of rows to write.

    Raises:
        ConfigError: A column is missing, unknown or of a wrong type. The message has the allowed ones.
    """
    found = {field.name: field.dataType.simpleString() for field in schema.fields}
    expected = "data (binary or string), partitionKey (string) and optionally explicitHashKey (string)"
    for name, types in TYPES.items():
        if name not in found and name != "explicitHashKey":
            raise ConfigError(f"column {name}: is missing: the columns are {expected}")
        if name in found and found[name] not in types:
            raise ConfigError(f"column {name}: is {found[name]}: the columns are {expected}")
    if unknown := ", ".join(name for name in found if name not in TYPES):
        raise ConfigError(f"column {unknown}: is unknown, select the columns to write: {expected}")


def write(connection: Connection, rows: Iterator[Any]) -> WriterCommitMessage:
    """Write the rows of a task, on an executor.

    Args:
        connection: The stream and its endpoint.
        rows: Arrow batches, or rows of Spark.

    Raises:
        InvalidRecord: A value cannot be written, such as an empty partition key.
        ProduceErrors: Records could not be written.
    """
    records = _records(rows)
    first = next(records, None)
    if first is None:
        return WriterCommitMessage()
    with blocking.Producer(connection.stream, **connection.client_options) as producer:
        chunk = [first, *islice(records, CHUNK - 1)]
        while chunk:
            producer.put_many(chunk).raise_for_failures()
            chunk = list(islice(records, CHUNK))
    return WriterCommitMessage()


def _records(rows: Iterator[Any]) -> Iterator[Record]:
    for row in rows:
        if isinstance(row, pyarrow.RecordBatch):
            names = row.schema.names
            for values in zip(*(column.to_pylist() for column in row.columns), strict=True):
                yield _record(dict(zip(names, values, strict=True)))
        else:
            yield _record(row.asDict())


def _record(row: dict[str, Any]) -> Record:
    for name in ("data", "partitionKey"):
        if row[name] is None:
            raise InvalidRecord(
                f"column {name}: is null: data is binary or string, partitionKey has 1 to 256 characters"
            )
    data = row["data"]
    return Record(bytes(data) if isinstance(data, bytearray) else data, row["partitionKey"], row.get("explicitHashKey"))


class BatchSink(DataSourceArrowWriter):
    """Writer of a batch.

    Args:
        connection: The stream and its endpoint.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, iterator: Iterator[pyarrow.RecordBatch]) -> WriterCommitMessage:
        """Write the rows of a task."""
        return write(self._connection, iterator)


class StreamSink(DataSourceStreamArrowWriter):
    """Writer of the batches of a streaming query.

    Args:
        connection: The stream and its endpoint.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, iterator: Iterator[Any]) -> WriterCommitMessage:
        """Write the rows of a task."""
        return write(self._connection, iterator)
