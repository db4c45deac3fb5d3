"""The entry points of pyproject.toml as an installed distribution, also if the environment is older than they are."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def path_with_entry_points(folder: Path) -> str:
    """Write the metadata of a distribution with the entry points into a folder. Returns the `PYTHONPATH` that has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = folder / "kinstream_entry_points-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kinstream_entry_points\nVersion: 1\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n{name} = {target}\n" for group, points in groups for name, target in points.items()]
    (metadata / "entry_points.txt").write_text("".join(lines))
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
