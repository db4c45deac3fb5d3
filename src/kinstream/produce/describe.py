"""Describer: requests the properties of the stream that writing depends on, and its shard map."""

from __future__ import annotations

from dataclasses import dataclass

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import ShardMapSource, all_shards, map_of
from kinstream.errors import AccessDenied, KinesisError, UnexpectedResponse
from kinstream.service_quotas import KIB, RECORD_DEFAULT_MAX_KIB, RECORD_MAX_KIB
from kinstream.sharding.shardmap import ShardMap


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """Properties of a stream.

    Attributes:
        record_limit: Maximum bytes of data and partition key of one record.
        distributes: True if the stream distributes records itself, whatever their keys (RecordDistributionStrategy AUTO).
        no_aggregation_reason: Why records must not be aggregated. None if they may be.
        status: The stream's status, such as "ACTIVE". Empty if it is not known.
    """

    record_limit: int
    distributes: bool
    no_aggregation_reason: str | None
    status: str = ""

    @property
    def absent(self) -> bool:
        """True if the stream accepts no records, because it is being created or deleted."""
        return self.status in ("CREATING", "DELETING")


async def stream_facts(client: Client, stream: Stream) -> StreamFacts:
    """Request the properties of a stream (API reference, `DescribeStreamSummary`).

    Raises:
        KinesisError: The request failed.
    """
    try:
        response = await client.call("DescribeStreamSummary", stream.parameter)
    except AccessDenied:
        return StreamFacts(
            RECORD_MAX_KIB * KIB,  # the service refuses records that are too large
            distributes=False,
            no_aggregation_reason="DescribeStreamSummary is denied, so it is unknown whether keys select the shards",
        )
    summary = response.get("StreamDescriptionSummary")
    if not isinstance(summary, dict):
        raise UnexpectedResponse("DescribeStreamSummary: unexpected response: it has no StreamDescriptionSummary")
    limit = summary.get("MaxRecordSizeInKiB")
    if not isinstance(limit, int) or not 0 < limit <= RECORD_MAX_KIB:
        limit = RECORD_DEFAULT_MAX_KIB
    distributes = summary.get("RecordDistributionStrategy") == "AUTO"
    why = "the stream distributes records itself (RecordDistributionStrategy AUTO)" if distributes else None
    return StreamFacts(limit * KIB, distributes, why, str(summary.get("StreamStatus", "")))


@dataclass(frozen=True, slots=True)
class Description:
    """Description of a stream.

    Attributes:
        facts: Its properties.
        shard_map: Its complete shard map. None if it could not be listed, or is not needed.
        error: Why the description is incomplete. None if it is complete.
    """

    facts: StreamFacts
    shard_map: ShardMap | None = None
    error: KinesisError | None = None


def _for_now(details: str) -> KinesisError:
    """Return an error that passes with time."""
    error = KinesisError(details)
    error.retry_safe = True
    return error


class Describer:
    """Describes a stream.

    Args:
        client: Sends the requests.
        stream: The stream.
    """

    def __init__(self, client: Client, stream: Stream) -> None:
        self._client = client
        self._stream = stream
        self._source = ShardMapSource(client, stream)

    async def describe(self) -> Description:
        """Return the current description.

        Raises:
            KinesisError: The stream cannot be described.
        """
        facts = await stream_facts(self._client, self._stream)
        if facts.absent:
            return Description(facts, error=_for_now(f"the stream is {facts.status}"))
        if facts.distributes:
            return Description(facts)
        try:
            shard_map = await self._source.refresh()
        except KinesisError as error:
            return Description(facts, error=error)
        if not shard_map.complete:
            return Description(facts, error=_for_now("the listing of its shards has gaps: it is being resharded"))
        return Description(facts, shard_map)

    async def history(self) -> ShardMap:
        """Return the ranges of all shards, with closed ones whose records are retained.

        Raises:
            KinesisError: They could not be listed.
        """
        return map_of(await all_shards(self._client, self._stream))
