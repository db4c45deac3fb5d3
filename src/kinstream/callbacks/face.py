"""Face: what producer and consumer have in common for callbacks: asking in the background, handing outcomes over, closing."""

from __future__ import annotations

import asyncio
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
from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.credentials import Credentials
from kinstream.aws.endpoint import Stream
from kinstream.background import BackgroundLoop
from kinstream.clock import SYSTEM_CLOCK
from kinstream.config import text
from kinstream.consume.withhold import exception_info
from kinstream.errors import ClosedError, KinesisError, ProduceError, UsageError
from kinstream.failures import Failures, Report
from kinstream.frames import without_frames
from kinstream.record import ReceivedRecord, Record
from kinstream.stream import StreamAccess
from kinstream.usage import ForThreads

Prepared: TypeAlias = Coroutine[Any, Any, tuple[object, ...]]
"""Sends a request, and returns the callback's arguments after the error."""

EXIT_DRAIN = 5.0
"""Seconds that the end of the interpreter waits for what is under way on an object that nobody closed."""

EXIT_LAST_CALLBACKS = 1.0
"""Seconds that it then waits for the callbacks of what did not end in time."""

TURN = 0.005
"""Seconds for which callbacks run one after another; then the thread's other work has its turn."""

CALLBACK_FAILURES = 10
"""Maximum tracebacks of callbacks that are logged a minute, of each method. Further ones are counted."""

log: logging.Logger = logging.getLogger("kinstream.callbacks")
_this_thread = threading.local()


class Face(ForThreads):
    """What both classes do: ask in the background, hand the outcome over, close.

    What is under way belongs to the background thread alone; other threads hand it functions, which it runs in their order.

    Args:
        opened: Makes what is asked in the background. What it raises is handed over by every method.
        thread_name: The thread's name.
        wind_up: Lets what goes on by itself come to an end, before the object does.
    """

    def __init__(
        self,
        opened: Callable[[], StreamAccess],
        thread_name: str,
        wind_up: Callable[[StreamAccess], Coroutine[Any, Any, None]],
    ) -> None:
        self._debug = False
        self._closed = False  # set by close(): what is asked from now on is refused
        self._drained = False  # set in the background: nothing is begun any more
        self._turns: dict[int, threading.Lock] = {}
        self._failures = Failures()
        self._background = BackgroundLoop(thread_name)
        self._under_way: set[asyncio.Task[None]] = set()
        self._finishing: asyncio.Task[None] | None = None
        self._limits: list[asyncio.Task[None]] = []
        self._access: StreamAccess | None = None
        self._wrong: KinesisError | None = None
        try:
            self._access = opened()
        except KinesisError as error:
            self._wrong = without_frames(error)  # its frames hold the secret access key
        except Exception as fault:
            self._wrong = fault_of(type(self).__name__, fault)
        self._wind_up = wind_up
        weakref.finalize(self, _end, self._background, self._under_way, self._access, wind_up)

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
        """Close at the end of a `with` block, which an exception may have left."""
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
            log.setLevel(logging.DEBUG)
            if not log.hasHandlers():
                log.addHandler(logging.StreamHandler())

    def close(self) -> None:
        """Wait until everything under way has had its callback, then end the thread. May be repeated.

        From a callback, of this object or of another, it returns at once, and the rest follows: two that waited for each
        other would wait for ever. Methods called afterwards hand over a ClosedError.
        """
        self._close(None)

    def _close(self, timeout: float | None) -> None:
        if not self._closed or timeout is not None:
            self._closed = True
            self._in_background(partial(self._begin_to_finish, timeout))
        if not in_callback():
            self._background.join()

    def _in_background(self, function: Callable[[], None]) -> None:
        """Run a function on the object's thread: at once, where this is it."""
        if self._background.here:
            function()
            return
        with suppress(UsageError, ClosedError, RuntimeError):  # forked, ended, the interpreter's end: nothing is left
            self._background.call(function)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside, before which the object does not end."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _begin_to_finish(self, timeout: float | None) -> None:
        if self._finishing is None:
            self._finishing = asyncio.get_running_loop().create_task(self._finish())
        if timeout is not None and self._access is not None:
            self._limits.append(asyncio.get_running_loop().create_task(self._limit(self._access, timeout)))

    async def _limit(self, access: StreamAccess, timeout: float) -> None:  # noqa: ASYNC109 - not the caller's own
        """Fail the calls that have not ended after a time, so that the object can close. Cancelled if it closes before."""
        await access.client.clock.sleep(timeout)
        for task in self._under_way:
            task.cancel()

    async def _finish(self) -> None:
        try:
            await _done(self._under_way, self._access, self._wind_up)
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
        """Start what `prepare` returns, and call `callback(error, ...)` when it is done. Never raises.

        Args:
            method: The public method, for debug output.
            callback: Takes the error, then what was asked for; None: nobody wants to know.
            on_failure: What is handed over besides an error.
            prepare: Checks and encodes in the caller's thread, and returns the coroutine that sends.
        """
        if not self._may_call(method, callback):
            return
        error = self._closed_error(method) if self._closed else self._wrong
        asking = None
        if error is None:
            try:
                asking = prepare()
            except KinesisError as refused:
                error = without_frames(refused)  # its frames hold the record
            except Exception as fault:
                error = fault_of(method, fault)
        try:
            self._background.call(self._begin, method, callback, on_failure, asking, error)
        except Exception as ended:
            # The thread is gone (closed, forked, the interpreter's end): a last one brings the news.
            if asking is not None:
                asking.close()
            late = error or (ended if isinstance(ended, KinesisError) else fault_of(method, ended))
            outcome = (method, callback, (late, *on_failure))
            try:
                threading.Thread(target=self._hand_over, args=outcome, daemon=True).start()
            except RuntimeError:  # at the interpreter's end, from Python 3.12 on
                # Who closed the object, and lets a timer ask once more, has lost nothing.
                level = logging.DEBUG if self._closed else logging.ERROR
                log.log(level, "%s: the program ends, no thread is left to call back on: %s", method, late.details)

    def _may_call(self, method: str, callback: Any) -> bool:
        """Return True if a callback is None or a function; log an error if not."""
        if callback is None or callable(callback):
            return True
        log.error("%s: callback must be a function, not %s; nothing was done", method, type(callback).__name__)
        return False

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
        self._keep(self._await(method, callback, on_failure, asking))

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
        except asyncio.CancelledError:  # `close` or the end of the interpreter has waited long enough
            error = ClosedError(f"{method}: closed before a response came")
            error.maybe_written = self._writes
        except Exception as fault:
            error = fault_of(method, fault)
        self._hand_over(method, callback, (error, *results))

    def _hand_over(
        self, method: str, callback: Callable[..., object] | None, outcome: tuple[Any, ...]
    ) -> BaseException | None:
        """Call a callback; return what it raised."""
        self._debugged(method, outcome[0])
        if callback is None:
            if outcome[0] is not None:
                self._unheard(method, outcome[0])
            return None
        # A lock for each process: one that was held when this process was forked is never released here.
        process = os.getpid()
        with self._turns.get(process) or self._turns.setdefault(process, threading.Lock()):
            _this_thread.in_callback = True
            try:
                callback(*outcome)
            except BaseException as raised:  # sys.exit() in a callback must not end the thread of all the others
                report = self._due(f"{method}: the callback raised", 1, burst=CALLBACK_FAILURES)
                if report is not None:
                    shown = exception_info(raised, _data_in(outcome))
                    log.exception("the callback of %s raised", method, exc_info=shown)
                return raised
            finally:
                _this_thread.in_callback = False
        return None

    def _debugged(self, method: str, error: KinesisError | None) -> None:
        """Log an outcome, if debug output is on."""
        if self._debug and error is None:
            log.debug("%r.%s: done", self, method)
        elif self._debug and error is not None:
            log.error("%r.%s: %s: %s", self, method, error.type, error.details)

    def _unheard(self, method: str, error: KinesisError, count: int = 1) -> None:
        """Log that calls without a callback failed: the first at once, then one line a minute."""
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
    """Return the data of the records that a callback was given."""
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
    """Return the credentials, all of the constructor's texts checked: none has a default here."""
    text("region", region)
    credentials = Credentials(text("access_key_id", access_key_id), text("secret_access_key", secret_access_key))
    text("stream_name", stream_name)
    return credentials


