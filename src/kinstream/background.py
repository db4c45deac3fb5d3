"""BackgroundLoop: an event loop in its own thread, on which the blocking and the callbacks API run."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from kinstream.errors import ClosedError, UsageError
from kinstream.forking import end_before_forks
from kinstream.usage import forked

T = TypeVar("T")

LOOK_EVERY = 1.0
"""Seconds between two checks, while waiting for the event loop of another thread, whether the loop still runs."""

LAST_ROUNDS = 3
"""Maximum times that all tasks are cancelled when a loop ends."""

LOOP_ENDED = "the event loop that has to run this has ended: call it while the consumer is being read"

_log = logging.getLogger("kinstream")


class BackgroundLoop:
    """Runs functions and coroutines for other threads, in the order of the calls.

    The first call starts the thread, which is a daemon thread.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # reentrant: a signal handler may interrupt any line here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._stopped = False
        self._ended = threading.Event()  # set when the loop has ended, by `stop` or by a SystemExit in it
        self._finished = threading.Lock()  # held until the loop is closed
        self._finished.acquire()

    @property
    def here(self) -> bool:
        """True if the caller runs in the thread of the loop."""
        return threading.current_thread() is self._thread

    @property
    def started(self) -> bool:
        """True if the thread was started in this process."""
        return self._process == os.getpid()

    @property
    def forked(self) -> bool:
        """True if the thread runs in the parent process from which this one was forked."""
        return self._process not in (0, os.getpid())

    @property
    def stopped(self) -> bool:
        """True if the loop was stopped or has ended by itself."""
        return self._stopped or self._ended.is_set()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Schedule a function in the thread of the loop.

        Raises:
            ClosedError: The loop is stopped.
            UsageError: The process was forked after the loop was started.
        """
        self._check_process()
        with self._lock:
            loop = self._started()
            try:
                loop.call_soon_threadsafe(function, *args)
            except RuntimeError:
                self._check_loop()
                raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Schedule a coroutine and return its future. Raises the same errors as `call` does."""
        try:
            self._check_process()
            with self._lock:
                return asyncio.run_coroutine_threadsafe(coroutine, self._started())
        except BaseException:
            self._abandon(coroutine)
            raise

    def _abandon(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Cancel a coroutine whose task may exist or not, because a signal handler can raise an exception on any line."""
        if self._loop is None or self.stopped or self.forked:
            with suppress(ValueError):  # it is running, and ends with the loop
                coroutine.close()
        else:
            with suppress(RuntimeError):  # the loop has just ended, and the coroutine too
                self._loop.call_soon_threadsafe(_end, coroutine)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result. It is cancelled if the caller is interrupted.

        Raises:
            ClosedError: The loop is stopped, or was stopped in the meantime.
            UsageError: The caller runs in the thread of the loop, which would wait for itself forever. Also as `call`.
        """
        if self.here:
            coroutine.close()
            raise UsageError(
                "a blocking call in the event loop thread that has to run it would never return: call it in another thread"
            )
        begun: list[asyncio.Task[T]] = []
        # A plain lock: the condition of a concurrent Future can stay locked forever if a signal handler raises an exception in
        # it. The loop would then wait for the condition, and all callers for the loop.
        waiting = threading.Lock()
        waiting.acquire()

        def begin() -> None:
            task = asyncio.get_running_loop().create_task(coroutine)
            begun.append(task)
            task.add_done_callback(lambda task: _ended(task, waiting))

        try:
            self.call(begin)
            while not waiting.acquire(timeout=LOOK_EVERY):
                self._check_loop()
        except BaseException:
            # If the caller was interrupted (Ctrl-C), the coroutine must not continue.
            self._abandon(coroutine)
            raise
        try:
            return begun[0].result()
        except asyncio.CancelledError:
            if self.stopped:
                raise ClosedError("this object was closed during the call") from None
            raise CancelledError from None
        finally:
            begun.clear()  # the traceback of an error refers to this frame: avoid a reference cycle

    def stop(self) -> None:
        """Stop the loop and its thread after all earlier calls. Does not wait. May be called more than once."""
        if not self.forked:
            with self._lock:
                self.stop_unused()

    def stop_unused(self) -> None:
        """Stop the loop for an owner that was garbage-collected. Takes no lock, because the collector runs in any thread."""
        if self._stopped or self.forked:
            return  # a second loop.stop() would interrupt the cleanup that the first one began
        self._stopped = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(_stop, self._loop, self._ended)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread, unless the caller runs in it."""
        if self._thread is None or self._loop is None or not self.started or self.here:
            return
        # `Thread.join` considers a running thread stopped, if a signal handler raises in it (CPython 3.11).
        while not self._finished.acquire(timeout=LOOK_EVERY if timeout is None else timeout):
            if timeout is not None:
                return
            if self._loop.is_closed():
                break  # another call was interrupted here
        else:
            self._finished.release()
        self._thread.join(timeout)

    def _check_process(self) -> None:
        # Before the lock is acquired: another thread may have held it when the process was forked.
        if self.forked:
            raise forked("this object")

    def _check_loop(self) -> None:
        if self._loop is not None and self._loop.is_closed():
            raise ClosedError("the event loop of this object has ended: create a new object")

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._stopped:
            raise ClosedError("this object is closed: create a new one")
        if self._ended.is_set():
            raise ClosedError("the event loop of this object has ended: create a new object")
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=_run, args=(loop, self._ended, self._finished), name=self._name, daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # interpreter shutdown
                loop.close()
                raise
            end_before_forks(thread)
            self._loop, self._thread, self._process = loop, thread, os.getpid()
        return self._loop


def _ended(task: asyncio.Task[Any], waiting: threading.Lock) -> None:
    if not task.cancelled():
        task.exception()  # marks the error as retrieved, because the caller may have been interrupted
    waiting.release()


def _end(coroutine: Coroutine[Any, Any, Any]) -> None:
    task = next((task for task in asyncio.all_tasks() if task.get_coro() is coroutine), None)
    if task is not None:
        task.cancel()
    else:
        coroutine.close()


def _stop(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    """Stop a loop unless it has stopped by itself. A second stop would interrupt the cleanup of its tasks."""
    if not ended.is_set():
        loop.stop()


def _run(loop: asyncio.AbstractEventLoop, ended: threading.Event, finished: threading.Lock) -> None:
    """Run a loop until it is stopped. The thread has no reference to the BackgroundLoop, or it would keep its owner alive."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt):
        # asyncio does not catch these. Waiting callers get a ClosedError.
        _log.exception(
            "an exception that ends the application was raised in an event loop of kinstream and ended that loop only"
        )
    finally:
        ended.set()
        try:
            for _ in range(LAST_ROUNDS):  # a cancelled task may create another one
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            with suppress(RuntimeError):  # it needs a thread, and none starts during interpreter shutdown
                loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            finished.release()


def across(loop: asyncio.AbstractEventLoop, process: int, coroutine: Coroutine[Any, Any, None]) -> Awaitable[None]:
    """Run a coroutine from any thread. In its event loop, return it to be awaited. In another thread, wait until it is done.

    Raises:
        ClosedError: The caller runs in another thread, and the event loop has ended.
        UsageError: The event loop belongs to the parent process, from which this one was forked.
    """
    if process != os.getpid():
        coroutine.close()
        raise forked("this object")
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        return coroutine
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise ClosedError(LOOP_ENDED) from None
    while not future.done():
        with suppress(TimeoutError, CancelledError):
            future.exception(LOOK_EVERY)
        if loop.is_closed() and not future.done():
            raise ClosedError(LOOP_ENDED)
    try:
        future.result()
    except CancelledError:
        raise ClosedError(LOOP_ENDED) from None
    return _Nothing()


class _Nothing:
    """A result that is done already, for a caller that awaits it."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield
