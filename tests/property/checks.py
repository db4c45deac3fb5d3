"""Registry of checks: each compares a function in pure Python with the one that is bound. `test_speed_twins.py` runs them.

With `KINSTREAM_PURE=1` both are the same function, and the checks only exercise the pure code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kinstream.speed import TWINS

C = TypeVar("C", bound=Callable[[], object])

CHECKS: dict[str, list[Callable[[], object]]] = {}
"""The checks of each compiled function, by its name."""


def checks(*names: str) -> Callable[[C], C]:
    """Register a check of the compiled functions with these names. The check fails by an exception."""

    def registered(check: C) -> C:
        for name in names:
            CHECKS.setdefault(name, []).append(check)
        return check

    return registered


def pure(name: str) -> Callable[..., Any]:
    """Return the function in pure Python that a compiled twin replaces."""
    return TWINS[name].pure
