"""Refusal: whether Kinesis refused a request because of one of its records, or would refuse every record."""

from __future__ import annotations

SAMPLES = 4
"""So many records of a refused request are sent alone before its rest: if all are refused alike, the rest would be too."""


class Refusal:
    """Why Kinesis refused a request as a whole, as far as its parts show. They share it.

    Args:
        count: How many Kinesis records there were.

    Attributes:
        mixed: Whether a part was answered otherwise: not every record is refused, or not for the same reason.
    """

    __slots__ = ("_alike", "_count", "_reason", "mixed")

    def __init__(self, count: int) -> None:
        self.mixed: bool = False
        self._count = count
        self._alike = 0
        self._reason = ""

    def of_one(self, reason: str) -> None:
        """Take note that a record was refused that was sent alone."""
        self.mixed = self.mixed or (self._alike > 0 and reason != self._reason)
        self._reason = reason
        self._alike += 1

    def of_all(self, reason: str) -> bool:
        """Return whether every record would be refused for this reason, as far as can be told."""
        return self._alike >= SAMPLES and not self.mixed and reason == self._reason

    def __str__(self) -> str:
        return (
            f"{self._alike} of {self._count} that went together were refused so one by one, the others not tried alone"
        )
