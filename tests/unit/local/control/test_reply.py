"""Replies to calls, and their bodies."""

from __future__ import annotations

from typing import Any

import pytest

from kinstream.local.control.reply import Reply
from kinstream.local.wire.formats import CBOR, JSON, WireFormat


@pytest.mark.parametrize("wire", [JSON, CBOR])
@pytest.mark.parametrize("body", [b"", b"{not json", b"\x00\xff"])
def test_bytes_are_sent_unchanged(wire: WireFormat, body: bytes) -> None:
    assert Reply(body).encoded(wire) == body


def test_members_are_encoded_in_the_format_of_the_request() -> None:
    body: dict[str, Any] = {"ShardId": "shardId-000000000000"}
    assert Reply(body).encoded(JSON) == b'{"ShardId":"shardId-000000000000"}'
    assert Reply(body).encoded(CBOR) == b"\xa1\x67ShardId\x74shardId-000000000000"


def test_operation_without_a_result_has_an_empty_body() -> None:
    assert Reply().encoded(JSON) == Reply().encoded(CBOR) == b""
