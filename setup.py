"""The two parts of the package that pyproject.toml cannot describe: the compiled hot path, and the README's absolute links.

KINSTREAM_BUILD says how the hot path is built (docs/decisions/0013-wheels.md):

- unset: built if there is a C compiler. Without one the package is the same, only slower.
- "compiled": a build that fails is an error. The wheels of a release are built so.
- "pure": not built. The wheel runs on every platform.
"""

import os
import re
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/_speed")
REPOSITORY = "https://github.com/kinstream/kinstream"


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


def readme() -> str:
    """Return the README with links and pictures that work outside the repository too."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:|#)", rf"\1{REPOSITORY}/raw/main/", text)
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?!https?:|#)", rf"\1{REPOSITORY}/blob/main/", text)


setup(ext_modules=extensions(), long_description=readme(), long_description_content_type="text/markdown")
