"""Messages of the demo's workers pass through a pipe, and an incomplete one is recognized."""

from __future__ import annotations

from kinstream.cli.demo.fleet.message import Assigned, Completed, Handled, Message, Released, decode, encode

MESSAGES: list[Message] = [
    Assigned(1.5, "0"),
    Handled(2.0, "0", "key\n", b"\x00\xff\n"),
    Released(3.0, "0"),
    Completed(4.0, "0"),
]


def test_each_message_is_one_line() -> None:
    lines = encode(MESSAGES).splitlines(keepends=True)
    assert [decode(line) for line in lines] == MESSAGES


def test_an_incomplete_line_of_a_killed_worker_is_no_message() -> None:
    assert decode(encode(MESSAGES[1:2])[:-1]) is None
    assert decode(b"") is None
