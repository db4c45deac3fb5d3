"""Decoder of event streams: limits, damage, cost."""

import struct
import zlib

import pytest
from tests.doubles.frames import frame, raw_frame
from tests.doubles.memory import peak_traced

from kinstream.aws.event_decoder import FRAME_MAX_BYTES, HEADERS_MAX_BYTES, MessageDecoder
from kinstream.errors import KinesisError, UnexpectedResponse

GOOD = frame({":message-type": "event"}, b"{}")


def prelude(total: int, headers: int) -> bytes:
    lengths = struct.pack(">II", total, headers)
    return lengths + struct.pack(">I", zlib.crc32(lengths))


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (prelude(FRAME_MAX_BYTES + 1, 0), "more than the limit of 25165824"),
        (prelude(2**32 - 1, 0), "more than the limit of 25165824"),
        (prelude(2**20, HEADERS_MAX_BYTES + 1), "more than the limit of 131072"),
        (prelude(15, 0), "0 bytes of headers in 15"),
        (prelude(0, 0), "0 bytes of headers in 0"),
        (prelude(40, 25), "25 bytes of headers in 40"),
        (b"\x00" * 12, "checksum of its prelude"),
        (b"<html><body>", "checksum of its prelude"),
    ],
)
def test_lengths_out_of_bounds_are_refused_before_anything_is_gathered(head: bytes, problem: str) -> None:
    decoder = MessageDecoder()
    with pytest.raises(UnexpectedResponse, match=f"damaged at frame 1: .*{problem}"):
        list(decoder.feed(GOOD + head))


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (b"\x01a\x0a", "unknown type 10"),
        (b"\x01a\xff", "unknown type 255"),
        (b"\x01a", "longer than the headers"),
        (b"\x05a", "longer than the headers"),
        (b"\x01a\x07\x00\x02x", "longer than the headers"),
        (b"\x01a\x07\x00", "longer than the headers"),
        (b"\x01a\x05\x00\x00", "longer than the headers"),
        (b"\x01a\x09123", "longer than the headers"),
        (b"\x01a\x00\x01a\x00", "repeated"),
        (b"\x01\xff\x00", "UTF-8"),
        (b"\x01a\x07\x00\x01\xff", "UTF-8"),
    ],
)
def test_invalid_headers_are_refused_although_their_checksum_is_right(headers: bytes, problem: str) -> None:
    with pytest.raises(UnexpectedResponse, match=problem):
        list(MessageDecoder().feed(raw_frame(headers, b"secret")))


def test_messages_before_the_damage_are_given_first() -> None:
    decoder = MessageDecoder()
    stream = decoder.feed(GOOD + GOOD + GOOD[:-1] + b"x")
    assert [next(stream).payload, next(stream).payload] == [b"{}", b"{}"]
    with pytest.raises(UnexpectedResponse, match="frame 2"):
        next(stream)


def test_after_damage_every_call_raises_the_same_error() -> None:
    decoder = MessageDecoder()
    with pytest.raises(UnexpectedResponse) as first:
        list(decoder.feed(b"x" * 12))
    assert first.value.retry_safe
    for again in (lambda: list(decoder.feed(GOOD)), decoder.finish):
        with pytest.raises(UnexpectedResponse, match="checksum of its prelude"):
            again()


def test_an_error_has_nothing_of_the_payload() -> None:
    with pytest.raises(KinesisError) as caught:
        list(MessageDecoder().feed(frame({"a": "canary"}, b"canary")[:-1] + b"x"))
    assert "canary" not in str(caught.value)


def test_the_largest_frame_is_read() -> None:
    payload = bytes(FRAME_MAX_BYTES - 16)
    (message,) = MessageDecoder().feed(frame({}, payload))
    assert message.payload == payload


@pytest.mark.parametrize("size", [1, 100, 4096, 16384, 2**22])
def test_a_large_event_costs_no_more_memory_than_its_pieces_and_one_copy(size: int) -> None:
    payload = bytes(2**17)
    stream = memoryview(frame({":message-type": "event"}, payload))

    def read() -> None:
        decoder = MessageDecoder()
        messages = [message for at in range(0, len(stream), size) for message in decoder.feed(stream[at : at + size])]
        assert messages[0].payload == payload

    assert peak_traced(read) < 2.5 * len(payload) + 20_000
