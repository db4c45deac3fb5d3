"""docs/options.md has every option and every event, as their docstrings say."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import kinstream
from kinstream import config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def module() -> Any:
    spec = importlib.util.spec_from_file_location("options", ROOT / "docs" / "options.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_options_page_is_current(module: Any) -> None:
    assert module.page() == module.PAGE.read_text(), "run: python docs/options.py"
    assert module.groups() == {name for name, group in vars(config).items() if dataclasses.is_dataclass(group)}


@pytest.mark.parametrize("owner", ["Producer", "Consumer", "Client"])
def test_the_options_page_has_every_argument_of_a_constructor(module: Any, owner: str) -> None:
    _, _, section = module.PAGE.read_text().partition(f"\n## {owner}\n")
    table, _, _ = section.partition("\n### ")
    arguments = set(inspect.signature(getattr(kinstream, owner)).parameters) - module.INTERNAL - {"options"}
    assert arguments == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
