"""AutoFetcher: reads by enhanced fan-out, and switches to polling if that is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from kinstream.consume.fetch.fetcher import Fetcher, Page
from kinstream.consume.fetch.position import LATEST_MARGIN, Position
from kinstream.errors import FanOutRefused
from kinstream.events import Event, FellBackToPolling
from kinstream.record import Shard


class AutoFetcher:
    """Reads shards by enhanced fan-out if available, else by polling.

    Args:
        fan_out: Reads by enhanced fan-out.
        poll: Reads by polling.
        announce: Receives one event when enhanced fan-out is refused.
        service_time: Returns the time by the service's clock.

    Attributes:
        first_page_bytes: That of `fan_out`.
    """

    def __init__(
        self, fan_out: Fetcher, poll: Fetcher, announce: Callable[[Event], None], service_time: Callable[[], float]
    ) -> None:
        self.first_page_bytes: int = fan_out.first_page_bytes
        self._fan_out = fan_out
        self._poll = poll
        self._announce = announce
        self._service_time = service_time
        self._refused = False

    async def close(self) -> None:
        """Close both fetchers."""
        await self._fan_out.close()
        await self._poll.close()

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        """Yield pages, as `Fetcher.read`."""
        begun = self._service_time()
        if not self._refused:
            pages = self._fan_out.read(shard, position)
            try:
                async for page in pages:
                    if page.records:
                        position = Position.after(page.records[-1].sequence_number)
                    yield page
            except FanOutRefused as error:
                if not self._refused:
                    self._refused = True
                    self._announce(FellBackToPolling(error))
                position = position.since(begun - LATEST_MARGIN)  # the refused attempt took time
            else:
                return
            finally:
                await pages.aclose()
        polled = self._poll.read(shard, position)
        try:
            async for page in polled:
                yield page
        finally:
            await polled.aclose()
