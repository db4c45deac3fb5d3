"""A callback that records its arguments."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any


class Heard:
    """Takes any arguments, and returns them to the caller of `wait`.

    Attributes:
        threads: The thread of each call, in order.
    """

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def __call__(self, *arguments: Any) -> None:
        self.threads.append(threading.current_thread())
        self._calls.put(arguments)

    def wait(self) -> tuple[Any, ...]:
        """Return the arguments of the next call."""
        return self._calls.get(timeout=50)

    async def arrive(self) -> tuple[Any, ...]:
        """Return the arguments of the next call, without holding up the event loop."""
        return await asyncio.to_thread(self.wait)

    @property
    def quiet(self) -> bool:
        """True if every call was returned by `wait`."""
        return self._calls.empty()
