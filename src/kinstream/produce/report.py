"""Reporter: logs failures and recoveries of a producer's requests at a limited rate."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kinstream.clock import Clock
from kinstream.errors import KinesisError, NotFound, ResourceInUse
from kinstream.events import ShardLimitedByRecords
from kinstream.failures import Failures, Report
from kinstream.failures import described as cause_of
from kinstream.produce.pace import LIMITED_FOR
from kinstream.produce.settle import Retry, is_final

THROTTLED_FOR = 10.0
"""Seconds of throttling without an accepted record after which it is logged. Shorter throttling is everyday backpressure."""

NOT_READY_FOR = 10.0
"""Seconds after which it is logged that a stream is being created, or that its shards are unknown while it is resharded."""

_KINDS = {"send": "PutRecords", "throttled": "PutRecords", "describe": "describing the stream"}

_log = logging.getLogger("kinstream.producer")


class Reporter:
    """Logs the first failure of each kind of request, then at most one line a minute, then the recovery.

    Args:
        name: Name of the stream.
        clock: Clock of the producer.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._failures = Failures()
        self._final = Failures()  # these never recover
        self._texts: dict[str, tuple[str, str]] = {}  # cause and effect of the last failure of each kind

    def responded(self, accepted: bool, retries: Sequence[Retry]) -> None:
        """Count a response to PutRecords.

        Args:
            accepted: True if a shard accepted any of the records.
            retries: Records that are retried, with the reason.
        """
        if accepted:
            self._succeeded("send", "throttled")
        elif all(part.throttled for part in retries):
            self._succeeded("send")
            self._throttled(retries[-1].error if retries else "")
        else:
            self._failed("send", retries[-1].error, "the records are retried")

    def request_failed(self, error: KinesisError) -> None:
        """Count a PutRecords request that failed as a whole."""
        if error.throttled:
            self._throttled(error.details)
            return
        then = "its records are not retried" if is_final(error) else "the records are retried"
        if isinstance(error, NotFound):
            then = "its records fail if DescribeStreamSummary confirms it"
        self._failed("send", cause_of(error), then, NOT_READY_FOR if isinstance(error, ResourceInUse) else 0.0)

    def described(self, error: KinesisError | None) -> None:
        """Count a response to DescribeStreamSummary or ListShards, or its error."""
        if error is None:
            self._succeeded("describe")
            return
        soon = error.throttled or isinstance(error, ResourceInUse) or type(error) is KinesisError
        then = "it is retried while records are pending"
        self._failed("describe", cause_of(error), then, NOT_READY_FOR if soon else 0.0)

    @property
    def due(self) -> float:
        """Time at which to call `check`. NEVER if there is no need."""
        return self._failures.due

    def check(self, now: float) -> None:
        """Log failures that have lasted long enough by now."""
        for kind, report in self._failures.overdue(now).items():
            self._log_failure(kind, report)

    def limited_by_records(self, advice: ShardLimitedByRecords) -> None:
        """Log that aggregation would raise the throughput of a shard."""
        _log.info(
            "%s: %s has been limited by its number of records, not by bytes, for %.0f s: with aggregate=Aggregation() it would"
            " accept about %.1f times more records of this size, for consumers that deaggregate (docs/aggregation.md)",
            self._name, advice.shard_id, LIMITED_FOR, advice.factor,
        )  # fmt: skip

    def unobserved(self, cause: str, details: str, records: int) -> None:
        """Log records that failed and are not retried, if no caller has observed the failure."""
        report = self._final.failed(cause, self._clock.monotonic(), count=records)
        if report is not None:
            _log.warning(
                "%s: %s failed, and no caller awaits %s: %s: %s",
                self._name, _records(report.unreported), "it" if report.unreported == 1 else "them", cause, details,
            )  # fmt: skip

    def _throttled(self, cause: str) -> None:
        then = "the records are retried at a lower rate; add shards, or put fewer records"
        self._failed("throttled", cause, then, THROTTLED_FOR)

    def _failed(self, kind: str, cause: str, then: str, patience: float = 0.0) -> None:
        report = self._failures.failed(kind, self._clock.monotonic(), cause, patience=patience)
        self._texts[kind] = cause, then
        if report is not None:
            self._log_failure(kind, report)

    def _log_failure(self, kind: str, report: Report) -> None:
        cause, then = self._texts[kind]
        _log.warning("%s: %s %s: %s; %s", self._name, _KINDS[kind], report.failed, cause, then)

    def _succeeded(self, *kinds: str) -> None:
        if not self._failures.failing:
            return
        now = self._clock.monotonic()
        for kind in kinds:
            report = self._failures.succeeded(kind, now)
            if report is not None:
                _log.info("%s: %s works again after %s", self._name, _KINDS[kind], report.extent)


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"
