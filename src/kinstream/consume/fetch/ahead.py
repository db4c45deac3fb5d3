"""Reading ahead: each shard's pages come while the program works on earlier ones, within a budget of bytes for all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from kinstream.consume.fetch.fetcher import Fetcher, Page
from kinstream.consume.fetch.position import Position
from kinstream.record import Shard

FIRST_PAGE_BYTES, GUESS_DECAY = 1 << 20, 0.9
"""What a shard's first page is taken to weigh at the least before it is there; and how much less after each lighter one."""


class Budget:
    """Bytes that may be read ahead, of all shards together. Who comes first is served first.

    A page's size is known only when it is there, so what is under way counts as what the page before weighed; and a shard's first
    page as what pages weighed lately in other shards. Nothing is known at the start: shards that lag bring their largest pages
    then, and all at once.

    Args:
        size_bytes: The limit. One page is let through even where it is larger. As much again is a reserve for shards that would
            starve.
        first_page_bytes: What a shard's first page is taken to weigh before any was seen.
    """

    def __init__(self, size_bytes: int, first_page_bytes: int = FIRST_PAGE_BYTES) -> None:
        self._limit = size_bytes
        self._used = 0
        self._guess = float(max(first_page_bytes, FIRST_PAGE_BYTES))
        self._waiting: deque[tuple[int | None, asyncio.Future[int], object]] = deque()

    @property
    def used_bytes(self) -> int:
        """What is read ahead and under way now."""
        return self._used

    async def take(self, size_bytes: int, owner: object = None) -> bool:
        """Wait until there is room for so much, and take it for `owner`; return whether that took time."""
        return (await self._take(size_bytes, owner))[1]

    async def take_first(self, owner: object = None) -> tuple[int, bool]:
        """Wait until there is room for a shard's first page, and take it; return how much that is, and whether it took time."""
        return await self._take(None, owner)

    def relieve(self, owner: object) -> None:
        """Let an owner who waits take now, out of a reserve as large as the limit, or a page."""
        for entry in self._waiting:
            if entry[2] is owner and self._used + self._size(entry[0]) <= 2 * max(self._limit, int(self._guess)):
                self._waiting.remove(entry)
                self._let_through(entry)
                return

    async def _take(self, size_bytes: int | None, owner: object) -> tuple[int, bool]:
        """Take so much, or what a first page is taken to weigh when its turn has come."""
        if not self._waiting and self._fits(size := self._size(size_bytes)):
            self._used += size
            return size, False
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, turn, owner)
        self._waiting.append(entry)
        try:
            return await turn, True
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free(turn.result())
            else:
                with suppress(ValueError):
                    self._waiting.remove(entry)
                self._serve()
            raise

    def weighed(self, size_bytes: int) -> None:
        """Say what a page weighed."""
        self._guess = max(float(size_bytes), self._guess * GUESS_DECAY, float(FIRST_PAGE_BYTES))

    def free(self, size_bytes: int) -> None:
        """Give back so much; a negative size takes it at once, whatever the limit."""
        self._used -= size_bytes
        self._serve()

    def _size(self, size_bytes: int | None) -> int:
        return min(int(self._guess), self._limit) if size_bytes is None else size_bytes

    def _fits(self, size_bytes: int) -> bool:
        return self._used + size_bytes <= self._limit or self._used == 0

    def _serve(self) -> None:
        while self._waiting and self._fits(self._size(self._waiting[0][0])):
            self._let_through(self._waiting.popleft())

    def _let_through(self, entry: tuple[int | None, asyncio.Future[int], object]) -> None:
        size_bytes, turn, _ = entry
        if not turn.cancelled():
            size = self._size(size_bytes)
            self._used += size
            turn.set_result(size)


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
        self._in_hand = 0
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
        self._in_hand += 1
        return self._pages.popleft()

    def done(self, page: Page) -> None:
        """Say that a page that was taken is not needed any more."""
        self._in_hand -= 1
        self._budget.free(page.size_bytes)

    def relieve(self) -> None:
        """Read a page though there is no room for it, if the shard has none: others, whose handlers hang, may have it all."""
        if not self._pages and not self._in_hand:
            self._budget.relieve(self)

    async def _read(self, position: Position, late: Position, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            taken, waited = await self._budget.take_first(self)
            pages = self._fetcher.read(self._shard, late if waited else position)
            try:
                await self._keep(pages, taken)
            finally:
                self.asking = False
                await pages.aclose()
        except Exception as error:  # noqa: BLE001 - a fetcher is anybody's code; whatever it raises ends this shard
            if not self._halted and self._task is asyncio.current_task():
                self._failed(error)

    async def _keep(self, pages: AsyncGenerator[Page, None], expected: int) -> None:
        """Read page after page; there is room for the first, as much as is expected of it."""
        while True:
            self.asking = True
            try:
                page = await anext(pages)
            except BaseException:
                self._budget.free(expected)
                raise
            self.asking = False
            self._budget.weighed(page.size_bytes)
            kept = self._heard(page)
            if kept is None:
                self._budget.free(expected)
            else:
                self._budget.free(expected - kept.size_bytes)
                self._pages.append(kept)
                if kept.ended:
                    return
            expected = page.size_bytes
            await self._budget.take(expected, self)
