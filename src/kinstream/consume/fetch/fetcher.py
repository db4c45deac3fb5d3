"""Fetcher: the interface to a reader of shards, by polling or by enhanced fan-out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from kinstream.consume.fetch.position import Position
from kinstream.record import ChildShard, ReceivedRecord, Shard


class Page(msgspec.Struct, frozen=True, gc=False):
    """Content of one response: the next records of a shard, as the service stores them (aggregates are not split).

    Attributes:
        records: Records in the shard's order. May be empty even if more follow.
        millis_behind_latest: Milliseconds from the page to the shard's newest record. None: unknown.
        size_bytes: Approximate size, such as the length of the response's body. Counts against the read-ahead budget.
        ended: True at the end of a closed shard. No page follows.
        child_shards: At the end, the shards that follow, if the response names them.
        as_of: Time by the service's clock, in seconds since 1970, at or after which the page was created: its lag was true then
            or later. None: the page may be old.
        retries: Retries within the call that returned the page.
    """

    records: list[ReceivedRecord[bytes]]
    millis_behind_latest: int | None = None
    size_bytes: int = 0
    ended: bool = False
    child_shards: list[ChildShard] = []
    as_of: float | None = None
    retries: int = 0


def data_bytes(records: list[ReceivedRecord[bytes]]) -> int:
    """Return the approximate bytes of data in records, estimated from a sample if there are many."""
    step = 1 + len(records) // 100
    some = records[::step]
    return sum([len(record.data) for record in some]) * len(records) // max(len(some), 1)


class Fetcher(Protocol):
    """Reads shards. One fetcher serves all shards of a consumer.

    Attributes:
        first_page_bytes: Approximate bytes of the first page of a shard that lags.
    """

    first_page_bytes: int

    def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        """Yield pages from a position up to one that is `ended`.

        Recovers from temporary failures: expired iterators, ended subscriptions, throttling, lost connections. It resumes after
        the last record that it yielded, so no record is lost or repeated. It waits for any time until the next page is
        requested. The caller may close (`aclose`) or cancel it at any time.

        While a shard is idle, it yields an empty page now and then, which shows that the shard is alive and how far it lags.

        Raises:
            KinesisError: A permanent failure, such as an unknown shard, a missing permission or an invalid position.
        """

    async def close(self) -> None:
        """Stop requests in flight and free resources. May be repeated."""
