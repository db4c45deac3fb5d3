"""The stop of reading, as a signal that ends waits."""

from __future__ import annotations

import asyncio

from kinstream.clock import Clock


async def sleep_unless(stopping: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Sleep, but return immediately if `stopping` is set. Returns True if it is set."""
    delay = asyncio.ensure_future(clock.sleep(seconds))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([delay, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        delay.cancel()
        stop.cancel()
    return stopping.is_set()
