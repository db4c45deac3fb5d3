"""Base of producer and consumer for callbacks: background thread, calls of callbacks, closing."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias

import kinstream.producer
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.request import Request
from kinstream.background import BackgroundLoop
from kinstream.clock import SYSTEM_CLOCK
from kinstream.config import text
from kinstream.consume.withhold import exception_info
from kinstream.credentials import Credentials
from kinstream.errors import ClosedError, KinesisError, UsageError
from kinstream.failures import Failures, Report
from kinstream.frames import without_frames
from kinstream.produce_errors import ProduceError
from kinstream.record import ReceivedRecord, Record
from kinstream.stream import StreamAccess
from kinstream.usage import ForThreads

Prepared: TypeAlias = Coroutine[Any, Any, tuple[object, ...]]
"""Coroutine that sends a request and returns the callback's arguments after the error."""

_NEVER_RUNS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
"""Flags of functions that a call creates an object of, without running their body."""

EXIT_DRAIN = 5.0
"""Seconds that the end of the interpreter waits for calls in flight on an object that was not closed."""

EXIT_LAST_CALLBACKS = 1.0
"""Seconds that it then waits for the callbacks of calls that did not end in time."""

TURN = 0.005
"""Seconds for which callbacks run without a break. Then other work of the thread runs."""

CALLBACK_FAILURES = 10
"""Maximum number of tracebacks of callbacks logged per minute, for each method. Further ones are counted."""

log: logging.Logger = logging.getLogger("kinstream.callbacks")
_this_thread = threading.local()


