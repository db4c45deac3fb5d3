"""Amazon Kinesis for Ray Data: reads of the records between two times, and writes.

Needs `kinstream[ray]` on the driver and all workers. See docs/ray.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Unpack

from kinstream.aws.client import ClientOptions
from kinstream.aws.credentials import Provider
from kinstream.aws.endpoint import Stream
from kinstream.blocking.producer import Producer
from kinstream.blocking.ranges import positions, read_range
from kinstream.consume.deliver.arrow import arrow_schema
from kinstream.consume.ranges import offsets
from kinstream.consume.ranges.interval import check_interval
from kinstream.consume.ranges.offsets import ShardSpan
from kinstream.credentials import Credentials
from kinstream.errors import ConfigError, InvalidRecord
from kinstream.extra import missing_extra
from kinstream.produce_errors import Undelivered
from kinstream.stream import client_for

try:
    # The environment of the checks has no engines.
    from ray.data import (  # pyright: ignore[reportMissingImports]
        Dataset,
        Datasink,
        Datasource,
        ReadTask,
        read_datasource,
    )
    from ray.data.block import BlockAccessor, BlockMetadata  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as _error:
    # Ray itself may be there without the dependencies of its data library.
    raise missing_extra("kinstream.ray", str(_error.name).partition(".")[0], "ray") from _error

if TYPE_CHECKING:
    import pyarrow

__all__ = ["read_kinesis", "write_kinesis"]

CHUNK = 10_000
"""Number of rows whose results are awaited together. It bounds the memory of a task."""

TYPES: dict[str, tuple[str, ...]] = {"data": ("binary", "string"), "partition key": ("string",)}
"""The types of the columns to write, by Arrow's names without "large_"."""


def read_kinesis(
    stream: str,
    *,
    start: float | datetime | Literal["oldest"] = "oldest",
    end: float | datetime | Literal["now"] = "now",
    **options: Unpack[ClientOptions],
) -> Dataset:
    """Return a dataset of the records of a stream, with the columns of `RecordBatch.to_arrow`.

    This call chooses the first and last record of each shard. Each shard is a read task, so a repeated task has the same rows. So
    has a dataset that is executed again, until records expire. Rows of one shard are in order. There is no order among shards.

    Args:
        stream: The stream's name or ARN.
        start: "oldest", or the time since which records arrived: seconds since 1970, or a datetime with its time zone.
        end: "now", or the time before which records arrived.
        options: Options of a `kinstream.Client`, such as `region`, `profile`, `endpoint_url`. They are sent to the workers.
            Without `credentials`, the driver and each worker find their own by the default AWS chain. Given `Credentials` are in
            the tasks that Ray stores and sends. An async function that returns them is called on each worker.

    Raises:
        ConfigError: An argument is invalid.
        KinesisError: The shards could not be listed, or a shard could not be read.

    While the dataset is executed, Ray reports `DataExpired`, `ConsumeError` and `KinesisError` of workers.
    """
    check_interval(start, end, starts=["oldest"])
    options = _connection(stream, options)
    arrow_schema()  # fails now if pyarrow is not installed
    begin = positions(stream, at=start, **options)
    spans = offsets.spans(begin, positions(stream, at=end, **options))
    return read_datasource(_Kinesis(stream, options, spans))


def write_kinesis(
    dataset: Dataset,
    stream: str,
    *,
    data_column: str = "data",
    partition_key_column: str = "partitionKey",
    **options: Unpack[ClientOptions],
) -> None:
    """Execute a dataset and write its rows into a stream. Returns once Kinesis has stored all of them.

    At least once: if Ray repeats a task, its records are written again.

    Args:
        dataset: The rows.
        stream: The stream's name or ARN.
        data_column: Column with the data, binary or string. Strings are written as UTF-8.
        partition_key_column: Column with the partition keys, strings of 1 to 256 characters. null: put without a key.
        options: Options of a `kinstream.Client`, as of `read_kinesis`.

    Raises:
        ConfigError: An argument is invalid, or a column is missing or has another type.

    Ray reports errors of workers, such as `InvalidRecord` of a row that cannot be written, and `Undelivered` of rows that may not
    have been written.
    """
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"dataset: must be a ray.data.Dataset, not a {type(dataset).__name__}")
    for field, column in (("data_column", data_column), ("partition_key_column", partition_key_column)):
        if not isinstance(column, str) or not column:
            raise ConfigError(f"{field}={column!r}: must be the name of a column")
    if data_column == partition_key_column:
        raise ConfigError(f"partition_key_column={partition_key_column!r}: is data_column as well")
    options = _connection(stream, options)
    sink = _Sink(stream, options, {data_column: "data", partition_key_column: "partition key"})
    known = dataset.columns(fetch_if_missing=False)
    if known is not None:
        sink.check_names(known)
    dataset.write_datasink(sink)


