"""Names of the fan-out consumers that `kinstream tail` registers, and deregisters at its end. Pure."""

from __future__ import annotations

import re

PREFIX = "kinstream-tail-"
"""Beginning of the names. 12 random hexadecimal digits follow."""
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")


def is_of_tail(name: str) -> bool:
    """Return True if a consumer of this name was registered by `kinstream tail`."""
    return _NAME.fullmatch(name) is not None
