"""The same classes for threads: every call returns when it is done.

One implementation: each method hands its coroutine to an event loop in a thread of its own (`kinstream.background`). The
objects may be used from any number of threads at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import kinstream.aws.client
import kinstream.consumer
import kinstream.producer
from kinstream.aws import kinesis
from kinstream.aws.client import ClientOptions
from kinstream.background import BackgroundLoop
from kinstream.errors import ClosedError, ConfigError
from kinstream.record import GetRecordsResult, PutRecordResult, PutRecordsResult, Record, Shard, ShardIteratorType

T = TypeVar("T")


class _Blocking:
    """A background loop, and how an object on it is closed."""

    def __init__(self, background: BackgroundLoop, *, shared: bool) -> None:
        self._background = background
        self._shared = shared
        if not shared:
            # Where nobody calls close(), the thread ends with the object.
            weakref.finalize(self, background.stop).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: TracebackType | BaseException | type[BaseException] | None) -> None:
        self.close()

    def close(self) -> None:
        """Close. Calls under way in other threads end with ClosedError. May be repeated."""
        raise NotImplementedError

    def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        if self._background.stopped or self._background.forked:  # nothing of it is in this process
            closing.close()
            return
        with suppress(ClosedError):  # another thread closes too, and was first
            self._background.run(closing)
        if not self._shared:
            self._background.stop()
            self._background.join()


class Client(_Blocking):
    """Speaks with Kinesis. Producers and consumers of this module may share one.

    Args:
        options: As `kinstream.Client`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Client() as client:
        ...     client.call("ListStreams", {})["StreamNames"]
        ['events']
    """

    def __init__(self, **options: Unpack[ClientOptions]) -> None:
        self._client = kinstream.aws.client.Client(**options)
        super().__init__(BackgroundLoop("kinstream-client"), shared=False)

    def __repr__(self) -> str:
        return f"blocking.{self._client!r}"

    def close(self) -> None:
        """Close all connections. Calls under way in other threads end with ClosedError. May be repeated."""
        self._close(self._client.close())

    def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for any operation of the Kinesis API by its name, as `kinstream.Client.call`."""
        return self._background.run(self._client.call(operation, params))


class _OnStream(_Blocking):
    def __init__(self, client: Client | None, name: str) -> None:
        if client is not None and not isinstance(client, Client):
            raise ConfigError(f"client: must be a kinstream.blocking.Client, not {type(client).__name__}")
        super().__init__(BackgroundLoop(name) if client is None else client._background, shared=client is not None)
        self._client = client  # kept: its loop ends when it is forgotten


class Producer(_OnStream):
    """Writes records to one stream.

    Args:
        stream: The stream's name or ARN.
        client: A `kinstream.blocking.Client` to share; None: one of its own, made of `options`.
        options: As `kinstream.Client`.

    Raises:
        ConfigError: An argument is wrong.
    """

    def __init__(self, stream: str, *, client: Client | None = None, **options: Unpack[ClientOptions]) -> None:
        super().__init__(client, "kinstream-producer")
        shared = None if client is None else client._client
        self._producer = kinstream.producer.Producer(stream, client=shared, **options)

    def __repr__(self) -> str:
        return f"blocking.{self._producer!r}"

    def close(self) -> None:
        """Close the client, unless it is shared. May be repeated."""
        self._close(self._producer.close())

    def put_record(self, record: Record) -> PutRecordResult:
        """Write one record, as `kinstream.Producer.put_record`."""
        return self._send(kinesis.put_record(self._producer.client.codec, self._producer.stream, record))

    def put_records(self, records: Iterable[Record]) -> PutRecordsResult:
        """Write up to 500 records in one request, as `kinstream.Producer.put_records`."""
        return self._send(kinesis.put_records(self._producer.client.codec, self._producer.stream, records))

    def _send(self, request: kinesis.Request[T]) -> T:
        # It was made in the caller's thread: encoders and iterables may belong there, as database cursors do.
        return self._background.run(self._producer._send(request))


class Consumer(_OnStream):
    """Reads records from one stream.

    Args:
        stream: The stream's name or ARN.
        client: A `kinstream.blocking.Client` to share; None: one of its own, made of `options`.
        options: As `kinstream.Client`.

    Raises:
        ConfigError: An argument is wrong.
    """

    def __init__(self, stream: str, *, client: Client | None = None, **options: Unpack[ClientOptions]) -> None:
        super().__init__(client, "kinstream-consumer")
        shared = None if client is None else client._client
        self._consumer = kinstream.consumer.Consumer(stream, client=shared, **options)

    def __repr__(self) -> str:
        return f"blocking.{self._consumer!r}"

    def close(self) -> None:
        """Close the client, unless it is shared. May be repeated."""
        self._close(self._consumer.close())

    def get_shards(self) -> list[Shard]:
        """Return all shards of the stream, closed ones included, as `kinstream.Consumer.get_shards`."""
        return self._background.run(self._consumer.get_shards())

    def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
    ) -> str:
        """Return a place in a shard to read from, as `kinstream.Consumer.get_shard_iterator`."""
        asking = self._consumer.get_shard_iterator(
            shard_id, type, starting_sequence_number=starting_sequence_number, timestamp=timestamp
        )
        return self._background.run(asking)

    def get_records(self, shard_iterator: str, limit: int | None = None) -> GetRecordsResult[bytes]:
        """Read records from a place, as `kinstream.Consumer.get_records`."""
        return self._background.run(self._consumer.get_records(shard_iterator, limit))
