"""Cleanup of a producer that was never closed: settles and reports its pending records when its event loop ends.

While records are pending, an async generator is open in the event loop. `asyncio.run` and similar runners close such generators
before they close the loop (`loop.shutdown_asyncgens`). If the loop is closed without that, the cleanup runs at the end of the
interpreter or when the producer is garbage-collected. Nothing can be written then. The records fail, and are reported.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from os import getpid
from typing import Any

_log = logging.getLogger("kinstream.producer")


class Lifetime:
    """Period in which a producer has pending records.

    Args:
        name: Name of the stream, for the report.
        unsettled: Returns the number of pending records.
        abandon: Fails all records, and cancels and returns the tasks of the producer.

    Attributes:
        tended: True if the owner of the event loop drains the producer at interpreter shutdown, as `kinstream.blocking` does.
    """

    def __init__(
        self, name: str, unsettled: Callable[[], int], abandon: Callable[[], list[asyncio.Task[None]]]
    ) -> None:
        self.tended: bool = False
        self._name = name
        self._unsettled = unsettled
        self._abandon = abandon
        self._process = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generator: AsyncGenerator[None, None] | None = None

    def begin(self) -> None:
        """Begin the period in the running event loop unless it has begun."""
        if self._generator is None:
            self._process, self._loop = getpid(), asyncio.get_running_loop()
            self._generator = self._open()
            _step(self._generator.__anext__())
            _begun.add(self)

    def end(self) -> None:
        """End the period, because no record is pending or the producer is closed. May be called more than once."""
        generator, self._generator = self._generator, None
        if generator is not None:
            _begun.discard(self)
            _step(generator.aclose())

    async def _open(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._generator is not None:  # the event loop closes the generator
                self._generator = None
                _begun.discard(self)
                count = self._unsettled()
                if tasks := self._abandon():
                    await asyncio.wait(tasks)
                self._report(count, "when its event loop ended")

    def forgotten(self, when: str) -> None:
        """End the period after the event loop was closed or has stopped forever."""
        if self._generator is None or self._loop is None:
            return
        if self._process != getpid():  # the records belong to the parent process
            self._generator = None
            return
        if self._loop.is_running():  # in another thread, which the end of the interpreter stops
            if not self.tended:
                self._report(self._unsettled(), when)
            return
        count = self._unsettled()
        self.end()
        self._abandon()
        self._report(count, when)

    def _report(self, count: int, when: str) -> None:
        if count:
            records = "1 record was" if count == 1 else f"{count} records were"
            _log.warning(
                "%s: the producer was never closed, and %s not written %s; use `async with Producer(...)` or"
                " `await producer.close()`",
                self._name, records, when,
            )  # fmt: skip
            text = f"unclosed Producer({self._name!r}): {records} not written"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def __del__(self) -> None:
        self.forgotten("before it was garbage-collected")


_begun: weakref.WeakSet[Lifetime] = weakref.WeakSet()


def _step(step: Awaitable[Any]) -> None:
    """Run a step of an async generator that does not wait."""
    with suppress(StopIteration, StopAsyncIteration):
        step.__await__().send(None)


@atexit.register
def _at_exit() -> None:
    for lifetime in list(_begun):
        lifetime.forgotten("when the process ended")
