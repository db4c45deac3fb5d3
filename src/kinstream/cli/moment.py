"""Times as arguments of commands: with a time zone, in seconds since 1970, or as a time span before now. Pure."""

from __future__ import annotations

import argparse
import re
from datetime import datetime

END_OF_TIME = 253_402_300_800.0
"""The year 10,000, in seconds since 1970."""
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FORMS = "a time with its zone such as 2026-01-31T12:00:00Z, or seconds since 1970"


def moment(also: str, text: str) -> float:
    """Return a time in seconds since 1970.

    Args:
        also: Other values of the option, for the error.
        text: A time with its zone (ISO 8601), or seconds since 1970.

    Raises:
        argparse.ArgumentTypeError: It is not a time.
    """
    found = _time(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be {also}, {_FORMS}, not {text!r}")
    return found


def moment_or_age(also: str, text: str, now: float) -> float:
    """Return a time in seconds since 1970.

    Args:
        also: Other values of the option, for the error.
        text: As for `moment`, or an age such as "90s", "10m", "2h", "1d": this time before now.
        now: Seconds since 1970.

    Raises:
        argparse.ArgumentTypeError: It is not a time.
    """
    if span := _SPAN.fullmatch(text):
        return max(0.0, now - float(span[1]) * _SECONDS[span[2]])
    found = _time(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be {also}, {_FORMS}, or an age such as 10m, not {text!r}")
    return found


def _time(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
            found = -1.0 if parsed.tzinfo is None else parsed.timestamp()
        except (ValueError, OverflowError):
            return None
    return found if 0 <= found < END_OF_TIME else None
