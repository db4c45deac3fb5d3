"""Stream: what must be known of a stream to write to it well: its largest record, and whether it minds partition keys."""

from __future__ import annotations

from dataclasses import dataclass

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.errors import AccessDenied, UnexpectedResponse
from kinstream.service_quotas import KIB, RECORD_DEFAULT_MAX_KIB, RECORD_MAX_KIB


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What was learned of a stream.

    Attributes:
        record_limit: Bytes of data and partition key that it takes in one record.
        spreads: Whether it spreads records over its shards whatever their keys (RecordDistributionStrategy AUTO).
        why_single: Why records must not be aggregated; None where they may.
    """

    record_limit: int
    spreads: bool
    why_single: str | None


async def learn(client: Client, stream: Stream) -> StreamFacts:
    """Ask for what must be known of a stream (API reference, `DescribeStreamSummary`).

    Raises:
        KinesisError: It cannot be told now.
    """
    try:
        answer = await client.call("DescribeStreamSummary", stream.parameter)
    except AccessDenied:
        return StreamFacts(
            RECORD_MAX_KIB * KIB,  # the service refuses what is too large
            spreads=False,
            why_single="DescribeStreamSummary is denied: it cannot be told whether the stream minds partition keys",
        )
    summary = answer.get("StreamDescriptionSummary")
    if not isinstance(summary, dict):
        raise UnexpectedResponse("DescribeStreamSummary: unexpected answer: it has no StreamDescriptionSummary")
    limit = summary.get("MaxRecordSizeInKiB")
    if not isinstance(limit, int) or not 0 < limit <= RECORD_MAX_KIB:
        limit = RECORD_DEFAULT_MAX_KIB
    spreads = summary.get("RecordDistributionStrategy") == "AUTO"
    why = "the stream spreads records over its shards by itself (RecordDistributionStrategy AUTO)" if spreads else None
    return StreamFacts(limit * KIB, spreads, why)
