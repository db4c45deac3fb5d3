"""docs/options.md has every option and every event, as their docstrings say."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from kinstream import config

ROOT = Path(__file__).parents[2]


def test_the_options_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("options", ROOT / "docs" / "options.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == module.PAGE.read_text(), "run: python docs/options.py"
    assert module.groups() == {name for name, group in vars(config).items() if dataclasses.is_dataclass(group)}