class Face(ForThreads):
    """Base class of producer and consumer: starts calls in the background, passes results to callbacks, closes.

    Calls in flight belong to the background thread alone. Other threads pass functions to it, which it runs in order.

    Args:
        opened: Creates the asyncio producer or consumer. Every method passes an exception of this function to its callback.
        thread_name: The thread's name.
        wind_up: Completes work that continues by itself, before the object closes.
    """

    def __init__(
        self,
        opened: Callable[[], StreamAccess],
        thread_name: str,
        wind_up: Callable[[StreamAccess], Coroutine[Any, Any, None]],
    ) -> None:
        self._debug = False
        self._closed = False  # set by close(): later calls are refused
        self._drained = False  # set in the background: no call is started any more
        self._turns: dict[int, threading.Lock] = {}
        self._failures = Failures()
        self._background = BackgroundLoop(thread_name)
        self._in_flight: set[asyncio.Task[None]] = set()
        self._finishing: asyncio.Task[None] | None = None
        self._limits: list[asyncio.Task[None]] = []
        self._access: StreamAccess | None = None
        self._wrong: KinesisError | None = None
        try:
            self._access = opened()
        except KinesisError as error:
            self._wrong = without_frames(error)  # its frames hold the secret access key
        except Exception as bug:
            self._wrong = internal_error(type(self).__name__, bug)
        self._wind_up = wind_up
        weakref.finalize(self, _end, self._background, self._in_flight, self._access, wind_up)

    _writes = False

    def __repr__(self) -> str:
        return f"callbacks.{type(self).__name__}({self._access.stream.name!r})" if self._access else repr(self._wrong)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        """Close at the end of a `with` block. `error` is the exception that left it, if any."""
        self.close()

    def set_debug(self, value: bool) -> None:
        """Turn debug output on or off. It is off by default.

        It goes to the logger `kinstream.callbacks`: the result of each method, errors at level ERROR. It never has a record's
        data or a secret. If logging is not configured, it goes to stderr.

        Args:
            value: True to turn it on.
        """
        self._debug = bool(value)
        if self._debug:
            log.setLevel(logging.DEBUG)
            if not log.hasHandlers():
                log.addHandler(logging.StreamHandler())

    def close(self) -> None:
        """Wait until every call in flight has had its callback, then end the thread. May be repeated.

        From a callback, of this object or of another, it returns immediately and the object closes later, since two callbacks
        that waited for each other would block forever. Methods called afterwards pass a ClosedError to their callbacks.
        """
        self._close(None)

    def _close(self, timeout: float | None) -> None:
        if not self._closed or timeout is not None:
            self._closed = True
            self._in_background(partial(self._begin_to_finish, timeout))
        if not in_callback():
            self._background.join()

    def _in_background(self, function: Callable[[], None]) -> None:
        """Run a function on the object's thread, or directly if called on it."""
        if self._background.here:
            function()
            return
        with suppress(UsageError, ClosedError, RuntimeError):  # forked, stopped, or at the interpreter's end
            self._background.call(function)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task that must end before the object closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    def _begin_to_finish(self, timeout: float | None) -> None:
        if self._finishing is None:
            self._finishing = asyncio.get_running_loop().create_task(self._finish())
        if timeout is not None and self._access is not None:
            self._limits.append(asyncio.get_running_loop().create_task(self._limit(self._access, timeout)))

    async def _limit(self, access: StreamAccess, timeout: float) -> None:  # noqa: ASYNC109 - not the caller's own
        """Cancel the calls that are in flight after `timeout` seconds, so that the object can close."""
        await access.client.clock.sleep(timeout)
        for task in self._in_flight:
            task.cancel()

    async def _finish(self) -> None:
        try:
            await _done(self._in_flight, self._access, self._wind_up)
            self._drained = True
            if self._access is not None:
                await self._access.close()
        except Exception:
            log.exception("%r: closing failed", self)
        finally:
            for kind, report in self._failures.unreported(self._now()).items():
                log.warning("%r.%s, %s more", self, kind, f"{report.unreported:,}")
            self._background.stop()

    def _ask(
        self,
        method: str,
        callback: Any,
        on_failure: tuple[object, ...],
        prepare: Callable[[], Prepared],
    ) -> None:
        """Start the coroutine that `prepare` returns, and call `callback(error, ...)` when it has ended. Never raises.

        Args:
            method: The public method, for debug output.
            callback: Receives the error, then the results. None: the result is not reported.
            on_failure: Arguments after the error if the call fails.
            prepare: Checks and encodes in the caller's thread, and returns the coroutine that sends.
        """
        if not self._may_call(method, callback):
            return
        error = self._closed_error(method) if self._closed else self._wrong
        coroutine = None
        if error is None:
            try:
                coroutine = prepare()
            except KinesisError as refused:
                error = without_frames(refused)  # its frames hold the record
            except Exception as bug:
                error = internal_error(method, bug)
        try:
            self._background.call(self._begin, method, callback, on_failure, coroutine, error)
        except Exception as ended:
            # The thread has ended (closed, forked, the interpreter's end): another thread calls the callback.
            if coroutine is not None:
                coroutine.close()
            late = error or (ended if isinstance(ended, KinesisError) else internal_error(method, ended))
            outcome = (method, callback, (late, *on_failure))
            try:
                threading.Thread(target=self._call_back, args=outcome, daemon=True).start()
            except RuntimeError:  # at the interpreter's end, from Python 3.12 on
                # A timer may call a method of a closed object: the application has lost nothing.
                level = logging.DEBUG if self._closed else logging.ERROR
                log.log(level, "%s: the process ends, and no thread is left for callbacks: %s", method, late.details)

    def _may_call(self, method: str, callback: Any) -> bool:
        """Return True if a callback is None or a plain function, and log an error otherwise."""
        if callback is None:
            return True
        if callable(callback):
            code = getattr(getattr(callback, "__func__", callback), "__code__", None)
            if code is None or not code.co_flags & _NEVER_RUNS:
                return True
            log.error(
                "%s: callback must be a plain function, not a coroutine function or a generator function, whose body would"
                " never run; nothing was done",
                method,
            )
            return False
        log.error("%s: callback must be a function, not %s; nothing was done", method, type(callback).__name__)
        return False

    def _begin(
        self,
        method: str,
        callback: Callable[..., object] | None,
        on_failure: tuple[object, ...],
        coroutine: Coroutine[Any, Any, tuple[object, ...]] | None,
        error: KinesisError | None,
    ) -> None:
        if coroutine is not None and self._drained:
            coroutine.close()
            coroutine = None
        if coroutine is None:
            self._call_back(method, callback, (error or self._closed_error(method), *on_failure))
            return
        self._keep(self._await(method, callback, on_failure, coroutine))

    async def _await(
        self,
        method: str,
        callback: Callable[..., object] | None,
        on_failure: tuple[object, ...],
        coroutine: Coroutine[Any, Any, tuple[object, ...]],
    ) -> None:
        error: KinesisError | None = None
        results = on_failure
        try:
            results = await coroutine
        except KinesisError as failed:
            error = failed
        except asyncio.CancelledError:  # `close` or the end of the interpreter has waited long enough
            error = ClosedError(f"{method}: closed before a response came")
            error.maybe_written = self._writes
        except Exception as bug:
            error = internal_error(method, bug)
        self._call_back(method, callback, (error, *results))

    def _call_back(
        self, method: str, callback: Callable[..., object] | None, outcome: tuple[Any, ...]
    ) -> BaseException | None:
        """Call a callback, and return the exception that it raised, if any."""
        self._debugged(method, outcome[0])
        if callback is None:
            if outcome[0] is not None:
                self._log_unobserved(method, outcome[0])
            return None
        # One lock for each process: a lock that was held at a fork is never released in the child.
        process = os.getpid()
        with self._turns.get(process) or self._turns.setdefault(process, threading.Lock()):
            _this_thread.in_callback = True
            try:
                callback(*outcome)
            except BaseException as raised:  # sys.exit() in a callback must not end the thread
                report = self._due(f"{method}: the callback raised", 1, burst=CALLBACK_FAILURES)
                if report is not None:
                    shown = exception_info(raised, _data_in(outcome))
                    log.exception("the callback of %s raised", method, exc_info=shown)
                return raised
            finally:
                _this_thread.in_callback = False
        return None

    def _debugged(self, method: str, error: KinesisError | None) -> None:
        """Log a result, if debug output is on."""
        if self._debug and error is None:
            log.debug("%r.%s: done", self, method)
        elif self._debug and error is not None:
            log.error("%r.%s: %s: %s", self, method, error.type, error.details)

    def _log_unobserved(self, method: str, error: KinesisError, count: int = 1) -> None:
        """Log that calls without a callback failed: the first one immediately, then one line a minute."""
        report = self._due(f"{method}: calls that had no callback failed", count)
        if report is not None:
            calls = "a call" if report.unreported == 1 else f"{report.unreported:,} calls"
            cause = type(error.__cause__ or error).__name__
            log.warning("%r.%s: %s that had no callback failed: %s: %s", self, method, calls, cause, error.details)

    def _due(self, kind: str, count: int, *, burst: int = 1) -> Report | None:
        return self._failures.failed(kind, self._now(), count=count, burst=burst)

    def _now(self) -> float:
        return (SYSTEM_CLOCK if self._access is None else self._access.client.clock).monotonic()

    def _closed_error(self, method: str) -> ClosedError:
        return ClosedError(f"{method}: this {type(self).__name__} is closed")


