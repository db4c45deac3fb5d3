"""Error messages for common misuse: a misplaced option, an object of another style, a delivery used as its result.

Type checkers find these mistakes by themselves and see none of this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from difflib import get_close_matches
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from kinstream.errors import UsageError

T = TypeVar("T", bound=type)

_STYLES = ("blocking", "callbacks", "local", "testing")
"""Packages that export their own classes. `kinstream` exports all other classes."""

_checked: set[type] = set()
"""Classes whose options are checked."""


def public_name(kind: type) -> str:
    """Return the name under which a class is imported, such as "kinstream.blocking.Client"."""
    package, *inner = kind.__module__.split(".")
    if package == "builtins":
        return kind.__qualname__
    if package != "kinstream":
        return f"{kind.__module__}.{kind.__qualname__}"
    style = f"{inner[0]}." if inner and inner[0] in _STYLES else ""
    return f"kinstream.{style}{kind.__qualname__}"


# Misplaced and unknown options.


def checks_options(kind: T) -> T:
    """Decorate a class so that an unknown option raises a TypeError that says where the option belongs."""
    init: Callable[..., None] = kind.__init__  # type: ignore[misc]
    named = frozenset(inspect.signature(init).parameters)

    @wraps(init)
    def checked(self: Any, *arguments: Any, **options: Any) -> None:
        problem = "" if named.issuperset(options) else _problem(init, options)
        try:
            if problem:
                raise TypeError(f"{public_name(kind)}: {problem}")  # noqa: TRY301 - the variables are deleted below
            init(self, *arguments, **options)
        except BaseException:
            del arguments, options  # error trackers show the variables of a traceback's frames
            raise

    kind.__init__ = checked  # type: ignore[misc]
    _checked.add(kind)
    return kind


def _problem(init: Callable[..., None], options: dict[str, Any]) -> str:
    """Return the problem of the first unknown option, or "". Raises nothing, because its variables may hold secrets."""
    known = _options(init)
    return next((_advice(known, name, value) for name, value in options.items() if name not in known), "")


def _advice(own: dict[str, Any], name: str, value: Any) -> str:
    """Return where an unknown option belongs, else the option that was most likely meant, else all options."""
    homes = _homes(own)
    if name in homes:
        used = [f"of {group.__name__}: {_call(option, group, name, value)}" for option, group in homes[name]]
        return f"{name} is an option {_listed(used)}"
    unknown = f"unknown option {name!r}."
    near = _nearest(name, own) or _nearest(name, homes)
    if not near:
        return f"{unknown} The options are {', '.join(own)}"
    if near[0] in own:
        return f"{unknown} Did you mean {near[0]}=...?"
    return f"{unknown} Did you mean {' or '.join(f'{o}={g.__name__}({near[0]}=...)' for o, g in homes[near[0]])}?"


def _nearest(name: str, known: Collection[str]) -> list[str]:
    """Return the known name that contains a name, else the one that is most like it, in a list. Empty if none is like it."""
    containing = [each for each in known if len(name) > 3 and name in each]
    return containing[:1] or get_close_matches(name, known, n=1, cutoff=0.7)


def _homes(own: dict[str, Any]) -> dict[str, list[tuple[str, type]]]:
    """Return, for each option of the option groups that a class takes, the class's option and the group."""
    homes: dict[str, list[tuple[str, type]]] = {}
    for option, hint in own.items():
        for group in get_args(hint) or (hint,):
            if option != "client" and isinstance(group, type) and group in _checked:
                for member in _options(vars(group)["__init__"]):
                    homes.setdefault(member, []).append((option, group))
    return homes


def _call(option: str, group: type, name: str, value: Any) -> str:
    """Return the expression that passes an option by its group."""
    return f"{option}={group.__name__}({name}={_shown(group, name, value)})"


