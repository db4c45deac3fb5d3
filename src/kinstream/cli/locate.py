"""Shards of positions: finds the shard that a sequence number belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.cli.place import Place
from kinstream.consume.fetch.position import Position
from kinstream.errors import ConfigError, InvalidArgument
from kinstream.record import Shard


async def positions_of(client: Client, stream: Stream, option: str, places: Sequence[Place]) -> dict[str, Position]:
    """Return the positions in shards that an option names, by shard id.

    Args:
        client: Client for the requests.
        stream: The stream.
        option: Name of the option, for errors.
        places: Its values, each a position in one shard.

    Raises:
        ConfigError: A position has no shard, several possible ones, or one that another position has.
        KinesisError: The shards cannot be listed.
    """
    shards: list[Shard] | None = None
    found: dict[str, Position] = {}
    for place in places:
        position = (
            Position.at_time(place.moment)
            if place.moment is not None
            else Position.parse(option, place.position or "TRIM_HORIZON")
        )
        shard_id = place.shard_id
        if shard_id is None:
            shards = await all_shards(client, stream) if shards is None else shards
            shard_id = await _shard_of(client, stream, option, position, shards)
        if shard_id in found:
            raise ConfigError(f"{option}: names two positions in {shard_id}")
        found[shard_id] = position
    return found


async def _shard_of(client: Client, stream: Stream, option: str, position: Position, shards: Sequence[Shard]) -> str:
    """Return the only shard that can have a sequence number."""
    number = position.sequence_number
    possible = [shard.shard_id for shard in shards if _may_have(shard, int(number))]
    if len(possible) > 1:
        possible = [shard_id for shard_id in possible if await _accepts(client, stream, shard_id, number)]
    if len(possible) == 1:
        return possible[0]
    if not possible:
        raise ConfigError(f"{option}={str(position)!r}: no shard of stream {stream.name} has this sequence number")
    raise ConfigError(
        f"{option}={str(position)!r}: {len(possible)} shards can have this sequence number. Name the shard, such as"
        f" {option} '{possible[0]}:{position}'"
    )


def _may_have(shard: Shard, number: int) -> bool:
    low, high = shard.sequence_number_range.starting_sequence_number, shard.sequence_number_range.ending_sequence_number
    return int(low) <= number and (high is None or number <= int(high))


async def _accepts(client: Client, stream: Stream, shard_id: str, number: str) -> bool:
    """Return True if Kinesis accepts a sequence number as one of a shard."""
    try:
        await client.send(kinesis.get_shard_iterator(client.codec, stream, shard_id, "AT_SEQUENCE_NUMBER", number))
    except InvalidArgument:
        return False
    return True
