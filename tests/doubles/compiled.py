"""The compiled hot path for tests that need it, whichever one the package itself was told to use."""

from __future__ import annotations

import importlib

import pytest

from kinstream.speed import Compiled


def compiled_or_skip() -> Compiled:
    """Return it; skip the whole module that asks where it is not built."""
    try:
        module: Compiled = importlib.import_module("kinstream._speed")
    except ImportError as error:
        pytest.skip(f"the compiled hot path is not built here: {error}", allow_module_level=True)
    return module
