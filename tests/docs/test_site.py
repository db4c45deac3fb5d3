"""The site of the documents: its navigation, its API reference, and the checks of the script that builds it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import kinstream

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAVIGATION = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_script", ROOT / "scripts" / "site.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_navigation_has_each_page_once() -> None:
    listed = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", NAVIGATION, re.MULTILINE)
    decisions = set((DOCS / "decisions").glob("0*.md"))  # their index is in the navigation
    pages = sorted(page.relative_to(DOCS).as_posix() for page in set(DOCS.rglob("*.md")) - decisions)
    assert sorted(listed) == pages, "add the page to nav in mkdocs.yml"


def test_api_reference_has_each_public_name_once() -> None:
    named = [
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: kinstream\.(\w+)$", page.read_text(), re.MULTILINE)
    ]
    assert sorted(named) == sorted(kinstream.__all__), "add the name to a page in docs/api"


def test_index_of_decisions_has_each_decision_with_its_title() -> None:
    decisions = sorted((DOCS / "decisions").glob("0*.md"))
    titles = [f"- [{page.read_text().splitlines()[0].removeprefix('# ')}]({page.name})" for page in decisions]
    index = (DOCS / "decisions" / "index.md").read_text()
    assert [line for line in index.splitlines() if line.startswith("- ")] == titles


def test_script_reads_the_public_names_without_importing_them(script: ModuleType) -> None:
    assert script.public_names() == kinstream.__all__


def test_script_reports_a_name_without_an_anchor(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "all.html").write_text('<h2 id="kinstream.Producer">Producer</h2>')
    assert script.faults(tmp_path, ["Producer"]) == []
    assert script.faults(tmp_path, ["Producer", "Consumer"]) == ["no page has the anchor kinstream.Consumer"]


@pytest.mark.parametrize(
    ("element", "foreign"),
    [
        ('<script src="https://example.com/shim"></script>', True),
        ("<script src=//example.com/shim></script>", True),
        ('<script async src="javascripts/search.js"></script>', False),
        ('<link rel="stylesheet" href="https://example.com/font.css">', True),
        ('<link rel="icon" href="assets/favicon.png">', False),
        ('<img alt="a picture" src="http://example.com/picture.png">', True),
        ('<img src="assets/picture.svg">', False),
        ('<a href="https://example.com">another site</a>', False),
    ],
)
def test_script_reports_files_of_other_hosts(script: ModuleType, tmp_path: Path, element: str, foreign: bool) -> None:
    (tmp_path / "index.html").write_text(f"<html>{element}</html>")
    found = script.faults(tmp_path, [])
    assert len(found) == foreign
    assert all(line.startswith("index.html loads <") for line in found)
