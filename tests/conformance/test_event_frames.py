"""Event-stream frames of other implementations: those of botocore's own tests, which the AWS SDKs share."""

import pytest

from kinstream.aws.event_decoder import HeaderValue, MessageDecoder
from kinstream.errors import UnexpectedResponse

# botocore 1.43, tests/unit/test_eventstream.py: POSITIVE_CASES.
GOOD: list[tuple[bytes, dict[str, HeaderValue], bytes]] = [
    (b"\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2H\xeb}\x98\xc8\xff", {}, b""),
    (b"\x00\x00\x00\x17\x00\x00\x00\x07)\x86\x01X\x04byte\x02\xff\xc2\xf8i\xdc", {"byte": -1}, b""),
    (b"\x00\x00\x00\x19\x00\x00\x00\tq\x0e\x92>\x05short\x03\xff\xff\xb2|\xb6\xcc", {"short": -1}, b""),
    (
        b"\x00\x00\x00\x1d\x00\x00\x00\r\x83\xe3\xf0\xe7\x07integer\x04\xff\xff\xff\xff\x8b\x8e\x12\xeb",
        {"integer": -1},
        b"",
    ),
    (
        b"\x00\x00\x00\x1e\x00\x00\x00\x0e]J\xdb\x8d\x04long\x05\xff\xff\xff\xff\xff\xff\xff\xffK\xc22\xda",
        {"long": -1},
        b"",
    ),
    (b"\x00\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'}\xc3e96", {}, b"{'foo':'bar'}"),
    (
        b"\x00\x00\x00=\x00\x00\x00 \x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1",
        {"content-type": "application/json"},
        b"{'foo':'bar'}",
    ),
    (
        (b"\x00\x00\x00\x62\x00\x00\x00\x52\x03\xb5\xcb\x9c"
        b"\x010\x00\x011\x01\x012\x02\x02\x013\x03\x00\x03"
        b"\x014\x04\x00\x00\x00\x04\x015\x05\x00\x00\x00\x00\x00\x00\x00\x05"
        b"\x016\x06\x00\x05bytes\x017\x07\x00\x04utf8"
        b"\x018\x08\x00\x00\x00\x00\x00\x00\x00\x08\x019\x090123456789abcdef"
        b"\x63\x35\x36\x71"),
        {"0": True, "1": False, "2": 2, "3": 3, "4": 4, "5": 5, "6": b"bytes", "7": "utf8", "8": 8, "9": b"0123456789abcdef"},
        b"",
    ),
    (
        (b"\x00\x00\x00\x52\x00\x00\x00\x42\xbf\x23\x63\x7e"
        b"\x0d:message-type\x07\x00\x05error\x0b:error-code\x07\x00\x04code\x0e:error-message\x07\x00\x07message"
        b"\x6b\x6c\xea\x3d"),
        {":message-type": "error", ":error-code": "code", ":error-message": "message"},
        b"",
    ),
]  # fmt: skip

# The same file: NEGATIVE_CASES.
BAD: dict[str, bytes] = {
    "length": b"\x01\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'}\xc3e96",
    "payload": b"\x00\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'\x8d\xc3e96",
    "headers": (
        b"\x00\x00\x00=\x00\x00\x00 \x07\xfd\x83\x96\x0ccontent+type\x07\x00\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1"
    ),
    "headers' length": (
        b"\x00\x00\x00=\xff\x00\x01\x02\x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1"
    ),
    "header twice": (
        b"\x00\x00\x00\x24\x00\x00\x00\x14\x4b\xb9\x82\xd0\x04test\x04asdf\x04test\x04asdf\xf3\xf4\x75\x63"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("encoded", "headers", "payload"), GOOD)
def test_a_frame_is_read_as_botocore_reads_it(encoded: bytes, headers: dict[str, HeaderValue], payload: bytes) -> None:
    decoder = MessageDecoder()
    (message,) = decoder.feed(encoded)
    decoder.finish()
    assert (message.headers, message.payload) == (headers, payload)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_frames_in_one_stream_are_read_however_it_is_cut(size: int) -> None:
    stream = b"".join(encoded for encoded, _, _ in GOOD)
    decoder = MessageDecoder()
    messages = [m for at in range(0, len(stream), size) for m in decoder.feed(stream[at : at + size])]
    assert [(m.headers, m.payload) for m in messages] == [(headers, payload) for _, headers, payload in GOOD]
    decoder.finish()


@pytest.mark.parametrize("encoded", BAD.values(), ids=BAD)
def test_a_frame_that_botocore_refuses_is_refused(encoded: bytes) -> None:
    with pytest.raises(UnexpectedResponse, match="damaged at frame 0"):
        list(MessageDecoder().feed(encoded))
