"""Which hot path runs, and that the pure one is whole."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from kinstream import Consumer, Producer, speed  # noqa: F401 - all functions with twins

ROOT = Path(__file__).parents[2]
CORE = ["tests/unit/aws/test_codec.py", "tests/unit/aws/test_kinesis.py", "tests/conformance/test_codec.py"]
"""Tests that go through every function that compiled code may replace."""


def python(*arguments: str, pure: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KINSTREAM_PURE": pure}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


def test_the_core_of_the_tests_passes_without_compiled_code() -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE, pure="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_version_shows_which_path_runs() -> None:
    assert "(pure Python)" in python("-m", "kinstream", "--version", pure="1").stdout
    expected = "(pure Python)" if built_path() is None else "(compiled hot path)"
    assert expected in python("-m", "kinstream", "--version", pure="").stdout


def test_it_is_built_wherever_it_can_be() -> None:
    headers = Path(sysconfig.get_path("include"), "Python.h")
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    if not headers.exists() or shutil.which(compiler) is None or sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("no C compiler, no headers of Python, or a free-threaded Python: there is nothing to build with")
    assert built_path() is not None


def test_each_function_has_one_twin() -> None:
    def total_size() -> None:
        """Have the name of another function with a compiled twin."""

    assert "total_size" in speed.TWINS
    with pytest.raises(ValueError, match="total_size: the compiled function of this name has a twin already"):
        speed.accelerated(total_size)


def test_function_without_a_compiled_twin_of_its_name_stays_as_it_is() -> None:
    def not_compiled() -> int:
        return 7

    try:
        assert speed.accelerated(not_compiled) is not_compiled
    finally:
        del speed.TWINS["not_compiled"]


def built_path() -> str | None:
    """Return where a Python that may use compiled code finds that code."""
    code = "import importlib.util as u; s = u.find_spec('kinstream._speed'); print(s.origin if s else '')"
    return python("-c", code, pure="").stdout.strip() or None
