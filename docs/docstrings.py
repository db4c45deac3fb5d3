"""Extension of griffe, which reads the docstrings for the API reference: arguments of structs, and examples as code."""

from __future__ import annotations

from typing import Any

from griffe import Class, Extension, Function, Object, Parameter, ParameterKind, Parameters


class Docstrings(Extension):
    """Reads the docstrings of this project as they are meant."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section `Example:` to `Examples:`, so that griffe reads its code as code."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Add the constructor of a struct that describes its arguments. Other structs are results, which users do not create."""
        if "msgspec.Struct" not in map(str, cls.bases) or cls.docstring is None or "Args:" not in cls.docstring.value:
            return
        kind = ParameterKind.keyword_only if cls.keywords.get("kw_only") else ParameterKind.positional_or_keyword
        parameters = [
            Parameter(field.name, annotation=field.annotation, kind=kind, default=_default(field.value))
            for field in cls.attributes.values()
            if field.annotation is not None
        ]
        first = Parameter("self", kind=ParameterKind.positional_or_keyword)
        cls.set_member("__init__", Function("__init__", parameters=Parameters(first, *parameters)))


def _default(value: Any) -> Any:
    """Return the default of a field. That of `msgspec.field(name=...)` is None if it has no argument `default`."""
    if not str(value).startswith("msgspec.field("):
        return value
    return next((argument.value for argument in value.arguments if argument.name == "default"), None)
