"""Build the documents into site/, and fail on any warning, missing anchor, or file that a page would load from another host."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
COLOR = re.compile(r"\x1b\[[0-9;]*m")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=["']?(?:https?:)?//|<link\b[^>]*?\bhref=["']?(?:https?:)?//"""
)
"""Elements that make a browser load a file of another host with the page."""


def build() -> list[str]:
    """Build the site, and return the lines that Zensical and griffe print about faults."""
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = COLOR.sub("", run.stdout).splitlines()
    if run.returncode or any(line.startswith(("Warning", "griffe:")) for line in lines):
        return lines or [f"zensical ended with status {run.returncode}"]
    return []


def public_names() -> list[str]:
    """Return `kinstream.__all__` without importing it: the environment of the site lacks its dependencies."""
    tree = ast.parse((ROOT / "src" / "kinstream" / "__init__.py").read_text(encoding="utf-8"))
    (names,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    return list(ast.literal_eval(names))


def faults(site: Path, names: list[str]) -> list[str]:
    """Return the faults of the built pages: missing anchors of public names, and files of other hosts."""
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    anchors = {anchor for page in pages.values() for anchor in re.findall(r'\bid="?([\w.]+)', page)}
    missing = [f"no page has the anchor kinstream.{name}" for name in names if f"kinstream.{name}" not in anchors]
    return missing + [f"{name} loads {found[0]}" for name, page in pages.items() for found in LOADED.finditer(page)]


def main() -> int:
    """Build and check. Return the status of the process."""
    found = build() or faults(SITE, public_names())
    print("\n".join(found) if found else f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