def _shown(group: type, name: str, value: Any) -> str:
    """Return a value as text if it is a number or a literal of the option. Other values may be secrets, so they become "..."."""
    if group.__name__ == "Credentials":
        return "..."
    if value.__class__ in (bool, int, float):
        return repr(value)
    hint = _options(vars(group)["__init__"])[name]
    literals = [each for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal for each in get_args(kind)]
    return f'"{value}"' if value.__class__ is str and value in literals else "..."


def _listed(parts: list[str]) -> str:
    """Return parts as a list in a sentence: "a", "a, or b", "a, b, or c"."""
    return ", ".join([*parts[:-1], f"or {parts[-1]}"]) if len(parts) > 1 else parts[0]


@cache
def _options(init: Callable[..., None]) -> dict[str, Any]:
    """Return names and types of the arguments of a constructor, including those of `**options: Unpack[...]`."""
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
    """Base class of objects for `async with`. `with` raises a TypeError that names the class for threads."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise wrong_style(self, "with")

        def __exit__(self, *_: object) -> None: ...


class ForThreads:
    """Base class of objects for `with`. `async with` raises a TypeError that names the class for asyncio."""

    if not TYPE_CHECKING:

        def __aenter__(self) -> NoReturn:
            raise wrong_style(self, "async with")

        def __aexit__(self, *_: object) -> None: ...


def wrong_style(value: object, used: str) -> TypeError:
    """Return the error for an object that is used in a statement of another style.

    Args:
        value: An instance of a public class or of its subclass.
        used: "with", "for", "async with", "async for" or "await".
    """
    kind = next(kind for kind in type(value).__mro__ if kind.__module__.startswith("kinstream."))
    name = public_name(kind)
    if used.startswith("a"):
        other = f"kinstream.{kind.__name__}"
        if used == "await":
            return TypeError(f"{name} is not for asyncio: call its result() or results(), or use a kinstream.Producer")
        return TypeError(f"{name} is not for asyncio: use {used.removeprefix('async ')!r}, or {other} with {used!r}")
    return TypeError(f"{name} is for asyncio: use 'async {used}', or kinstream.blocking.{kind.__name__} with {used!r}")


# An object of another process.


def forked(name: str) -> UsageError:
    """Return the error for an object that was used before this process was forked."""
    return UsageError(
        f"{name} was used before this process was forked and cannot be used in it: create the objects of each process after"
        " the fork, or start processes with the 'spawn' or 'forkserver' method of multiprocessing"
    )


# A delivery used as its result.


def not_a_list(value: object, results: str) -> TypeError:
    """Return the error for deliveries that are indexed.

    Args:
        value: The deliveries.
        results: The expression that returns their results.
    """
    return TypeError(
        f"{public_name(type(value))} is not a list: use {results}[0] for a result, or list(deliveries)[0] for a delivery"
    )


def not_picklable(delivery: object) -> TypeError:
    """Return the error for a delivery that is pickled."""
    name = public_name(next(kind for kind in type(delivery).__mro__ if kind.__name__ == "Delivery"))
    return TypeError(f"{name} cannot be pickled, because it belongs to a producer of this process: pickle its result")


class _OfResult:
    """Attribute of a result, in a class of deliveries: it raises an AttributeError with the right expression."""

    def __init__(self, kind: type, name: str, advice: str) -> None:
        self._kind = kind
        self._name = name
        self._advice = advice

    def __get__(self, delivery: object, kind: type) -> _OfResult:
        if delivery is None:
            return self
        text = f"{public_name(self._kind)} has no {self._name}: {self._advice.format(name=self._name)}"
        raise AttributeError(text, name=self._name, obj=None)  # with obj, Python would append its own suggestion


def has_not(kind: type, names: tuple[str, ...], advice: str) -> None:
    """Make a class explain attributes that it does not have.

    Descriptors cost nothing elsewhere. `__getattr__` would slow down every attribute of the class.

    Args:
        kind: The class.
        names: The attributes. Those that the class has stay unchanged.
        advice: The expression to use instead. {name} is replaced by the attribute's name.
    """
    for name in names:
        if not hasattr(kind, name):
            setattr(kind, name, _OfResult(kind, name, advice))
