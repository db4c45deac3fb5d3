"""The same classes for callbacks: every call returns None at once, and `callback(error, ...)` runs when it is done.

This is the contract of the AWSKinesisStreams library, item by item (docs/reference.md). No method and no constructor raises:
whatever is wrong arrives in a callback, as a `KinesisError` whose `type` is one of the three of `ErrorType`.

Callbacks run on the object's own thread, one at a time, and may call further methods. One that raises is logged and harms
nobody. Data is encoded before a method returns, so what it was made of may be changed afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeAlias

import msgspec

import kinstream.consumer
import kinstream.producer
from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.credentials import Credentials
from kinstream.aws.endpoint import Stream
from kinstream.background import BackgroundLoop
from kinstream.config import choice, text, whole_number
from kinstream.errors import ClosedError, ConfigError, KinesisError
from kinstream.record import GetRecordsResult, PutRecordResult, ReceivedRecord, Record, ShardIteratorType, parse_json
from kinstream.stream import StreamAccess

PutRecordCallback: TypeAlias = Callable[[KinesisError | None, PutRecordResult | None], object]
PutRecordsCallback: TypeAlias = Callable[[KinesisError | None, int, list[PutRecordResult]], object]
GetShardsCallback: TypeAlias = Callable[[KinesisError | None, list[str]], object]
GetShardIteratorCallback: TypeAlias = Callable[[KinesisError | None, str | None], object]
GetRecordsCallback: TypeAlias = Callable[
    [KinesisError | None, list[ReceivedRecord[Any]], int, dict[str, Any] | None], object
]

EXIT_DRAIN = 5.0
"""Seconds that the end of the interpreter waits for what is under way on an object that nobody closed."""

EXIT_LAST_CALLBACKS = 1.0
"""Seconds that it then waits for the callbacks of what did not end in time."""

_log = logging.getLogger("kinstream.callbacks")
_this_thread = threading.local()


class _Face:
    """What both classes do: ask in the background, hand the outcome over, close.

    What is under way belongs to the background thread alone; other threads hand it functions, which it runs in their order.
    """

    def __init__(self, opened: Callable[[], StreamAccess], thread_name: str) -> None:
        self._debug = False
        self._closed = False  # set by close(): what is asked from now on is refused
        self._drained = False  # set in the background: nothing is begun any more
        self._turns: dict[int, threading.Lock] = {}
        self._background = BackgroundLoop(thread_name)
        self._under_way: set[asyncio.Task[None]] = set()
        self._finishing: asyncio.Task[None] | None = None
        self._access: StreamAccess | None = None
        self._wrong: KinesisError | None = None
        try:
            self._access = opened()
        except KinesisError as error:
            self._wrong = error
        except Exception as fault:
            self._wrong = _fault(type(self).__name__, fault)
        weakref.finalize(self, _end, self._background, self._under_way)

    def __repr__(self) -> str:
        return f"callbacks.{type(self).__name__}({self._access.stream.name!r})" if self._access else repr(self._wrong)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: TracebackType | BaseException | type[BaseException] | None) -> None:
        self.close()

    def set_debug(self, value: bool) -> None:
        """Turn debug output on or off; it is off at first.

        It goes to the logger `kinstream.callbacks`: each method's outcome, errors as errors. Never a record's data, never a
        secret. Where logging is not configured, it goes to stderr.

        Args:
            value: Whether it is on.
        """
        self._debug = bool(value)
        if self._debug:
            _log.setLevel(logging.DEBUG)
            if not _log.hasHandlers():
                _log.addHandler(logging.StreamHandler())

    def close(self) -> None:
        """Wait until everything under way has had its callback, then end the thread. May be repeated.

        From a callback, of this object or of another, it returns at once, and the rest follows: two that waited for each
        other would wait for ever. Methods called afterwards hand over a ClosedError.
        """
        if not self._closed:
            self._closed = True
            with suppress(
                ConfigError, ClosedError, RuntimeError
            ):  # forked, ended, the interpreter's end: nothing is left
                self._background.call(self._begin_to_finish)
        if not _in_callback():
            self._background.join()

    def _begin_to_finish(self) -> None:
        self._finishing = asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> None:
        try:
            await _done(self._under_way)
            self._drained = True
            if self._access is not None:
                await self._access.close()
        except Exception:
            _log.exception("%r: closing failed", self)
        finally:
            self._background.stop()

    def _ask(
        self,
        method: str,
        callback: Any,
        on_failure: tuple[object, ...],
        prepare: Callable[[], Coroutine[Any, Any, tuple[object, ...]]],
    ) -> None:
        """Start what `prepare` returns, and call `callback(error, ...)` when it is done. Never raises.

        Args:
            method: The public method, for debug output.
            callback: Takes the error, then what was asked for; None: nobody wants to know.
            on_failure: What is handed over besides an error.
            prepare: Checks and encodes in the caller's thread, and returns the coroutine that sends.
        """
        if callback is not None and not callable(callback):
            _log.error("%s: callback must be a function, not %s; nothing was done", method, type(callback).__name__)
            return
        error = self._closed_error(method) if self._closed else self._wrong
        asking = None
        if error is None:
            try:
                asking = prepare()
            except KinesisError as refused:
                error = refused
            except Exception as fault:
                error = _fault(method, fault)
        try:
            self._background.call(self._begin, method, callback, on_failure, asking, error)
        except Exception as ended:
            # The thread is gone (closed, forked, the interpreter's end): a last one brings the news.
            if asking is not None:
                asking.close()
            late = error or (ended if isinstance(ended, KinesisError) else _fault(method, ended))
            outcome = (method, callback, (late, *on_failure))
            try:
                threading.Thread(target=self._hand_over, args=outcome, daemon=True).start()
            except RuntimeError:  # at the interpreter's end, from Python 3.12 on
                # Who closed the object, and lets a timer ask once more, has lost nothing.
                level = logging.DEBUG if self._closed else logging.ERROR
                _log.log(level, "%s: the program ends, no thread is left to call back on: %s", method, late.details)

    def _begin(
        self,
        method: str,
        callback: Callable[..., object] | None,
        on_failure: tuple[object, ...],
        asking: Coroutine[Any, Any, tuple[object, ...]] | None,
        error: KinesisError | None,
    ) -> None:
        if asking is not None and self._drained:
            asking.close()
            asking = None
        if asking is None:
            self._hand_over(method, callback, (error or self._closed_error(method), *on_failure))
            return
        task = asyncio.get_running_loop().create_task(self._await(method, callback, on_failure, asking))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _await(
        self,
        method: str,
        callback: Callable[..., object] | None,
        on_failure: tuple[object, ...],
        asking: Coroutine[Any, Any, tuple[object, ...]],
    ) -> None:
        error: KinesisError | None = None
        results = on_failure
        try:
            results = await asking
        except KinesisError as failed:
            error = failed
        except asyncio.CancelledError:  # the interpreter ends, and has waited long enough
            error = ClosedError(f"{method}: the program ended before an answer came")
            error.maybe_written = isinstance(self, Producer)
        except Exception as fault:
            error = _fault(method, fault)
        self._hand_over(method, callback, (error, *results))

    def _hand_over(self, method: str, callback: Callable[..., object] | None, outcome: tuple[Any, ...]) -> None:
        if self._debug:
            if outcome[0] is None:
                _log.debug("%r.%s: done", self, method)
            else:
                _log.error("%r.%s: %s: %s", self, method, outcome[0].type, outcome[0].details)
        if callback is None:
            return
        # A lock for each process: one that was held when this process was forked is never released here.
        with self._turns.setdefault(os.getpid(), threading.Lock()):
            _this_thread.in_callback = True
            try:
                callback(*outcome)
            except BaseException:  # sys.exit() in a callback must not end the thread of all the others
                _log.exception("the callback of %s raised", method)
            finally:
                _this_thread.in_callback = False

    def _closed_error(self, method: str) -> ClosedError:
        return ClosedError(f"{method}: this {type(self).__name__} is closed")


class Producer(_Face):
    """Writes records to one stream.

    Args:
        region: The region's code, such as "eu-central-1".
        access_key_id: The access key's id.
        secret_access_key: The secret access key.
        stream_name: The stream's name or ARN.
        endpoint_url: Another place than AWS's own; None: as the AWS configuration says.

    Example:
        >>> from kinstream import Record
        >>> from kinstream.callbacks import Producer
        >>> with Producer("us-east-1", "local", "local", "events") as producer:
        ...     producer.put_record(Record("Hello!", "key"), lambda error, result: print(error or result.shard_id))
        shardId-000000000000
    """

    def __init__(
        self,
        region: str,
        access_key_id: str,
        secret_access_key: str,
        stream_name: str,
        *,
        endpoint_url: str | None = None,
    ) -> None:
        def opened() -> kinstream.producer.Producer:
            credentials = _credentials(region, access_key_id, secret_access_key, stream_name)
            return kinstream.producer.Producer(
                stream_name, region=region, credentials=credentials, endpoint_url=endpoint_url
            )

        super().__init__(opened, "kinstream-callbacks-producer")

    def put_record(self, record: Record, callback: PutRecordCallback | None = None) -> None:
        """Write one record.

        Args:
            record: At most 10 MiB of data and partition key, and no more than the stream's MaxRecordSizeInKiB.
            callback: `callback(error, put_record_result)`; the result is None on an error.
        """

        def prepare() -> Coroutine[Any, Any, tuple[object, ...]]:
            client, stream = _opened(self._access)
            return _sent(client, kinesis.put_record(client.codec, stream, record))

        self._ask("put_record", callback, (None,), prepare)

    def put_records(self, records: Sequence[Record], callback: PutRecordsCallback | None = None) -> None:
        """Write up to 500 records in one request. Kinesis takes each for itself, in no order; none is sent again.

        Args:
            records: A list (or tuple) of 1 to 500, together at most 10 MiB of data and partition keys.
            callback: `callback(error, failed_record_count, put_record_results)`: one result for each record, in the records'
                order. On an error there are none, and the count is the number of records given, 0 where that was no list.
        """
        is_list = isinstance(records, (list, tuple))

        def prepare() -> Coroutine[Any, Any, tuple[object, ...]]:
            if not is_list:
                raise ConfigError(f"records: must be a list of kinstream.Record, not {type(records).__name__}")
            client, stream = _opened(self._access)
            request = kinesis.put_records(client.codec, stream, records)

            async def send() -> tuple[object, ...]:
                answer = await client.send(request)
                return answer.failed_record_count, answer.results

            return send()

        self._ask("put_records", callback, (len(records) if is_list else 0, []), prepare)


class Consumer(_Face):
    """Reads records from one stream.

    Args:
        region: The region's code, such as "eu-central-1".
        access_key_id: The access key's id.
        secret_access_key: The secret access key.
        stream_name: The stream's name or ARN.
        is_blob: Whether data is handed over as the bytes it is; False: parsed as JSON.
        endpoint_url: Another place than AWS's own; None: as the AWS configuration says.
    """

    def __init__(
        self,
        region: str,
        access_key_id: str,
        secret_access_key: str,
        stream_name: str,
        is_blob: bool = False,
        *,
        endpoint_url: str | None = None,
    ) -> None:
        def opened() -> kinstream.consumer.Consumer:
            if not isinstance(is_blob, bool):
                raise ConfigError(f"is_blob: must be True or False, not {type(is_blob).__name__}")
            credentials = _credentials(region, access_key_id, secret_access_key, stream_name)
            return kinstream.consumer.Consumer(
                stream_name, region=region, credentials=credentials, endpoint_url=endpoint_url
            )

        super().__init__(opened, "kinstream-callbacks-consumer")
        self._is_blob = is_blob is True

    def get_shards(self, callback: GetShardsCallback) -> None:
        """Ask for the ids of all shards of the stream, closed ones included.

        Args:
            callback: `callback(error, shard_ids)`; [] on an error.
        """

        def prepare() -> Coroutine[Any, Any, tuple[object, ...]]:
            consumer = self._access
            assert isinstance(consumer, kinstream.consumer.Consumer)

            async def ask() -> tuple[object, ...]:
                return ([shard.shard_id for shard in await consumer.get_shards()],)

            return ask()

        self._ask("get_shards", callback, ([],), prepare)

    def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        type_options: Mapping[str, Any] | None,
        callback: GetShardIteratorCallback,
    ) -> None:
        """Ask for a place in a shard to read from. It is good for five minutes.

        Args:
            shard_id: Such as "shardId-000000000000".
            type: Where to start.
            type_options: `starting_sequence_number` (text) for AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, `timestamp` (whole
                seconds since 1970) for AT_TIMESTAMP; what the type has no use for is ignored. None: there are none.
            callback: `callback(error, shard_iterator)`; None on an error.
        """

        def prepare() -> Coroutine[Any, Any, tuple[object, ...]]:
            options = _options("type_options", {} if type_options is None else type_options)
            kind = choice("type", type, ShardIteratorType)
            number = timestamp = None
            if kind in (ShardIteratorType.AT_SEQUENCE_NUMBER, ShardIteratorType.AFTER_SEQUENCE_NUMBER):
                number = options.get("starting_sequence_number")
            elif kind is ShardIteratorType.AT_TIMESTAMP:
                timestamp = options.get("timestamp")
                if timestamp is not None:
                    whole_number("timestamp", timestamp, 0, 253402300799, "seconds since 1970")
            client, stream = _opened(self._access)
            request = kinesis.get_shard_iterator(client.codec, stream, shard_id, kind, number, timestamp)
            return _sent(client, request)

        self._ask("get_shard_iterator", callback, (None,), prepare)

    def get_records(self, options: Mapping[str, Any], callback: GetRecordsCallback) -> None:
        """Read records from a place.

        Args:
            options: `shard_iterator` (text), and `limit` (1 to 10,000) if fewer records are wanted than the service gives.
            callback: `callback(error, records, millis_behind_latest, next_options)`. `next_options` are the options of the next
                call, with the same `limit` if one was given; None at the end of a closed shard. On an error [], 0, None.
        """

        def prepare() -> Coroutine[Any, Any, tuple[object, ...]]:
            given = _options("options", options)
            limit = given.get("limit")
            client, stream = _opened(self._access)
            request = kinesis.get_records(client.codec, stream, given.get("shard_iterator"), limit)  # type: ignore[arg-type]
            if not self._is_blob:
                request = replace(request, parse=lambda body: _parsed(client.codec.decode_get_records(body)))

            async def ask() -> tuple[object, ...]:
                answer = await client.send(request)
                following = None
                if answer.next_shard_iterator is not None:
                    following = {"shard_iterator": answer.next_shard_iterator}
                    if limit is not None:
                        following["limit"] = limit
                return answer.records, answer.millis_behind_latest, following

            return ask()

        self._ask("get_records", callback, ([], 0, None), prepare)


def _credentials(region: Any, access_key_id: Any, secret_access_key: Any, stream_name: Any) -> Credentials:
    """Return the credentials, all of the constructor's texts checked: none has a default here."""
    text("region", region)
    credentials = Credentials(text("access_key_id", access_key_id), text("secret_access_key", secret_access_key))
    text("stream_name", stream_name)
    return credentials


