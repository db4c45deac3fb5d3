"""EventSourceMapping: reads the shards of the streams in turn, and invokes the function with one batch after another."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from kinstream.cli.local.mapping.batch import Batch, Decision, Retries, after_failure
from kinstream.cli.local.mapping.event import event_of
from kinstream.cli.local.mapping.failed_document import document_of
from kinstream.cli.local.mapping.failure_folder import FailureFolder
from kinstream.cli.local.mapping.function import Function, FunctionFailed, new_request_id
from kinstream.cli.local.mapping.polled_stream import THROTTLED_SECONDS, PolledShard, PolledStream
from kinstream.cli.local.mapping.response import InvalidResponse, failed_from
from kinstream.cli.printable import printable
from kinstream.clock import SYSTEM_CLOCK
from kinstream.errors import KinesisError


@dataclass(frozen=True, kw_only=True)
class MappingOptions:
    """Options of a mapping, named as by AWS.

    Attributes:
        batch_size: Maximum records of an event.
        retries: Options for failed invocations.
        reports_failures: True if responses name the records that failed (`ReportBatchItemFailures`).
        on_failure: Destination of documents about discarded batches. None: they are only reported.
    """

    batch_size: int = 100
    retries: Retries = field(default_factory=Retries)
    reports_failures: bool = False
    on_failure: FailureFolder | None = None


class EventSourceMapping:
    """Mapping of streams to a function.

    One invocation runs at a time, in the calling thread, because the function expects a process of its own, as on AWS. Results
    are reported on standard error.

    Args:
        function: The function.
        streams: The streams.
        options: The options.
    """

    def __init__(self, function: Function, streams: Sequence[PolledStream], options: MappingOptions) -> None:
        self._function = function
        self._streams = streams
        self._options = options

    def run(self, stopping: threading.Event) -> None:
        """Read and invoke until `stopping` is set. An invocation that is running then is completed.

        Raises:
            KeyboardInterrupt: The user interrupted the function.
        """
        while not stopping.is_set():
            due = math.inf
            for stream in self._streams:
                due = min(due, self._advance(stream, stopping))
            stopping.wait(max(due - SYSTEM_CLOCK.monotonic(), 0.0))

    def _advance(self, stream: PolledStream, stopping: threading.Event) -> float:
        """Do one step in each shard of a stream that is due. Returns the time of the next one."""
        now = SYSTEM_CLOCK.monotonic()
        try:
            shards = stream.shards(now)
            for shard in shards:
                if shard.due <= SYSTEM_CLOCK.monotonic() and not stopping.is_set():
                    if shard.batches:
                        self._invoke(stream, shard)
                    else:
                        stream.read(shard, self._options.batch_size, SYSTEM_CLOCK.monotonic())
        except KinesisError as error:
            _report(f"{stream.name}: {error.details}")
            return SYSTEM_CLOCK.monotonic() + THROTTLED_SECONDS
        return min((shard.due for shard in shards), default=stream.due)

    def _invoke(self, stream: PolledStream, shard: PolledShard) -> None:
        """Invoke the function with the first batch of a shard, and apply its result."""
        batch = shard.batches.popleft()
        request_id = new_request_id()
        failed: int | None = 0
        problem, unhandled = "", False
        try:
            response = self._function.invoke(event_of(batch, shard.shard_id, stream.arn), request_id)
            numbers = [record.sequence_number for record in batch.records]
            failed = failed_from(response, numbers) if self._options.reports_failures else None
        except FunctionFailed as error:
            problem, unhandled = str(error), True
        except InvalidResponse as error:
            problem = str(error)
        sys.stdout.flush()  # the output of the function
        place = f"{stream.name} {shard.shard_id}"
        if failed is None:
            _report(f"{place}: {_records(len(batch.records))} succeeded")
            return
        decision = after_failure(batch, failed, self._options.retries)
        what = f"{len(batch.records) - failed} of {_records(len(batch.records))} failed"
        _report(f"{place}: {what}{f' ({problem})' if problem else ''}: {_next_step(decision)}")
        if decision.discarded is not None:
            self._discard(decision.discarded, stream, shard, request_id, unhandled=unhandled)
        shard.apply(decision, SYSTEM_CLOCK.monotonic())

    def _discard(
        self, batch: Batch, stream: PolledStream, shard: PolledShard, request_id: str, *, unhandled: bool
    ) -> None:
        """Store the document about a discarded batch."""
        if self._options.on_failure is None:
            return
        document = document_of(
            batch,
            shard.shard_id,
            stream.arn,
            function_arn=self._function.arn,
            request_id=request_id,
            unhandled=unhandled,
            now=SYSTEM_CLOCK.wall(),
        )
        try:
            file = self._options.on_failure.store(document)
        except OSError as error:
            _report(f"--on-failure: the document could not be written: {error.strerror}")
        else:
            _report(f"--on-failure: {file}")


def _next_step(decision: Decision) -> str:
    """Return the description of a decision."""
    if decision.discarded is not None:
        return f"discarded {_records(len(decision.discarded.records))}"
    if decision.delay:
        retry = decision.batches[0]
        return f"retry {retry.retries} with {_records(len(retry.records))} in {decision.delay:g} s"
    return f"next with {' and '.join(_records(len(batch.records)) for batch in decision.batches)}"


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"


def _report(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
