"""Text and JSON of shards. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from kinstream.cli.printable import printable
from kinstream.cli.shards.load import Load
from kinstream.cli.shards.tree import Node, parents_of, tree
from kinstream.cli.terminal import Colour, coloured
from kinstream.cli.text_table import GAP, shortened, table
from kinstream.record import Shard
from kinstream.sharding.hashkey import MAX_HASH_KEY

KIB = 1024
SHORTEST_RANGE = 24
"""Minimum columns of a terminal for the hash keys. They are left out in less."""
HIGH, FULL = 0.5, 0.8
"""Shares of a shard's quota from which its load is shown in yellow and in red."""


def json_line(shard: Shard, load: Load | None) -> str:
    """Return a shard as a line of JSON, with its load if it was measured."""
    document: dict[str, object] = {
        "shardId": shard.shard_id,
        "parentShardId": shard.parent_shard_id,
        "adjacentParentShardId": shard.adjacent_parent_shard_id,
        "startingHashKey": shard.hash_key_range.starting_hash_key,
        "endingHashKey": shard.hash_key_range.ending_hash_key,
        "open": not shard.closed,
    }
    if load is not None:
        document["recordsPerSecond"] = round(load.records_per_second, 3)
        document["bytesPerSecond"] = round(load.bytes_per_second, 3)
    return json.dumps(document)


def lines(
    name: str, shards: Sequence[Shard], loads: Mapping[str, Load] | None, width: int | None, colours: bool
) -> Iterator[str]:
    """Return the lines of the tree of a stream.

    Args:
        name: Name of the stream.
        shards: Its shards.
        loads: Loads of the open shards. None: not measured.
        width: Columns of the terminal. None: nothing is shortened.
        colours: True for colours.
    """
    opened = sum(not shard.closed for shard in shards)
    yield printable(f"{name}: {opened:,} open and {len(shards) - opened:,} closed shards")
    if not shards:
        return
    nodes = tree(shards)
    header = ["SHARD", "STATE", "KEYS", "FROM", *([] if loads is None else ["LOAD", "RECORDS/S", "KIB/S"])]
    cells = [_row(node, loads) for node in nodes]
    free = None if width is None else width - max(map(len, table(header, cells, None))) - len(GAP)
    if free is None or free >= SHORTEST_RANGE:
        header.append("HASH KEYS")
        for node, of_shard in zip(nodes, cells, strict=True):
            of_shard.append(_range(node.shard) if free is None else shortened(_range(node.shard), free))
    yield ""
    first, *rows = table(header, cells, width)
    yield first
    for node, row in zip(nodes, rows, strict=True):
        yield _in_colour(row, node.shard, None if loads is None else loads.get(node.shard.shard_id), colours)


def _row(node: Node, loads: Mapping[str, Load] | None) -> list[str]:
    shard = node.shard
    parents = ", ".join(_number(parent) for parent in parents_of(shard))
    row = [
        node.branch + shard.shard_id,
        "closed" if shard.closed else "open",
        _share(shard),
        f"{'merge' if shard.adjacent_parent_shard_id else 'split'} of {parents}" if parents else "-",
    ]
    if loads is not None:
        load = loads.get(shard.shard_id)
        row += (
            ["-", "-", "-"]
            if load is None
            else [
                f"{100 * load.share:.0f} %",
                f"{load.records_per_second:,.1f}",
                f"{load.bytes_per_second / KIB:,.1f}",
            ]
        )
    return row


def _in_colour(row: str, shard: Shard, load: Load | None, colours: bool) -> str:
    if shard.closed:
        return coloured(row, Colour.DIM, colours)
    if load is not None and load.share >= HIGH:
        return coloured(row, Colour.RED if load.share >= FULL else Colour.YELLOW, colours)
    return row


def _range(shard: Shard) -> str:
    return f"{shard.hash_key_range.starting_hash_key}-{shard.hash_key_range.ending_hash_key}"


def _share(shard: Shard) -> str:
    """Return the hash keys of a shard as percentages of all."""
    low, high = shard.hash_key_range.starting_hash_key, shard.hash_key_range.ending_hash_key
    if not (low.isdecimal() and high.isdecimal()):
        return "?"
    return f"{100 * int(low) / MAX_HASH_KEY:.1f}-{100 * (int(high) + 1) / MAX_HASH_KEY:.1f} %"


def _number(shard_id: str) -> str:
    """Return the number of a shard, without its zeros."""
    number = shard_id.rpartition("-")[2]
    return str(int(number)) if number.isdecimal() and len(number) < 20 else shard_id
