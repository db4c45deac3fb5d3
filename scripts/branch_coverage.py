"""Measure the branch coverage of the tests, and require 100 % for the pure modules.

Runs the unit, property and conformance tests, or those that are named, in pure Python, so that nothing runs in C. Prints the
share that the tests reached, and exits with 1 if it is below 100 % for a pure module (`PURE` in
tests/architecture/test_architecture.py).
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "build" / "coverage"
TESTS = ["tests/unit", "tests/property", "tests/conformance"]


def main(tests: list[str]) -> int:
    """Run the tests and print the report. Return the exit status."""
    DATA.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "KINSTREAM_PURE": "1", "COVERAGE_FILE": str(DATA / "data")}
    coverage = [sys.executable, "-m", "coverage"]
    command = [*coverage, "run", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(tests or TESTS)]
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if status:
        return status
    subprocess.run([*coverage, "json", "-q", "-o", str(DATA / "report.json")], cwd=ROOT, env=environment, check=True)
    return report(json.loads((DATA / "report.json").read_text())["files"])


def report(files: dict[str, Any]) -> int:
    """Print the coverage of each folder's modules, then what is missing in pure ones. Return the exit status."""
    pure = runpy.run_path(str(ROOT / "tests" / "architecture" / "test_architecture.py"))["PURE"]
    totals: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    measured = set()
    short = []
    for path, found in sorted(files.items()):
        module = path.partition("kinstream/")[2].removesuffix(".py").replace("/", ".")
        measured.add(module)
        summary = found["summary"]
        groups = ["pure modules"] if module in pure else ["all others", f"  {module.rpartition('.')[0] or 'kinstream'}"]
        for group in groups:
            totals[group][0] += summary["covered_lines"] + summary["covered_branches"]
            totals[group][1] += summary["num_statements"] + summary["num_branches"]
        if module in pure and (found["missing_lines"] or found["missing_branches"]):
            branches = [f"{start}->{'exit' if end < 0 else end}" for start, end in found["missing_branches"]]
            short.append(f"{path}: lines {found['missing_lines']}, branches {', '.join(branches) or 'none'}")
    print("\nlines and branches reached:")
    for group, (reached, there) in sorted(
        totals.items(), key=lambda total: (total[0] != "pure modules", total[0][:1] == " ")
    ):
        if there:  # some folders have no code but in pure modules
            print(f"{reached / there:7.2%}  {group}")
    short += [f"{module}: not measured" for module in sorted(pure - measured)]
    if short:
        print("\npure modules must have 100 %. Not reached:", *short, sep="\n")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
