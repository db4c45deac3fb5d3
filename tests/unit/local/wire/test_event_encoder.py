"""Our event stream, read by botocore's decoder."""

from __future__ import annotations

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer, EventStreamMessage
from hypothesis import given
from hypothesis import strategies as st

from kinstream.local.wire.event_encoder import event, exception


def read(data: bytes, pieces: int = 1) -> list[EventStreamMessage]:
    """Return the messages of bytes fed in pieces."""
    buffer = EventStreamBuffer()
    found = []
    size = -(-len(data) // pieces)
    for start in range(0, len(data), size):
        buffer.add_data(data[start : start + size])
        found += list(buffer)
    return found


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=5), st.integers(1, 50))
def test_events_are_read_as_they_were_written(payloads: list[bytes], pieces: int) -> None:
    messages = read(b"".join(event("SubscribeToShardEvent", "application/json", data) for data in payloads), pieces)
    assert [message.payload for message in messages] == payloads
    expected = {
        ":message-type": "event",
        ":event-type": "SubscribeToShardEvent",
        ":content-type": "application/json",
    }
    assert all(message.headers == expected for message in messages)


def test_exception_has_its_code_in_a_header() -> None:
    (message,) = read(exception("ResourceInUseException", "application/json", b'{"message": "Busy."}'))
    assert message.headers == {
        ":message-type": "exception",
        ":exception-type": "ResourceInUseException",
        ":content-type": "application/json",
    }
    assert message.to_response_dict()["status_code"] == 400


def test_payload_of_the_largest_record_is_read() -> None:
    payload = bytes(14 * 2**20)
    assert read(event("SubscribeToShardEvent", "application/json", payload), 7)[0].payload == payload


@given(st.data())
def test_each_byte_is_covered_by_a_checksum(data: st.DataObject) -> None:
    whole = event("SubscribeToShardEvent", "application/json", b'{"Records": []}')
    at = data.draw(st.integers(8, len(whole) - 1))  # a length that is wrong is another message
    wrong = bytearray(whole)
    wrong[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ChecksumMismatch):
        read(bytes(wrong))
