"""ShardBuffer: the pages of one shard that were read ahead, and the batches of the page that is being delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kinstream.consume.deaggregate import Deaggregator, RecordList, Undeliverable
from kinstream.consume.fetch.ahead import Budget, ReadAhead
from kinstream.consume.fetch.fetcher import Fetcher, Page
from kinstream.consume.fetch.position import Position
from kinstream.record import Shard


class ShardBuffer:
    """Records of one shard that were read and not delivered yet.

    Args:
        shard: The shard.
        fetcher: Reads pages.
        budget: Limits the bytes that are read ahead.
        deaggregator: Splits pages into batches of user records.
        received: As in `ReadAhead`.
        failed: As in `ReadAhead`.

    Attributes:
        millis_behind_latest: Lag of the page that is being delivered, or was delivered last.
    """

    def __init__(
        self,
        shard: Shard,
        fetcher: Fetcher,
        budget: Budget,
        deaggregator: Deaggregator,
        received: Callable[[Page], Page | None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.millis_behind_latest: int | None = None
        self._deaggregator = deaggregator
        self._ahead = ReadAhead(fetcher, shard, budget, received, failed)
        self._page: Page | None = None
        self._batches: Iterator[RecordList | Undeliverable] | None = None

    def start(self, position: Position, late: Position) -> None:
        """Start to fetch, as `ReadAhead.start`."""
        self._ahead.start(position, late)

    def next(self) -> RecordList | Undeliverable | None:
        """Return the next batch, or an undeliverable record in its place. None if no page is buffered."""
        while True:
            if self._batches is None:
                if not self._ahead:
                    return None
                self._page = self._ahead.pop_page()
                self._batches = self._deaggregator.batches(self._page.records)
                self.millis_behind_latest = self._page.millis_behind_latest
            found = next(self._batches, None)
            if found is not None:
                return found
            self._release_page()

    @property
    def drained(self) -> bool:
        """True if every record that was read was returned by `next`."""
        return self._batches is None and not self._ahead

    @property
    def waiting_for_page(self) -> bool:
        """True while a page is requested."""
        return self._ahead.waiting_for_page

    def use_reserve(self) -> None:
        """Fetch one page even if other shards use the complete budget, if the shard has none."""
        self._ahead.use_reserve()

    def discard(self) -> None:
        """Stop fetching, and discard the records."""
        self._release_page()
        self._ahead.halt()

    async def stop(self) -> None:
        """Wait until no request is in flight, after `discard`."""
        await self._ahead.stop()

    def _release_page(self) -> None:
        if self._page is not None:
            self._ahead.free(self._page)
        self._page = self._batches = None
