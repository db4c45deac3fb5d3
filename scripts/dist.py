"""Build the distributions of kinstream in dist/, check their contents, and try each in a clean environment.

Builds a source distribution, and from it a wheel with the compiled hot path and one in pure Python. Then installs each into an
environment of its own, with a C compiler and without one, and runs scripts/smoke.py there. Prints a report, and exits with 1 if
anything failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
SMOKE = ROOT / "scripts" / "smoke.py"
COMPILED_SUFFIXES = (".so", ".pyd")
IN_SDIST = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "docs/DESIGN.md",
    "examples",
    "scripts/smoke.py",
    "src/_speed/module.c",
    "src/_speed/speed.h",
    "src/kinstream/py.typed",
    "tests/conftest.py",
    "tests/conformance/vectors",
)
"""Some files and folders of each part that a source distribution must have."""


class Failed(Exception):
    """A command failed, or a distribution is not as it must be."""


class Trial(NamedTuple):
    """An installation to try: a distribution, the compiler, and the hot path that must run afterwards."""

    distribution: Path
    compiler: bool
    hot_path: str

    def __str__(self) -> str:
        return f"{self.distribution.name}, {'with' if self.compiler else 'without'} a C compiler"


def main() -> int:
    """Build, check and try everything. Return the exit status."""
    report: list[str] = []
    failures = 0
    try:
        sdist, native, pure = build()
    except Failed as error:
        print(f"FAILED  build: {error}")
        return 1
    report += [f"built   {path.name}, {path.stat().st_size / 1024:,.0f} KiB" for path in (sdist, native, pure)]
    has_compiler = any(path.endswith(COMPILED_SUFFIXES) for path in members(native))
    trials = [
        Trial(native, False, "compiled" if has_compiler else "pure"),
        Trial(pure, False, "pure"),
        Trial(sdist, False, "pure"),
        *([Trial(sdist, True, "compiled")] if has_compiler else []),
    ]
    if not has_compiler:
        report.append("skipped the compiled hot path: this machine has no C compiler, or Python is free-threaded")
    steps = [
        ("metadata, contents", lambda: check(sdist, native, pure)),
        *((str(trial), lambda trial=trial: attempt(trial)) for trial in trials),
    ]
    for name, step in steps:
        try:
            report.append(f"passed  {name}: {step()}")
        except Failed as error:
            failures += 1
            report.append(f"FAILED  {name}: {error}")
    print("\n".join(report))
    print(f"{len(steps) - failures} passed, {failures} failed")
    return 1 if failures else 0


def build() -> tuple[Path, Path, Path]:
    """Return a new source distribution, the wheel for this machine, and the pure wheel; both are built from the former."""
    shutil.rmtree(DIST, ignore_errors=True)
    run([sys.executable, "-m", "build", "--sdist", str(ROOT)])
    (sdist,) = DIST.glob("*.tar.gz")
    wheels = []
    for kind in ("", "pure"):
        with TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "-w", folder, str(sdist)]
            run(command, {**os.environ, "KINSTREAM_BUILD": kind})
            (wheel,) = Path(folder).glob("*.whl")
            wheels.append(Path(shutil.copy(wheel, DIST)))
    return sdist, wheels[0], wheels[1]


def check(sdist: Path, native: Path, pure: Path) -> str:
    """Check metadata and contents. Return a summary."""
    run([sys.executable, "-m", "twine", "check", "--strict", *map(str, (sdist, native, pure))])
    run([sys.executable, "-m", "check_wheel_contents", str(native), str(pure)])
    inside = [path.partition("/")[2] for path in members(sdist)]
    missing = [part for part in IN_SDIST if not any(path == part or path.startswith(f"{part}/") for path in inside)]
    if missing:
        raise Failed(f"{sdist.name} lacks {missing}")
    if not pure.name.endswith("-py3-none-any.whl"):
        raise Failed(f"{pure.name} is not for every platform")
    source = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "kinstream").rglob("*.py")}
    for wheel in (native, pure):
        packed = [path for path in members(wheel) if ".dist-info/" not in path]
        if {path for path in packed if path.endswith(".py")} != source:
            raise Failed(f"{wheel.name} has other modules than src/")
        other = [path for path in packed if not path.startswith("kinstream/")]
        if other:
            raise Failed(f"{wheel.name} installs {other}")
    if any(path.endswith((*COMPILED_SUFFIXES, ".c", ".h")) for path in members(pure)):
        raise Failed(f"{pure.name} has compiled code or its source")
    return f"{len(inside)} files in the source distribution, {len(source)} modules in each wheel"


def attempt(trial: Trial) -> str:
    """Install a distribution into a new environment, without and then with the extra `local`. Return the smoke test's output."""
    with TemporaryDirectory() as folder:
        python = Path(folder, "bin" if os.name == "posix" else "Scripts", "python")
        run([sys.executable, "-m", "venv", folder])
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("KINSTREAM_", "PYTHON"))}
        if not trial.compiler:
            variables |= {"CC": "/bin/false", "CXX": "/bin/false", "PATH": str(python.parent)}
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-cache-dir"]
        run([*install, str(trial.distribution)], variables)
        run([str(python), "-I", "-m", "kinstream", "--version"], variables)
        run([*install, f"{trial.distribution}[local]"], variables)
        return run([str(python), "-I", str(SMOKE), trial.hot_path], variables, cwd=folder).strip()


def members(distribution: Path) -> list[str]:
    """Return the files in a distribution."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as wheel:
            return wheel.namelist()
    with tarfile.open(distribution) as sdist:
        return [member.name for member in sdist if member.isfile()]


def run(command: Iterable[str], variables: Mapping[str, str] | None = None, cwd: str | Path = ROOT) -> str:
    """Run a command. Return its output.

    Raises:
        Failed: Its exit status is not 0.
    """
    line = list(command)
    done = subprocess.run(line, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(line)}: exit status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
