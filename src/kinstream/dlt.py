"""Resource of Amazon Kinesis for dlt: each record is loaded once, by a position in each shard in the state of the pipeline.

Needs `kinstream[dlt]`. See docs/dlt.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Unpack

import kinstream.ranges
from kinstream.aws.client import Client, ClientOptions
from kinstream.aws.endpoint import Stream
from kinstream.background import BackgroundLoop
from kinstream.consume.deliver.arrow import arrow_schema
from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.consume.fetch.position import Position
from kinstream.consume.ranges import offsets
from kinstream.consume.ranges.interval import check_interval
from kinstream.consume.ranges.locate import Locator
from kinstream.consume.ranges.offsets import Offsets, ShardSpan
from kinstream.consume.ranges.shards import RangeShards
from kinstream.errors import ConfigError
from kinstream.extra import missing_extra
from kinstream.record import Shard
from kinstream.stream import client_for

try:
    import dlt  # pyright: ignore[reportMissingImports] - the environment of the checks has no engines
except ModuleNotFoundError as _error:
    if _error.name != "dlt":
        raise
    raise missing_extra("kinstream.dlt", "dlt", "dlt") from _error

if TYPE_CHECKING:
    import pyarrow
    from dlt.extract import DltResource  # pyright: ignore[reportMissingImports]

__all__ = ["kinesis"]

POSITIONS = "positions"
"""Key of the positions in the state of the resource: text by shard id."""

_REMEDY = (
    "Pass on_expired='skip' to continue with the records that are left, and increase the retention of the stream or run the"
    " pipeline more often"
)


def kinesis(
    stream: str,
    *,
    start: float | datetime | Literal["oldest", "now"] = "oldest",
    end: float | datetime | Literal["now"] = "now",
    name: str | None = None,
    on_expired: Literal["raise", "skip"] = "raise",
    **options: Unpack[ClientOptions],
) -> DltResource:
    """Return a resource with the records of a stream, as Arrow tables with the columns of `RecordBatch.to_arrow`.

    Each run of the pipeline reads from the last record of each shard that the run before it loaded, up to the end that is chosen
    when the run begins. Parents are read before their children. dlt stores the positions together with the data, so
    each record is loaded once, also after failed runs. Records are appended.

    Args:
        stream: The stream's name or ARN.
        start: Start of the first run: "oldest", "now", seconds since 1970, or a datetime with its time zone. Later runs continue.
        end: End of each run: "now" or a time. Records that arrive during the run are read by the next one.
        name: Name of the resource and its table. None: the stream's name. Its positions are stored under this name.
        on_expired: "raise": `DataExpired` if records have expired since the last run. "skip": read the records that are left.
        options: Options of a `kinstream.Client`, such as `region`, `credentials`, `endpoint_url`.

    Raises:
        ConfigError: An argument is invalid.

    While the pipeline runs, dlt reports errors as its own, with a `DataExpired`, `ConsumeError` or `KinesisError` as the cause.

    Example:
        >>> import dlt
        >>> from kinstream.dlt import kinesis
        >>> pipeline = dlt.pipeline("events", destination="duckdb")
        >>> pipeline.run(kinesis("events"))
    """
    place = Stream.parse(stream)
    check_interval(start, end, starts=["oldest", "now"])
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigError(f"name={name!r}: must be text of at least 1 character, or None for the stream's name")
    if on_expired not in ("raise", "skip"):
        raise ConfigError(f"on_expired={on_expired!r}: must be 'raise' or 'skip'")
    arrow_schema()  # fails now if pyarrow is not installed
    client_for(place, None, options, "kinstream.dlt")  # checks the options

    def records() -> Iterator[pyarrow.Table]:
        state = dlt.current.resource_state()
        client = client_for(place, None, options, "kinstream.dlt")
        background = BackgroundLoop("kinstream-dlt")
        try:
            yield from _Run(background, client, stream, place, on_expired).tables(state, start, end)
        finally:
            background.run(client.close())
            background.stop()
            background.join()

    return dlt.resource(records, name=name or place.name, write_disposition="append")


class _Run:
    """One run of a pipeline.

    Args:
        background: The event loop of the client.
        client: The client.
        stream: The stream's name or ARN.
        place: The same.
        on_expired: As of `kinesis`.
    """

    def __init__(
        self,
        background: BackgroundLoop,
        client: Client,
        stream: str,
        place: Stream,
        on_expired: Literal["raise", "skip"],
    ) -> None:
        self._background = background
        self._client = client
        self._stream = stream
        self._shards = RangeShards(client, place)
        self._locator = Locator(self._shards)
        self._on_expired: Literal["raise", "skip"] = on_expired

    def tables(self, state: dict[str, Any], start: Any, end: Any) -> Iterator[pyarrow.Table]:
        """Yield the records that are new, and store the position after them in the state of the resource."""
        begin = offsets.from_json(state[POSITIONS]) if POSITIONS in state else None
        shards, begin, target = self._background.run(self._planned(begin, start, end))
        while True:
            reached = offsets.advanced(begin, shards, target)
            if self._on_expired == "raise":
                offsets.check_lost(begin, reached, _REMEDY)
            current = dict(begin)
            state[POSITIONS] = offsets.as_json(current)
            for span in offsets.spans(begin, reached):
                for batch in self._batches(span):
                    last = batch[-1]
                    # Before the yield, because dlt closes a resource with a limit there. The state is stored with the data.
                    current[span.shard_id] = Position.after(last.sequence_number, last.subsequence_number)
                    state[POSITIONS] = offsets.as_json(current)
                    yield _table(batch)
                current[span.shard_id] = span.upto
            state[POSITIONS] = offsets.as_json(reached)
            if reached == begin:
                return
            begin = reached

    async def _planned(self, begin: Offsets | None, start: Any, end: Any) -> tuple[list[Shard], Offsets, Offsets]:
        """Return the shards, where this run begins in those that were entered, and up to where it reads."""
        if begin is None:
            first = await self._positions(start)
            begin = offsets.initial([shard for shard in await self._shards.list() if shard.shard_id in first], first)
        target = await self._positions(end, begin)
        return await self._shards.list(), begin, target

    async def _positions(self, at: Any, known: Offsets | None = None) -> Offsets:
        match at:
            case "oldest":
                return await self._locator.oldest()
            case "now":
                return await self._locator.newest(known=known)
            case _:
                return await self._locator.at_time(at.timestamp() if isinstance(at, datetime) else float(at))

    def _batches(self, span: ShardSpan) -> Iterator[RecordBatch]:
        shard_id, after, upto = span
        batches = kinstream.ranges.read_range(
            self._stream, shard_id, after=after, upto=upto, on_expired=self._on_expired, client=self._client
        )

        async def following() -> RecordBatch | None:
            return await anext(batches, None)

        try:
            while (batch := self._background.run(following())) is not None:
                yield batch
        finally:
            self._background.run(batches.aclose())


def _table(batch: RecordBatch) -> pyarrow.Table:
    import pyarrow

    return pyarrow.Table.from_batches([batch.to_arrow()])