def reached(access: StreamAccess | None) -> tuple[Client, Stream]:
    """Return the client and the stream of an object whose constructor's arguments were right."""
    assert access is not None  # `_ask` prepares nothing where the constructor's arguments were wrong
    return access.client, access.stream


async def sent(client: Client, request: kinesis.Request[Any]) -> tuple[object, ...]:
    """Send a request, and return its result as what is handed over."""
    return (await client.send(request),)


def fault_of(method: str, fault: Exception) -> KinesisError:
    """Return the error for a fault of ours."""
    error = KinesisError(f"{method}: a fault in kinstream: {type(fault).__name__}")
    error.__cause__ = fault
    return error


def in_callback() -> bool:
    """Return True if the caller is a callback of any object."""
    return getattr(_this_thread, "in_callback", False)


async def _done(
    under_way: set[asyncio.Task[None]],
    access: StreamAccess | None,
    wind_up: Callable[[StreamAccess], Coroutine[Any, Any, None]],
) -> None:
    """Wait until nothing is under way, what callbacks ask for meanwhile included."""
    if access is not None:
        await wind_up(access)
    while under_way:
        await asyncio.wait(under_way)


def _end(
    background: BackgroundLoop,
    under_way: set[asyncio.Task[None]],
    access: StreamAccess | None,
    wind_up: Callable[[StreamAccess], Coroutine[Any, Any, None]],
) -> None:
    """End the thread of an object that nobody closed: forgotten, with nothing under way, or at the interpreter's end."""
    if background.started and not background.stopped and not background.here:
        try:
            background.submit(_done(under_way, access, wind_up)).result(EXIT_DRAIN)
            if access is not None:
                with suppress(Exception):  # nobody is left who could be told
                    background.submit(access.close()).result(EXIT_LAST_CALLBACKS)
        except TimeoutError:
            if isinstance(access, kinstream.producer.Producer):
                with suppress(Exception):  # what waits there is told that it was not written
                    background.submit(access._pipeline.close(0.0)).result(EXIT_LAST_CALLBACKS)
                with suppress(Exception):
                    background.submit(wind_up(access)).result(EXIT_LAST_CALLBACKS)
    background.stop()
    background.join(EXIT_LAST_CALLBACKS)  # the interpreter must not end amid the loop's end
