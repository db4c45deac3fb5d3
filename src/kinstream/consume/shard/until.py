"""End of reading at a time: cuts a shard's pages after the last record that arrived before it. Pure."""

from __future__ import annotations

from kinstream.aws.service_clock import CLOCKS_DIFFER
from kinstream.consume.deaggregate import RecordList
from kinstream.consume.fetch.fetcher import Page


class Until:
    """The time at which reading one shard ends.

    Args:
        until: The time, in seconds since 1970. None: reading does not end by itself.
        is_start: True if it is the time at which reading the stream began.
        began: Time at which reading the stream began, on a monotonic clock.
        closed: True if the shard was closed when it was listed.

    Attributes:
        reached: True if the shard's last page was cut: its end is the time, not the end of the shard.
    """

    def __init__(self, until: float | None, *, is_start: bool, began: float, closed: bool) -> None:
        self.reached: bool = False
        self._until = until
        self._is_start = is_start
        self._began = began
        self._closed = closed
        self._since_start = 0.0
        self._by_service: float | None = None

    def begin(self, monotonic: float) -> None:
        """Begin to read the shard's pages, at a time of the monotonic clock."""
        self.reached = False
        self._since_start = monotonic - self._began
        self._by_service = None

    def cut(self, page: Page) -> Page:
        """Return the page without records that arrived later. It is the last one if any were removed, or if none can follow."""
        until = self._until
        if until is None:
            return page
        records, behind = page.records, page.millis_behind_latest
        if self._is_start:
            if self._closed:
                return page  # all its records existed when reading began, regardless of their times
            if behind == 0:
                return page if page.ended else self._last(page, records)
            if records and behind and self._by_service is None:
                # The time when reading began, by the clock that sets arrival times. It may differ from the local clock and
                # from the dates of responses. The page was created after reading this shard began.
                self._by_service = max(records[-1].arrival_time + behind / 1000 - self._since_start, until)
            until = self._by_service or until
        if records and records[-1].arrival_time > until:
            # Keep all up to the last record that arrived in time: arrival times may decrease (API reference, `Record`), and a
            # checkpoint after a record includes all records before it.
            in_time = len(records)
            while in_time and records[in_time - 1].arrival_time > until:
                in_time -= 1
            return self._last(page, records[:in_time])
        # A page ends the shard only if it is empty, current and later than `until`. If the page lags, records from before
        # `until` may follow. After records, the end of a shard that was split or merged before `until` may follow. A shard that
        # was closed when it was listed is read to its end, or its children would not be read.
        current = behind == 0 and page.as_of is not None and page.as_of - CLOCKS_DIFFER >= until
        return self._last(page, records) if current and not (records or self._closed or page.ended) else page

    def _last(self, page: Page, records: RecordList) -> Page:
        self.reached = True
        return Page(records, page.millis_behind_latest, page.size_bytes, True)
