"""Handlers of the application: async functions on the event loop, plain functions in threads, and their exceptions."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.errors import ConfigError
from kinstream.record import ReceivedRecord

RecordHandler: TypeAlias = Callable[[ReceivedRecord[bytes]], object]
"""Function of a record. Plain functions run in threads, async functions on the event loop. The return value is ignored."""

BatchHandler: TypeAlias = Callable[[RecordBatch], object]
"""Function of a batch, called as a `RecordHandler`."""


def is_async(handler: Callable[..., object]) -> bool:
    """Return True if a call of the handler returns an awaitable."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def awaitable(handler: Callable[[Any], object], threads: ThreadPoolExecutor) -> Callable[[Any], Awaitable[object]]:
    """Return an async handler: the same handler, or one that runs a plain function in a thread."""
    if is_async(handler):
        return handler  # type: ignore[return-value]
    return functools.partial(in_thread, threads, called, handler)


async def in_thread(threads: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a thread, with the caller's context variables."""
    call = functools.partial(contextvars.copy_context().run, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def called(handler: Callable[[Any], object], argument: Any) -> None:
    """Call a plain handler, in its thread.

    Raises:
        ConfigError: It returned an awaitable, which cannot be awaited in its thread.
    """
    try:
        outcome = handler(argument)
    except (StopIteration, asyncio.CancelledError) as error:
        # A future cannot hold StopIteration, and would take CancelledError for its own cancellation.
        raise as_failure(error) from error
    if outcome is not None and inspect.isawaitable(outcome):
        if inspect.iscoroutine(outcome):
            outcome.close()
        raise ConfigError("handler: a plain function returned an awaitable: define the handler with async def")


def failure(error: BaseException) -> Exception:
    """Return a handler's exception for the failure policy. Raises it if it must end more than the record.

    A CancelledError is the record's failure if the task itself was not cancelled: the handler awaited something that was.
    """
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and not (task is not None and task.cancelling()):
        return as_failure(error)
    raise error


def as_failure(error: BaseException) -> RuntimeError:
    """Return the failure of a record, in place of an exception that would end more than the record."""
    wrapped = RuntimeError(f"a handler raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
