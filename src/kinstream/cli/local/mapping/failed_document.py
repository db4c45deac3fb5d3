"""Documents about discarded batches, as AWS Lambda sends them to an on-failure destination. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kinstream.cli.local.mapping.batch import Batch


def document_of(
    batch: Batch, shard_id: str, stream_arn: str, *, function_arn: str, request_id: str, unhandled: bool, now: float
) -> dict[str, Any]:
    """Return the document about a discarded batch, without the data of its records.

    `kinstream.awslambda.failed_batch` parses it (AWS Lambda Developer Guide, "Retain discarded batch records for a Kinesis Data
    Streams event source in Lambda").

    Args:
        batch: The batch.
        shard_id: The shard.
        stream_arn: ARN of the stream.
        function_arn: ARN of the function.
        request_id: ID of the last invocation.
        unhandled: True if the last invocation raised an exception, False if it reported failed records.
        now: Seconds since 1970.
    """
    first, last = batch.records[0], batch.records[-1]
    return {
        "requestContext": {
            "requestId": request_id,
            "functionArn": function_arn,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": batch.invocations,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled" if unhandled else None,
        },
        "version": "1.0",
        "timestamp": _text(now),
        "KinesisBatchInfo": {
            "shardId": shard_id,
            "startSequenceNumber": first.sequence_number,
            "endSequenceNumber": last.sequence_number,
            "approximateArrivalOfFirstRecord": _text(first.arrival_time),
            "approximateArrivalOfLastRecord": _text(last.arrival_time),
            "batchSize": len(batch.records),
            "streamArn": stream_arn,
        },
    }


def _text(seconds: float) -> str:
    """Return a time in the form of AWS, such as "2026-11-30T17:00:00.021Z"."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
