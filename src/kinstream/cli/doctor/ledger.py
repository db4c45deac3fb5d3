"""Outcomes of the requests of `kinstream doctor`: which actions are allowed, and how long their responses took."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from kinstream.cli.doctor.finding import denied
from kinstream.cli.doctor.judge.permissions import Outcome
from kinstream.clock import Clock
from kinstream.errors import AccessDenied, KinesisError, ServiceError, ServiceUnavailable

T = TypeVar("T")


class Ledger:
    """Records the outcome of each action.

    Args:
        clock: Source of time, for the latency.

    Attributes:
        outcomes: Outcomes of the actions, such as "kinesis:GetRecords". Unknown ones are missing. A denial remains.
        latencies: Seconds until the response of each request, in order.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.outcomes: dict[str, Outcome] = {}
        self.latencies: list[float] = []

    async def watch(self, action: str, call: Awaitable[T]) -> T:
        """Await a call, and record its outcome.

        Args:
            action: Action of IAM, such as "kinesis:GetRecords".
            call: The call. Its errors are raised again.
        """
        began = self._clock.monotonic()
        try:
            result = await call
        except KinesisError as error:
            self._record(action, _outcome(error))
            if isinstance(error, ServiceError):
                self.latencies.append(self._clock.monotonic() - began)
            raise
        self.latencies.append(self._clock.monotonic() - began)
        self._record(action, Outcome.ALLOWED)
        return result

    def _record(self, action: str, outcome: Outcome | None) -> None:
        if outcome is not None and self.outcomes.get(action) is not Outcome.DENIED:
            self.outcomes[action] = outcome


def _outcome(error: KinesisError) -> Outcome | None:
    """Return the outcome for an error. None: unknown.

    An error about the resource shows a permission, if the service checks permissions first (assumed, as for all services of AWS).
    """
    if denied(error):
        return Outcome.DENIED
    if not isinstance(error, ServiceError) or isinstance(error, AccessDenied | ServiceUnavailable) or error.throttled:
        return None
    return Outcome.ALLOWED
