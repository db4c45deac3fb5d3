"""`make bench-install`: installed size, number of distributions and import time of kinstream, compared with other libraries.

    python -m bench.install [--rounds N]

Each library is installed by pip into a new virtual environment, kinstream as a wheel that is built from this checkout. The size
is that of the files that pip adds to site-packages, bytecode included. pip itself is in the environment before, and does not
count.

An import runs in a new process, after one unmeasured run of each. The libraries take turns in each round. Times are measured
inside the process, so the start of the interpreter does not count. `import kinstream` defers most of its modules to the first
use of a name, and boto3 creates its classes with the client. So a second measurement has the statements with which an
application begins.

Writes install.json in this folder and the table in the README, unless a library was not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import readme
from bench.figures import with_range
from bench.ground import BENCH, NotPossible, alone, processor, surroundings

KINSTREAM = "kinstream"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Library:
    """A library to install.

    Attributes:
        name: Name of its distribution.
        requirement: Argument of `pip install`.
        module: Module that is imported.
        begin: Statements with which an application begins, up to its client or classes.
    """

    name: str
    requirement: str
    module: str
    begin: str


KINSTREAM_CLIENT = """
from kinstream import Client, Consumer, Producer
import botocore.session
Client()
"""
"""With botocore, which kinstream imports at the first request, and a client of boto3 when it is created."""
AIOBOTOCORE_CLIENT = """
import asyncio
from aiobotocore.session import get_session
async def main():
    async with get_session().create_client("kinesis"):
        pass
asyncio.run(main())
"""
LIBRARIES = (
    Library(KINSTREAM, str(BENCH.parent), "kinstream", KINSTREAM_CLIENT),
    Library("boto3", "boto3", "boto3", "import boto3\nboto3.client('kinesis')"),
    Library("aiobotocore", "aiobotocore", "aiobotocore", AIOBOTOCORE_CLIENT),
    Library("async-kinesis", "async-kinesis==3.0.1", "kinesis", "from kinesis import Consumer, Producer"),
    Library("kcl-rs", "kcl-rs==0.1.4", "kcl_rs", "import kcl_rs"),
)

TIMED = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{}
print((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3)
"""
INVENTORY = """
import json, sysconfig
from importlib.metadata import distributions
from pathlib import Path
places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
files = [path for place in places for path in Path(place).rglob("*") if path.is_file() and not path.is_symlink()]
versions = {found.metadata["Name"]: found.version for found in distributions(path=list(places))}
print(json.dumps([sum(path.stat().st_size for path in files), versions]))
"""


@dataclass(frozen=True)
class Installed:
    """A library in an environment of its own.

    Attributes:
        library: The library.
        python: Interpreter of the environment.
        size: Bytes that were added to site-packages.
        versions: Versions of the distributions that were added, by name.
    """

    library: Library
    python: str
    size: int
    versions: dict[str, str]

    @classmethod
    def into(cls, folder: Path, library: Library) -> Installed:
        """Install a library.

        Raises:
            NotPossible: pip failed.
        """
        place = folder / library.name
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        python = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
        before, present = inventory(python)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", library.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPossible((done.stderr.strip() or "pip failed").splitlines()[-1])
        after, found = inventory(python)
        added = {name: version for name, version in found.items() if name not in present}
        return cls(library, python, after - before, added)

    def timed(self, code: str) -> tuple[float, float]:
        """Run code in a new process. Returns its milliseconds of wall clock and of CPU time."""
        wall, cpu = output(self.python, TIMED.format(code)).split()
        return float(wall), float(cpu)


def inventory(python: str) -> tuple[int, dict[str, str]]:
    """Return the bytes in site-packages, and the versions of its distributions by name."""
    size, versions = json.loads(output(python, INVENTORY))
    return size, versions


def output(python: str, code: str) -> str:
    """Run code in a new process, isolated from the variables and packages of the user. Returns its standard output."""
    command = [python, "-I", "-c", code]
    done = subprocess.run(command, env=surroundings() | CREDENTIALS, capture_output=True, text=True, check=True)
    return done.stdout


def measured(installed: list[Installed], rounds: int) -> list[dict[str, Any]]:
    """Return the row of each library."""
    codes = [
        (kind, one, code)
        for one in installed
        for kind, code in (("import", f"import {one.library.module}"), ("begin", one.library.begin))
    ]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {(one.library.name, kind): [] for kind, one, _ in codes}
    for _, one, code in codes:
        one.timed(code)  # reads the files from the disk, and compiles bytecode that pip did not
    for _ in range(rounds):
        for kind, one, code in codes:
            times[one.library.name, kind].append(one.timed(code))
    return [
        {
            "library": one.library.name,
            "megabytes": round(one.size / 1e6, 1),
            "distributions": len(one.versions),
            **{
                f"{kind}_{clock}_milliseconds": [round(pair[index], 2) for pair in times[one.library.name, kind]]
                for kind in ("import", "begin")
                for index, clock in enumerate(("wall", "cpu"))
            },
        }
        for one in installed
    ]


def report_of(installed: list[Installed], left_out: dict[str, str], rounds: int, load: float) -> dict[str, Any]:
    """Measure, and return the report."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
        "versions": {one.library.name: one.versions[one.library.name] for one in installed},
        "method": {"rounds": rounds},
        "rows": measured(installed, rounds),
        "left_out": left_out,
    }


def main() -> None:
    """Install, measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds to take the median of (default 15)")
    rounds = parser.parse_args().rounds
    installed: list[Installed] = []
    left_out: dict[str, str] = {}
    with alone(), tempfile.TemporaryDirectory(prefix="kinstream-install-") as folder:
        load = os.getloadavg()[0]
        for library in LIBRARIES:
            print(f"installing {library.name} ...", flush=True)
            try:
                installed.append(Installed.into(Path(folder), library))
            except NotPossible as error:
                left_out[library.name] = str(error)
                print(f"{library.name} is left out: {error}")
        report = report_of(installed, left_out, rounds, load)
    print(f"{'':14} {'MB':>6} {'distributions':>13}  {'import, ms':18}  {'its CPU, ms':18}  {'begin, ms':18}")
    for row in report["rows"]:
        times = [row[f"{name}_milliseconds"] for name in ("import_wall", "import_cpu", "begin_wall")]
        shown = "  ".join(f"{with_range(found):18}" for found in times)
        print(f"{row['library']:14} {row['megabytes']:6} {row['distributions']:13}  {shown}")
    if left_out:
        print("the report was not written")
        return
    (BENCH / "install.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    readme.write()


if __name__ == "__main__":
    main()
