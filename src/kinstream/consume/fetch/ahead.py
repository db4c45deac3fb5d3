"""Read-ahead: fetches each shard's pages while the application handles earlier ones, within a budget of bytes for all shards."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from kinstream.consume.fetch.fetcher import Fetcher, Page
from kinstream.consume.fetch.position import Position
from kinstream.record import Shard

FIRST_PAGE_BYTES, GUESS_DECAY = 1 << 20, 0.9
"""Minimum assumed bytes of a shard's first page before it arrives, and the decay of the assumption after each smaller page."""

TURN_BYTES = 1 << 20
"""Bytes of pages after which other tasks have a turn, even if more pages have arrived. The application then handles pages while
they are in the processor's caches."""


class Budget:
    """Limit of bytes read ahead, for all shards together, granted in the order of requests.

    The size of a page is known only when it arrives. A request in flight is therefore counted with the size of the shard's
    previous page, and the first request of a shard with that of recent pages of other shards. At the start no earlier
    pages exist, and all shards that lag return their largest pages at once.

    Args:
        size_bytes: The limit. A single page is allowed even if it is larger. The same number of bytes is a reserve for shards
            that would be blocked by others.
        first_page_bytes: Assumed bytes of a shard's first page before any page has arrived.
    """

    def __init__(self, size_bytes: int, first_page_bytes: int = FIRST_PAGE_BYTES) -> None:
        self._limit = size_bytes
        self._used = 0
        self._guess = float(max(first_page_bytes, FIRST_PAGE_BYTES))
        self._waiting: deque[tuple[int | None, asyncio.Future[int], object]] = deque()

    @property
    def used_bytes(self) -> int:
        """Bytes that are read ahead or in flight."""
        return self._used

    async def claim(self, size_bytes: int, owner: object = None) -> bool:
        """Wait until bytes are available, and claim them for `owner`. Returns True after a wait."""
        return (await self._claim(size_bytes, owner))[1]

    async def claim_first(self, owner: object = None) -> tuple[int, bool]:
        """Wait until the bytes of a shard's first page are available, and claim them.

        Returns their number, and True after a wait.
        """
        return await self._claim(None, owner)

    def use_reserve(self, owner: object) -> None:
        """Grant the request of a waiting owner from the reserve, which is as large as the limit, or one page."""
        for entry in self._waiting:
            if entry[2] is owner and self._used + self._size(entry[0]) <= 2 * max(self._limit, int(self._guess)):
                self._waiting.remove(entry)
                self._let_through(entry)
                return

    async def _claim(self, size_bytes: int | None, owner: object) -> tuple[int, bool]:
        """Claim a number of bytes. None: the assumed bytes of a first page when the request is granted."""
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
        """Record the size of a page."""
        self._guess = max(float(size_bytes), self._guess * GUESS_DECAY, float(FIRST_PAGE_BYTES))

    def free(self, size_bytes: int) -> None:
        """Return bytes. A negative number claims bytes immediately, regardless of the limit."""
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
    """Pages of one shard that were read and not delivered yet. A task of its own reads them.

    Args:
        fetcher: Reads pages.
        shard: The shard.
        budget: Shared by all shards.
        received: Called with each page as it arrives, including empty ones. Returns the page to buffer: the same, a part of it,
            or None. A page that is `ended` is the last one.
        failed: Called with the exception that ended reading.

    Attributes:
        waiting_for_page: True while a page is awaited.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        shard: Shard,
        budget: Budget,
        received: Callable[[Page], Page | None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._fetcher = fetcher
        self._shard = shard
        self._budget = budget
        self._received = received
        self._failed = failed
        self._pages: deque[Page] = deque()
        self._popped = 0
        self._task: asyncio.Task[None] | None = None
        self._halted = False
        self.waiting_for_page: bool = False

    def __len__(self) -> int:
        return len(self._pages)

    def start(self, position: Position, late: Position) -> None:
        """Start reading at a position, instead of the current reading. Buffered pages remain.

        Args:
            position: Start position if bytes are available immediately.
            late: Start position otherwise, so that LATEST does not become later by waiting.
        """
        before = self._task
        if before is not None:
            before.cancel()
        self._halted = False
        name = f"kinstream-read-{self._shard.shard_id}"
        self._task = asyncio.create_task(self._read(position, late, before), name=name)
        self._task.add_done_callback(self._task_done)

    def halt(self) -> None:
        """Stop reading, and discard the buffered pages. `start` may be called again immediately."""
        self._halted = True
        if self._task is not None:
            self._task.cancel()
        while self._pages:
            self.free(self.pop_page())

    async def stop(self) -> None:
        """Halt, and wait until no request is in flight."""
        self.halt()
        if self._task is not None:
            await asyncio.wait([self._task])

    def pop_page(self) -> Page:
        """Return the next page. Its size counts against the budget until `free`."""
        self._popped += 1
        return self._pages.popleft()

    def free(self, page: Page) -> None:
        """Free the bytes of a page that `pop_page` returned."""
        self._popped -= 1
        self._budget.free(page.size_bytes)

    def use_reserve(self) -> None:
        """Read a page from the reserve if the shard has none, since shards with hanging handlers may use the whole budget."""
        if not self._pages and not self._popped:
            self._budget.use_reserve(self)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        cancelled = RuntimeError("the task that fetches it was cancelled from outside")
        error = cancelled if task.cancelled() else task.exception()
        # Any exception of a fetcher ends this shard. It is reported here, because an eager task may end before it is `_task`.
        if isinstance(error, Exception) and task is self._task and not self._halted:
            self._failed(error)

    async def _read(self, position: Position, late: Position, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        claimed, waited = await self._budget.claim_first(self)
        pages = self._fetcher.read(self._shard, late if waited else position)
        try:
            await self._keep(pages, claimed)
        finally:
            self.waiting_for_page = False
            await pages.aclose()

    async def _keep(self, pages: AsyncGenerator[Page, None], expected: int) -> None:
        """Read and buffer pages. The bytes expected of the first one are claimed already."""
        unhandled = 0
        while True:
            self.waiting_for_page = True
            try:
                page = await anext(pages)
            except BaseException:
                self._budget.free(expected)
                raise
            self.waiting_for_page = False
            self._budget.weighed(page.size_bytes)
            buffered = self._received(page)
            if buffered is None:
                self._budget.free(expected)
            else:
                self._budget.free(expected - buffered.size_bytes)
                self._pages.append(buffered)
                if buffered.ended:
                    return
            unhandled += page.size_bytes
            if unhandled >= TURN_BYTES:
                unhandled = 0
                await asyncio.sleep(0)
            expected = page.size_bytes
            await self._budget.claim(expected, self)