def _connection(stream: str, options: ClientOptions) -> ClientOptions:
    """Return the options of a client in a form that can be sent to workers.

    Raises:
        ConfigError: One is invalid.
    """
    client_for(Stream.parse(stream), None, options, "kinstream.ray")
    given = options.get("credentials")
    return {**options, "credentials": _provider(astuple(given))} if isinstance(given, Credentials) else options


def _provider(parts: tuple[Any, ...]) -> Provider:
    """Return a provider of credentials that can be pickled, unlike `Credentials`."""

    async def given() -> Credentials:
        return Credentials(*parts)

    return given


class _Kinesis(Datasource):  # type: ignore[misc]
    """The records of a stream between two positions in each shard.

    Args:
        stream: The stream's name or ARN.
        options: Options of a client.
        spans: The shards and positions.
    """

    def __init__(self, stream: str, options: ClientOptions, spans: list[ShardSpan]) -> None:
        super().__init__()
        self._stream = stream
        self._options = options
        self._spans = spans

    def get_name(self) -> str:
        """Return the name in Ray's reports."""
        return "Kinesis"

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: Kinesis does not report sizes."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[Any]:
        """Return a task for each shard with records, or one without rows if there are none."""
        reads: list[Any] = [partial(_read, self._stream, self._options, span) for span in self._spans]
        return [_task(read) for read in reads or [_nothing]]


def _task(read: Any) -> Any:
    """Return a task. Older versions of Ray have the schema among the metadata."""
    metadata = dict.fromkeys((field.name for field in fields(BlockMetadata)), None)
    schema: dict[str, Any] = {"schema": arrow_schema()}
    if "schema" in metadata:
        return ReadTask(read, BlockMetadata(**metadata | schema))
    return ReadTask(read, BlockMetadata(**metadata), **schema)


def _read(stream: str, options: ClientOptions, span: ShardSpan) -> Iterator[pyarrow.Table]:
    """Yield the records of a shard, on a worker."""
    import pyarrow

    shard_id, after, upto = span
    rows = 0
    with read_range(stream, shard_id, after=after, upto=upto, **options) as batches:
        for batch in batches:
            rows += len(batch)
            yield pyarrow.Table.from_batches([batch.to_arrow()])
    if not rows:  # the rest of a closed shard, or records that have expired
        yield from _nothing()


def _nothing() -> Iterator[pyarrow.Table]:
    """Yield a block without rows, which has the columns."""
    yield arrow_schema().empty_table()


class _Sink(Datasink):  # type: ignore[misc]
    """Writer of rows into a stream.

    Args:
        stream: The stream's name or ARN.
        options: Options of a client.
        columns: "data" and "partition key" by the names of their columns, in this order.
    """

    def __init__(self, stream: str, options: ClientOptions, columns: dict[str, str]) -> None:
        self._stream = stream
        self._options = options
        self._columns = columns

    def get_name(self) -> str:
        """Return the name in Ray's reports."""
        return "Kinesis"

    @property
    def min_rows_per_write(self) -> int:
        """Number of rows that Ray collects for a task, since each task connects to Kinesis."""
        return CHUNK

    def check_names(self, names: Iterable[str]) -> None:
        """Check that the columns are there.

        Raises:
            ConfigError: One is missing.
        """
        there = list(names)
        for column, content in self._columns.items():
            if column not in there:
                raise ConfigError(
                    f"column {column!r}: is missing, for the {content}: the dataset has {', '.join(there)}"
                )

    def write(self, blocks: Iterable[Any], ctx: object) -> None:
        """Write the rows of a task, on a worker.

        Raises:
            ConfigError: A column is missing or has another type.
            InvalidRecord: A row cannot be written.
            Undelivered: Rows may not have been written.
        """
        records = (record for block in blocks for record in self._records(block))
        chunk = list(islice(records, CHUNK))
        if not chunk:
            return
        with Producer(self._stream, **self._options) as producer:
            while chunk:
                try:
                    producer.put_many(chunk).raise_for_failures()
                except Undelivered as error:  # Ray pickles it, and its exceptions have the records
                    raise Undelivered(error.details, count=error.count) from None
                chunk = list(islice(records, CHUNK))

    def _records(self, block: Any) -> Iterator[tuple[bytes | str, str | None]]:
        table = BlockAccessor.for_block(block).to_arrow()
        if not table.num_rows:  # it may have no columns
            return
        self.check_names(table.column_names)
        for column, content in self._columns.items():
            kind = str(table.schema.field(column).type)
            empty = content == "partition key" and kind == "null"
            if kind.removeprefix("large_") not in TYPES[content] and not empty:
                raise ConfigError(f"column {column!r}: is {kind}, but the {content} is {' or '.join(TYPES[content])}")
        data, keys = (table[column].to_pylist() for column in self._columns)
        for content, key in zip(data, keys, strict=True):
            if content is None:
                raise InvalidRecord(f"column {next(iter(self._columns))!r}: is null in a row: data is binary or string")
            yield content, key
