"""docs/logging.md names every logger, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_names_every_logger() -> None:
    used = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r'getLogger\("([\w.]+)"\)', path.read_text(encoding="utf-8"))
    }
    table = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8").split("## ")[0]
    assert set(re.findall(r"`(kinstream[\w.]*)`", table)) == used
