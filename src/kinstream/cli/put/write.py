"""Writing of lines for `put`: through a producer, with progress, up to the end of the input or the first invalid line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress

from kinstream.aws.endpoint import Stream
from kinstream.cli.connect import connect
from kinstream.cli.ending import FAILED
from kinstream.cli.printable import printable
from kinstream.cli.progress import Progress, bytes_text
from kinstream.cli.put.lines import LONGEST_LINE, LongLine, line_batches
from kinstream.cli.put.records import Rule, rule
from kinstream.cli.records.line import BadLine, KeyedData
from kinstream.cli.records.pace import rate_limits
from kinstream.cli.records.writer import NotWritten, Writer
from kinstream.cli.stream_state import summary_of
from kinstream.config import Aggregation
from kinstream.producer import Producer


async def put(args: argparse.Namespace) -> int:
    """Write the lines of standard input. Returns the exit status."""
    stream = Stream.parse(args.stream)
    record_of = rule(key=args.key, key_field=args.key_field, json=args.json)
    async with connect(args, stream) as client:
        await summary_of(client, stream)  # a missing stream is reported before the first line is read
        aggregate = Aggregation() if args.aggregate else None
        producer = Producer(
            args.stream,
            order="key" if args.ordered else None,
            aggregate=aggregate,
            rate_limits=await rate_limits(args, args.rate_limit),
            client=client,
        )
        problem: NotWritten | None = None
        try:
            async with producer:
                with Progress(stream.name) as progress:
                    problem = await _write(producer, record_of, progress)
        finally:
            print(f"{stream.name}: {result(producer)}", flush=True)
    if problem is None:
        return 0
    print(f"kinstream put: {printable(f'line {problem.number}: {problem.problem}')}", file=sys.stderr)
    return FAILED


def result(producer: Producer) -> str:
    """Return the numbers of records that were written and that failed, as text."""
    state = producer.statistics()
    written = f"{state.records_written:,} record{'' if state.records_written == 1 else 's'} written"
    failed = state.records_failed + state.buffered_records
    return f"{written}, {failed:,} not written" if failed else written


async def _write(producer: Producer, record_of: Rule, progress: Progress) -> NotWritten | None:
    """Write lines up to the first invalid one. Returns the problem with it, or None."""
    writer = Writer(producer)
    number = 1
    problem: NotWritten | None = None
    try:
        async for lines in line_batches(sys.stdin.fileno()):
            records, problem = _records(lines, record_of, number)
            await writer.put(records, number)
            if problem is not None:
                break
            number += len(lines)
            state = producer.statistics()
            rate = state.records_written / max(progress.seconds, 0.001)
            progress.show(f"{state.records_written:,} records, {bytes_text(state.bytes_put)}, {rate:,.0f} a second")
        await writer.finish()
    except LongLine:
        problem = NotWritten(number, f"has more than {bytes_text(LONGEST_LINE)}")
    except NotWritten as error:
        problem = error
    if problem is not None:
        with suppress(NotWritten):  # the first problem is reported
            await writer.finish()
    return problem


def _records(lines: Sequence[bytes], record_of: Rule, first: int) -> tuple[list[KeyedData], NotWritten | None]:
    """Return the records of lines up to the first invalid one, and the problem with it."""
    records: list[KeyedData] = []
    for number, line in enumerate(lines, first):
        try:
            record = record_of(line)
        except BadLine as error:
            return records, NotWritten(number, str(error))
        records.append(record)
    return records, None
