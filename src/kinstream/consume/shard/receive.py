"""Receiver: inspects each page of a shard as it arrives, for lag, stalls, expired records and the end at `until`."""

from __future__ import annotations

from collections.abc import Callable

from kinstream.clock import Clock
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.report import Reporter
from kinstream.consume.shard.cursor import Beginning, Cursor
from kinstream.consume.shard.retention import RetentionCheck
from kinstream.consume.shard.until import Until
from kinstream.consume.shard.watch import Watch
from kinstream.errors import NotFound
from kinstream.events import ShardStarted


class Receiver:
    """Receives the pages of one shard.

    Args:
        shard_id: The shard.
        cursor: Its positions.
        until: The time at which reading it ends.
        clock: The clock.
        service_time: Returns the time by the service's clock.
        retention: Seconds for which the stream keeps records. None: unknown.
        announce: Reports and counts events.

    Attributes:
        first_page_seen: True once a page has arrived. From then on every record that is written is read, even after a start at
            LATEST.
        last_success: Time of the last response, in seconds since 1970. None before the first.
        failure: The exception that ended fetching. It takes effect when all records before it have been delivered.
    """

    def __init__(
        self,
        shard_id: str,
        cursor: Cursor,
        until: Until,
        clock: Clock,
        service_time: Callable[[], float],
        retention: float | None,
        announce: Reporter,
    ) -> None:
        self.first_page_seen: bool = False
        self.last_success: float | None = None
        self.failure: Exception | None = None
        self._shard_id = shard_id
        self._cursor = cursor
        self._until = until
        self._clock = clock
        self._service_time = service_time
        self._announce = announce
        self._retention = RetentionCheck(shard_id, retention)
        self._watch = Watch(clock.monotonic())
        self._not_found_at: float | None = None
        self._last_lag: tuple[float, float] | None = None  # the lag, and the time at which it arrived

    def begin(self, beginning: Beginning) -> None:
        """Begin to receive pages from a position."""
        self.refetch()
        self._until.begin(self._clock.monotonic())
        self._retention.begin(beginning.late, beginning.idle_until)

    def refetch(self) -> None:
        """Continue to receive pages after fetching was restarted."""
        self.failure = None
        self._watch = Watch(self._clock.monotonic())

    def receive(self, page: Page) -> Page:
        """Record a page, and return the part of it to deliver."""
        announce, cursor = self._announce, self._cursor
        self._not_found_at = None
        if not self.first_page_seen:
            self.first_page_seen = True
            announce(ShardStarted(self._shard_id, str(cursor.started_from)))
        now = self._clock.monotonic()
        self.last_success = self._clock.wall()
        announce.received(self._shard_id, page)
        self._watch.received(now, len(page.records), page.millis_behind_latest)
        if page.millis_behind_latest is not None:
            self._last_lag = page.millis_behind_latest / 1000, now
        cursor.received(page)
        if (expired := self._retention.received(page, self._service_time())) is not None:
            announce(expired)
            cursor.expiry_reported()
        return self._until.cut(page)

    def fail(self, error: Exception) -> None:
        """Record the exception that ended fetching."""
        self.failure = error
        if isinstance(error, NotFound) and self._not_found_at is None:
            self._not_found_at = self._clock.monotonic()

    @property
    def not_found_for(self) -> float:
        """Seconds since the first NotFound after the last page."""
        return 0.0 if self._not_found_at is None else self._clock.monotonic() - self._not_found_at

    def stalled(self, limit: float, *, waiting_for_page: bool) -> float | None:
        """Return the seconds without progress while the reader waits for a page, if they exceed `limit`."""
        now = self._clock.monotonic()
        if not waiting_for_page:
            self._watch.reset(now)
            return None
        return self._watch.stalled(now, limit)

    def lag(self, *, ended: bool) -> float | None:
        """Return the seconds by which the application may be behind the shard's newest record. None: not known yet.

        Args:
            ended: True if no record can follow.
        """
        if self._last_lag is None:
            return None
        lag, measured = self._last_lag
        if ended:
            return lag
        last = self._cursor.progress.last
        if last is not None and last.sequence_number != self._cursor.read_to.sequence_number:
            # More records are buffered for the application.
            return max(self._service_time() - last.arrival_time, 0.0)
        return lag + self._clock.monotonic() - measured  # records may have been written since
