"""The list of planted faults (`make planted-faults`) fits the source and the tests."""

from __future__ import annotations

import ast
import runpy
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = runpy.run_path(str(ROOT / "scripts" / "planted_faults.py"))["FAULTS"]


def test_each_planted_fault_changes_one_place_of_the_source() -> None:
    for fault in FAULTS:
        source = (ROOT / fault.path).read_text()
        assert source.count(fault.old) == 1, (
            f"{fault.name}: {fault.path} has the old text {source.count(fault.old)} times"
        )
        ast.parse(source.replace(fault.old, fault.new))


def test_the_tests_that_find_planted_faults_exist() -> None:
    for fault in FAULTS:
        path, _, name = fault.found_by.partition("::")
        assert f"def {name}" in (ROOT / path).read_text(), fault.name


def test_planted_faults_have_different_names() -> None:
    assert not [name for name, count in Counter(fault.name for fault in FAULTS).items() if count > 1]
    assert len(FAULTS) >= 14
