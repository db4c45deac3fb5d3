"""Messages for common misuse: an unknown option, an object of another style, a delivery in place of its result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args, get_type_hints

from kinstream.errors import UsageError

T = TypeVar("T", bound=type)

_STYLES = ("blocking", "callbacks", "local", "testing")
"""Packages that export their own classes. All other classes are exported by `kinstream`."""

_checked: set[type] = set()
"""The classes with checked options."""


def public_name(kind: type) -> str:
    """Return the name under which a class is imported, such as "kinstream.blocking.Client"."""
    package, *inner = kind.__module__.split(".")
    if package == "builtins":
        return kind.__qualname__
    if package != "kinstream":
        return f"{kind.__module__}.{kind.__qualname__}"
    style = f"{inner[0]}." if inner and inner[0] in _STYLES else ""
    return f"kinstream.{style}{kind.__qualname__}"


# Unknown options.


def checks_options(kind: T) -> T:
    """Let a class name the nearest option when it is given an unknown one: a class decorator."""
    init: Callable[..., None] = kind.__init__  # type: ignore[misc]
    named = frozenset(inspect.signature(init).parameters)

    @wraps(init)
    def checked(self: Any, *arguments: Any, **options: Any) -> None:
        try:
            if not named.issuperset(options):
                _check(kind, init, list(options))
            init(self, *arguments, **options)
        except BaseException:
            del arguments, options  # error trackers show the variables of a traceback's frames
            raise

    kind.__init__ = checked  # type: ignore[misc]
    _checked.add(kind)
    return kind


def _check(kind: type, init: Callable[..., None], options: Iterable[str]) -> None:
    """Check the names of options. Raises TypeError."""
    known = _options(init)
    for name in options:
        if name not in known:
            raise TypeError(f"{public_name(kind)}: unknown option {name!r}. {_advice(known, name)}")


def _advice(own: dict[str, Any], name: str) -> str:
    inner: dict[str, list[str]] = {}
    for option, hint in own.items():
        for group in get_args(hint) or (hint,):
            if option != "client" and isinstance(group, type) and group in _checked:
                for member in _options(vars(group)["__init__"]):
                    inner.setdefault(member, []).append(f"{option}={group.__name__}({member}=...)")
    if name in inner:
        return f"Use {' or '.join(inner[name])}"
    near = get_close_matches(name, own, n=1) or get_close_matches(name, inner, n=1)
    if near:
        return f"Did you mean {' or '.join(inner[near[0]]) if near[0] not in own else near[0] + '=...'}?"
    return f"The options are {', '.join(own)}"


@cache
def _options(init: Callable[..., None]) -> dict[str, Any]:
    """Return the names and types of the arguments that can be given by keyword, those of `**options: Unpack[...]` too."""
    hints = get_type_hints(init)
    found: dict[str, Any] = {}
    for each in inspect.signature(init).parameters.values():
        if each.kind is each.VAR_KEYWORD:
            (options,) = get_args(hints[each.name])
            found |= get_type_hints(options)
        elif each.name != "self":
            found[each.name] = hints.get(each.name)
    return found


# Objects of another style.


class ForAsyncio:
    """An object that `async with` opens. `with` is a TypeError that names the class for threads."""

    if not TYPE_CHECKING:  # a type checker finds the mistake by itself

        def __enter__(self) -> NoReturn:
            raise wrong_style(self, "with")

        def __exit__(self, *_: object) -> None: ...


class ForThreads:
    """An object that `with` opens. `async with` is a TypeError that names the class for asyncio."""

    if not TYPE_CHECKING:

        def __aenter__(self) -> NoReturn:
            raise wrong_style(self, "async with")

        def __aexit__(self, *_: object) -> None: ...


def wrong_style(value: object, used: str) -> TypeError:
    """Return the error for an object in a statement of another style.

    Args:
        value: An instance of a public class, or of a subclass.
        used: "with", "for", "async with", "async for" or "await".
    """
    kind = next(kind for kind in type(value).__mro__ if kind.__module__.startswith("kinstream."))
    name = public_name(kind)
    if used.startswith("a"):
        other = f"kinstream.{kind.__name__}"
        if used == "await":
            return TypeError(
                f"{name} is not for asyncio: call its result() or results(), or put by a kinstream.Producer"
            )
        return TypeError(f"{name} is not for asyncio: use {used.removeprefix('async ')!r}, or {other} with {used!r}")
    return TypeError(f"{name} is for asyncio: use 'async {used}', or kinstream.blocking.{kind.__name__} with {used!r}")


# An object of another process.


def forked(name: str) -> UsageError:
    """Return the error for an object that was used before this process was forked."""
    return UsageError(
        f"{name} was used before this process was forked and cannot be used in it: create the objects of each process after"
        " the fork, or start processes with the 'spawn' or 'forkserver' method of multiprocessing"
    )


# A delivery in place of its result.


def not_a_list(value: object, results: str) -> TypeError:
    """Return the error for an index of several deliveries.

    Args:
        value: The deliveries.
        results: The expression for their results.
    """
    return TypeError(
        f"{public_name(type(value))} is not a list: use {results}[0] for a result, or list(deliveries)[0] for a delivery"
    )


class _OfResult:
    """An attribute that the result has and the delivery has not."""

    def __init__(self, kind: type, name: str, advice: str) -> None:
        self._kind = kind
        self._name = name
        self._advice = advice

    def __get__(self, delivery: object, kind: type) -> _OfResult:
        if delivery is None:
            return self
        text = f"{public_name(self._kind)} has no {self._name}: {self._advice.format(name=self._name)}"
        raise AttributeError(text, name=self._name, obj=None)  # with obj, Python would append a suggestion of its own


def has_not(kind: type, names: tuple[str, ...], advice: str) -> None:
    """Let a class explain attributes that it does not have.

    Descriptors cost nothing elsewhere. `__getattr__` would slow down every attribute of the class.

    Args:
        kind: The class.
        names: The attributes. Those that it has are left alone.
        advice: The expression to use instead; {name} is replaced.
    """
    for name in names:
        if not hasattr(kind, name):
            setattr(kind, name, _OfResult(kind, name, advice))
