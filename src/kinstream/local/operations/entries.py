"""Validation of the records of a put, and their sizes and hash keys."""

from __future__ import annotations

import re
from functools import partial
from hashlib import md5 as hashlib_md5

from kinstream import service_quotas
from kinstream.local.operations import constraints
from kinstream.local.operations.requests import PutRecordsEntry
from kinstream.local.state.model import Stream
from kinstream.local.state.request_error import RequestError, invalid
from kinstream.sharding.hashkey import parse_hash_key

try:
    # The MD5 of CPython takes half the time of the one of OpenSSL for a key of a few bytes. Not every build has it.
    from _md5 import md5  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    md5 = partial(hashlib_md5, usedforsecurity=False)

_HASH_KEY = re.compile(r"0|[1-9][0-9]{0,38}")


def hash_key_and_size(key: str, data: bytes, explicit: str | None) -> tuple[bytes, int]:
    """Return the hash key of a record as 16 bytes, and its size. Raises RequestError."""
    raw = key.encode()
    if explicit is None:
        hash_key = md5(raw).digest()
    else:
        number = parse_hash_key(explicit)
        if number is None:
            raise invalid(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                f"Specified value was {explicit}"
            )
        hash_key = number.to_bytes(16, "big")
    return hash_key, len(raw) + len(data)


def hash_keys_and_sizes(entries: list[PutRecordsEntry], limit: int) -> tuple[list[bytes], list[int]]:
    """Return the hash keys and sizes of the records of a put. Raises RequestError."""
    hash_keys, sizes = [], []
    longest = service_quotas.PARTITION_KEY_MAX_CHARACTERS
    for entry in entries:
        key, data = entry.partition_key, entry.data
        if key is None or data is None or not 0 < len(key) <= longest:
            raise _wrong_entries(entries, limit)
        raw = key.encode()
        size = len(raw) + len(data)
        if size > limit:
            raise _wrong_entries(entries, limit)
        if entry.explicit_hash_key is None:
            hash_keys.append(md5(raw).digest())
        elif _HASH_KEY.fullmatch(entry.explicit_hash_key) is None:
            raise _wrong_entries(entries, limit)
        else:
            hash_keys.append(hash_key_and_size(key, data, entry.explicit_hash_key)[0])
        sizes.append(size)
    _check_total(sum(sizes))
    return hash_keys, sizes


def spread_hash_keys_and_sizes(
    entries: list[PutRecordsEntry], limit: int, stream: Stream
) -> tuple[list[bytes], list[int]]:
    """Do the same for a stream that distributes records regardless of their partition keys, which may then be missing."""
    sizes = []
    for entry in entries:
        key, data, explicit = entry.partition_key, entry.data, entry.explicit_hash_key
        if (
            data is None
            or (key is not None and not 0 < len(key) <= service_quotas.PARTITION_KEY_MAX_CHARACTERS)
            or (explicit is not None and _HASH_KEY.fullmatch(explicit) is None)
            or (size := len((key or "").encode()) + len(data)) > limit
        ):
            raise _wrong_entries(entries, limit, keyless=True)
        sizes.append(size)
    _check_total(sum(sizes))
    return [stream.spread_key() for _ in entries], sizes


def _check_total(size: int) -> None:
    if size > service_quotas.PUT_RECORDS_MAX_BYTES:
        raise invalid("Records size exceeds 10 MB limit")


def _wrong_entries(entries: list[PutRecordsEntry], limit: int, *, keyless: bool = False) -> RequestError:
    """Return the error that lists all violations in the records of a put. With `keyless`, partition keys may be missing."""
    violations = []
    longest = service_quotas.PARTITION_KEY_MAX_CHARACTERS
    for position, entry in enumerate(entries, 1):
        path = f"records.{position}.member."
        key, data, explicit = entry.partition_key, entry.data, entry.explicit_hash_key
        if key is None:
            if not keyless:
                violations.append(constraints.violation(f"{path}partitionKey", None, "Member must not be null"))
        elif not key:
            rule = "Member must have length greater than or equal to 1"
            violations.append(constraints.violation(f"{path}partitionKey", key, rule))
        elif len(key) > longest:
            rule = f"Member must have length less than or equal to {longest}"
            violations.append(constraints.violation(f"{path}partitionKey", key, rule))
        if explicit is not None and _HASH_KEY.fullmatch(explicit) is None:
            rule = r"Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})"
            violations.append(constraints.violation(f"{path}explicitHashKey", explicit, rule))
        if data is None:
            violations.append(constraints.violation(f"{path}data", None, "Member must not be null"))
        elif len(data) + len((key or "").encode()) > limit:
            rule = f"Member must have length less than or equal to {limit}"
            violations.append(constraints.violation(f"{path}data", data, rule))
    return constraints.validation_error(violations)
