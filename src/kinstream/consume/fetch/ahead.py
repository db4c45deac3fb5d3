"""Reading ahead: each shard's pages come while the program works on earlier ones, within a budget of bytes for all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from kinstream.consume.fetch.fetcher import Fetcher, Page
from kinstream.consume.fetch.position import Position
from kinstream.record import Shard

FIRST_PAGE_BYTES = 1 << 20
"""What a shard's first page is taken to weigh before it is there; each further one, what the last one weighed."""


class Budget:
    """Bytes that may be read ahead, of all shards together. Who comes first is served first.

    A page's size is known only when it is there, so what is under way counts as what the page before weighed.

    Args:
        size_bytes: The limit. One page is let through even where it is larger.
    """

    def __init__(self, size_bytes: int) -> None:
        self._limit = size_bytes
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_bytes(self) -> int:
        """What is read ahead and under way now."""
        return self._used

    async def take(self, size_bytes: int) -> bool:
        """Wait until there is room for so much, and take it; return whether that took time."""
        if not self._waiting and self._fits(size_bytes):
            self._used += size_bytes
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free(size_bytes)
            else:
                with suppress(ValueError):
                    self._waiting.remove(entry)
                self._serve()
            raise
        return True

    def free(self, size_bytes: int) -> None:
        """Give back so much; a negative size takes it at once, whatever the limit."""
        self._used -= size_bytes
        self._serve()

    def _fits(self, size_bytes: int) -> bool:
        return self._used + size_bytes <= self._limit or self._used == 0

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size_bytes, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._used += size_bytes
                turn.set_result(None)


class ReadAhead:
    """The pages of one shard that were read and not handed on yet. A task of its own reads them.

    Args:
        fetcher: Reads.
        shard: The shard.
        budget: Shared by all shards.
        heard: Is told of each page as it comes, also of empty ones, and returns the page to keep: the same, a part of it, or
            None for nothing. A page that is `ended` is the last.
        failed: Is told what ended reading for good.

    Attributes:
        asking: Whether a page is waited for now.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        shard: Shard,
        budget: Budget,
        heard: Callable[[Page], Page | None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._fetcher = fetcher
        self._shard = shard
        self._budget = budget
        self._heard = heard
        self._failed = failed
        self._pages: deque[Page] = deque()
        self._task: asyncio.Task[None] | None = None
        self._halted = False
        self.asking: bool = False

    def __len__(self) -> int:
        return len(self._pages)

    def start(self, position: Position, late: Position) -> None:
        """Read from a position on, in the place of what is read now; what was read ahead stays.

        Args:
            position: From where, if there is room at once.
            late: From where otherwise: what is latest must not become later by waiting.
        """
        before = self._task
        if before is not None:
            before.cancel()
        self._halted = False
        name = f"kinstream-read-{self._shard.shard_id}"
        self._task = asyncio.create_task(self._read(position, late, before), name=name)

    def halt(self) -> None:
        """Read no more, and forget what was read ahead. It may be started again at once."""
        self._halted = True
        if self._task is not None:
            self._task.cancel()
        while self._pages:
            self.done(self.take())

    async def stop(self) -> None:
        """Halt, and wait until nothing is under way."""
        self.halt()
        if self._task is not None:
            await asyncio.wait([self._task])

    def take(self) -> Page:
        """Return the next page. Its size counts against the budget until `done`."""
        return self._pages.popleft()

    def done(self, page: Page) -> None:
        """Say that a page that was taken is not needed any more."""
        self._budget.free(page.size_bytes)

    async def _read(self, position: Position, late: Position, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            waited = await self._budget.take(FIRST_PAGE_BYTES)
            pages = self._fetcher.read(self._shard, late if waited else position)
            try:
                await self._keep(pages)
            finally:
                self.asking = False
                await pages.aclose()
        except Exception as error:  # noqa: BLE001 - a fetcher is anybody's code; whatever it raises ends this shard
            if not self._halted and self._task is asyncio.current_task():
                self._failed(error)

    async def _keep(self, pages: AsyncGenerator[Page, None]) -> None:
        """Read page after page; there is room for the first."""
        expected = FIRST_PAGE_BYTES
        while True:
            self.asking = True
            try:
                page = await anext(pages)
            except BaseException:
                self._budget.free(expected)
                raise
            self.asking = False
            kept = self._heard(page)
            if kept is None:
                self._budget.free(expected)
            else:
                self._budget.free(expected - kept.size_bytes)
                self._pages.append(kept)
                if kept.ended:
                    return
            expected = page.size_bytes
            await self._budget.take(expected)
