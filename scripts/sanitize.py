"""Run the tests of the compiled functions with the address and undefined behavior sanitizers of GCC.

Builds `kinstream._speed` with both sanitizers and all warnings as errors in a copy of the package, build/sanitize. Then runs the
twin and fuzz tests (tests/property) and the unit tests of their callers, or the tests that are named, with that copy. The first
finding ends the run with a report. Needs GCC with libasan and libubsan, on Linux.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "sanitize"
FLAGS = "-O1 -g -fno-omit-frame-pointer -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
TESTS = [
    "tests/property",
    "tests/conformance",
    "tests/unit/aws/test_codec.py",
    "tests/unit/aws/test_kinesis.py",
    "tests/unit/produce",
    "tests/unit/consume/test_deaggregate.py",
    "--deselect=tests/property/test_kpl_bombs.py",  # it measures the memory of processes, to which the sanitizers add
]


def main(tests: list[str]) -> int:
    """Build the copy and run the tests. Return the exit status."""
    compiler = os.environ.get("CC", "gcc")
    libraries = [_library(compiler, name) for name in ("libasan.so", "libubsan.so")]
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(ROOT / "src", COPY / "src", ignore=shutil.ignore_patterns("_speed.*", "*.egg-info", "__pycache__"))
    build = [sys.executable, "setup.py", "-q", "build_ext"]
    build += ["--build-lib", str(COPY / "src"), "--build-temp", str(COPY / "objects")]
    flags = {"CC": compiler, "CFLAGS": FLAGS, "KINSTREAM_BUILD": "compiled"}
    subprocess.run(build, cwd=ROOT, env={**os.environ, **flags}, check=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(COPY / "src"),
        "PYTHONMALLOC": "malloc",  # Python's own allocator would hide accesses outside an object
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:strict_string_checks=1",  # the interpreter leaks at exit
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "KINSTREAM_PURE": "",
    }
    used = "import kinstream._speed as s; print(s.__file__)"
    found = subprocess.run([sys.executable, "-c", used], env=environment, capture_output=True, text=True, check=True)
    if not found.stdout.startswith(str(COPY)):
        raise SystemExit(f"{found.stdout.strip()} is imported instead of the extension in {COPY}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(tests or TESTS)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _library(compiler: str, name: str) -> str:
    """Return the path of a library of the compiler, which must be loaded before the interpreter's own libraries."""
    path = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(path).is_absolute():
        raise SystemExit(f"{compiler} has no {name}: install GCC's sanitizer libraries")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
