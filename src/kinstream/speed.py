"""Binding of compiled functions (`kinstream._speed`) in place of their twins in pure Python, which define the behavior.

`kinstream._speed` is built with the package if a C compiler is available. All features work without it. The environment variable
`KINSTREAM_PURE=1` disables it, and `kinstream --version` shows whether it is used.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])


class Twin(NamedTuple):
    """A function in pure Python that has a compiled twin of the same name and parameters.

    Attributes:
        pure: The function in pure Python.
        may_decline: True if the compiled function returns None for input outside its fast path, such as an unusual record. The
            pure function then computes the result, and raises the errors. False if both return the same for every input.
    """

    pure: Callable[..., Any]
    may_decline: bool


TWINS: dict[str, Twin] = {}
"""The functions that have a compiled twin, by name. Complete once all modules that have one are imported."""


@overload
def accelerated(pure: F, /) -> F: ...


@overload
def accelerated(*, may_decline: bool) -> Callable[[F], F]: ...


def accelerated(pure: Any = None, /, *, may_decline: bool = False) -> Any:
    """Bind the compiled twin of a function in its place, if `kinstream._speed` is used.

    The compiled function itself is bound, because a wrapper would be most of the cost of a small function. Only a function that
    may decline gets a wrapper.

    Args:
        pure: The function, as a decorator without arguments. Its name is that of the compiled function.
        may_decline: True if the compiled function may return None, for input that the pure function must handle.
    """

    def bound(function: F) -> F:
        name = function.__name__
        if name in TWINS:
            raise ValueError(f"{name}: the compiled function of this name has a twin already")
        TWINS[name] = Twin(function, may_decline)
        twin = getattr(compiled, name, None)
        if twin is None:
            return function
        return _or_pure(twin, function) if may_decline else twin

    return bound if pure is None else bound(pure)


def _or_pure(twin: Callable[..., Any], pure: F) -> F:
    """Return a function that calls the pure function if its compiled twin declines."""

    @wraps(pure)
    def either(*arguments: Any) -> Any:
        found = twin(*arguments)
        return pure(*arguments) if found is None else found

    return either  # type: ignore[return-value]


def _load() -> Any:
    """Return the extension module, or None if it is disabled or not built for this interpreter."""
    if os.environ.get("KINSTREAM_PURE"):
        return None
    try:
        return importlib.import_module("kinstream._speed")
    except ImportError:
        return None


compiled: Any = _load()
"""The extension module, or None if the pure Python is used."""
