"""Reporter: passes a consumer's events to its observer, logs failures at a limited rate, and counts events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from kinstream.clock import Clock
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import TRIM_HORIZON, Position
from kinstream.consume.lease.lease import qualified_id
from kinstream.consume.statistics import ConsumerStatistics, Counts
from kinstream.consume.withhold import exception_info
from kinstream.errors import ResourceInUse
from kinstream.events import (
    AggregateDamaged,
    CheckpointFailed,
    DiscoveryFailed,
    Event,
    FellBackToPolling,
    FetchFailed,
    HandlerFailed,
    MisroutedAggregateDropped,
    Observer,
    RecordsExpired,
    ShardLeaseLost,
    ShardSkipped,
    ShardStalled,
)
from kinstream.failures import Failures, Report, described
from kinstream.observe import guarded
from kinstream.record import ReceivedRecord

THROTTLED_FOR = 10.0
"""Seconds without a response after which it is logged that a shard is throttled or subscribed to by another reader, or that a
stream is still being created."""

HANDLER_FAILS_FOR = 10.0
"""Seconds of failures after which a handler is logged before its last attempt."""

LAST_FAILURES = 10
"""Maximum tracebacks of handlers that are logged per minute and outcome. Further ones are counted."""

REQUESTS = ("fetch", "throttled", "subscription")
"""Kinds of failure of requests for records."""

READS = (*REQUESTS, "stalled")
"""Kinds of failure from which a response is the recovery."""

_KINDS = {
    "fetch": "reading",
    "throttled": "reading",
    "subscription": "the subscription to",
    "list": "listing the shards",
    "checkpoint": "writing the checkpoint of",
    "lease": "renewing the lease of",
    "table": "",
    "handler": "the handler of records of",
    "stalled": "reading",
}

_OPERATIONS = {
    "open": "opening the table of leases",
    "leases": "reading the leases",
    "worker": "announcing this worker",
    "leader": "writing the leader's lock",
    "assign": "writing leases",
    "shards": "finding shards without a lease",
}
"""Operations on the table of leases, by `CheckpointFailed.operation`. Those that fail share a line."""

_LEVELS = {"aggregates dropped": logging.INFO}  # ordinary after a reshard; other final failures: WARNING

_log = logging.getLogger("kinstream.consumer")


class Reporter:
    """Logs and counts the events of a consumer, and passes them to its observer.

    Args:
        stream_name: Name of the stream, at the start of each log line.
        clock: Clock of the consumer.
        observer: Receives every event. None: no observer.
    """

    def __init__(self, stream_name: str, clock: Clock, observer: Observer | None) -> None:
        self._counts = Counts()
        self._name = stream_name
        self._clock = clock
        self._observe = guarded(observer, stream_name, _log)
        self._failures = Failures()
        self._final = Failures()  # these never recover
        self._texts: dict[str, tuple[str, str]] = {}  # cause and effect of the last failure of each kind

    def __call__(self, event: Event) -> None:
        """Report an event."""
        if isinstance(event, FetchFailed):
            self._fetch_failed(event)
        elif isinstance(event, DiscoveryFailed):
            creating = isinstance(event.error, ResourceInUse)
            then = "known shards are still read, and it is retried"
            self._failed("list", event.error, self._place(event.stream_name), then, THROTTLED_FOR if creating else 0.0)
        elif isinstance(event, CheckpointFailed):
            self._store_failed(event)
        elif isinstance(event, ShardStalled):
            self._stalled(event)
        elif isinstance(event, FellBackToPolling):
            stream = f"the stream {event.stream_name}".rstrip()
            _log.warning("%s: %s is read by polling: %s", self._name, stream, described(event.error))
        elif isinstance(event, RecordsExpired):
            self._expired(event)
        elif isinstance(event, ShardLeaseLost):
            self._lease_lost(event)
        elif isinstance(event, HandlerFailed):
            self._counts.skipped += event.outcome == "skipped"
            self._counts.dead_letters += event.outcome == "dead-lettered"
        elif isinstance(event, MisroutedAggregateDropped):
            self._counts.dropped += event.records
            then = "its producer retries its records"
            why = f"{event.records} records do not all belong to the shard"
            self._aggregate("dropped", why, event, then)
        elif isinstance(event, AggregateDamaged):
            self._aggregate("damaged", event.reason, event, "it was delivered as a plain record")
        if self._observe is not None:
            self._observe(event)

    def of_stream(self, name: str | None) -> Callable[[Event], None]:
        """Return a reporter of events of one of several streams: their shards get the name of the stream before their ids.

        Args:
            name: Name of the stream. None: the application reads one stream, and events are reported as they are.
        """
        if name is None:
            return self

        def report(event: Event) -> None:
            shard_id = getattr(event, "shard_id", None)
            if shard_id is not None:
                event = msgspec.structs.replace(event, shard_id=qualified_id(shard_id, name))
            elif isinstance(event, FellBackToPolling):
                event = msgspec.structs.replace(event, stream_name=name)
            self(event)

        return report

    def listed(self, stream_name: str) -> None:
        """Note that the shards of a stream were listed. Logs the recovery from a failure that was logged."""
        self.succeeded(self._place(stream_name), "list")

    def _place(self, stream_name: str) -> str:
        """Return the place of a failure in a stream: empty if the log lines begin with its name anyway."""
        return "" if stream_name in ("", self._name) else f"of {stream_name}"

    def expired_unread(self, shard_id: str, position: Position) -> None:
        """Report a shard that expired before it was completed.

        Args:
            shard_id: The shard.
            position: Position after its completed records.
        """
        self(ShardSkipped(shard_id))
        self(RecordsExpired(shard_id, str(position), str(TRIM_HORIZON), True))

    def statistics(self) -> ConsumerStatistics:
        """Return the counters as they are now."""
        return self._counts.snapshot()

    def last_error(self, shard_id: str) -> str | None:
        """Return the last error of a shard that cannot be read or checkpointed now, or None if nothing fails."""
        return self._failures.last_error(shard_id)

    # Successes.

    def received(self, shard_id: str, page: Page) -> None:
        """Count a response."""
        counts = self._counts
        counts.responses += 1
        counts.retries += page.retries
        if page.records:
            counts.bytes += page.size_bytes
        if self._failures.failing:
            self.succeeded(shard_id, *READS)

    def delivered(self, records: int) -> None:
        """Count records that are delivered to the application."""
        self._counts.records += records

    def stored(self, shard_id: str) -> None:
        """Count a checkpoint that was stored."""
        self._counts.checkpoints += 1
        self.succeeded(shard_id, "checkpoint")

    def succeeded(self, place: str, *kinds: str) -> None:
        """Count successes of operations. Logs the recovery from a failure that was logged."""
        if not self._failures.failing:
            return
        now = self._clock.monotonic()
        for kind in kinds:
            report = self._failures.succeeded(kind, now, place)
            if report is not None:
                what = _operation(kind, report)
                _log.info("%s: %s works again after %s", self._name, what, report.extent)

    def recovered(self, shard_id: str, operation: str) -> None:
        """Note that an operation of the lease store works again, by `CheckpointFailed.operation`."""
        if operation in _OPERATIONS:
            self.succeeded(_OPERATIONS[operation], "table")
        else:
            self.succeeded(shard_id, operation)

    def left(self, shard_id: str) -> None:
        """Remove the failures of a shard that is no longer read."""
        self._failures.forget(shard_id)

    def stopped(self) -> None:
        """Log the number of final failures that no line has counted yet, when reading ends."""
        for kind, report in self._final.unreported(self._clock.monotonic()).items():
            _log.log(_LEVELS.get(kind, logging.WARNING), "%s: %s: %s more", self._name, kind, f"{report.unreported:,}")

    # Failures.

    def handler_failed(self, shard_id: str, error: Exception, pause: float) -> None:
        """Count a failure of a handler, which is called again after a delay."""
        self._counts.handler_failures += 1
        then = f"it is called again in {pause:.1f} s"
        self._report("handler", type(error).__name__, shard_id, then, HANDLER_FAILS_FOR)

    def last_attempt_failed(self) -> None:
        """Count a failure of a handler, which is not called again."""
        self._counts.handler_failures += 1

    def handled(self, shard_id: str) -> None:
        """Count a success of a handler that had failed."""
        self.succeeded(shard_id, "handler")

    def gave_up(
        self, shard_id: str, records: Sequence[ReceivedRecord[bytes]], error: Exception, tries: int, outcome: str
    ) -> None:
        """Log the last failure of a handler with its traceback, without the records' data.

        Args:
            shard_id: The shard.
            records: A record, or a batch.
            error: Exception of the handler.
            tries: Number of calls of the handler.
            outcome: "stopped", "skipped", "dead-lettered", or "dead letter refused".
        """
        now = self._clock.monotonic()
        self._failures.succeeded("handler", now, shard_id)
        report = self._final.failed(f"records {outcome}", now, count=len(records), burst=LAST_FAILURES)
        if report is None:
            return
        first = records[0]
        what = f"the record {first.sequence_number}" if len(records) == 1 else f"{len(records)} records"
        earlier = report.unreported - len(records)
        more = f" ({earlier:,} more since the last such line)" if earlier else ""
        _log.log(
            logging.ERROR if outcome != "dead-lettered" else logging.WARNING,
            "%s: %s: %s could not be handled in %d %s (%s); %s%s",
            self._name, shard_id, what, tries,
            "attempt" if tries == 1 else "attempts", type(error).__name__, _OUTCOMES[outcome], more,
            exc_info=exception_info(error, [record.data for record in records]),
        )  # fmt: skip

    def check(self) -> None:
        """Log failures that have lasted long enough by now. Called every second."""
        for kind, report in self._failures.overdue(self._clock.monotonic()).items():
            cause, then = self._texts[kind]
            self._texts[kind] = cause, then.partition(" in ")[0]  # the delay has passed in part
            self._log_failure(kind, report)

    def _fetch_failed(self, event: FetchFailed) -> None:
        error, shard_id = event.error, event.shard_id
        self._counts.retries += max(getattr(error, "attempts", 1), 1)
        then = f"it is retried in {event.delay:.1f} s"
        if getattr(error, "throttled", False):
            self._failed("throttled", error, shard_id, then, THROTTLED_FOR)
        elif event.operation == "SubscribeToShard":
            patience = THROTTLED_FOR if isinstance(error, ResourceInUse) else 0.0
            self._failed("subscription", error, shard_id, then, patience)
        else:
            self._failed("fetch", error, shard_id, then)

    def _aggregate(
        self, outcome: str, why: str, event: MisroutedAggregateDropped | AggregateDamaged, then: str
    ) -> None:
        kind = f"aggregates {outcome}"
        report = self._final.failed(kind, self._clock.monotonic())
        if report is not None:
            many = "an aggregate is" if report.unreported == 1 else f"{report.unreported:,} aggregates are"
            what = f"{many} {outcome}, the last one {event.sequence_number}"
            _log.log(
                _LEVELS.get(kind, logging.WARNING), "%s: %s: %s: %s; %s", self._name, event.shard_id, what, why, then
            )

    def _lease_lost(self, event: ShardLeaseLost) -> None:
        report = self._final.failed("leases lost", self._clock.monotonic())
        if report is not None:
            many = (
                f"{report.unreported:,} leases were lost, the last one of"
                if report.unreported > 1
                else "lost the lease of"
            )
            then = "the next owner continues at its last checkpoint"
            _log.info("%s: %s %s; %s", self._name, many, event.shard_id, then)

    def _expired(self, event: RecordsExpired) -> None:
        lost, why = "may have been lost", "the record there has expired"
        if event.certain:
            lost, why = "were lost", "the shard has expired before all of it was read, or the stream was created again"
        _log.warning(
            "%s: %s: records after the checkpoint %s %s: %s; reading resumes at %s",
            self._name, event.shard_id, _place(event.checkpoint), lost, why, _place(event.resumed_at),
        )  # fmt: skip

    def _stalled(self, event: ShardStalled) -> None:
        if not self._failures.fails(event.shard_id, *REQUESTS):  # otherwise the reason is known
            then = "it is read again from the last record that was delivered"
            self._report("stalled", f"no progress for {event.seconds:.0f} s", event.shard_id, then)

    def _store_failed(self, event: CheckpointFailed) -> None:
        if event.operation in _OPERATIONS:
            self._failed("table", event.error, _OPERATIONS[event.operation], "it is retried")
        elif event.operation == "lease":
            self._failed("lease", event.error, event.shard_id, "it is retried until the lease expires")
        else:
            then = "it is retried; after a restart, records since the last checkpoint are delivered again"
            self._failed("checkpoint", event.error, event.shard_id, then)

    def _failed(self, kind: str, error: BaseException, place: str, then: str, patience: float = 0.0) -> None:
        self._counts.failures += 1
        self._report(kind, described(error), place, then, patience)

    def _report(self, kind: str, cause: str, place: str, then: str, patience: float = 0.0) -> None:
        now = self._clock.monotonic()
        report = self._failures.failed(kind, now, cause, place=place, patience=patience)
        self._texts[kind] = cause, then
        if report is not None:
            self._log_failure(kind, report)

    def _log_failure(self, kind: str, report: Report) -> None:
        operation = _operation(kind, report)
        cause, then = self._texts[kind]
        _log.warning("%s: %s %s: %s; %s", self._name, operation, report.failed, cause, then)


_OUTCOMES = {
    "stopped": "the shard stops there, and reading ends",
    "skipped": "reading continues after it",
    "dead-lettered": "it is dead-lettered, and reading continues",
    "dead letter refused": "the dead letter failed too, the shard stops there, and reading ends",
}


def _operation(kind: str, report: Report) -> str:
    places = " and ".join(report.places) if kind == "table" else _names(report.places)
    return f"{_KINDS[kind]} {places}".strip()


def _names(places: tuple[str, ...]) -> str:
    if len(places) <= 3:
        return ", ".join(places)
    return f"{len(places)} shards ({', '.join(places[:3])}, ...)"


def _place(position: str) -> str:
    """Return the text of a position without its preposition."""
    return position.removeprefix("after ").removeprefix("at ")
