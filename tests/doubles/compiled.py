"""The compiled functions, for tests that compare them with their twins in pure Python."""

from __future__ import annotations

from typing import Any

import pytest

from kinstream import speed


def compiled_or_skip() -> Any:
    """Return the extension module. Skips the module that calls this if the package runs in pure Python."""
    if speed.compiled is None:
        pytest.skip("the package runs in pure Python", allow_module_level=True)
    return speed.compiled
