"""Runs tests/engines with Spark, Ray and dlt, which have an environment of their own: `.venv-engines`.

`test ARGUMENTS...` runs them. `beside COMMAND...` runs a command, installs the engines in the meantime, and then runs their
tests. Without Java, or if the packages cannot be installed in time, it prints the reason and skips them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-engines" / "bin" / "python"
LOG = ROOT / "build" / "engines.log"
JAVA = 17
"""The oldest version that runs Spark 4 (Spark's documentation, "Downloading")."""
PATIENCE = 120.0
"""Seconds to wait for the packages after the other tests have ended."""
LIMIT = 600.0
"""Seconds after which the tests of the engines are killed. They take about two minutes on idle cores."""


def java_problem() -> str | None:
    """Return the reason why there is no suitable Java. None: there is one."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        return f"Spark needs Java {JAVA} or later, and there is none"
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < JAVA:
        return f"Spark needs Java {JAVA} or later, and {java} is {version[1] if version else 'of an unknown version'}"
    return None


def run_tests(arguments: list[str]) -> int:
    """Run the tests, and print their total time. Returns their exit status."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}  # also for the workers of the engines
    command = [str(PYTHON), "-m", "pytest", *(arguments or ["tests/engines"])]
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as tests:
        try:
            status = tests.wait(LIMIT)
        except BaseException as error:
            os.killpg(tests.pid, signal.SIGKILL)  # the JVM as well
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            print(f"engines: killed after {LIMIT:.0f} s")
            return 1
    print(f"engines: {time.monotonic() - began:.0f} s in total")
    return status


def beside(command: list[str]) -> int:
    """Run a command, then the tests of the engines if they can be installed. Returns the first exit status that is not 0."""
    problem = java_problem()
    if problem is not None:
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        print(f"engines: skipped: {problem}")
        return status
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log:
        install = ["nice", "-n", "19", "make", "--silent", ".venv-engines/.installed"]
        installation = subprocess.Popen(install, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if status:
            return status
        failed = installation.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        print("engines: skipped: their packages were not installed in time")
        return 0
    finally:
        if installation.poll() is None:
            os.killpg(installation.pid, signal.SIGTERM)
            installation.wait()
    if failed:
        last = (LOG.read_text().strip().splitlines() or ["no output"])[-1]
        print(f"engines: skipped: their packages could not be installed: {last}")
        return 0
    return run_tests([])


def main() -> int:
    """Run the command line."""
    match sys.argv[1:]:
        case ["test", *arguments]:
            problem = java_problem()
            if problem is not None:
                print(f"engines: {problem}", file=sys.stderr)
                return 1
            return run_tests(arguments)
        case ["beside", program, *arguments]:
            return beside([program, *arguments])
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
