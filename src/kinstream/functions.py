"""Checks of the functions that an application passes: they are called as plain functions, or awaited."""

from __future__ import annotations

from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

from kinstream.errors import ConfigError


def unsuitable(function: Any, *, may_be_async: bool) -> str | None:
    """Return the kind of a function whose body would never run if it were called as a plain function; None otherwise."""
    while isinstance(function, partial):
        function = function.func
    for each in (function, getattr(function, "__call__", None)):  # noqa: B004 - it may be a coroutine function
        if isgeneratorfunction(each) or isasyncgenfunction(each):
            return "generator function"
        if iscoroutinefunction(each) and not may_be_async:
            return "coroutine function"
    return None


def function(field: str, value: Any, expected: str, *, may_be_async: bool = False) -> None:
    """Check that `value` is a function whose body runs when it is called, or awaited with `may_be_async`.

    Raises:
        ConfigError: It is not. The message names the type, or the kind of the function.
    """
    kind = unsuitable(value, may_be_async=may_be_async) if callable(value) else type(value).__name__
    if kind is not None:
        never = ", whose body would never run" if callable(value) else ""
        raise ConfigError(f"{field}: must be {expected}, not {'a ' if never else ''}{kind}{never}")
