"""Builds the Java worker against one version of the Kinesis Client Library, once for each state of its sources.

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

SOURCES = Path(__file__).parent / "java"
BUILD = Path(__file__).parents[2] / "build" / "interop"

SETTINGS = {"2.7.2": "2.x", "3.4.2": "3.4", "3.5.1": "3.5"}
"""The versions of the library, and the folder with the settings that only such a version has."""

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
RESOLVE_SECONDS = 600
COMPILE_SECONDS = 120

JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError")
"""Flags with which two JVMs and the Python side fit in two cores and 2 GiB."""


class NotPossible(Exception):
    """The worker cannot be built on this machine. The message has the reason."""


def missing() -> str | None:
    """Return the reason why no Java worker can be built or run here, or None."""
    absent = [program for program in ("java", "javac", "mvn") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def command(version: str) -> list[str]:
    """Return the command that runs the worker of a version, without its options. Builds it if necessary.

    Raises:
        NotPossible: A program is missing, the dependencies cannot be resolved, or the sources do not compile.
    """
    reason = missing()
    if reason is not None:
        raise NotPossible(reason)
    sources = _sources(version)
    digest = hashlib.sha256()
    for source in [SOURCES / "pom.xml", *sources]:
        digest.update(source.relative_to(SOURCES).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    folder = BUILD / f"kcl-{version}-{digest.hexdigest()[:16]}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = _read_classpath(folder)
        if jars is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            jars = _resolve(version, folder)
            _compile(jars, sources, folder)
            (folder / "classpath").write_text(jars, encoding="utf-8")  # last: marks a complete build
    return ["java", *JVM, "-cp", f"{folder / 'classes'}{os.pathsep}{jars}", "Worker"]


def _sources(version: str) -> list[Path]:
    return sorted([*(SOURCES / "worker").glob("*.java"), *(SOURCES / SETTINGS[version]).glob("*.java")])


def _read_classpath(folder: Path) -> str | None:
    """Return the classpath of a complete build whose jars all exist, or None."""
    try:
        jars = (folder / "classpath").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return jars if all(Path(jar).exists() for jar in jars.split(os.pathsep)) else None


def _resolve(version: str, folder: Path) -> str:
    found = folder / "resolved"
    _run(
        ["mvn", "--batch-mode", "--quiet", "--file", str(SOURCES / "pom.xml"), PLUGIN, f"-Dkcl.version={version}",
         f"-Dmdep.outputFile={found}"],
        f"KCL {version}: Maven cannot resolve the dependencies",
        RESOLVE_SECONDS,
    )  # fmt: skip
    return found.read_text(encoding="utf-8").strip()


def _compile(jars: str, sources: list[Path], folder: Path) -> None:
    _run(
        ["javac", "-Xlint:deprecation,unchecked", "-Werror", "-d", str(folder / "classes"), "-cp", jars,
         *map(str, sources)],
        "the Java worker does not compile",
        COMPILE_SECONDS,
    )  # fmt: skip


def _run(arguments: list[str], failure: str, seconds: float) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise NotPossible(f"{failure} within {seconds:.0f} seconds") from None
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no message"]
        raise NotPossible(f"{failure}: {' | '.join(lines[:3])}")
