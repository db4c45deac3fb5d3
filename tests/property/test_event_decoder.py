"""Frames, whole or damaged: our decoder and botocore's, which shares no line with it, say the same."""

from __future__ import annotations

import itertools
import os
import random
from contextlib import suppress
from struct import pack
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.frames import Typed, frame, raw_frame

from kinstream.aws.event_decoder import Message, MessageDecoder
from kinstream.errors import UnexpectedResponse

FUZZED = int(os.environ.get("KINSTREAM_FUZZED_INPUTS", "20000"))

int64 = st.integers(-(2**63), 2**63 - 1)
values: st.SearchStrategy[Typed] = st.one_of(
    st.tuples(st.sampled_from([0, 1]), st.none()),
    st.tuples(st.just(2), st.integers(-128, 127)),
    st.tuples(st.just(3), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just(4), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.sampled_from([5, 8]), int64),
    st.tuples(st.just(6), st.binary(max_size=300)),
    st.tuples(st.just(7), st.text(max_size=100).map(str.encode)),
    st.tuples(st.just(9), st.binary(min_size=16, max_size=16)),
)
headers = st.dictionaries(st.text(max_size=20), values, max_size=6)
frames = st.lists(
    st.builds(frame, headers, st.one_of(st.binary(max_size=200), st.integers(0, 20000).map(bytes))), max_size=5
)


def theirs(stream: bytes) -> list[tuple[Any, Any]]:
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return [(message.headers, message.payload) for message in buffer]


def ours(pieces: list[bytes]) -> list[Message]:
    decoder = MessageDecoder()
    messages = [message for piece in pieces for message in decoder.feed(piece)]
    decoder.finish()
    return messages


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(frames, st.lists(st.integers(0, 10**6), max_size=20))
def test_frames_are_read_as_botocore_reads_them_however_they_are_cut(frames: list[bytes], places: list[int]) -> None:
    stream = b"".join(frames)
    assert [(m.headers, m.payload) for m in ours(cut(stream, places))] == theirs(stream)


@given(st.lists(st.builds(frame, headers, st.binary(max_size=40)), min_size=1, max_size=3))
def test_a_stream_that_ends_at_any_byte_gives_its_whole_frames_and_then_an_error(frames: list[bytes]) -> None:
    stream = b"".join(frames)
    ends = [sum(map(len, frames[: n + 1])) for n in range(len(frames))]
    for end in range(len(stream)):
        decoder = MessageDecoder()
        messages = list(decoder.feed(stream[:end]))
        assert len(messages) == sum(edge <= end for edge in ends)
        if end in (0, *ends):
            decoder.finish()
        else:
            with pytest.raises(UnexpectedResponse, match="ended within"):
                decoder.finish()


@given(frames.filter(any), st.integers(0), st.integers(1, 255))
def test_a_changed_byte_never_goes_unseen(frames: list[bytes], place: int, change: int) -> None:
    stream = bytearray(b"".join(frames))
    stream[place % len(stream)] ^= change
    whole = theirs(b"".join(frames))
    seen: list[Message] = []
    decoder = MessageDecoder()
    with pytest.raises(UnexpectedResponse):  # noqa: PT012 - damage in a length shows at the end of the stream
        seen += decoder.feed(bytes(stream))
        decoder.finish()
    assert [(m.headers, m.payload) for m in seen] == whole[: len(seen)]


def test_nothing_but_our_error_escapes_whatever_the_bytes() -> None:
    draw = random.Random(20131202)
    refused = 0
    for _ in range(FUZZED):
        stream = _nonsense(draw)
        decoder = MessageDecoder()
        try:
            for piece in cut(stream, [draw.randrange(10**6) for _ in range(draw.randrange(4))]):
                for message in decoder.feed(piece):
                    assert type(message.payload) is bytes
            decoder.finish()
        except UnexpectedResponse:
            refused += 1
            continue
        with suppress(ParserError, UnicodeDecodeError):
            theirs(stream)
    assert FUZZED * 0.5 < refused < FUZZED


def _nonsense(draw: random.Random) -> bytes:
    """Return damaged bytes. In about half of them the checksums match the damage."""
    kind = draw.randrange(5)
    if kind == 0:
        return draw.randbytes(draw.randrange(60))
    if kind == 1:  # headers of any bytes
        return raw_frame(draw.randbytes(draw.randrange(40)), draw.randbytes(draw.randrange(10)))
    if kind == 2:  # lengths that do not fit, and their checksum
        lengths = pack(
            ">II", draw.choice([0, 1, 15, 16, 17, 40, 2**24, 2**32 - 1]), draw.choice([0, 1, 9, 2**17, 2**31])
        )
        return lengths + pack(">I", crc32(lengths)) + draw.randbytes(draw.randrange(60))
    whole = bytearray(frame({":message-type": "event", "uuid": (9, draw.randbytes(16))}, draw.randbytes(9)))
    if kind == 3:
        whole[draw.randrange(len(whole))] = draw.randrange(256)
    return bytes(whole[: draw.randrange(len(whole) + 1)] if draw.random() < 0.3 else whole)
