"""Hosts of a fleet member: a thread with its own event loop, or the loop of the consumer.

In a thread of its own, no handler, slow fetch or blocked event loop of the application delays a renewal of a lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from kinstream.background import BackgroundLoop
from kinstream.clock import Clock, SystemClock
from kinstream.errors import ClosedError

T = TypeVar("T")

JOIN_TIMEOUT = 5.0
"""Maximum seconds to wait for the end of the thread, after its last task has ended."""
WATCH_INTERVAL = 0.5
"""Seconds between two checks whether the loop of the consumer is closed."""


class MemberHost(Protocol):
    """The event loop in which a member runs, as the consumer's loop uses it."""

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the member and return its result. It continues if the caller is cancelled.

        Raises:
            ClosedError: The host has ended.
        """

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function of the member soon. Has no effect once the host has ended."""

    def here(self, function: Callable[..., object]) -> Callable[..., None]:
        """Return a function that the member may call, to call `function` soon in the loop of the consumer."""

    async def ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop of the consumer, and return its result to the member."""

    async def stop(self) -> None:
        """End the host. The remaining tasks of the member are cancelled. May be repeated."""


def host_for(clock: Clock, *, shared: bool) -> MemberHost:
    """Return the host of a member: a thread if other processes can see the leases, and time passes by itself.

    Args:
        clock: The clock of the consumer. Another one than the system's belongs to the consumer's loop.
        shared: `LeaseTable.shared`. Leases that no other process sees need no renewal that the application cannot delay.
    """
    return MemberThread() if shared and isinstance(clock, SystemClock) else MemberInline()


class MemberInline:
    """Runs a member in the loop of the consumer."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in a task of its own."""
        if self._stopped:
            coroutine.close()
            raise _ended()
        task = self._loop.create_task(coroutine, name="kinstream-fleet")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await _result(task)

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function."""
        if not self._stopped:
            function(*arguments)

    def here(self, function: Callable[..., object]) -> Callable[..., None]:
        """Return the function."""

        def call(*arguments: object) -> None:
            function(*arguments)

        return call

    async def ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine."""
        return await coroutine

    async def stop(self) -> None:
        """Cancel the remaining tasks, and wait for them."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class MemberThread:
    """Runs a member in a thread of its own. To be created in the loop of the consumer.

    If that loop is closed and the consumer was not, the thread ends: its leases must expire, since no task reads the shards.
    """

    def __init__(self) -> None:
        self._background = BackgroundLoop("kinstream-leases")
        self._loop = asyncio.get_running_loop()
        self._watched = False

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread."""
        if not self._watched:
            self._watched = True
            self._background.call(self._watch)
        return await _result(asyncio.wrap_future(self._background.submit(coroutine)))

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the thread."""
        with suppress(ClosedError):
            self._background.call(function, *arguments)

    def here(self, function: Callable[..., object]) -> Callable[..., None]:
        """Return a function that calls another one in the loop of the consumer, unless that has ended."""

        def call(*arguments: object) -> None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *arguments)

        return call

    async def ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop of the consumer."""
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _ended() from None
        return await _result(asyncio.wrap_future(future))

    def _watch(self) -> None:
        """End the thread if the loop of the consumer is closed. Runs in the thread."""
        if self._loop.is_closed():
            self._background.stop()
        else:
            asyncio.get_running_loop().call_later(WATCH_INTERVAL, self._watch)

    async def stop(self) -> None:
        """End the thread."""
        self._background.stop()
        with suppress(RuntimeError):  # no thread starts during interpreter shutdown
            await self._loop.run_in_executor(None, self._background.join, JOIN_TIMEOUT)


async def _result(future: asyncio.Future[T]) -> T:
    """Wait for a result. A cancelled caller does not cancel the operation, which might be a write."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and not (task and task.cancelling()):
            raise _ended() from None
        future.add_done_callback(_retrieve)
        raise


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark the error of an operation as retrieved, since its caller was cancelled."""
    if not future.cancelled():
        future.exception()


def _ended() -> ClosedError:
    return ClosedError("the worker has left the fleet: its leases are not written any more")