def _data_in(outcome: Sequence[Any]) -> list[bytes]:
    """Return the data of the records among a callback's arguments."""
    found: list[bytes] = []
    for part in outcome:
        for one in part if isinstance(part, list) else [part]:
            record = one.record if isinstance(one, ProduceError) else one
            if isinstance(record, (ReceivedRecord, Record)):
                found.append(
                    record.data if isinstance(record.data, bytes) else repr(record.data).encode("utf-8", "replace")
                )
    return found


def account(region: Any, access_key_id: Any, secret_access_key: Any, stream_name: Any) -> Credentials:
    """Return the credentials, after checking all texts of the constructor."""
    text("region", region)
    credentials = Credentials(text("access_key_id", access_key_id), text("secret_access_key", secret_access_key))
    text("stream_name", stream_name)
    return credentials


def reached(access: StreamAccess | None) -> tuple[Client, Stream]:
    """Return the client and the stream of an object that was constructed with valid arguments."""
    assert access is not None  # `_ask` calls `prepare` only if the constructor's arguments were valid
    return access.client, access.stream


async def sent(client: Client, request: Request[Any]) -> tuple[object, ...]:
    """Send a request, and return its result as the callback's arguments."""
    return (await client.send(request),)


def internal_error(method: str, bug: Exception) -> KinesisError:
    """Return the error for a bug in kinstream."""
    error = KinesisError(f"{method}: a bug in kinstream: {type(bug).__name__}")
    error.__cause__ = bug
    return error


def in_callback() -> bool:
    """Return True if the caller is a callback of any object."""
    return getattr(_this_thread, "in_callback", False)


async def _done(
    in_flight: set[asyncio.Task[None]],
    access: StreamAccess | None,
    wind_up: Callable[[StreamAccess], Coroutine[Any, Any, None]],
) -> None:
    """Wait until no call is in flight, including calls that callbacks make."""
    if access is not None:
        await wind_up(access)
    while in_flight:
        await asyncio.wait(in_flight)


def _end(
    background: BackgroundLoop,
    in_flight: set[asyncio.Task[None]],
    access: StreamAccess | None,
    wind_up: Callable[[StreamAccess], Coroutine[Any, Any, None]],
) -> None:
    """Stop the thread of an object that was not closed, when it becomes unreferenced or at the interpreter's end."""
    if background.started and not background.stopped and not background.here:
        try:
            background.submit(_done(in_flight, access, wind_up)).result(EXIT_DRAIN)
            if access is not None:
                with suppress(Exception):  # no caller is left to report it to
                    background.submit(access.close()).result(EXIT_LAST_CALLBACKS)
        except TimeoutError:
            if isinstance(access, kinstream.producer.Producer):
                with suppress(Exception):  # the pending records fail
                    background.submit(access._pipeline.close(0.0)).result(EXIT_LAST_CALLBACKS)
                with suppress(Exception):
                    background.submit(wind_up(access)).result(EXIT_LAST_CALLBACKS)
    background.stop()
    background.join(EXIT_LAST_CALLBACKS)  # the interpreter must not end while the loop closes
