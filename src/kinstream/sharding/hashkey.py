"""Hash keys: 128-bit numbers that determine the shard of a record."""

import hashlib
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Protocol

MAX_HASH_KEY = 2**128 - 1
"""The highest hash key. The lowest is 0 (API reference, `HashKeyRange`)."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,38}")


class _Digest(Protocol):
    def digest(self) -> bytes: ...


def _fastest_md5() -> Callable[[bytes], _Digest]:
    """Return CPython's built-in MD5 if available: for a short key it takes half the time of hashlib with OpenSSL."""
    if sys.implementation.name == "cpython":
        try:
            built_in: Callable[[bytes], _Digest] = import_module("_md5").md5
            built_in(b"")
        except (ImportError, ValueError):  # not built into this Python, or disabled by a FIPS policy
            pass
        else:
            return built_in
    return partial(hashlib.md5, usedforsecurity=False)


md5: Callable[[bytes], _Digest] = _fastest_md5()
"""MD5 for short input. `md5(key.encode()).digest()` is the hash key of a partition key, as 16 bytes."""


def hash_key(partition_key: str) -> int:
    """Return the hash key of a partition key: MD5 of its UTF-8 bytes, as a big-endian 128-bit number.

    Source: API reference, `PutRecord`.
    """
    return int.from_bytes(md5(partition_key.encode()).digest(), "big")


def hash_key_bytes(partition_key: str, explicit_hash_key: str | None = None) -> bytes:
    """Return the hash key of a record as 16 big-endian bytes, which sort like the numbers.

    Args:
        partition_key: The record's partition key.
        explicit_hash_key: Decimal hash key that replaces the one of the partition key, already checked.

    Raises:
        ValueError, OverflowError: The explicit hash key is not valid.
    """
    if explicit_hash_key is not None:
        return int(explicit_hash_key).to_bytes(16, "big")
    return md5(partition_key.encode()).digest()


def parse_hash_key(text: str) -> int | None:
    """Return the hash key in `text`, or None if it is not a decimal number below 2**128 without leading zeros."""
    if _DECIMAL.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= MAX_HASH_KEY else None


def even_ranges(count: int) -> list[tuple[int, int]]:
    """Return `count` ranges (first and last hash key) that cover all hash keys. Their sizes differ by at most 1."""
    bounds = [(2**128 * i) // count for i in range(count + 1)]
    return [(low, high - 1) for low, high in pairwise(bounds)]
