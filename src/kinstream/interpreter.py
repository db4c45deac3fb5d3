"""Import guard: raises ImportError outside the main interpreter, before any dependency is imported.

The HTTP library serves only the first interpreter that imports it, so an import in a subinterpreter would disable it in the
main interpreter. The compiled hot path and msgspec also share state across interpreters.
"""

from __future__ import annotations

import importlib
from typing import Any


def in_main_interpreter() -> bool:
    """Return True in the main interpreter of the process, or if this Python does not show which one is running."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # Python 3.13, and before
        try:
            interpreters: Any = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True


if not in_main_interpreter():
    raise ImportError(
        "kinstream works in the main interpreter only, because its dependencies do: with mod_wsgi set "
        "'WSGIApplicationGroup %{GLOBAL}', otherwise import it in the main interpreter or in another process"
    )
