"""Leaving a `with` block by an exception: how long closing may take, and the note that is added to the exception."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging

INTERRUPTED = 5.0
"""Maximum seconds for which a producer drains when KeyboardInterrupt or a cancellation leaves its block."""

_log = logging.getLogger("kinstream")


def drain_limit(error: BaseException, timeout: float) -> float:
    """Return the maximum seconds for which a producer drains when an exception leaves its block.

    Args:
        error: The exception.
        timeout: The producer's timeout.
    """
    if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError, concurrent.futures.CancelledError)):
        return min(INTERRUPTED, timeout)
    return timeout


def add_problem(error: BaseException, owner: object, problem: BaseException) -> None:
    """Log the error of closing an object, and add it as a note to the exception that propagates.

    Args:
        error: The exception that leaves the block.
        owner: The object that was closed.
        problem: The error that would have been raised otherwise.
    """
    text = f"{owner!r}: {problem}"
    _log.warning("%s left its block: %s", type(error).__name__, text)
    error.add_note(text)
