"""Exit of a `with` block by an exception: time limit of closing, and the note that is added to the exception."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging

INTERRUPTED = 5.0
"""Maximum seconds of draining when KeyboardInterrupt or a cancellation leaves the block of a producer."""

_log = logging.getLogger("kinstream")


def drain_limit(error: BaseException, timeout: float) -> float:
    """Return the maximum seconds of draining when an exception leaves the block of a producer.

    Args:
        error: The exception.
        timeout: Timeout of the producer.
    """
    if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError, concurrent.futures.CancelledError)):
        return min(INTERRUPTED, timeout)
    return timeout


def add_problem(error: BaseException, owner: object, problem: BaseException) -> None:
    """Log an error of closing, and add it as a note to the exception that leaves the block.

    Args:
        error: The exception that leaves the block.
        owner: The object that was closed.
        problem: The error of closing, which is not raised.
    """
    text = f"{owner!r}: {problem}"
    _log.warning("%s left its block: %s", type(error).__name__, text)
    error.add_note(text)
