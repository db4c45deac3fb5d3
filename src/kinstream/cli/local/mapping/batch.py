"""Batches of one shard: decides which records are invoked next, after a page of records and after a result. Pure.

The rules are those of AWS (AWS Lambda Developer Guide, "Using Lambda to process records from Amazon Kinesis Data Streams"):

- If an invocation fails, its batch is retried before later records, up to `maximum_retry_attempts` times. Then it is discarded.
- With `bisect`, a failed batch is split instead, which does not count as a retry: at the failed record if the records before it
  succeeded, else into halves. Only a batch of one record is retried.
- If only a part failed, only the records from the lowest failed one on are retried.

AWS does not document the delay between retries, the point at which a batch of an odd size is split, and whether a partial
success resets the number of retries. Here it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kinstream.record import ReceivedRecord

UNLIMITED = -1
"""Value of `maximum_retry_attempts` for retries without a limit."""

PAYLOAD_BYTES = 6_000_000
"""Maximum bytes of data in base64 in an event. The payload of an invocation may have 6 MB (Lambda quotas), and a batch that would
exceed it is cut."""

FIRST_DELAY, MAX_DELAY = 0.2, 10.0
"""Seconds before the first retry of a batch, and maximum. The delay is doubled with each retry."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Options for failed invocations, named as by AWS.

    Attributes:
        maximum_retry_attempts: Maximum retries of a batch. `UNLIMITED`: no limit.
        bisect: True to split a failed batch (`BisectBatchOnFunctionError`).
    """

    maximum_retry_attempts: int = UNLIMITED
    bisect: bool = False


@dataclass(frozen=True)
class Batch:
    """Records of one shard for one invocation.

    Attributes:
        records: The records, at least one.
        retries: Retries that were made of this batch and of those that it was split from.
        invocations: Invocations that were made with all of these records.
    """

    records: tuple[ReceivedRecord[bytes], ...]
    retries: int = 0
    invocations: int = 0


@dataclass(frozen=True)
class Decision:
    """The next steps after a failed invocation.

    Attributes:
        batches: Batches to invoke next, in order, before later records of the shard.
        delay: Seconds before the first of them.
        discarded: The batch that is given up, for the on-failure destination.
    """

    batches: tuple[Batch, ...] = ()
    delay: float = 0.0
    discarded: Batch | None = None


def batches_of(records: Sequence[ReceivedRecord[bytes]], batch_size: int) -> list[Batch]:
    """Return the records of a page in batches of at most `batch_size` records and `PAYLOAD_BYTES`, or a larger single record."""
    batches: list[Batch] = []
    begin = size = 0
    for index, record in enumerate(records):
        encoded = (len(record.data) + 2) // 3 * 4
        if index > begin and (index - begin == batch_size or size + encoded > PAYLOAD_BYTES):
            batches.append(Batch(tuple(records[begin:index])))
            begin, size = index, 0
        size += encoded
    if records:
        batches.append(Batch(tuple(records[begin:])))
    return batches


def after_failure(batch: Batch, failed_from: int, options: Retries) -> Decision:
    """Return the next steps after an invocation that failed entirely or from one of its records on.

    Args:
        batch: The batch.
        failed_from: Index of the first record that failed. All records before it succeeded.
        options: The options.
    """
    left = batch.records[failed_from:]
    invocations = batch.invocations + 1
    if options.bisect and len(batch.records) > 1:
        middle = 0 if failed_from else len(left) // 2
        parts = (left[:middle], left[middle:]) if middle else (left,)
        return Decision(tuple(Batch(part, batch.retries, invocations) for part in parts))
    if options.maximum_retry_attempts == UNLIMITED or batch.retries < options.maximum_retry_attempts:
        delay = min(FIRST_DELAY * 2.0 ** min(batch.retries, 30), MAX_DELAY)
        return Decision((Batch(left, batch.retries + 1, invocations),), delay)
    return Decision(discarded=Batch(left, batch.retries, invocations))
