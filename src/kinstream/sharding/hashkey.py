"""Hash keys: the 128-bit number that decides which shard takes a record."""

import re
from hashlib import md5
from itertools import pairwise

MAX_HASH_KEY = 2**128 - 1
"""The last hash key; the first is 0 (API reference, `HashKeyRange`)."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,38}")


def hash_key(partition_key: str) -> int:
    """Return the hash key of a partition key: MD5 of its UTF-8 bytes, as a big-endian 128-bit number.

    Source: API reference, `PutRecord`.
    """
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def parse_hash_key(text: str) -> int | None:
    """Return the number in `text`, or None where it is no hash key: decimal, no leading zero, below 2**128."""
    if _DECIMAL.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= MAX_HASH_KEY else None


def even_ranges(count: int) -> list[tuple[int, int]]:
    """Return `count` hash-key ranges of equal size (to one), both ends included, that cover every hash key."""
    bounds = [(2**128 * i) // count for i in range(count + 1)]
    return [(low, high - 1) for low, high in pairwise(bounds)]
