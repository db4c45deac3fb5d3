"""The extra that `kinstream.local` and `kinstream demo` need, and how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MODULES = frozenset({"cryptography", "h11", "h2", "hpack", "hypercorn", "hyperframe", "priority", "rich", "wsproto"})
"""Top-level modules that `kinstream[local]` installs, with its dependencies. The library itself needs none of them."""


class ExtraMissing(ModuleNotFoundError):
    """A module is missing that `kinstream[local]` installs."""


@contextmanager
def needs_local(what: str) -> Iterator[None]:
    """Import the packages that `kinstream[local]` installs.

    Args:
        what: The part of kinstream that needs it, for the message.

    Raises:
        ExtraMissing: A module is missing that the extra installs.
        ModuleNotFoundError: Another module is missing.
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
