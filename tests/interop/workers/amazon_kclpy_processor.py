"""A record processor of amazon_kclpy, for one shard, that appends its lines to the log of its worker.

Arguments: the log file, checkpoint_every and record_micros. The daemon starts it, and uses its standard input and output.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor
from tests.interop.workers.protocol import AppendingLog


class Processor(processor.RecordProcessorBase):  # type: ignore[misc]
    """Logs each record, and checkpoints after every n-th user record, also inside aggregates."""

    def __init__(self, log: AppendingLog, every: int, pause: float) -> None:
        self._log = log
        self._every = every
        self._pause = pause
        self._shard = ""
        self._handled = 0
        self._last: Any = None

    def initialize(self, initialize_input: Any) -> None:
        self._shard = initialize_input.shard_id
        position = f"{initialize_input.sequence_number}/{initialize_input.sub_sequence_number}"
        self._log.event("initialized", self._shard, position)

    def process_records(self, process_records_input: Any) -> None:
        for record in process_records_input.records:
            sequence, subsequence = record.sequence_number, record.sub_sequence_number
            self._log.record(self._shard, sequence, subsequence, record.partition_key, record.binary_data)
            self._last = record
            self._handled += 1
            if self._pause:
                time.sleep(self._pause)
            if self._handled % self._every == 0:
                self._checkpoint(process_records_input.checkpointer)

    def lease_lost(self, lease_lost_input: Any) -> None:
        self._log.event("lease-lost", self._shard)

    def shard_ended(self, shard_ended_input: Any) -> None:
        shard_ended_input.checkpointer.checkpoint()
        self._log.event("shard-ended", self._shard)

    def shutdown_requested(self, shutdown_requested_input: Any) -> None:
        self._log.event("shutdown-requested", self._shard)
        if self._last is not None:
            self._checkpoint(shutdown_requested_input.checkpointer)

    def _checkpoint(self, checkpointer: Any) -> None:
        sequence, subsequence = self._last.sequence_number, self._last.sub_sequence_number
        try:
            checkpointer.checkpoint(sequence, subsequence)
        except kcl.CheckpointError as error:
            refused = error.value in ("ShutdownException", "InvalidStateException")
            self._log.event("checkpoint-refused" if refused else "checkpoint-failed", self._shard, str(error.value))
        else:
            self._log.event("checkpointed", self._shard, f"{sequence}/{subsequence}")


if __name__ == "__main__":
    kcl.KCLProcess(Processor(AppendingLog(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1e6)).run()
