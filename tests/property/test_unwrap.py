"""Whatever the bytes are, the functions of kinstream.unwrap return a value or raise UnwrapError."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles import wrapped

from kinstream.unwrap import (
    UnwrapError,
    cloudevent,
    cloudwatch_logs,
    decompress,
    dms_change,
    dynamodb_change,
    eventbridge_event,
)

SAMPLES: dict[Callable[[bytes], Any], list[bytes]] = {
    decompress: [gzip.compress(b"ab" * 300), zlib.compress(b"ab" * 300), gzip.compress(b"a") * 3],
    cloudwatch_logs: [wrapped.CLOUDWATCH_LOGS, gzip.decompress(wrapped.CLOUDWATCH_LOGS)],
    dynamodb_change: [wrapped.encoded(wrapped.DYNAMODB)],
    dms_change: [wrapped.encoded(wrapped.DMS), wrapped.encoded(wrapped.DMS_CONTROL)],
    eventbridge_event: [wrapped.encoded(wrapped.EVENTBRIDGE)],
    cloudevent: [wrapped.encoded(wrapped.CLOUDEVENT)],
}
FUNCTIONS = pytest.mark.parametrize("function", SAMPLES, ids=lambda function: function.__name__)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def tried(function: Callable[[bytes], Any], data: bytes) -> None:
    with suppress(UnwrapError):
        function(data)


@FUNCTIONS
@given(
    data=st.binary(max_size=400),
    first=st.sampled_from([b"", b"\x1f\x8b\x08\x00", b"\x78\x9c", b"\x28\xb5\x2f\xfd", b"{"]),
)
def test_random_bytes(function: Callable[[bytes], Any], data: bytes, first: bytes) -> None:
    tried(function, first + data)


@FUNCTIONS
@given(data=st.data())
def test_samples_with_changed_bytes(function: Callable[[bytes], Any], data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SAMPLES[function])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        end = data.draw(st.integers(at, min(len(damaged), at + 8)))
        damaged[at:end] = data.draw(st.binary(max_size=8))
        if not damaged:
            break
    tried(function, bytes(damaged))


def paths(document: Any) -> list[tuple[Any, ...]]:
    """Return the paths of all members and elements of a document."""
    found: list[tuple[Any, ...]] = []
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        found += [(key,), *((key, *rest) for rest in paths(value))]
    return found


@FUNCTIONS
@given(data=st.data())
def test_samples_with_changed_values(function: Callable[[bytes], Any], data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from([one for one in SAMPLES[function] if one[:1] == b"{"] or [b"{}"]))
    document = json.loads(sample)
    for _ in range(data.draw(st.integers(1, 3))):
        if not (known := paths(document)):
            break
        *way, last = data.draw(st.sampled_from(known))
        at = document
        for step in way:
            at = at[step]
        if data.draw(st.booleans()) and isinstance(at, dict):
            del at[last]
        else:
            at[last] = data.draw(JSON)
    tried(function, json.dumps(document).encode())


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=5), st.booleans())
def test_what_was_compressed_comes_back(parts: list[bytes], several: bool) -> None:
    data = b"".join(map(gzip.compress, parts)) if several else zlib.compress(b"".join(parts))
    size = sum(map(len, parts))
    assert decompress(data) == decompress(data, size) == b"".join(parts)
    if size:
        with pytest.raises(UnwrapError, match=f"larger than {size - 1} bytes"):
            decompress(data, size - 1)


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**38), max_value=10**38)
VALUES = st.recursive(
    st.text() | st.binary() | st.booleans() | st.none() | NUMBERS | st.frozensets(st.text(), min_size=1, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_item_that_boto3_writes_comes_back(item: dict[str, Any]) -> None:
    document = {
        **wrapped.DYNAMODB,
        "dynamodb": {"Keys": {}, "NewImage": {name: described(one) for name, one in item.items()}},
    }
    assert dynamodb_change(json.dumps(document).encode()).new == item


def described(value: Any) -> dict[str, Any]:
    """Return a value as DynamoDB describes it in JSON."""
    from base64 import b64encode

    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case Decimal():
            return {"N": str(value)}
        case bytes():
            return {"B": b64encode(value).decode()}
        case frozenset():
            return {"SS": sorted(value)}
        case list():
            return {"L": [described(one) for one in value]}
        case _:
            return {"M": {name: described(one) for name, one in value.items()}}
