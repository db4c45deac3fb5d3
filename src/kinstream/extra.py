"""Check that the extra `kinstream[local]` is installed, for `kinstream.local` and `kinstream demo`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MODULES = frozenset({"cryptography", "h11", "h2", "hpack", "hypercorn", "hyperframe", "priority", "rich", "wsproto"})
"""Top-level modules installed by `kinstream[local]` and its dependencies. The library itself needs none of them."""


class ExtraMissing(ModuleNotFoundError):
    """A module of `kinstream[local]` is not installed."""


@contextmanager
def needs_local(what: str) -> Iterator[None]:
    """Context manager for imports of packages that `kinstream[local]` installs.

    Args:
        what: Part of kinstream that needs them, for the message.

    Raises:
        ExtraMissing: A module of the extra is not installed.
        ModuleNotFoundError: Another module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        installed = error.name is not None and error.name.partition(".")[0] in MODULES
        if isinstance(error, ExtraMissing) or not installed:
            raise
        raise ExtraMissing(
            f"{what} needs {error.name}, which is not installed: pip install 'kinstream[local]'", name=error.name
        ) from error
