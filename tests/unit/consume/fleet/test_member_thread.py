"""Hosts of a member: a thread of its own, or the loop of the consumer."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream.clock import SYSTEM_CLOCK
from kinstream.consume.fleet.member_thread import MemberInline, MemberThread, host_for
from kinstream.errors import ClosedError


def test_a_member_runs_in_a_thread_if_others_see_its_leases_and_the_clock_is_the_systems() -> None:
    async def program() -> None:
        assert isinstance(host_for(SYSTEM_CLOCK, shared=True), MemberThread)
        assert isinstance(host_for(SYSTEM_CLOCK, shared=False), MemberInline)
        assert isinstance(host_for(LoopClock(), shared=True), MemberInline)

    asyncio.run(program())


def test_calls_run_in_the_thread_and_events_return_to_the_loop_of_the_consumer() -> None:
    async def program() -> None:
        host, here = MemberThread(), threading.current_thread()
        seen: asyncio.Queue[threading.Thread] = asyncio.Queue()
        notify = host.here(lambda: seen.put_nowait(threading.current_thread()))

        async def work() -> threading.Thread:
            notify()
            return threading.current_thread()

        assert await host.call(work()) is not here
        assert await seen.get() is here

        async def asked() -> threading.Thread:
            return threading.current_thread()

        async def ask() -> threading.Thread:
            return await host.ask(asked())

        assert await host.call(ask()) is here
        await host.stop()
        await host.stop()

    asyncio.run(program())


def test_a_thread_keeps_working_while_the_loop_of_the_consumer_is_blocked() -> None:
    async def program() -> None:
        host, enough = MemberThread(), threading.Event()

        async def renew() -> None:
            for _ in range(5):
                await asyncio.sleep(0.01)
            enough.set()

        renewing = asyncio.ensure_future(host.call(renew()))
        await asyncio.sleep(0)
        assert enough.wait(30)  # blocks this loop
        await renewing
        await host.stop()

    asyncio.run(program())


@pytest.mark.parametrize("kind", [MemberInline, MemberThread])
def test_a_call_continues_after_its_caller_was_cancelled(kind: type[MemberInline] | type[MemberThread]) -> None:
    async def program() -> None:
        host, loop = kind(), asyncio.get_running_loop()
        begun, may_end, written = asyncio.Event(), threading.Event(), asyncio.Event()

        async def write() -> None:
            loop.call_soon_threadsafe(begun.set)
            while not may_end.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.001)
            loop.call_soon_threadsafe(written.set)
            raise OSError("no caller waits for this")

        caller = asyncio.ensure_future(host.call(write()))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        may_end.set()
        await written.wait()
        await host.stop()

    asyncio.run(program())


@pytest.mark.parametrize("kind", [MemberInline, MemberThread])
def test_a_call_that_is_pending_at_the_end_raises_closed_error(kind: type[MemberInline] | type[MemberThread]) -> None:
    async def program() -> None:
        host = kind()

        async def wait() -> None:
            await asyncio.Event().wait()

        pending = asyncio.ensure_future(host.call(wait()))
        await asyncio.sleep(0.01)
        await host.stop()
        with pytest.raises(ClosedError):
            await pending
        with pytest.raises(ClosedError):
            await host.call(wait())
        host.post(lambda: pytest.fail("the host has ended"))

    asyncio.run(program())


def test_an_inline_host_leaves_no_task_behind() -> None:
    async def program() -> None:
        host = MemberInline()

        async def value() -> int:
            return 5

        assert await host.call(value()) == 5
        assert await host.ask(value()) == 5
        seen: list[int] = []
        host.post(seen.append, 1)
        host.here(seen.append)(2)
        assert seen == [1, 2]
        await host.stop()

    simulate(program)


def test_the_thread_ends_with_the_loop_of_a_consumer_that_was_not_closed() -> None:
    ended = threading.Event()

    async def program() -> None:
        host = MemberThread()

        async def renew() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        renewing = asyncio.ensure_future(host.call(renew()))
        await asyncio.sleep(0.01)
        renewing.cancel()

    asyncio.run(program())
    assert ended.wait(30)


def test_events_for_a_consumer_whose_loop_has_ended_are_dropped() -> None:
    hosts: list[MemberThread] = []

    async def program() -> None:
        hosts.append(MemberThread())

    asyncio.run(program())
    (host,) = hosts
    host.here(lambda: pytest.fail("the loop has ended"))()

    async def ask() -> None:
        async def nothing() -> None:
            pass

        with pytest.raises(ClosedError):
            await host.ask(nothing())

    asyncio.run(ask())
