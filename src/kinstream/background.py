"""An event loop in a thread of its own: what the blocking face and the callbacks face wait through."""

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
"""Seconds after which who waits for another thread's event loop looks whether it is still there."""

LAST_ROUNDS = 3
"""How often all tasks are cancelled at a loop's end."""

_log = logging.getLogger("kinstream")


class BackgroundLoop:
    """Runs functions and coroutines for other threads, in the order in which they come.

    Its thread starts with the first of them, and is a daemon.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # reentrant: a signal's handler may come here from anywhere
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._stopped = False
        self._ended = (
            threading.Event()
        )  # set when the loop has ended: by `stop`, or because SystemExit was raised in it
        self._finished = threading.Lock()  # held until the loop is closed
        self._finished.acquire()

    @property
    def here(self) -> bool:
        """Whether the caller is in the loop's own thread."""
        return threading.current_thread() is self._thread

    @property
    def started(self) -> bool:
        """Whether the thread was started, in this process."""
        return self._process == os.getpid()

    @property
    def forked(self) -> bool:
        """Whether the thread was left behind in the process that this one was forked from."""
        return self._process not in (0, os.getpid())

    @property
    def stopped(self) -> bool:
        """Whether the loop was stopped, or has ended by itself."""
        return self._stopped or self._ended.is_set()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Run a function in the loop's thread; return at once.

        Raises:
            ClosedError: The loop was stopped.
            UsageError: The process was forked after the loop had started.
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
        """Start a coroutine; return its future at once. Raises as `call` does."""
        try:
            self._check_process()
            with self._lock:
                return asyncio.run_coroutine_threadsafe(coroutine, self._started())
        except BaseException:
            self._abandon(coroutine)
            raise

    def _abandon(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """End a coroutine of which it is not known whether its task was begun: a signal's handler may raise anywhere."""
        if self._loop is None or self.stopped or self.forked:
            with suppress(ValueError):  # it runs, and ends with the loop
                coroutine.close()
        else:
            with suppress(RuntimeError):  # the loop has just ended, and it with it
                self._loop.call_soon_threadsafe(_end, coroutine)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; if the caller is interrupted, it is cancelled.

        Raises:
            ClosedError: The loop was stopped, before or meanwhile.
            UsageError: The caller is in the loop's own thread, which would wait for itself for ever; or as `call`.
        """
        if self.here:
            coroutine.close()
            raise UsageError(
                "a blocking call in the event loop thread that has to run it would never return: call it in another thread"
            )
        begun: list[asyncio.Task[T]] = []
        # A bare lock: the condition in a concurrent Future stays locked for good where a signal's handler raises at a bad moment,
        # and the loop would then wait for it, and everybody for the loop.
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
            # Where the caller was interrupted (Ctrl-C), the work must not go on unseen.
            self._abandon(coroutine)
            raise
        try:
            return begun[0].result()
        except asyncio.CancelledError:
            if self.stopped:
                raise ClosedError("this object was closed meanwhile") from None
            raise CancelledError from None
        finally:
            begun.clear()  # an error's traceback holds this frame: no circle

    def stop(self) -> None:
        """Let the loop end after all that came before, and its thread with it. Does not wait. May be repeated."""
        if not self.forked:
            with self._lock:
                self.stop_unused()

    def stop_unused(self) -> None:
        """Do so for an owner that was collected as garbage. Takes no lock: the collector runs in any thread, at any moment."""
        if self._stopped or self.forked:
            return  # a second loop.stop() would break off the end that the first began
        self._stopped = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(_stop, self._loop, self._ended)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread's end, unless this is it."""
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
        # Before the lock, which another thread may have held when the process was forked.
        if self.forked:
            raise forked("this object")

    def _check_loop(self) -> None:
        if self._loop is not None and self._loop.is_closed():
            raise ClosedError("this object's event loop has ended")

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._stopped:
            raise ClosedError("this object is closed")
        if self._ended.is_set():
            raise ClosedError("this object's event loop has ended")
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=_run, args=(loop, self._ended, self._finished), name=self._name, daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is at its end
                loop.close()
                raise
            end_before_forks(thread)
            self._loop, self._thread, self._process = loop, thread, os.getpid()
        return self._loop


def _ended(task: asyncio.Task[Any], waiting: threading.Lock) -> None:
    if not task.cancelled():
        task.exception()  # marks it as retrieved: the caller may have been interrupted
    waiting.release()


def _end(coroutine: Coroutine[Any, Any, Any]) -> None:
    task = next((task for task in asyncio.all_tasks() if task.get_coro() is coroutine), None)
    if task is not None:
        task.cancel()
    else:
        coroutine.close()


def _stop(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    """Stop a loop, unless it has stopped by itself: stopping it twice would interrupt the end of its tasks."""
    if not ended.is_set():
        loop.stop()


def _run(loop: asyncio.AbstractEventLoop, ended: threading.Event, finished: threading.Lock) -> None:
    """Run a loop until it is stopped. No reference to the BackgroundLoop: it must not outlive its owner for this thread."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt):
        # asyncio lets these through; who waits for the loop is told that it has ended.
        _log.exception("something in an event loop of kinstream asked for the program's end, and ended that loop alone")
    finally:
        ended.set()
        try:
            for _ in range(LAST_ROUNDS):  # a task that is cancelled may begin another
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            with suppress(RuntimeError):  # it needs a thread, and at the interpreter's end none starts
                loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            finished.release()


def across(loop: asyncio.AbstractEventLoop, process: int, coroutine: Coroutine[Any, Any, None]) -> Awaitable[None]:
    """Return a coroutine, to be awaited, where the caller is in its event loop; in another thread wait until it is done.

    Raises:
        ClosedError: In another thread: the event loop has ended, or ended meanwhile.
        UsageError: The event loop belongs to another process, from which this one was forked.
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
        raise ClosedError("the event loop that is to do this has ended") from None
    while not future.done():
        with suppress(TimeoutError, CancelledError):
            future.exception(LOOK_EVERY)
        if loop.is_closed() and not future.done():
            raise ClosedError("the event loop that is to do this has ended")
    try:
        future.result()
    except CancelledError:
        raise ClosedError("the event loop ended meanwhile") from None
    return _Nothing()


class _Nothing:
    """What is done already, for who awaits it nevertheless."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield
