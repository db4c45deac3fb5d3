"""Checks that an extra is installed, such as `kinstream[local]` for `kinstream.local` and `kinstream demo`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MODULES = frozenset({"cryptography", "h11", "h2", "hpack", "hypercorn", "hyperframe", "priority", "rich", "wsproto"})
"""Top-level modules installed by `kinstream[local]` and its dependencies. The library itself needs none of them."""


class ExtraMissing(ModuleNotFoundError):
    """A module of an extra, such as `kinstream[local]`, is not installed."""


def missing_extra(what: str, module: str, extra: str) -> ExtraMissing:
    """Return the error for a module that is not installed.

    Args:
        what: Part of kinstream that needs it.
        module: The module.
        extra: The extra that installs it.
    """
    return ExtraMissing(f"{what} needs {module}, which is not installed: pip install 'kinstream[{extra}]'", name=module)


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
        raise missing_extra(what, str(error.name), "local") from error
