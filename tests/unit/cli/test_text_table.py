"""Tables of text fit the terminal, and data cannot control it."""

from __future__ import annotations

import pytest

from kinstream.cli.text_table import shortened, table

ROWS = [("a", "1234567890" * 4), ("bb", "x\x1b[31m")]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("ID", "NAME"), [("a", "b"), ("ccc", "d")], None) == ["ID   NAME", "a    b", "ccc  d"]


def test_long_cells_are_shortened_in_the_middle_to_fit() -> None:
    lines = table(("ID", "NAME"), ROWS, 24)
    assert lines == ["ID  NAME", "a   123456789...34567890", "bb  x\\x1b[31m"]
    assert max(map(len, lines)) == 24


def test_columns_are_not_shortened_to_nothing() -> None:
    lines = table(("ID", "NAME"), ROWS, 5)
    assert lines[1] == "a   12345...7890"


def test_control_characters_are_escaped() -> None:
    assert "\x1b" not in "\n".join(table(("ID", "NAME"), ROWS, None))


@pytest.mark.parametrize(("width", "shown"), [(10, "abcdefghij"), (9, "abc...hij"), (8, "abc...ij")])
def test_shortened_text_keeps_both_ends(width: int, shown: str) -> None:
    assert shortened("abcdefghij", width) == shown
