"""Knowledge of the stream: whether it exists, whether records may be aggregated, and when to describe it again."""

from __future__ import annotations

from typing import NamedTuple

from kinstream.errors import KinesisError, NotFound
from kinstream.produce.describe import Description
from kinstream.produce.expire import NEVER
from kinstream.produce.settle import is_final
from kinstream.service_quotas import RECORD_MAX_BYTES

PATIENCE = 2.0
"""Maximum seconds that records wait until their shards are known. They are sent unaggregated then."""
ABSENT_DELAY = 1.0
"""Seconds between two descriptions of a stream that is being created or deleted."""
FAILED_DELAY = 5.0
"""Seconds between two descriptions after one that failed, or because of records that are too large."""


class Disabled(NamedTuple):
    """Notice that records are not aggregated from now on.

    Attributes:
        reason: Why.
        logged: True if the reason has been logged already.
    """

    reason: str
    logged: bool


class StreamState:
    """Decides by descriptions of the stream. It changes nothing but itself.

    Args:
        aggregates: True if records are aggregated when their shards are known.

    Attributes:
        aggregating: True if records may be aggregated now.
        distributes: True if the stream distributes records itself (RecordDistributionStrategy AUTO), so that none needs a key.
        known: True if the shard of each record is known, or is known to be unknowable.
        absent: True while the stream is being created or deleted. Nothing is sent.
        record_limit: Maximum bytes of data and partition key of one record.
        hold_until: Until when records wait for the first description.
        last_error: Why the last description failed. Empty if it succeeded.
        description: Number of the last description that began.
    """

    def __init__(self, *, aggregates: bool) -> None:
        self.aggregating: bool = False
        self.distributes: bool = False
        self.known: bool = False
        self.absent: bool = False
        self.record_limit: int = RECORD_MAX_BYTES
        self.hold_until: float = NEVER
        self.last_error: str = ""
        self.description: int = 0
        self._aggregates = aggregates
        self._disabled: str | None = None
        self._describe_at = 0.0
        self._outgrown_at = -FAILED_DELAY

    def holds_back(self, now: float) -> bool:
        """Return True if records wait until their shards are known."""
        return self.absent or (not self.known and now < self.hold_until)

    # When to describe the stream.

    def next_description(self, *, waiting: bool) -> float:
        """Return when to describe the stream again. NEVER if no record waits for that."""
        return self._describe_at if waiting else NEVER

    def is_due(self, now: float, *, arrived: bool, waiting: bool) -> bool:
        """Return True if the stream must be described now, which is considered done then.

        Args:
            now: Seconds.
            arrived: True if records are in the inbox.
            waiting: True if nothing is sent until the stream has been described.
        """
        if now < self._describe_at or not (arrived or waiting):
            return False
        self._describe_at = NEVER
        self.hold_until = now + PATIENCE
        return True

    def outgrown(self, now: float) -> bool:
        """Return True if the stream must be described again because a record was too large for it."""
        if now - self._outgrown_at < FAILED_DELAY:
            return False
        self._outgrown_at = now
        return True

    def retry_after(self, error: KinesisError, now: float, *, pending: bool, unconfirmed: bool) -> float | None:
        """Return the seconds until the next attempt after a description that failed. None: the next records start it.

        Args:
            error: Why it failed.
            now: Seconds.
            pending: True if records are in the buffer.
            unconfirmed: True if requests that were refused wait for the description.
        """
        delay = ABSENT_DELAY if self.absent or unconfirmed else FAILED_DELAY
        if pending and (unconfirmed or not is_final(error)):
            return delay
        self._describe_at = now + delay
        return None

    def interrupted(self) -> None:
        """Describe the stream at the next opportunity, because the last description was cancelled."""
        self._describe_at = 0.0

    # Descriptions.

    def forget(self) -> None:
        """Forget the stream. Another one with its name may have the same shards with other ranges."""
        self.known = self.distributes = self.aggregating = False
        self._describe_at = 0.0

    def begin(self) -> int:
        """Begin a description, and return its number."""
        self.description += 1
        return self.description

    def failed(self, error: KinesisError, *, confirmed: bool) -> Disabled | None:
        """Decide by a description that failed.

        Args:
            error: Why it failed.
            confirmed: True if it confirmed that requests were refused because there is no stream.
        """
        self.last_error = error.details
        if isinstance(error, NotFound):
            self.absent = self.aggregating = False
            # If no request was refused for this yet, records are sent so that one is: only that is final.
            self.known = not confirmed
        elif not (self.known or self.absent):
            return self._disable(f"the stream cannot be described: {error.details}", logged=True)
        return None

    def described(self, description: Description, *, routed: bool) -> Disabled | None:
        """Decide by a description.

        Args:
            description: The description.
            routed: True if a shard map is in use.
        """
        facts, error = description.facts, description.error
        self.last_error = "" if error is None else error.details
        self.record_limit = facts.record_limit
        self.distributes = facts.distributes
        self.absent = facts.absent
        disabled = None
        if facts.absent:
            self.known = False
        elif facts.no_aggregation_reason is not None:
            disabled = self._disable(facts.no_aggregation_reason)
        elif description.shard_map is not None:
            self._disabled = None
            self.aggregating = self._aggregates
        elif not routed and error is not None:
            disabled = self._disable(f"its shards are not known: {error.details}", logged=True)
        if description.shard_map is not None:
            self.known = True
        return disabled

    def history_failed(self, error: KinesisError) -> None:
        """Note that the ranges of closed shards could not be listed."""
        self.last_error = error.details

    def _disable(self, reason: str, *, logged: bool = False) -> Disabled | None:
        """Stop aggregating. Return the notice if it is a new one."""
        self.known = True
        self.aggregating = False
        if not self._aggregates or reason == self._disabled:
            return None
        self._disabled = reason
        return Disabled(reason, logged)
