"""Pump: calls the pipeline's turn once in a turn of the event loop, if anything happened or is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from os import getpid
from typing import Any

from kinstream.clock import Clock
from kinstream.errors import UsageError
from kinstream.produce.expire import NEVER
from kinstream.usage import forked

PAUSE = 0.5
"""Seconds without a turn after one of the producer's tasks was cancelled from outside."""
ANOTHER_LOOP = (
    "this producer was first used in another event loop and cannot be used in this one: create a producer for each event"
    " loop"
)


class Pump:
    """Calls a function if there is work. While there is no work, it has no task and no timer.

    Args:
        turn: Does the work. It must not raise.
        before: Called when a turn is scheduled.
        clock: Clock of the producer.

    Attributes:
        scheduled: True if a turn is scheduled.
        paused: True while no turn may start anything.
    """

    def __init__(self, turn: Callable[[], None], before: Callable[[], None], clock: Clock) -> None:
        self.scheduled: bool = False
        self.paused: bool = False
        self._turn = turn
        self._before = before
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._tasks: dict[asyncio.Task[None] | None, Callable[[], None]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._due = NEVER
        self._stopped = False

    @property
    def started(self) -> bool:
        """True once a turn was scheduled."""
        return self._loop is not None

    @property
    def loop_has_ended(self) -> bool:
        """True if a turn was scheduled, and the event loop is closed."""
        return self._loop is not None and self._loop.is_closed()

    def schedule(self) -> None:
        """Schedule a turn, unless one is scheduled.

        Raises:
            UsageError: This is another event loop than that of the first turn, or another process.
        """
        if self.scheduled or self._stopped or self.loop_has_ended:
            return
        self.check_loop()
        if self._loop is None:
            self._loop, self._process = asyncio.get_running_loop(), getpid()
        self._before()
        self._loop.call_soon(self._run)
        self.scheduled = True  # not before: if memory runs out, no turn is scheduled

    def check_loop(self) -> None:
        """Check that this is the event loop and the process of the first turn, if there was one. Raises as `schedule`."""
        if self._process not in (0, getpid()):
            raise forked("this producer")
        if self._loop not in (None, asyncio.get_running_loop()):
            raise UsageError(ANOTHER_LOOP)

    def _run(self) -> None:
        self.scheduled = False
        self._turn()

    def pause(self) -> None:
        """Start nothing for a while, because one of the producer's tasks was cancelled from outside.

        1. `asyncio.run` cancels all tasks before it closes the event loop. 2. A task that is created after that is destroyed
        while it is pending. 3. If the loop runs on instead, the timer ends the pause.
        """
        if not self.paused and not self._stopped:
            self.paused = True
            asyncio.get_running_loop().call_later(PAUSE, self.resume)

    def resume(self) -> None:
        """End the pause, if one is active."""
        if self.paused:
            self.paused = False
            self.schedule()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the event loop, from any thread. Do nothing before the first turn or after the loop has ended."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(function)

    def start(self, work: Coroutine[Any, Any, None], not_begun: Callable[[], None]) -> asyncio.Task[None]:
        """Start a task. It must call `task_ended` at its end, or `stop` cancels it.

        Args:
            work: Runs in the task.
            not_begun: Called if the task was cancelled from outside before its first step, so that no line of it ran.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = not_begun
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        not_begun = self._tasks.pop(task, None)
        if not_begun is not None and task.cancelled() and not self._stopped:
            not_begun()
            self.pause()
            self.schedule()

    def task_ended(self) -> None:
        """Note that the current task ends, and schedule a turn."""
        try:
            self._tasks.pop(asyncio.current_task(), None)
        except RuntimeError:
            return  # no event loop runs: the task is destroyed
        self.schedule()

    def set_timer(self, due: float, now: float) -> None:
        """Schedule a turn at `due` or earlier. NEVER: no turn is due."""
        if self._timer is not None and (due < self._due or due == NEVER):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due != NEVER and not self._stopped:
            self._due = due
            self._timer = asyncio.get_running_loop().create_task(self._ring(due - now))
            self._timer.add_done_callback(self._timer_ended)  # it may be cancelled before its first step

    async def _ring(self, seconds: float) -> None:
        try:
            await self._clock.sleep(max(seconds, 0.0))
        except asyncio.CancelledError:
            self._timer_ended(asyncio.current_task())
            raise
        self._timer = None
        self.schedule()

    def _timer_ended(self, timer: asyncio.Task[None] | None) -> None:
        if timer is not None and self._timer is timer:  # it was cancelled, and not by `set_timer`
            self._timer = None
            self.pause()

    def stop(self) -> list[asyncio.Task[None]]:
        """Stop. Cancel all tasks, and return them. If the event loop has ended, they can no longer be cancelled."""
        self._stopped = True
        if self.loop_has_ended:
            return []
        tasks = [task for task in [*self._tasks, self._timer] if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        return tasks
