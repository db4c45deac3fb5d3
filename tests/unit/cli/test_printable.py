"""Untrusted text cannot control a terminal."""

import pytest

from kinstream.cli.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("shardId-000000000000", "shardId-000000000000"),
        ("naïve 雪", "naïve 雪"),
        ("\x1b[2J", r"\x1b[2J"),
        ("one\ntwo\r\t\x00\x7f", r"one\ntwo\r\t\x00\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202edef", r"abc\u202edef"),
        ("lone \ud800", r"lone \ud800"),
    ],
)
def test_non_printable_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
