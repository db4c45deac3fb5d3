"""CHANGELOG.md: each new name in its table of renamed names exists, and each old one does not."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import kinstream
from kinstream import blocking, callbacks
from kinstream.local.control.control_address import Every, Next

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CHANGELOG.md").read_text()
NAMES = TEXT.partition("### Public names that changed")[2].partition("\n###")[0]
ROWS = [
    (where, old.removesuffix("="), new.removesuffix("="))
    for where, old, new in re.findall(r"^\| (.+?) \| `([^`]+)` \| `([^`]+)` \|$", NAMES, re.MULTILINE)
]
CLASSES = {"Producer", "Consumer", "Client"}
ELSEWHERE = {"`kinstream local`", "control address, path", "control address, member"}


def homes(where: str) -> list[Any]:
    """Return the modules, classes or methods that a row is about."""
    name = where.strip("`")
    if name in CLASSES:
        return [getattr(style, name) for style in (kinstream, blocking, callbacks) if hasattr(style, name)]
    if not name.startswith("kinstream"):
        return [attrgetter(name)(kinstream)]
    module, _, last = name.rpartition(".")
    return [getattr(import_module(module), last)] if last[:1].isupper() else [import_module(name)]


def has(home: Any, name: str) -> bool:
    """Return whether a module has an attribute, a class an attribute or an argument, or a method an argument."""
    if inspect.ismodule(home):
        return hasattr(home, name)
    if inspect.isfunction(home):
        return name in inspect.signature(home).parameters
    if home.__name__ in CLASSES:
        return name in kinstream.usage._options(home.__init__)
    return hasattr(home, name) or name in inspect.signature(home).parameters


def test_each_line_of_the_table_is_a_row_of_one_name() -> None:
    lines = [line for line in NAMES.splitlines() if line.startswith("|")][2:]
    assert len(lines) == len(ROWS)
    assert [row for row in ROWS if re.search(r"[ ,()]", row[1] + row[2])] == []


@pytest.mark.parametrize(("where", "old", "new"), [row for row in ROWS if row[0] not in ELSEWHERE])
def test_new_name_exists_and_old_name_does_not(where: str, old: str, new: str) -> None:
    for home in homes(where):
        assert has(home, new)
        assert not has(home, old)


@pytest.mark.parametrize(("old", "new"), [row[1:] for row in ROWS if row[0] == "`kinstream local`"])
def test_command_has_the_new_option_only(old: str, new: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "kinstream", "local", "--help"], check=True, capture_output=True, text=True
    )
    options = re.findall(r"--[a-z-]+", run.stdout)
    assert new in options
    assert old not in options


@pytest.mark.parametrize(("old", "new"), [row[1:] for row in ROWS if row[0].startswith("control address")])
def test_control_address_is_documented_with_the_new_name_only(old: str, new: str) -> None:
    page = (ROOT / "docs" / "local-control.md").read_text()
    assert re.search(rf"\b{new.lstrip('/')}\b", page)
    assert not re.search(rf"[`/]{old.lstrip('/')}\b", page)
    if not old.startswith("/") and new != "interceptions":
        assert new in Every.__struct_fields__
        assert old not in Next.__struct_fields__
