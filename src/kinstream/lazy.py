"""Public names of a package that are imported from their modules when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names_of(
    namespace: dict[str, Any], modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose public names are imported when they are first used.

    Submodules that have a public name, such as `kinstream.errors`, are imported in the same way.

    Args:
        namespace: The package's `globals()`. A name is stored there once it is imported, so that each is resolved only once.
        modules: The module of each public name.
    """
    package = namespace["__name__"]
    submodules = {module.removeprefix(f"{package}.").partition(".")[0] for module in modules.values()}

    def resolve(name: str) -> Any:
        if name in modules:
            value = namespace[name] = getattr(import_module(modules[name]), name)
            return value
        if name in submodules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)

    def names() -> list[str]:
        return sorted({*namespace, *modules})

    return resolve, names
