"""WorkerPlan: the options and collaborators of a worker, as the consumer chooses them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

import msgspec

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import ErrorPolicy, Handling
from kinstream.consume.deliver.listener import ShardListener
from kinstream.consume.discover import StreamShards
from kinstream.consume.fetch.fetcher import Fetcher
from kinstream.consume.lease.keeper import Keeper
from kinstream.consume.report import Reporter
from kinstream.consume.start import Start


class StreamPlan(msgspec.Struct, frozen=True):
    """One stream that a worker reads.

    Attributes:
        stream: The stream.
        fetcher: Reads pages.
        shards: Describes the stream.
    """

    stream: Stream
    fetcher: Fetcher
    shards: StreamShards


class WorkerPlan(msgspec.Struct, frozen=True):
    """Options and collaborators of a worker.

    Attributes:
        client: Sends requests, and has the clock.
        streams: The streams by name, as in `Tenure.stream_name`: None is the only stream of a worker that reads one.
        start: Start positions in shards without a checkpoint.
        until: Time at which reading ends, in seconds since 1970. "now": the time at which it begins. None: it does not end by
            itself.
        keeper: Grants shards, and stores checkpoints.
        stopping: Set when reading is to stop.
        listener: The application's listener of shards. None: no listener.
        handling: Delivery of records to the application.
        errors: Retries of a failed handler, and the action after the last attempt.
        checkpoint_every: Seconds between checkpoints.
        manual: True if only the application writes checkpoints.
        accepts_misrouted: True to deliver aggregates that do not belong to their shard.
        announce: Reports and counts events.
    """

    client: Client
    streams: Mapping[str | None, StreamPlan]
    start: Start
    until: float | Literal["now"] | None
    keeper: Keeper
    stopping: asyncio.Event
    listener: ShardListener | None
    handling: Handling
    errors: ErrorPolicy
    checkpoint_every: float
    manual: bool
    accepts_misrouted: bool
    announce: Reporter
