"""Cancellation of a coroutine at its k-th await: for every k, the resources that it holds must be released."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class CancelledAt:
    """Awaits a coroutine, and cancels the running task when it waits for the k-th time.

    Args:
        coroutine: The coroutine to await.
        k: At which of its awaits that really wait; the first is 1. 0 for none.

    Attributes:
        waits: How often it waited.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], k: int) -> None:
        self._coroutine = coroutine
        self._k = k
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        task = asyncio.current_task()
        assert task is not None
        try:
            awaited = steps.send(None)
            while True:
                self.waits += 1
                if self.waits == self._k:
                    asyncio.get_running_loop().call_soon(task.cancel)
                try:
                    told = yield awaited
                except BaseException as error:
                    awaited = steps.throw(error)
                else:
                    awaited = steps.send(told)
        except StopIteration as done:
            return done.value


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], k: int) -> int:
    """Run a program in a task, cancel it at its k-th await, and return how often it waited."""
    program = CancelledAt(coroutine, k)

    async def run() -> None:
        await program

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return program.waits
