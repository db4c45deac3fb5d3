"""Modules of engines without their engine: the import names the extra to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("engine", ["dlt", "ray"])
def test_import_without_the_engine_names_its_extra(engine: str) -> None:
    program = f"import sys; sys.modules[{engine!r}] = None; import kinstream.{engine}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    last = result.stderr.strip().splitlines()[-1]
    assert last == (
        f"kinstream.extra.ExtraMissing: kinstream.{engine} needs {engine}, which is not installed:"
        f" pip install 'kinstream[{engine}]'"
    )
