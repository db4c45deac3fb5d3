"""Copy of a part of a stream: finds the range of each shard, reads parents before their children, and writes each batch."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.cli.connect import connect
from kinstream.cli.ending import FAILED, write
from kinstream.cli.locate import positions_of
from kinstream.cli.place import Place
from kinstream.cli.printable import printable
from kinstream.cli.progress import Progress
from kinstream.cli.records.filter import Test, filter_of
from kinstream.cli.records.line import json_line
from kinstream.cli.records.pace import rate_limits
from kinstream.cli.records.writer import NotWritten, Writer
from kinstream.cli.shards.tree import parents_of
from kinstream.cli.stream_state import summary_of
from kinstream.config import Aggregation
from kinstream.consume.fetch.position import Position
from kinstream.errors import ConfigError
from kinstream.producer import Producer
from kinstream.ranges import positions, read_range
from kinstream.record import ReceivedRecord, Shard

CONCURRENT = 16
"""Maximum number of shards that are read at the same time."""
RESOLUTION = 0.001
"""Seconds of the resolution of arrival times."""


class Sink(Protocol):
    """Target of the copy."""

    async def put(self, shard_id: str, records: Sequence[ReceivedRecord[bytes]]) -> None:
        """Write records of one shard."""


async def replay(args: argparse.Namespace) -> int:
    """Copy records. Returns the exit status."""
    stream = Stream.parse(args.stream)
    async with connect(args, stream) as client:
        shards = await all_shards(client, stream)
        copied = Copied(filter_of(args))
        try:
            async with _sink(args, client, stream) as sink:
                ranges = await _ranges(args, client, stream)
                copied.begun = True
                with Progress(stream.name) as progress:
                    await _copy(client, args.stream, shards, ranges, sink, copied, progress)
        except NotWritten as error:
            print(f"kinstream replay: {printable(f'a record was not written: {error.problem}')}", file=sys.stderr)
            return FAILED
        finally:
            if copied.begun:
                place = args.to_stream or args.to_file
                summary = f"{stream.name}: {copied.records:,} of {copied.read:,} records copied to {place}"
                print(printable(summary), file=sys.stderr if args.to_file == "-" else sys.stdout, flush=True)
    return 0


class Copied:
    """Counters of a copy, and its filter.

    Args:
        test: The filter. None: all records are copied.

    Attributes:
        begun: True once the ranges to copy are known.
        read: Records that were read.
        records: Records that were written or buffered.
    """

    def __init__(self, test: Test | None) -> None:
        self.begun: bool = False
        self.read: int = 0
        self.records: int = 0
        self._test = test

    def chosen(self, batch: Sequence[ReceivedRecord[bytes]]) -> list[ReceivedRecord[bytes]]:
        """Count the records of a batch, and return those that pass the filter."""
        test = self._test
        found = list(batch) if test is None else [one for one in batch if test(one.partition_key, one.data)]
        self.read += len(batch)
        self.records += len(found)
        return found


class FileSink:
    """Target that is a file, with a JSON line for each record.

    Args:
        stream: Name of the stream.
        file: The file. None: standard output.
    """

    def __init__(self, stream: str, file: BinaryIO | None) -> None:
        self._stream = stream
        self._file = file

    async def put(self, shard_id: str, records: Sequence[ReceivedRecord[bytes]]) -> None:
        """Write records of one shard."""
        lines = b"".join([json_line(self._stream, shard_id, record) for record in records])
        if self._file is None:
            write(lines)
        else:
            self._file.write(lines)


class StreamSink:
    """Target that is another stream.

    Args:
        writer: Writes to it.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def put(self, shard_id: str, records: Sequence[ReceivedRecord[bytes]]) -> None:
        """Write records of one shard."""
        await self._writer.put([(record.data, record.partition_key) for record in records], 0)


@asynccontextmanager
async def _sink(args: argparse.Namespace, client: Client, stream: Stream) -> AsyncIterator[Sink]:
    """Open the target, and complete it at the end."""
    if args.to_stream is not None:
        target = Stream.parse(args.to_stream)
        if target.name == stream.name and target.account in (None, stream.account):
            raise ConfigError(f"--to-stream={args.to_stream!r}: must be another stream than the source")
        await summary_of(client, target)  # a missing stream is reported before the first record is read
        producer = Producer(
            args.to_stream,
            order="key" if args.ordered else None,
            aggregate=Aggregation() if args.aggregate else None,
            rate_limits=await rate_limits(args, None),
            client=client,
        )
        async with producer:
            writer = Writer(producer)
            yield StreamSink(writer)
            await writer.finish()
    elif args.to_file == "-":
        yield FileSink(stream.name, None)
    else:
        path = Path(args.to_file)
        with await asyncio.to_thread(path.open, "wb" if args.overwrite else "xb") as file:
            try:
                yield FileSink(stream.name, file)
            except BaseException:
                if not file.tell():
                    await asyncio.to_thread(path.unlink)
                raise


async def _ranges(args: argparse.Namespace, client: Client, stream: Stream) -> dict[str, tuple[Position, Position]]:
    """Return the first and the last position of each shard that has records to copy.

    Raises:
        ConfigError: The position `--until` of a shard is before its position `--from`.
    """
    upper = await _bounds(client, stream, "--until", args.until or [Place("LATEST")], end=True)
    lower = await _bounds(client, stream, "--from", args.start or [Place("TRIM_HORIZON")], end=False)
    found = {name: (lower[name], upper[name]) for name in lower if name in upper}
    reversed_ranges = [name for name, (first, last) in found.items() if last < first]
    if reversed_ranges and args.start and args.until and args.start[0].in_shard and args.until[0].in_shard:
        name = reversed_ranges[0]
        raise ConfigError(f"--until: {found[name][1]} is before --from, {found[name][0]}, in {name}")
    return {name: (first, last) for name, (first, last) in found.items() if first < last}


async def _bounds(
    client: Client, stream: Stream, option: str, places: Sequence[Place], *, end: bool
) -> dict[str, Position]:
    """Return the positions of an option by shard id."""
    first = places[0]
    if first.in_shard:
        return await positions_of(client, stream, option, places)
    name = stream.arn or stream.name
    if first.moment is not None:
        return await positions(name, at=first.moment + RESOLUTION if end else first.moment, client=client)
    return await positions(name, at="oldest" if first.position == "TRIM_HORIZON" else "now", client=client)


async def _copy(
    client: Client,
    stream: str,
    shards: Sequence[Shard],
    ranges: Mapping[str, tuple[Position, Position]],
    sink: Sink,
    copied: Copied,
    progress: Progress,
) -> None:
    """Copy the ranges of all shards, each after those of its parents."""
    completed = {name: asyncio.Event() for name in ranges}
    limit = asyncio.Semaphore(CONCURRENT)
    done = 0

    async def one(shard_id: str, parents: Sequence[str]) -> None:
        nonlocal done
        for parent in parents:
            if parent in completed:
                await completed[parent].wait()
        lower, upper = ranges[shard_id]
        async with limit:
            async for batch in read_range(stream, shard_id, after=lower, upto=upper, client=client):
                await sink.put(shard_id, copied.chosen(batch))
                progress.show(f"{copied.records:,} records", done / len(ranges))
        done += 1
        completed[shard_id].set()

    parents = {shard.shard_id: parents_of(shard) for shard in shards}
    tasks = [asyncio.create_task(one(shard_id, parents.get(shard_id, []))) for shard_id in ranges]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
