"""Reading of a stream for `tail`: starts a consumer, writes its records, and removes a fan-out consumer that it registered."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.cli.connect import connect
from kinstream.cli.locate import positions_of
from kinstream.cli.place import Place
from kinstream.cli.printable import printable
from kinstream.cli.records.line import Extras
from kinstream.cli.records.output import RecordOutput, unless_reader_is_gone
from kinstream.cli.stream_state import summary_of
from kinstream.cli.tail.registered_name import PREFIX
from kinstream.config import EnhancedFanOut, ErrorPolicy, Polling
from kinstream.consumer import Consumer, StartLike
from kinstream.errors import KinesisError, NotFound
from kinstream.record import ReceivedRecord

LONGEST_IDLE = 1.0
"""Maximum seconds between two reads of a shard without new records, unless the rate is lower."""


async def tail(args: argparse.Namespace) -> int:
    """Show the records of a stream. Returns the exit status."""
    stream = Stream.parse(args.stream)
    output = RecordOutput(args, stream.name, args.count)
    async with connect(args, stream) as client:
        start = await _start(args, client, stream)
        async with _fetch(args, client, stream) as fetch:
            consumer = Consumer(
                args.stream, start=start, until=args.until, fetch=fetch, errors=_shown(output), client=client
            )
            async with consumer:
                await unless_reader_is_gone(_write(consumer, output))
    return 0


def _shown(output: RecordOutput) -> ErrorPolicy:
    """Return the policy that shows an aggregate with a damaged index as it is, and continues after it."""

    async def show(record: ReceivedRecord[bytes], error: Exception) -> None:
        output.write(record.shard_id, [record], Extras(error=f"aggregate: {error}"))

    return ErrorPolicy(max_attempts=1, then=show)


async def _write(consumer: Consumer, output: RecordOutput) -> None:
    batches = consumer.batches()
    while not output.complete and (batch := await anext(batches, None)) is not None:
        output.write(batch.shard_id, batch)


async def _start(args: argparse.Namespace, client: Client, stream: Stream) -> StartLike:
    places: list[Place] = args.start or []
    if not places:
        return "LATEST"
    if places[0].in_shard:
        return await positions_of(client, stream, "--from", places)
    first = places[0]
    return first.moment if first.moment is not None else str(first.position)


@asynccontextmanager
async def _fetch(args: argparse.Namespace, client: Client, stream: Stream) -> AsyncIterator[Polling | EnhancedFanOut]:
    """Return the way to read. A consumer that is registered for this command is deregistered at the end."""
    if not args.fan_out:
        _note(f"{stream.name}: polling each shard up to {args.rate:g} times per second")
        yield Polling(reads_per_second=args.rate, idle_interval=min(60.0, max(LONGEST_IDLE, 1 / args.rate)))
        return
    if args.consumer_name is not None:
        _note(f"{stream.name}: fan-out as consumer {args.consumer_name}, which stays registered")
        yield EnhancedFanOut(consumer_name=args.consumer_name)
        return
    arn = str((await summary_of(client, stream)).get("StreamARN"))
    name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    _note(f"{stream.name}: fan-out as consumer {name}, which is deregistered at the end")
    try:
        yield EnhancedFanOut(consumer_name=name)
    finally:
        try:
            await client.call("DeregisterStreamConsumer", {"StreamARN": arn, "ConsumerName": name})
        except NotFound:  # it was not registered yet, or the stream is deleted
            pass
        except KinesisError as error:
            problem = f"consumer {name} of {arn} may still be registered, and AWS bills it: {error.details}"
            print(f"kinstream tail: {printable(problem)}", file=sys.stderr)


def _note(text: str) -> None:
    """Show a remark to a user at a terminal."""
    if sys.stderr.isatty():
        print(printable(text), file=sys.stderr)
