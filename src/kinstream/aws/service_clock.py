"""Service clock: the time by the clock of the service, and the correction of signature times if this machine's clock is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

SKEW_TOLERANCE = 240.0
"""Maximum clock skew in seconds without correction (botocore: 4 minutes). The service refuses signatures from 300 s on."""

CLOCKS_DIFFER = 2.0
"""Apparent clock skew in seconds that is ignored: the service sends dates in whole seconds, and responses take time to arrive."""

FIRST_DATE, LAST_DATE = 1_385_942_400.0, 7_258_118_400.0
"""Plausible dates of the service, in seconds since 1970: from 2013-12-02, the version of the Kinesis API, to the year 2200."""

_COMPARED = re.compile(r"\(([0-9]{8}T[0-9]{6}Z) [+-] [0-9]+ min")


@dataclass(frozen=True, slots=True)
class ClockReading:
    """This machine's clocks at one moment.

    Attributes:
        wall: Wall clock, in seconds since 1970. It jumps when it is set.
        monotonic: Monotonic clock, in seconds. It never jumps.
    """

    wall: float
    monotonic: float


class ServiceClock:
    """Difference between the service's clock and this machine's clock, learned from responses.

    Attributes:
        skew: Seconds that are added to this machine's time in signatures. Changes only after the service has refused a signature
            for its date.
    """

    def __init__(self) -> None:
        self.skew: float = 0.0
        self._ahead = 0.0
        self._date: str | None = None

    def time(self, now: float) -> float:
        """Return the service's time, estimated from the `Date` of its responses, for the wall clock `now`."""
        return now + self._ahead

    def signing_time(self, now: float) -> float:
        """Return the time to sign a request with, for the wall clock `now`."""
        return now + self.skew

    def observe(self, date: str | None, now: float) -> None:
        """Learn the service's time from the `Date` header of a response that has just arrived.

        Args:
            date: The header. None: the response has none.
            now: The wall clock.
        """
        if date == self._date:
            return  # the same second as in the last response
        self._date = date
        theirs = parse_date(date)
        if theirs is not None:
            ahead = theirs - now
            self._ahead = ahead if abs(ahead) > CLOCKS_DIFFER else 0.0

    def correct(
        self,
        theirs: float | None,
        signed_with: float,
        signed_at: float,
        now: ClockReading,
        corrected_at: float | None,
    ) -> float | None:
        """Correct the skew after the service refused a signature, if its time was wrong and that of a new one will be right.

        The service's time is compared with the time of this request's signature, not with the current skew. Several requests are
        in flight when the first refusal reveals a wrong clock, and all of them are signed again.

        Args:
            theirs: The service's time. None: the refusal does not contain it.
            signed_with: The time in the signature.
            signed_at: The monotonic clock when the request was signed.
            now: This machine's clocks now.
            corrected_at: The result for the last refusal of the same call. None: the first one.

        Returns:
            Wall clock minus monotonic clock, which is constant until the wall clock is set. None if signing again cannot help.
        """
        clock_error = now.wall - now.monotonic
        if corrected_at is not None and abs(clock_error - corrected_at) <= SKEW_TOLERANCE:
            return None  # signed with the service's time and refused again, although our clock was not set in between
        if theirs is not None:
            if abs(theirs - signed_with) <= SKEW_TOLERANCE:
                return None
            self.skew = theirs - now.wall
        elif abs(now.wall + self.skew - signed_with - (now.monotonic - signed_at)) <= SKEW_TOLERANCE:
            return None  # the skew and the clock have not changed since
        return clock_error


def time_compared(message: str) -> float | None:
    """Return the service's time in a refusal such as "Signature expired: ... is now earlier than ... (TIME - 5 min.)"."""
    found = _COMPARED.search(message)
    try:
        return None if found is None else datetime.strptime(found[1] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
    except ValueError:
        return None


def parse_date(header: str | None) -> float | None:
    """Return a `Date` header in seconds since 1970. None if it is missing, not valid or not plausible."""
    try:
        seconds = 0.0 if header is None else parsedate_to_datetime(header).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    # An implausible date is ignored: with the year 9999 as skew, no later signature could be dated.
    return seconds if FIRST_DATE <= seconds < LAST_DATE else None
