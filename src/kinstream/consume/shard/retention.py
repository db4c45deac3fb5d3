"""Detection of records that expired before they were read, from the first record found and the age of the last one read."""

from __future__ import annotations

from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import TRIM_HORIZON, Position
from kinstream.events import RecordsExpired

SHORTEST_RETENTION = 24 * 3600.0
"""Shortest retention of a stream in seconds (API reference, `DecreaseStreamRetentionPeriod`)."""

GRACE = 10.0
"""Seconds by which a record may be older than the retention before a lagging reader is reported to have lost records."""


class RetentionCheck:
    """Checks one shard for records that expired before they were read. Times are seconds since 1970 by the service's clock.

    1. Reading begins at the record of the checkpoint. If that record still exists, no later one has expired.
    2. If it does not, later records may have expired too, unless all records up to a time within the retention are completed.
    3. A running reader that falls behind the retention may lose records too: the last record read is then older than the
       retention.

    Args:
        shard_id: The shard.
        retention: Seconds for which the stream keeps records. None: unknown.
    """

    def __init__(self, shard_id: str, retention: float | None) -> None:
        self._shard_id = shard_id
        self._retention = SHORTEST_RETENTION if retention is None else retention
        self._position: Position | None = None  # the start position, until the first record arrives
        self._idle_until: float | None = None
        # The last record that was read, and the time up to which all records were read.
        self._last: tuple[Position, float] | None = None
        self._lags = False
        self._reported = False

    def begin(self, position: Position, idle_until: float | None) -> None:
        """Start a check at a start position.

        Args:
            position: The position.
            idle_until: All records up to this time are completed, though the record of the position is older. None: unknown.
        """
        self._position = position if position.is_number else None
        self._idle_until = idle_until
        self._last = None
        self._lags = self._reported = False

    def received(self, page: Page, now: float) -> RecordsExpired | None:
        """Check a page, and return the event if records before it may have expired."""
        records, behind = page.records, page.millis_behind_latest
        # The clock of arrival times may be ahead of the clock of response dates.
        theirs = max(now, records[-1].arrival_time + (behind or 0) / 1000) if records else now
        event = None
        if self._position is not None:
            event = self._at_begin(self._position, page, theirs - self._retention)
        elif records and self._last is not None:
            position, read_until = self._last
            late = (theirs if self._lags else now) - self._retention - read_until
            if late > GRACE and not self._reported:
                self._reported = True
                event = self._expired(position, page)
        if records:
            self._last = Position.after(records[-1].sequence_number), records[-1].arrival_time
            self._lags = behind != 0
        if behind == 0:
            self._reported = False
            if self._last is not None:
                self._last = self._last[0], max(self._last[1], now)
        return event

    def _at_begin(self, position: Position, page: Page, horizon: float) -> RecordsExpired | None:
        if not page.records and page.millis_behind_latest != 0 and not page.ended:
            return None  # the page does not show the first record yet
        self._position = None
        if page.records and int(page.records[0].sequence_number) <= int(position.sequence_number):
            return None
        if self._idle_until is not None and self._idle_until >= horizon:
            return None
        return self._expired(position, page)

    def _expired(self, checkpoint: Position, page: Page) -> RecordsExpired:
        resumed = Position.at(page.records[0].sequence_number) if page.records else TRIM_HORIZON
        return RecordsExpired(self._shard_id, str(checkpoint), str(resumed), False)
