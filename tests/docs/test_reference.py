"""docs/reference.md: each row names its proof, and each proof is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import kinstream

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reference.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| the reference")]
PROOF = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
PROOFS = sorted({found.groups() for found in PROOF.finditer(PAGE)})


def named_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }


def test_each_row_names_a_proof() -> None:
    assert len(ROWS) > 100
    assert [row for row in ROWS if not PROOF.search(row.rsplit("|", 2)[1])] == []


@pytest.mark.parametrize("file", sorted({file for file, _ in PROOFS}))
def test_each_proof_is_there(file: str) -> None:
    there = named_in(TESTS / file)
    assert [name for of, name in PROOFS if of == file and name not in there] == []


def test_each_name_of_kinstream_in_the_table_is_there() -> None:
    names = set(re.findall(r"`kinstream\.(\w+)`", PAGE)) - {"callbacks"}
    assert len(names) >= 5
    assert [name for name in names if not hasattr(kinstream, name)] == []
