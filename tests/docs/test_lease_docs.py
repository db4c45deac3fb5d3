"""docs/leases.md has every option of the commands and every member of their JSON, as the code defines them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def module() -> Any:
    spec = importlib.util.spec_from_file_location("leases", ROOT / "docs" / "leases.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_current(module: Any) -> None:
    assert module.page() == module.PAGE.read_text(), "run: python docs/leases.py"


def test_each_option_of_the_page_is_in_the_help_of_its_command(module: Any) -> None:
    parsers = module.parsers()
    assert parsers.keys() == {"leases show", "leases release", "leases reset", "lag", "iam"}
    for name, parser in parsers.items():
        command = [sys.executable, "-m", "kinstream", *name.split(), "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert all(option in shown for action in parser._actions for option in action.option_strings)
