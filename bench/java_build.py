"""Builds Java programs against libraries from Maven, once for each state of their sources.

Maven resolves the dependencies and javac compiles the sources, both only if the sources have changed or a jar is gone.
Everything else runs offline.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from bench.ground import BENCH, NotPossible

JAVA = BENCH / "java"
BUILD = BENCH.parent / "build" / "java"

KCL, KPL = JAVA / "kcl.xml", JAVA / "kpl.xml"
"""The Kinesis Client Library, in the version of the property `kcl.version`, and the Kinesis Producer Library."""

MULTILANG = JAVA / "multilang.xml"
"""The daemon of amazon_kclpy, in the version of the property `kcl.version`."""

ENVIRONMENT = dict(os.environ)
"""The environment of Maven: that of the user, also if a test has changed its own."""

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
RESOLVE_SECONDS = 600
COMPILE_SECONDS = 120


def missing() -> str | None:
    """Return the reason why no Java program can be built or run here, or None."""
    absent = [program for program in ("java", "javac", "mvn") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def classpath(project: Path, sources: list[Path], **properties: str) -> str:
    """Return the classpath that runs a program. Builds it if necessary.

    Args:
        project: Maven project file with the dependencies.
        sources: The Java files. May be empty.
        properties: Properties of the project, with `_` for a dot.

    Raises:
        NotPossible: A program is missing, or the dependencies cannot be resolved.
        RuntimeError: The sources do not compile.
    """
    reason = missing()
    if reason is not None:
        raise NotPossible(reason)
    given = [f"-D{name.replace('_', '.')}={value}" for name, value in sorted(properties.items())]
    digest = hashlib.sha256("\0".join(given).encode())
    for source in [project, *sources]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    name = "-".join([project.stem, *properties.values(), digest.hexdigest()[:16]])
    folder = BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = _read_classpath(folder)
        if jars is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            jars = _resolve(project, given, folder)
            if sources:
                _compile(jars, sources, folder)
            (folder / "classpath").write_text(jars, encoding="utf-8")  # last: marks a complete build
    return f"{folder / 'classes'}{os.pathsep}{jars}"


def _read_classpath(folder: Path) -> str | None:
    """Return the jars of a complete build if all of them exist, or None."""
    try:
        jars = (folder / "classpath").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return jars if all(Path(jar).exists() for jar in jars.split(os.pathsep)) else None


def _resolve(project: Path, given: list[str], folder: Path) -> str:
    found = folder / "resolved"
    command = ["mvn", "--batch-mode", "--quiet", "--file", str(project), PLUGIN, f"-Dmdep.outputFile={found}", *given]
    failure = _run(command, RESOLVE_SECONDS)
    if failure is not None:
        raise NotPossible(f"{project.name}: Maven cannot resolve the dependencies: {failure}")
    return found.read_text(encoding="utf-8").strip()


def _compile(jars: str, sources: list[Path], folder: Path) -> None:
    options = ["-Xlint:deprecation,unchecked", "-Werror", "-d", str(folder / "classes"), "-cp", jars]
    failure = _run(["javac", *options, *map(str, sources)], COMPILE_SECONDS)
    if failure is not None:
        raise RuntimeError(f"{sources[0].parent} does not compile: {failure}")


def _run(command: list[str], seconds: float) -> str | None:
    """Run a command, and return the reason of its failure, or None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=ENVIRONMENT)
    except subprocess.TimeoutExpired:
        return f"not completed within {seconds:.0f} seconds"
    if done.returncode == 0:
        return None
    return " | ".join(((done.stdout + done.stderr).strip().splitlines() or ["no message"])[:3])
