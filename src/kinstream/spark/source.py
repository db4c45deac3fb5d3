"""KinesisDataSource: the data source "kinesis" of Spark, with its batch reader and its streaming reader.

The driver alone decides where a batch begins and ends. An executor reads exactly the records between two positions, so that a
task that is retried, and a batch that is repeated after a restart, has the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

try:
    from pyspark.sql.datasource import (
        DataSource,
        DataSourceReader,
        DataSourceStreamReader,
        DataSourceStreamWriter,
        DataSourceWriter,
        InputPartition,
    )
except ModuleNotFoundError as _error:
    from kinstream.extra import missing_extra

    if _error.name is None or _error.name.partition(".")[0] not in ("pyarrow", "pyspark"):
        raise
    raise missing_extra("kinstream.spark", _error.name.partition(".")[0], "spark") from _error

from kinstream import blocking
from kinstream.aws.client import Client
from kinstream.consume.ranges import offsets
from kinstream.consume.ranges.offsets import Offsets, ShardSpan
from kinstream.errors import ConfigError
from kinstream.record import Shard
from kinstream.spark.driver import Driver
from kinstream.spark.options import ReadOptions, read_options, write_options
from kinstream.spark.sink import BatchSink, StreamSink, checked_columns

if TYPE_CHECKING:
    import pyarrow
    from pyspark.sql import Column
    from pyspark.sql.streaming.datasource import SupportsTriggerAvailableNow
    from pyspark.sql.types import StructType

SCHEMA = (
    "partitionKey string, data binary, stream string, shardId string, sequenceNumber string,"
    " approximateArrivalTimestamp timestamp, subsequenceNumber int"
)
"""The columns of `RecordBatch.to_arrow`, as Spark types."""


_LOSS = "Set the option failOnDataLoss to 'false' to continue with the records that are left"

if not TYPE_CHECKING:
    try:
        from pyspark.sql.streaming.datasource import SupportsTriggerAvailableNow
    except ModuleNotFoundError:  # Spark before 4.2 does not support it for sources in Python
        SupportsTriggerAvailableNow = object


def dedupe_key() -> Column:
    """Return a column that is unique for each record that was read, and the same whenever it is read again.

    Write it into the data of a sink that is at least once, so that readers can drop duplicates by it.

    Returns:
        Text of the stream, the shard, the sequence number, and the subsequence number of an aggregated record.
    """
    from pyspark.sql.functions import concat_ws

    return concat_ws("/", "stream", "shardId", "sequenceNumber", "subsequenceNumber")


class KinesisDataSource(DataSource):
    """Data source "kinesis": `spark.dataSource.register(KinesisDataSource)`, then `format("kinesis")`.

    Reads have the columns of `RecordBatch.to_arrow`. Writes take the columns data (binary or string), partitionKey (string) and
    optionally explicitHashKey (string). docs/spark.md has the options. Credentials are not options: the driver and each executor
    find their own by the default AWS chain.

    Raises:
        ConfigError: An option is unknown or invalid. Spark reports it as its own error, with the same message.
    """

    @classmethod
    def name(cls) -> str:
        """Return the name of the format."""
        return "kinesis"

    def schema(self) -> str:
        """Return the columns of reads, after checking the options."""
        _checked(self._read_options)
        return SCHEMA

    @property
    def _read_options(self) -> ReadOptions:
        return read_options(self.options)

    def reader(self, schema: StructType) -> DataSourceReader:
        """Return the batch reader."""
        return BatchReader(self._read_options.for_batch())

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """Return the streaming reader."""
        return StreamReader(self._read_options.for_stream())

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceWriter:
        """Return the batch writer."""
        if overwrite:
            raise ConfigError("mode='overwrite': a stream can only be appended to; use mode('append')")
        checked_columns(schema)
        return BatchSink(write_options(self.options))

    def streamWriter(self, schema: StructType, overwrite: bool) -> DataSourceStreamWriter:  # noqa: N802 - Spark's name
        """Return the streaming writer."""
        if overwrite:
            raise ConfigError("outputMode='complete': a stream can only be appended to; use outputMode('append')")
        checked_columns(schema)
        return StreamSink(write_options(self.options))


def _checked(options: ReadOptions) -> None:
    """Check the region and the URL, which a client does when it is created.

    Raises:
        ConfigError: One is invalid.
    """
    given = {name: value for name, value in options.connection.client_options.items() if value is not None}
    try:
        Client(**given)
    except ConfigError as error:
        raise ConfigError(f"option {str(error.details).replace('endpoint_url', 'endpointUrl')}") from None


class SpanPartition(InputPartition):
    """A partition: the records of one shard between two positions.

    Args:
        span: The shard and the positions.
    """

    def __init__(self, span: ShardSpan) -> None:
        super().__init__(span.shard_id)
        self.span = span


def _partitions(spans: list[ShardSpan]) -> list[InputPartition]:
    return [SpanPartition(span) for span in spans]


def _read(options: ReadOptions, partition: InputPartition) -> Iterator[pyarrow.RecordBatch]:
    """Yield the records of a partition, on an executor. Spark passes a partition of its own if there are none."""
    if not isinstance(partition, SpanPartition):
        return
    shard_id, after, upto = partition.span
    on_expired: Any = "raise" if options.fails_on_loss else "skip"
    connection = options.connection
    with blocking.read_range(
        connection.stream, shard_id, after=after, upto=upto, on_expired=on_expired, **connection.client_options
    ) as batches:
        for batch in batches:
            yield batch.to_arrow()


class BatchReader(DataSourceReader):
    """Reader of the records between two times. Its bounds are found once, on the driver.

    Args:
        options: The options.
    """

    def __init__(self, options: ReadOptions) -> None:
        self._options = options

    def partitions(self) -> Sequence[InputPartition]:
        """Return a partition for each shard with records."""
        options, connection = self._options, self._options.connection
        with blocking.Client(**connection.client_options) as client:
            start = blocking.positions(connection.stream, at=options.start or "oldest", client=client)
            end = blocking.positions(connection.stream, at="now" if options.end is None else options.end, client=client)
        return _partitions(offsets.spans(start, end))

    def read(self, partition: InputPartition) -> Iterator[pyarrow.RecordBatch]:
        """Yield the records of a partition."""
        return _read(self._options, partition)


class StreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Streaming reader. Its offsets are positions by shard id, which the driver chooses.

    Args:
        options: The options.
    """

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._driver: Driver | None = None
        self._target: tuple[list[Shard], Offsets] | None = None  # of Trigger.AvailableNow
        self._end: Offsets | None = None  # of the last batch, if known

    @property
    def _connected(self) -> Driver:
        if self._driver is None:
            self._driver = Driver(self._options)
        return self._driver

    def initialOffset(self) -> dict[str, str]:  # noqa: N802 - Spark's name
        """Return the offsets of the first batch."""
        self._end = self._connected.begin()
        return offsets.as_json(self._end)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's name
        """Record the ends of all shards as of now, which no batch passes."""
        self._target = self._connected.target()

    def latestOffset(self, start: dict[str, str] | None = None, limit: object = None) -> dict[str, str]:  # noqa: N802 - Spark's name
        """Return the end of the next batch.

        Args:
            start: Its begin. None: Spark is older than 4.2, which passes neither argument.
            limit: Ignored, because there is no option for a limit.
        """
        begin = self._end if start is None else offsets.from_json(start)
        if self._target is not None and begin is not None:
            return offsets.as_json(offsets.advanced(begin, *self._target))
        return offsets.as_json(self._connected.advance(begin))

    def partitions(self, start: dict[str, str], end: dict[str, str]) -> Sequence[InputPartition]:
        """Return a partition for each shard with records.

        Raises:
            ConfigError: The offsets are not those of this data source.
            DataExpired: A shard expired before it was read, unless failOnDataLoss is false.
        """
        begin, self._end = offsets.from_json(start), offsets.from_json(end)
        if self._options.fails_on_loss:
            offsets.check_lost(begin, self._end, _LOSS)
        return _partitions(offsets.spans(begin, self._end))

    def read(self, partition: InputPartition) -> Iterator[pyarrow.RecordBatch]:
        """Yield the records of a partition."""
        return _read(self._options, partition)

    def commit(self, end: dict[str, str]) -> None:
        """Do nothing: Spark has stored the offsets."""

    def stop(self) -> None:
        """Close the connections."""
        if self._driver is not None:
            self._driver.close()
