"""docs/DESIGN.md names the modules that there are, and only code that exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from kinstream.consume.shard.lifecycle import TABLE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "DESIGN.md"
OWN = re.compile(
    r"https://github\.com/kinstream/kinstream/(?:blob|tree)/main/|https://raw\.githubusercontent\.com/kinstream/kinstream/main/"
)
"""Addresses that lead to a file of this repository."""


def generator(name: str) -> ModuleType:
    """Return the script in docs/ that writes a part of the page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["file_map", "lifecycle"])
def test_generated_parts_of_the_design_are_current(name: str) -> None:
    assert generator(name).updated(PAGE.read_text()) == PAGE.read_text(), f"run: python docs/{name}.py"


def test_picture_of_the_lifecycle_has_every_transition_of_the_table() -> None:
    drawn = PAGE.read_text().split("<!-- lifecycle of a shard -->")[1]
    arrows = re.findall(r"^([A-Z_]+) +--([A-Z_, ]+)-+> ([A-Z_]+)$", drawn, re.MULTILINE)
    table = {(state, then, transition) for state, row in TABLE.items() for transition, then in row.items()}
    assert {(before, then, name) for before, names, then in arrows for name in names.split(", ")} == table


def test_code_that_the_design_names_exists() -> None:
    found = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py):([A-Za-z_.]+)`", PAGE.read_text())
    assert len(found) > 10
    for path, name in found:
        text = (ROOT / "src" / "kinstream" / path).read_text()
        for part in name.split("."):
            assert re.search(rf"\b(def|class) {part}\b", text), f"{path} has no {name}"


def test_classes_and_members_that_the_design_names_exist() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.*") if path.suffix in {".py", ".c", ".h"})
    spans = re.findall(r"`(_?[A-Z]\w*(?:\.\w+)*)`", PAGE.read_text().split("<!-- file map -->")[0])
    assert len(spans) > 50
    assert [span for span in spans for name in span.split(".") if not re.search(rf"\b{name}\b", source)] == []


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changelog.d").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if own := OWN.match(target):
                assert (ROOT / target[own.end() :]).exists(), f"{page.name} links to {target}"
            elif "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_links_of_the_readme_work_outside_the_repository() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith("https://")] == []
