"""Paths into JSON documents."""

from __future__ import annotations

from typing import Any

import pytest

from kinstream.cli.records.json_path import json_path

DOCUMENT = {"user": {"id": 7, "na-me": "Ada", "a b": None}, "items": [{"n": 1}, {"n": 2}], "ok": True, "level": "ERROR"}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", [DOCUMENT]),
        ("$.user.id", [7]),
        ("user.id", [7]),
        ("user.na-me", ["Ada"]),
        ("$.user['a b']", [None]),
        ('$["user"]["id"]', [7]),
        ("items[0].n", [1]),
        ("items[-1].n", [2]),
        ("items[*].n", [1, 2]),
        ("$.items.*.n", [1, 2]),
        ("items[2].n", []),
        ("user.id.more", []),
        ("nowhere", []),
    ],
)
def test_path_has_the_values_of_the_document(path: str, found: list[Any]) -> None:
    assert list(json_path(path).found(DOCUMENT)) == found
    assert json_path(path).matches(DOCUMENT) is bool(found)


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("user.id = 7", True),
        ("user.id==7", True),
        ("user.id != 7", False),
        ("user.id = '7'", False),
        ("$.user.id >= 7", True),
        ("$.user.id < 7", False),
        ("$.level = ERROR", True),
        ('$.level = "ERROR"', True),
        ("$.level > A", True),
        ("$.level > 3", False),
        ("$.ok = true", True),
        ("$.ok = 1", False),
        ("items[*].n = 2", True),
        ("user['a b'] = null", True),
        ("nowhere != 1", False),
    ],
)
def test_comparison_holds_for_a_value_at_the_path(path: str, matches: bool) -> None:
    assert json_path(path).matches(DOCUMENT) is matches


@pytest.mark.parametrize(
    "text", ["", " ", ".", ".a", "a.", "a b", "a[", "a[x]", "a..b", "a =", "$x", "= 1", "a[99999999999]"]
)
def test_text_that_is_not_a_path_is_refused_with_the_valid_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a path such as \$\.user\.id"):
        json_path(text)
