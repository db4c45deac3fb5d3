"""Hash keys: the 128-bit number that decides which shard takes a record."""

import hashlib
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Protocol

MAX_HASH_KEY = 2**128 - 1
"""The last hash key; the first is 0 (API reference, `HashKeyRange`)."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,38}")


class _Digest(Protocol):
    def digest(self) -> bytes: ...


def _fastest_md5() -> Callable[[bytes], _Digest]:
    """Return CPython's own MD5 where it is to be had: for a short key it takes half as long as OpenSSL's behind hashlib."""
    if sys.implementation.name == "cpython":
        try:
            built_in: Callable[[bytes], _Digest] = import_module("_md5").md5
            built_in(b"")
        except (ImportError, ValueError):  # left out when Python was built, or switched off by a FIPS policy
            pass
        else:
            return built_in
    return partial(hashlib.md5, usedforsecurity=False)


md5: Callable[[bytes], _Digest] = _fastest_md5()
"""MD5 of something short. `md5(key.encode()).digest()` is a partition key's hash key as 16 bytes."""


def hash_key(partition_key: str) -> int:
    """Return the hash key of a partition key: MD5 of its UTF-8 bytes, as a big-endian 128-bit number.

    Source: API reference, `PutRecord`.
    """
    return int.from_bytes(md5(partition_key.encode()).digest(), "big")


def hash_key_bytes(partition_key: str, explicit_hash_key: str | None = None) -> bytes:
    """Return the hash key of a record as 16 big-endian bytes, which sort as the numbers do.

    Args:
        partition_key: The record's key.
        explicit_hash_key: Decides in its place where it is given; a hash key, already checked.

    Raises:
        ValueError, OverflowError: The explicit hash key is none.
    """
    if explicit_hash_key is not None:
        return int(explicit_hash_key).to_bytes(16, "big")
    return md5(partition_key.encode()).digest()


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
