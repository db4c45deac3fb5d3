"""The one part of the package that pyproject.toml cannot describe yet in a settled way: what is compiled.

Where it cannot be built (no compiler, no headers of Python), the package is the same, only slower: see
docs/decisions/0007-compiled-hot-path.md.
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/_speed")

setup(
    ext_modules=[
        Extension(
            "kinstream._speed",
            sources=[path.as_posix() for path in sorted(SOURCES.glob("*.c"))],
            depends=[path.as_posix() for path in sorted(SOURCES.glob("*.h"))],
            optional=True,
        )
    ]
)
