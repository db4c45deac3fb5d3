"""Cost of `import kinstream`, compared with boto3 in the same run, and the benchmark that reports it."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest
from bench.install import TIMED, Installed, Library, measured
from bench.readme import SECTIONS, read

ROUNDS = 7


def cpu_milliseconds(code: str) -> float:
    """Return the CPU time of code in a new process, without that of the interpreter's start."""
    done = subprocess.run([sys.executable, "-c", TIMED.format(code)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[1])


def test_import_takes_less_cpu_time_than_that_of_boto3() -> None:
    ours, boto3 = "import kinstream", "import boto3"
    for code in (ours, boto3):
        cpu_milliseconds(code)  # compiles the bytecode
    rounds = [(cpu_milliseconds(ours), cpu_milliseconds(boto3)) for _ in range(ROUNDS)]
    assert statistics.median(mine / theirs for mine, theirs in rounds) < 1


def test_each_library_of_the_benchmark_is_measured_in_each_round() -> None:
    libraries = (Library("json", "", "json", "import json.tool"), Library("csv", "", "csv", "import csv"))
    rows = measured([Installed(one, sys.executable, 2_345_678, {one.name: "1"}) for one in libraries], 2)
    assert [(row["library"], row["megabytes"], row["distributions"]) for row in rows] == [
        ("json", 2.3, 1),
        ("csv", 2.3, 1),
    ]
    for row in rows:
        for kind in ("import_wall", "import_cpu", "begin_wall", "begin_cpu"):
            assert len(row[f"{kind}_milliseconds"]) == 2
            assert min(row[f"{kind}_milliseconds"]) >= 0


def test_statement_that_fails_is_no_measurement() -> None:
    broken = Installed(Library("none", "", "no_such_module_of_kinstream", ""), sys.executable, 0, {})
    with pytest.raises(subprocess.CalledProcessError):
        measured([broken], 1)


def test_table_has_every_library_of_the_report() -> None:
    rows = read("install")["rows"]
    table = SECTIONS["install"]()
    assert [row["library"] for row in rows] == ["kinstream", "boto3", "aiobotocore", "async-kinesis", "kcl-rs"]
    assert all(f"| {row['library']} | " in table for row in rows)
