"""An event loop with virtual time: whole asyncio programs run without waiting, and deterministically.

If no task is ready, time advances to the next timer. If there is no timer either, the loop raises an error, because the
simulation would never continue. Work for threads runs immediately in the loop. Simulated code reads the time through
`LoopClock` or the loop.
"""

from __future__ import annotations

import asyncio
import gc
import random
import selectors
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SPIN = 200_000
"""Maximum turns of the loop while time stands still. More are taken for an endless loop."""


TICK = 1e-6
"""Minimum seconds of a wait. A remainder left by rounding passes by itself only on a clock that runs."""


class StandsStill(AssertionError):
    """All tasks wait, and no timer is set. They would wait forever."""


class Spins(AssertionError):
    """The loop turns without end while time stands still."""


class Lasts(AssertionError):
    """The simulation takes more virtual time than its limit."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which waiting takes no time.

    Args:
        lasts: Seconds after which the simulation is considered to hang.

    Attributes:
        turns: How often the loop woke up to work.
        complaints: Uncaught exceptions of callbacks, and of tasks that were not awaited.
    """

    def __init__(self, lasts: float = 86_400.0) -> None:
        self._now = 0.0
        self._lasts = lasts
        self._still = 0
        self.turns = 0
        self.complaints: list[str] = []
        super().__init__(_Jumping(self._wait))
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._now

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _wait(self, timeout: float | None) -> None:
        self.turns += 1
        if timeout is None:
            waiting = "\n".join(f"  {where(task)}" for task in asyncio.all_tasks(self))
            raise StandsStill(f"at {self._now:g} s no task waits for time any more:\n{waiting}")
        if timeout <= 0:
            self._still += 1
            if self._still > SPIN:
                raise Spins(f"{SPIN} turns of the loop at {self._now:g} s")
            return
        self._still = 0
        self._now += timeout
        if self._now > self._lasts:
            waiting = "\n".join(f"  {where(task)}" for task in asyncio.all_tasks(self))
            raise Lasts(f"it is not over after {self._lasts:g} s:\n{waiting}")

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context['message']}: {context.get('exception')!r}")


class _Jumping(selectors.SelectSelector):
    """Never asks the system: nothing comes from outside."""

    def __init__(self, wait: Callable[[float | None], None]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._wait(timeout)
        return []


class LoopClock:
    """The time of the loop that runs as it is made, as the library asks for it.

    Args:
        ahead: Seconds by which the wall clock is wrong.
    """

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return 1_800_000_000.0 + self.ahead + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(max(seconds, TICK))


def simulate(program: Callable[[], Coroutine[Any, Any, T]], *, seed: int = 0, lasts: float = 86_400.0) -> T:
    """Run a coroutine function on a loop of its own, and return its result.

    Raises:
        StandsStill: It waits forever.
        AssertionError: It left a task behind, or an exception that was not caught.
    """
    random.seed(seed)
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(lasts)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)

        async def alone() -> T:
            result = await program()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for _ in range(3):  # one that was cancelled last has its say
                if left:
                    await asyncio.sleep(0)
                    left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {[where(task) for task in left]}"
            return result

        result = runner.run(alone())
    assert not loop.complaints, loop.complaints
    return result


def where(task: asyncio.Task[Any]) -> str:
    """Return a task's name, and the lines at which it waits."""
    places = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return f"{task.get_name()} at {' > '.join(places)}"


def live_objects(kind: type) -> int:
    """Return how many objects of a class there are."""
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())