def _opened(access: StreamAccess | None) -> tuple[Client, Stream]:
    assert access is not None  # `_ask` prepares nothing where the constructor's arguments were wrong
    return access.client, access.stream


def _options(name: str, options: Any) -> Mapping[str, Any]:
    if not isinstance(options, Mapping):
        raise ConfigError(f"{name}: must be a dict, not {type(options).__name__}")
    return options


async def _sent(client: Client, request: kinesis.Request[Any]) -> tuple[object, ...]:
    return (await client.send(request),)


def _parsed(answer: GetRecordsResult[bytes]) -> GetRecordsResult[Any]:
    """Return the answer with each record's data parsed as JSON."""
    for record in answer.records:
        try:
            msgspec.structs.force_setattr(record, "data", parse_json(record.data))
        except ValueError as error:
            raise kinesis.Malformed(
                f"the data of the record with sequence number {record.sequence_number} is {error}; is_blob=True hands over"
                " any data as it is"
            ) from None
    return answer


def _fault(method: str, fault: Exception) -> KinesisError:
    error = KinesisError(f"{method}: a fault in kinstream: {type(fault).__name__}")
    error.__cause__ = fault
    return error


def _in_callback() -> bool:
    return getattr(_this_thread, "in_callback", False)


async def _done(under_way: set[asyncio.Task[None]]) -> None:
    """Wait until nothing is under way, what callbacks ask for meanwhile included."""
    while under_way:
        await asyncio.wait(under_way)


def _end(background: BackgroundLoop, under_way: set[asyncio.Task[None]]) -> None:
    """End the thread of an object that nobody closed: forgotten, with nothing under way, or at the interpreter's end."""
    drained = True
    if background.started and not background.stopped and not background.here:
        try:
            background.submit(_done(under_way)).result(EXIT_DRAIN)
        except TimeoutError:
            drained = False
    background.stop()
    if not drained:
        background.join(EXIT_LAST_CALLBACKS)
