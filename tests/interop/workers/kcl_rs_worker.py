"""A worker of kcl-rs that logs its records and events by the line protocol.

Options: stream, application, worker_id, region, checkpoint_every, record_micros, max_records, idle_millis, shard_sync_millis. In
the last three, 0 selects the default of kcl-rs. The endpoints
come from the variables AWS_ENDPOINT_URL_KINESIS and AWS_ENDPOINT_URL, because its own option applies to all services at once.
"""

from __future__ import annotations

import sys
import threading
import time

import kcl_rs
from tests.interop.workers.protocol import Log, on_stop, options


class Processor(kcl_rs.RecordProcessorBase):
    """Logs each record of one shard, and checkpoints after every n-th user record, also inside aggregates.

    `finish` takes the place of `shutdown_requested`, which kcl-rs 0.1.4 does not call when it stops: it refuses all checkpoints
    from then on.
    """

    def __init__(self, log: Log, every: int, pause: float) -> None:
        self._log = log
        self._every = every
        self._pause = pause
        self._shard = ""
        self._handled = 0
        self._last: kcl_rs.Record | None = None
        self._checkpointer: kcl_rs.Checkpointer | None = None
        self._finished = False
        self._lock = threading.Lock()

    def initialize(self, initialize_input: kcl_rs.InitializeInput) -> None:
        self._shard = initialize_input.shard_id or ""
        position = f"{initialize_input.sequence_number}/{initialize_input.sub_sequence_number}"
        self._log.event("initialized", self._shard, position)

    def process_records(self, process_records_input: kcl_rs.ProcessRecordsInput) -> None:
        for record in process_records_input.records:
            with self._lock:
                if self._finished:
                    return
                key, sequence = record.partition_key or "", record.sequence_number or ""
                self._log.record(self._shard, sequence, record.sub_sequence_number, key, record.data)
                self._last, self._checkpointer = record, process_records_input.checkpointer
                self._handled += 1
                if self._handled % self._every == 0:
                    self._checkpoint(process_records_input.checkpointer)
            if self._pause:
                time.sleep(self._pause)

    def finish(self) -> None:
        """Deliver no further record, and checkpoint the last one."""
        with self._lock:
            self._finished = True
            if self._checkpointer is not None:
                self._checkpoint(self._checkpointer)

    def lease_lost(self, lease_lost_input: kcl_rs.LeaseLostInput) -> None:
        self._checkpointer = None
        self._log.event("lease-lost", self._shard)

    def shard_ended(self, shard_ended_input: kcl_rs.ShardEndedInput) -> None:
        self._checkpointer = None
        try:
            shard_ended_input.checkpointer.checkpoint()
        except kcl_rs.CheckpointError as error:
            self._log.event("checkpoint-failed", self._shard, error.value)
        else:
            self._log.event("shard-ended", self._shard)

    def shutdown_requested(self, shutdown_requested_input: kcl_rs.ShutdownRequestedInput) -> None:
        self._log.event("shutdown-requested", self._shard)
        if self._last is not None:
            self._checkpoint(shutdown_requested_input.checkpointer)

    def _checkpoint(self, checkpointer: kcl_rs.Checkpointer) -> None:
        assert self._last is not None
        sequence, subsequence = self._last.sequence_number, self._last.sub_sequence_number
        try:
            checkpointer.checkpoint(sequence, subsequence)
        except kcl_rs.CheckpointError as error:
            refused = error.value in ("ShutdownException", "InvalidStateException")
            self._log.event("checkpoint-refused" if refused else "checkpoint-failed", self._shard, error.value)
        else:
            self._log.event("checkpointed", self._shard, f"{sequence}/{subsequence}")


def main() -> int:
    """Run the worker until it is stopped."""
    given, log = options(), Log()
    every, pause = int(given.get("checkpoint_every", "7")), int(given.get("record_micros", "0")) / 1e6
    processors: list[Processor] = []

    def processor() -> Processor:
        processors.append(Processor(log, every, pause))
        return processors[-1]

    scheduler = kcl_rs.Scheduler(
        stream_name=given["stream"],
        application_name=given["application"],
        record_processor_factory=processor,
        worker_identifier=given["worker_id"],
        region=given["region"],
        initial_position="TRIM_HORIZON",
        retrieval_mode="POLLING",
        max_records=int(given.get("max_records", "10")) or None,
        idle_time_between_reads_millis=int(given.get("idle_millis", "250")) or None,
        shard_sync_interval_millis=int(given.get("shard_sync_millis", "1")) or None,
    )

    def stop() -> None:
        log.event("stopping")
        for each in processors:
            each.finish()
        scheduler.shutdown()

    on_stop(stop)
    log.event("started")
    scheduler.run()
    log.event("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
