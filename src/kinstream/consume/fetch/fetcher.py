"""Fetcher: the one interface to what reads a shard, by polling or by enhanced fan-out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from kinstream.consume.fetch.position import Position
from kinstream.record import ChildShard, ReceivedRecord, Shard


class Page(msgspec.Struct, frozen=True, gc=False):
    """What one answer brought: the next records of a shard, as the service keeps them (aggregates are still whole).

    Attributes:
        records: In the order of the shard; may be empty though more follow.
        millis_behind_latest: How far the page is from the shard's newest record, in milliseconds; None: not known.
        size_bytes: About what it weighs, such as the length of the answer's body; it bounds what is read ahead.
        ended: Whether this is the end of a closed shard; no page follows.
        child_shards: At the end, the shards in which reading goes on, where the answer names them.
        as_of: The page was surely not made before this time by the service's clock, in seconds since 1970: how far it lags was
            true then, or later. None: it may have been made long ago.
        retries: Retries within the call that returned the page.
    """

    records: list[ReceivedRecord[bytes]]
    millis_behind_latest: int | None = None
    size_bytes: int = 0
    ended: bool = False
    child_shards: list[ChildShard] = []
    as_of: float | None = None
    retries: int = 0


class Fetcher(Protocol):
    """Reads shards. One serves all shards of a consumer.

    Attributes:
        first_page_bytes: What the first page of a shard that lags weighs, about.
    """

    first_page_bytes: int

    def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        """Yield page after page from a position on, up to one that is `ended`.

        It goes on by itself after whatever passes: an iterator that expired, a subscription's end, throttling, lost
        connections; always from the last record that it yielded, so that none is missed and none comes twice. It waits
        while nobody asks for the next page, for however long. Whoever reads may close it (`aclose`) or cancel it at any
        time.

        Yields an empty page now and then while a shard is idle: it says that the shard is alive, and how far behind.

        Raises:
            KinesisError: What does not pass: no such shard, no permission, a wrong position.
        """

    async def close(self) -> None:
        """End what is under way and free what is held. May be repeated."""
