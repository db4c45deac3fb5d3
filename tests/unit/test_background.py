"""The background loop: order, refusal after its end, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from kinstream import ClosedError, UsageError
from kinstream.background import BackgroundLoop, across


async def value(result: int) -> int:
    await asyncio.sleep(0)
    return result


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def background() -> BackgroundLoop:
    return BackgroundLoop("test-background")


def test_thread_starts_with_the_first_call_and_ends_with_stop(background: BackgroundLoop) -> None:
    def named() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "test-background"]

    assert (named(), background.started) == ([], False)
    assert background.run(value(1)) == 1
    (thread,) = named()
    assert thread.daemon
    assert background.started
    background.stop()
    background.join()
    assert not thread.is_alive()
    background.stop()
    background.join()


def test_all_calls_passed_before_stop_are_run_in_order(background: BackgroundLoop) -> None:
    seen: list[int] = []
    for n in range(1000):
        background.call(seen.append, n)
    background.stop()
    background.join()
    assert seen == list(range(1000))


class Interrupted(BaseException):
    """Exception of a signal's handler, like KeyboardInterrupt."""


class InterruptedLock:
    """A lock that is interrupted by the signal as it is acquired or released."""

    def __init__(self, on_the_way_in: bool, begun: threading.Event) -> None:
        self.on_the_way_in = on_the_way_in
        self.begun = begun

    def __enter__(self) -> None:
        if self.on_the_way_in:
            raise Interrupted

    def __exit__(self, *_: object) -> None:
        assert self.begun.wait(10)
        raise Interrupted


@pytest.mark.parametrize("before_it_began", [True, False])
def test_interrupt_while_work_is_passed_to_the_loop_is_raised_and_ends_the_work(
    background: BackgroundLoop, before_it_began: bool
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    assert background.run(value(1)) == 1
    lock = background._lock
    background._lock = InterruptedLock(before_it_began, begun)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        background.run(work())
    background._lock = lock
    assert before_it_began or ended.wait(10)
    assert background.run(value(2)) == 2
    background.stop()
    background.join()


def test_error_of_work_whose_caller_was_interrupted_is_not_left_unretrieved(background: BackgroundLoop) -> None:
    complaints: list[str] = []
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("the last checkpoints could not be written") from None
        finally:
            asyncio.get_running_loop().call_soon(ended.set)

    def interrupt(frame: FrameType, event: str, argument: Any) -> Any:
        if began.is_set() and not ended.is_set():
            sys.settrace(None)
            raise Interrupted
        return interrupt

    def call() -> None:
        sys.settrace(interrupt)
        try:
            with pytest.raises(Interrupted):
                background.run(work())
        finally:
            sys.settrace(None)

    caller = threading.Thread(target=call)
    caller.start()
    assert ended.wait(10)
    caller.join()
    gc.collect()
    background.run(value(1))
    background.stop()
    background.join()
    assert complaints == []


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # interrupted before it was passed to the loop
def test_interrupt_at_any_line_harms_no_later_call(background: BackgroundLoop) -> None:
    if sys.gettrace() is not None:
        pytest.skip("a debugger or coverage traces already, and would lose track")
    lines, interrupted = 0, True
    while interrupted:
        lines += 1
        left = lines

        def interrupt(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_name == "_remove":  # a finalizer: Python ignores its exceptions
                return None
            left -= event == "line"
            if not left:
                raise Interrupted
            return interrupt

        sys.settrace(interrupt)
        try:
            interrupted = background.run(value(1)) != 1
        except Interrupted:
            pass
        finally:
            sys.settrace(None)
        assert background.run(value(2)) == 2
    assert lines > 30
    background.stop()
    background.join()


def test_after_stop_everything_is_refused(background: BackgroundLoop) -> None:
    background.stop()
    with pytest.raises(ClosedError):
        background.call(print)
    with pytest.raises(ClosedError):
        background.run(value(1))
    with pytest.raises(ClosedError):
        background.submit(value(1))


def test_error_of_a_coroutine_is_raised_where_it_is_waited_for(background: BackgroundLoop) -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        background.run(fail())
    background.stop()


def test_call_that_waits_when_the_loop_is_stopped_gets_a_closed_error(background: BackgroundLoop) -> None:
    told: list[BaseException] = []

    def wait() -> None:
        try:
            background.run(for_ever())
        except ClosedError as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not background.started:
        time.sleep(0.001)
    background.stop()
    thread.join()
    assert len(told) == 1


def test_loop_does_not_wait_for_itself(background: BackgroundLoop) -> None:
    async def within() -> str:
        assert background.here
        with pytest.raises(UsageError, match="would never return: call it in another thread"):
            background.run(value(1))
        background.join()
        return "did not hang"

    assert background.run(within()) == "did not hang"
    background.stop()
    background.join()


def test_tasks_of_a_stopped_loop_are_cancelled_and_may_clean_up(background: BackgroundLoop) -> None:
    cleaned = threading.Event()

    async def work() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    kept = background.submit(work())  # or a collection of garbage might take it
    background.run(value(1))
    background.stop()
    background.join()
    assert cleaned.is_set()
    assert kept.cancelled()


def test_many_threads_start_one_loop(background: BackgroundLoop) -> None:
    ready = threading.Barrier(8)
    threads = set()

    async def note() -> None:
        threads.add(threading.current_thread())

    def ask() -> None:
        ready.wait()
        background.run(note())

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(threads) == 1
    background.stop()


def test_call_after_the_loop_has_stopped_by_itself_gets_an_error(background: BackgroundLoop) -> None:
    def leave() -> None:
        raise SystemExit

    assert background.run(value(1)) == 1
    waiting = background.submit(for_ever())
    background.call(leave)
    background.join()
    assert background.stopped
    assert waiting.cancelled()
    with pytest.raises(ClosedError):
        background.run(value(1))
    with pytest.raises(ClosedError):
        background.call(print)
    background.stop()


def test_stop_does_not_break_off_the_end_of_a_loop_that_ends_by_itself(background: BackgroundLoop) -> None:
    begun, cancelled, stopped = threading.Event(), threading.Event(), threading.Event()
    ended: list[bool] = []

    async def work() -> None:
        begun.set()
        try:
            await for_ever()
        finally:
            cancelled.set()
            while not stopped.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            ended.append(True)

    def leave() -> None:
        raise SystemExit

    background.submit(work())
    assert begun.wait(15)
    background.call(leave)
    assert cancelled.wait(15)
    background.stop()
    stopped.set()
    background.join()
    assert ended == [True]


def test_across_awaits_in_the_loop_and_waits_in_another_thread(background: BackgroundLoop) -> None:
    done: list[threading.Thread] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(threading.current_thread())

    async def within() -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        await across(loop, os.getpid(), work())
        return loop

    loop = background.run(within())
    across(loop, os.getpid(), work())
    assert len(done) == 2
    assert len(set(done)) == 1

    async def awaited_elsewhere() -> None:
        await across(loop, os.getpid(), work())

    asyncio.run(awaited_elsewhere())
    assert len(done) == 3
    background.stop()
    background.join()
    with pytest.raises(ClosedError):
        across(loop, os.getpid(), work())
