"""The plugin of pytest, in suites of an application that run in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from tests.doubles.entry_points import path_with_entry_points

from kinstream.local import Server


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder of an environment in which pytest finds the plugin."""
    folder = tmp_path / "installed"
    path_with_entry_points(folder)
    return folder


def run_suite(
    installed: Path, suite: str, *options: str, conftest: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a suite of one file, with strict markers and warnings as errors."""
    folder = installed.parent / "suite"
    folder.mkdir(exist_ok=True)
    (folder / "test_application.py").write_text(dedent(suite))
    (folder / "conftest.py").write_text(dedent(conftest))
    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *["-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error", "--strict-markers", "-rA"],
            *options,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def counts(run: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of pytest without the time."""
    return re.sub(r"=+ | in [0-9.]+s.*", "", run.stdout.strip().splitlines()[-1])


EVERYTHING = """
    import asyncio
    import os

    import boto3
    import pytest

    import kinstream
    from kinstream import blocking
    from kinstream.testing import assert_in_order, consume_all

    NAMES = []

    def shards_of(kinesis_server, name):
        with blocking.Client(**kinesis_server.client_options) as client:
            described = client.call("DescribeStreamSummary", {"StreamName": name})["StreamDescriptionSummary"]
        assert described["StreamStatus"] == "ACTIVE"
        return described["OpenShardCount"]

    def test_stream_with_a_name_of_its_own(kinesis_stream, kinesis_server):
        assert isinstance(kinesis_stream, str)
        assert kinesis_stream.startswith("test_stream_with_a_name_of_its_own-")
        assert shards_of(kinesis_server, kinesis_stream) == 1
        NAMES.append(kinesis_stream)

    @pytest.mark.kinesis_stream(shards=3)
    @pytest.mark.parametrize("long", ["ä b/" * 100], ids=str)
    def test_another_stream(kinesis_stream, kinesis_server, long):
        assert shards_of(kinesis_server, kinesis_stream) == 3
        with blocking.Client(**kinesis_server.client_options) as client:
            left = client.call("ListStreams", {})["StreamNames"]
        assert kinesis_stream in left
        assert NAMES[0] not in left

    @pytest.mark.kinesis_stream(shards=2)
    def test_clients_without_arguments_reach_the_server(kinesis_stream, kinesis_env):
        boto3.client("kinesis").put_record(StreamName=kinesis_stream, Data=b"0", PartitionKey="a")
        async def write():
            async with kinstream.Producer(kinesis_stream, order="key") as producer:
                await producer.put_many((str(n), "abc"[n % 3]) for n in range(1, 100))
        asyncio.run(write())
        records = consume_all(kinesis_stream)
        assert len(records) == 100
        assert_in_order(records, key=lambda record: record.partition_key, value=lambda record: int(record.data))

    def test_variables_are_restored():
        assert not [name for name in os.environ if name.startswith("AWS_") and "METADATA" not in name]

    def test_stream_of_the_session(kinesis_server):
        assert kinesis_server.create_stream("orders", shards=2) == "orders"
        assert shards_of(kinesis_server, "orders") == 2
"""


def test_suite_uses_all_fixtures(installed: Path) -> None:
    control = """
    def test_methods_of_the_server(kinesis_server):
        kinesis_server.next("ListStreams").fail("InternalFailure")
        kinesis_server.cancel_interceptions()
    """
    run = run_suite(installed, EVERYTHING + control)
    assert counts(run) == "6 passed", run.stdout


def test_same_suite_runs_on_another_endpoint_and_leaves_no_stream(installed: Path) -> None:
    control = """
    def test_methods_of_the_server(kinesis_server):
        kinesis_server.next("ListStreams").fail("InternalFailure")
    """
    with Server(transition=0.1) as server:
        run = run_suite(installed, EVERYTHING + control, f"--kinesis-url={server.url}", "-n0")
        assert counts(run) == "5 passed, 1 skipped", run.stdout
        assert f"needs the plugin's own server, and --kinesis-url={server.url} is given" in run.stdout
        calls = server.every("ListStreams").watch()
        run = run_suite(installed, "def test_one(kinesis_stream): pass", f"--kinesis-url={server.url}")
        assert counts(run) == "1 passed", run.stdout
        assert calls.count == 0
        assert server.create_stream("orders") == "orders"  # the first suite has deleted it


def test_suite_runs_in_several_processes(installed: Path) -> None:
    suite = """
    import pytest
    from kinstream import blocking
    from kinstream.testing import consume_all

    @pytest.mark.parametrize("number", range(4))
    def test_one(number, kinesis_stream, kinesis_env):
        with blocking.Producer(kinesis_stream) as producer:
            producer.put_and_wait(str(number), "key")
        assert [record.data for record in consume_all(kinesis_stream)] == [b"%d" % number]
    """
    with Server() as server:
        for options in ([], [f"--kinesis-url={server.url}"]):
            run = run_suite(installed, suite, "-n2", *options)
            assert counts(run) == "4 passed", run.stdout


def test_suite_that_uses_no_fixture_loads_only_the_plugin(installed: Path) -> None:
    suite = """
    import sys

    def test_modules():
        loaded = {name for name in sys.modules if name.partition(".")[0] == "kinstream"}
        assert loaded == {"kinstream", "kinstream.interpreter", "kinstream.lazy", "kinstream.pytest_plugin"}
    """
    run = run_suite(installed, suite)
    assert counts(run) == "1 passed", run.stdout


def test_options_of_the_server_can_be_chosen(installed: Path) -> None:
    conftest = """
    import pytest

    @pytest.fixture(scope="session")
    def kinesis_server_options():
        return {"region": "eu-west-1", "quotas": False}
    """
    suite = """
    def test_region(kinesis_server):
        assert kinesis_server.client_options["region"] == "eu-west-1"
    """
    run = run_suite(installed, suite, conftest=conftest)
    assert counts(run) == "1 passed", run.stdout


def test_missing_extra_is_named(installed: Path) -> None:
    (installed / "hypercorn.py").write_text(
        "raise ModuleNotFoundError('No module named hypercorn', name='hypercorn')\n"
    )
    suite = """
    def test_one(kinesis_stream): pass
    def test_two(): pass
    """
    run = run_suite(installed, suite)
    assert counts(run) == "1 passed, 1 error", run.stdout
    assert (
        "kinesis_server: kinstream.local needs hypercorn, which is not installed: pip install 'kinstream[local]'"
        in (run.stdout)
    )
    assert "another exception" not in run.stdout


def test_wrong_markers_are_refused(installed: Path) -> None:
    wrong = ["2", "", "shards=0", "shards='2'", "shards=True", "count=2"]
    suite = "import pytest\n"
    for number, arguments in enumerate(wrong):
        suite += f"@pytest.mark.kinesis_stream({arguments})\ndef test_{number}(kinesis_stream): pass\n"
    run = run_suite(installed, suite)
    assert counts(run) == "6 errors", run.stdout
    for arguments in wrong:
        assert f"kinesis_stream({arguments}): must be kinesis_stream(shards=N) with a number from 1" in run.stdout


@pytest.mark.parametrize("url", ["127.0.0.1:4567", "http://127.0.0.1:port"])
def test_wrong_url_is_refused(installed: Path, url: str) -> None:
    run = run_suite(installed, "def test_one(): pass", f"--kinesis-url={url}")
    assert (run.returncode, run.stdout) == (4, "")
    assert run.stderr == f"ERROR: --kinesis-url={url}: must be a URL such as http://127.0.0.1:4567\n\n"


def test_options_and_marker_are_described(installed: Path) -> None:
    assert "--kinesis-url=URL" in run_suite(installed, "", "--help").stdout
    assert "@pytest.mark.kinesis_stream(shards=1)" in run_suite(installed, "", "--markers").stdout
