"""Both type checkers accept the typical uses and refuse every misuse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
USES, MISUSES = HERE / "uses.py", HERE / "misuses.py"
CHECKERS = {"mypy": ["mypy", "--strict", "--no-error-summary"], "pyright": ["pyright", "--pythonpath", sys.executable]}


def errors(checker: str, *files: Path) -> list[tuple[str, int]]:
    """Return file and line of each error that a type checker reports."""
    environment = os.environ | {"MYPYPATH": "src"}
    command = [sys.executable, "-m", *CHECKERS[checker], *map(str, files)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    found = re.findall(r"([\w.]+\.py):(\d+)(?::\d+)?(?: -)?:? error", ran.stdout)
    assert (ran.returncode, bool(found)) in {(0, False), (1, True)}, ran.stdout + ran.stderr
    return sorted({(name, int(line)) for name, line in found})


@pytest.mark.parametrize("checker", CHECKERS)
def test_uses_are_accepted_and_misuses_are_refused(checker: str, tmp_path: Path) -> None:
    right = tmp_path / "right_use_as_misuse.py"
    right.write_text(
        "# pyright: reportUnnecessaryTypeIgnoreComment=true\n"
        "from kinstream import Consumer, Producer\n"
        "async def write(producer: Producer) -> None:\n"
        "    await producer.put({'a': 1}, 'key')  # type: ignore[arg-type]\n"
        "    Consumer('s', start='LATEST')  # type: ignore[arg-type]\n"
        "    await producer.put((b'x', 'key'))\n"
    )
    # The third file shows that the first two could fail: accepted misuses and refused uses are reported.
    assert errors(checker, USES, MISUSES, right) == [(right.name, 4), (right.name, 5), (right.name, 6)]
