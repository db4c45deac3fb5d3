"""TailSearch: decides at which times of an open shard to look for its last record. Pure.

Kinesis has no request for the last record. Each look reads from a time to the end of the shard:

1. The first look is short. A shard that is written to ends there. If an earlier position is known, the first look is from there
   instead: an idle shard ends there.
2. If nothing was there, the next look goes back further, at last to the oldest record.
3. If a look finds more than two pages, which end long before the time since when nothing was found, the next looks are between:
   first just after these pages, where a burst ends, then later and later, and at most at half of the interval. Otherwise a look
   at a shard that was busy yesterday would read all of yesterday's records.

The times only choose the looks. The last record is always one after which a page had no more, so a wrong clock costs requests and
never a record.
"""

from __future__ import annotations

from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import TRIM_HORIZON, Position

FIRST_LOOK, LOOK_GROWTH = 2.0, 16.0
"""Seconds of the first look, and the factor of each further one."""

LONGEST_LOOK = 8760 * 3600.0
"""Longest retention of a stream in seconds (API reference, `IncreaseStreamRetentionPeriod`)."""

PAGES_IN_A_ROW = 2
"""Pages that are read one after another before looks at later times, and the number of pages that are not worth such a look."""

LEAP_GROWTH = 16.0
"""Factor by which each look at a later time is further after the last record found than the one before."""

JITTER = 1.0
"""Seconds by which a record must be later than the first page, so that no earlier one follows it."""


class TailSearch:
    """Search for the last record of one shard. Times are seconds since 1970 by the service's clock.

    Args:
        now: The time, exact or not.
        known: A position at or before the last record. It is used if it is after a whole record.

    Attributes:
        last: The last record found, as the position after it. None: none was found.
        done: True once `last` is the last record, or the shard has none.
    """

    def __init__(self, now: float, known: Position | None = None) -> None:
        usable = known is not None and known.is_number and not known.inclusive and known.subsequence_number is None
        self._known: Position | None = known if usable else None
        self.last: Position | None = self._known
        self.done: bool = False
        self._now = now
        self._began: float | None = None  # the time of the first page with records
        self._back = FIRST_LOOK
        self._arrival = 0.0  # of the last record found
        self._page_seconds = 1.0
        self._pages = 0
        self._leap: float = PAGES_IN_A_ROW
        self._leaps = True
        self._empty_since: float | None = None
        self._look: Position = TRIM_HORIZON

    def look(self) -> Position:
        """Return the position at which the next look begins."""
        if self._known is not None:
            self._look, self._known = self._known, None
            return self._look
        since = self._since()
        if since is not None:
            self._look = Position.at_time(since)
        else:
            self._look = TRIM_HORIZON if self.last is None else self.last
        return self._look

    def _since(self) -> float | None:
        """Return the time of the next look. None: at the last record found, or at the oldest one."""
        if self.last is None:
            if self._empty_since is not None:
                self._back *= LOOK_GROWTH
            since = self._now - self._back
            return since if self._back <= LONGEST_LOOK and since > 0 else None
        if self._near:
            return None
        if self._empty_since is None:  # the first look was long, because the clock differs
            return max(self._now - FIRST_LOOK, self._arrival)
        leap, self._leap = self._leap * self._page_seconds, self._leap * LEAP_GROWTH
        return self._arrival + min(leap, (self._empty_since - self._arrival) / 2)

    @property
    def _near(self) -> bool:
        """True if few pages may follow the last record found."""
        end = self._now if self._empty_since is None else self._empty_since
        return not self._leaps or end - self._arrival <= PAGES_IN_A_ROW * self._page_seconds

    def refused(self) -> None:
        """Record that the service refused the look, because its time is in the future."""
        self._empty_since = self._look.timestamp

    def received(self, page: Page) -> bool:
        """Record a page. Returns True if the next page of the same look is to be read."""
        records, behind = page.records, page.millis_behind_latest or 0
        at_tip = behind == 0 or page.ended
        if records:
            first, last = records[0], records[-1]
            if self.last is not None and int(last.sequence_number) <= int(self.last.sequence_number):
                self._leaps = False  # the server does not find times
                return not at_tip
            self.last, self._arrival = Position.after(last.sequence_number), last.arrival_time
            self._now = last.arrival_time + behind / 1000
            if self._began is None:
                self._began = self._now
            if at_tip or self._arrival > self._began + JITTER:
                self.done = True
                return False
            self._page_seconds = max(last.arrival_time - first.arrival_time, 1.0)
            self._pages += 1
            return self._pages < PAGES_IN_A_ROW or self._near
        if not at_tip:
            return True
        if self._look.timestamp is None:
            self.done = True
        else:
            self._empty_since = self._look.timestamp
        return False
