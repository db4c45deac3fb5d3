"""The part of the package that pyproject.toml cannot describe: the compiled hot path.

KINSTREAM_BUILD says how the hot path is built (docs/decisions/0013-wheels.md):

- unset: built if there is a C compiler. Without one the package is the same, only slower.
- "compiled": a build that fails is an error. The wheels of a release are built so.
- "pure": not built. The wheel runs on every platform.
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/_speed")


def extensions() -> list[Extension]:
    """Return the extension modules to build."""
    build = os.environ.get("KINSTREAM_BUILD", "")
    if build not in ("", "compiled", "pure"):
        raise SystemExit(f"KINSTREAM_BUILD={build!r}: must be 'compiled', 'pure' or unset")
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    if build == "compiled" and free_threaded:
        raise SystemExit("KINSTREAM_BUILD='compiled': free-threaded builds of Python run the pure package")
    if build == "pure" or free_threaded:
        return []
    return [
        Extension(
            "kinstream._speed",
            sources=[path.as_posix() for path in sorted(SOURCES.glob("*.c"))],
            depends=[path.as_posix() for path in sorted(SOURCES.glob("*.h"))],
            optional=build != "compiled",
        )
    ]


setup(ext_modules=extensions())
