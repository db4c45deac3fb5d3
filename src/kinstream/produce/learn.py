"""Learn: what must be known of a stream to write to it well: its largest record, and which shard takes which key."""

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
    """What was learned of a stream.

    Attributes:
        record_limit: Bytes of data and partition key that it takes in one record.
        spreads: Whether it spreads records over its shards whatever their keys (RecordDistributionStrategy AUTO).
        why_single: Why records must not be aggregated; None where they may.
        status: The stream's status, such as "ACTIVE"; "" if it is not known.
    """

    record_limit: int
    spreads: bool
    why_single: str | None
    status: str = ""

    @property
    def absent(self) -> bool:
        """True if the stream takes no records yet, or no more: it is being created or deleted."""
        return self.status in ("CREATING", "DELETING")


async def describe(client: Client, stream: Stream) -> StreamFacts:
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
        raise UnexpectedResponse("DescribeStreamSummary: unexpected response: it has no StreamDescriptionSummary")
    limit = summary.get("MaxRecordSizeInKiB")
    if not isinstance(limit, int) or not 0 < limit <= RECORD_MAX_KIB:
        limit = RECORD_DEFAULT_MAX_KIB
    spreads = summary.get("RecordDistributionStrategy") == "AUTO"
    why = "the stream spreads records over its shards by itself (RecordDistributionStrategy AUTO)" if spreads else None
    return StreamFacts(limit * KIB, spreads, why, str(summary.get("StreamStatus", "")))


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look at a stream showed.

    Attributes:
        facts: What was learned of it.
        shard_map: Its shards, each hash key in one of them; None where they could not be told, or are not to be.
        error: Why they could not be told.
    """

    facts: StreamFacts
    shard_map: ShardMap | None = None
    error: KinesisError | None = None


def _for_now(details: str) -> KinesisError:
    """Return an error that the same request will not meet again after some time."""
    error = KinesisError(details)
    error.retry_safe = True
    return error


class Scout:
    """Looks at a stream.

    Args:
        client: Asks.
        stream: The stream.
    """

    def __init__(self, client: Client, stream: Stream) -> None:
        self._client = client
        self._stream = stream
        self._source = ShardMapSource(client, stream)

    async def look(self) -> Sight:
        """Return what is to be seen now.

        Raises:
            KinesisError: The stream cannot be described.
        """
        facts = await describe(self._client, self._stream)
        if facts.absent:
            return Sight(facts, error=_for_now(f"the stream is {facts.status}"))
        if facts.spreads:
            return Sight(facts)
        try:
            shard_map = await self._source.refresh()
        except KinesisError as error:
            return Sight(facts, error=error)
        if not shard_map.complete:
            return Sight(facts, error=_for_now("the listing of its shards has holes: it is being resharded"))
        return Sight(facts, shard_map)

    async def history(self) -> ShardMap:
        """Return the ranges of all shards that there are and were, as far back as records are kept.

        Raises:
            KinesisError: They cannot be told now.
        """
        return map_of(await all_shards(self._client, self._stream))
