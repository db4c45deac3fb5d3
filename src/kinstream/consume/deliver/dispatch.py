"""Choice of a shard's dispatcher, by the kind of the handler and the concurrency."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kinstream.consume.deliver.concurrent import ConcurrentByKey
from kinstream.consume.deliver.dispatcher import Dispatcher
from kinstream.consume.deliver.handler import BatchHandler, RecordHandler, awaitable, is_async
from kinstream.consume.deliver.sequential import ByBatch, Sequential, SequentialInThread
from kinstream.consume.shard.reader import ShardReader


def dispatchers(
    handler: RecordHandler, threads: ThreadPoolExecutor, concurrency: int
) -> Callable[[ShardReader], Dispatcher]:
    """Return a function that creates each shard's dispatcher for a handler of records."""
    if concurrency > 1:
        return lambda reader: ConcurrentByKey(awaitable(handler, threads), reader, reader.policy, concurrency)
    if is_async(handler):
        return lambda reader: Sequential(handler, reader, reader.policy)  # type: ignore[arg-type]
    return lambda reader: SequentialInThread(handler, reader, reader.policy, threads)


def batch_dispatchers(handler: BatchHandler, threads: ThreadPoolExecutor) -> Callable[[ShardReader], Dispatcher]:
    """Return a function that creates each shard's dispatcher for a handler of batches."""
    return lambda reader: ByBatch(awaitable(handler, threads), reader, reader.policy)
