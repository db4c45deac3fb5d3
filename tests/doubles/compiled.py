"""The extension module, for tests that call compiled functions directly."""

from __future__ import annotations

import importlib
from typing import Any

import pytest


def compiled_or_skip() -> Any:
    """Import the extension module, also if `KINSTREAM_PURE` disables it. Skip the calling test module if it is not built."""
    try:
        return importlib.import_module("kinstream._speed")
    except ImportError as error:
        pytest.skip(f"kinstream._speed is not built: {error}", allow_module_level=True)
