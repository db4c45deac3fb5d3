"""Refuses to be imported outside the main interpreter, before any dependency is loaded there.

The HTTP library serves the first interpreter that imports it and refuses all others, so an import elsewhere could take it away
from the main interpreter. The compiled hot path and msgspec share state across interpreters too.
"""

from __future__ import annotations

import importlib
from typing import Any


def in_main_interpreter() -> bool:
    """Return True in the main interpreter of the process, or if this Python does not show which one it is."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # Python 3.13, and before
        try:
            interpreters: Any = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True


if not in_main_interpreter():
    raise ImportError(
        "kinstream works in the main interpreter only, because its dependencies do: in mod_wsgi set "
        "'WSGIApplicationGroup %{GLOBAL}', elsewhere import it in the main interpreter or in another process"
    )
