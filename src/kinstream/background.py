"""An event loop in a thread of its own: what the blocking face and the callbacks face wait through."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from kinstream.errors import ClosedError, ConfigError

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for other threads. Its thread starts with the first of them, and is a daemon.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._stopped = False

    @property
    def here(self) -> bool:
        """Whether the caller is in the loop's own thread."""
        return threading.current_thread() is self._thread

    @property
    def stopped(self) -> bool:
        """Whether the loop was stopped."""
        return self._stopped

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; return its future at once.

        Raises:
            ClosedError: The loop was stopped.
            ConfigError: The process was forked after the loop had started.
        """
        try:
            with self._lock:
                return asyncio.run_coroutine_threadsafe(coroutine, self._started())
        except BaseException:
            coroutine.close()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; if the caller is interrupted, it is cancelled.

        Raises:
            ConfigError: The caller is in the loop's own thread, which would wait for itself for ever.
        """
        if self.here:
            coroutine.close()
            raise ConfigError("a blocking call cannot be made from the event loop that is to answer it")
        future = self.submit(coroutine)
        try:
            return future.result()
        finally:
            # Where the caller was interrupted (Ctrl-C), the work must not go on unseen.
            future.cancel()

    def stop(self) -> None:
        """End the loop and its thread; wait for the thread, unless this is it. May be repeated."""
        with self._lock:
            self._stopped = True
            loop, thread = self._loop, self._thread
            if loop is None or thread is None or self._process != os.getpid():
                return
            if not loop.is_closed():
                loop.call_soon_threadsafe(loop.stop)
        if not self.here:
            thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._stopped:
            raise ClosedError("this object is closed")
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run, args=(loop,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is at its end
                loop.close()
                raise
            self._loop, self._thread, self._process = loop, thread, os.getpid()
        if self._process != os.getpid():
            raise ConfigError("this object was used before the process was forked: make a new one in each process")
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped. No reference to the BackgroundLoop: it must not outlive its owner for this thread."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
