"""The command `kinstream`: statuses, messages, and nothing imported before it is needed."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import kinstream
from kinstream.cli.main import main, status_of
from kinstream.errors import NotFound


def doing(run: Callable[[argparse.Namespace], int]) -> argparse.Namespace:
    return argparse.Namespace(command="try", run=run)


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"kinstream {kinstream.__version__} (")
    assert kinstream.__version__ == importlib.metadata.version("kinstream")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "\n    demo " in shown
    assert "\n    local " in shown


@pytest.mark.parametrize(
    "argv", [[], ["fly"], ["demo", "--records", "0"], ["demo", "--records", "-3"], ["demo", "--records", "many"]]
)
def test_wrong_arguments_end_with_status_2_and_a_word_on_stderr(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "kinstream" in capsys.readouterr().err


def test_a_wrong_number_of_flights_is_named_with_the_range(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--records", "many"])
    assert capsys.readouterr().err.endswith("argument --records: must be a whole number from 1, not 'many'\n")


def test_unknown_option_of_a_command_shows_the_options_of_that_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["local", "--prot", "4568"])
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: kinstream local ")
    assert "--port PORT" in shown
    assert shown.endswith("kinstream local: error: unrecognized arguments: --prot 4568\n")


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that a command replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signal_handlers")
@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--port", "99999"], "--port=99999: must be"),
        (["--tls-port", "99999"], "--tls-port=99999: must be"),
        (["--host", "0.0.0.0"], "--host='0.0.0.0': must be a loopback address unless --allow-remote is given."),
        (["--host-name", "no host"], "--host-name: 'no host' is not a valid host name"),
    ],
)
def test_a_server_that_cannot_start_names_the_option_of_the_command(
    argv: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["local", *argv]) == 1
    assert capsys.readouterr().err.startswith(f"kinstream local: {problem}")


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_command_s_status_is_the_process_s(status: int) -> None:
    assert status_of(doing(lambda _: status)) == status


def test_an_error_of_the_library_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: argparse.Namespace) -> int:
        raise NotFound("DescribeStream: no stream\n\x1b[31m called that")

    assert status_of(doing(run)) == 1
    output = capsys.readouterr()
    assert output.err == "kinstream try: DescribeStream: no stream\\n\\x1b[31m called that\n"
    assert output.out == ""


@pytest.mark.parametrize("module", ["rich", "rich.console", "hypercorn.asyncio"])
def test_a_missing_module_of_the_local_extra_is_one_line_with_advice(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: argparse.Namespace) -> int:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    assert status_of(doing(run)) == 1
    told = f"kinstream try: the command needs {module}, which is not installed: pip install 'kinstream[local]'\n"
    assert capsys.readouterr().err == told


def test_another_missing_module_is_a_fault_and_shown_as_one() -> None:
    def run(_: argparse.Namespace) -> int:
        raise ModuleNotFoundError("No module named 'kinstream.nowhere'", name="kinstream.nowhere")

    with pytest.raises(ModuleNotFoundError):
        status_of(doing(run))


def test_an_interrupted_command_has_the_status_that_shells_know() -> None:
    def run(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    assert status_of(doing(run)) == 130


def test_a_closed_pipe_is_not_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "kinstream", "demo", "--records", "1"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_the_command_line_loads_neither_rich_nor_hypercorn_before_a_command_runs() -> None:
    code = "import sys, kinstream.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "kinstream.cli.demo" in loaded
    assert {"rich", "hypercorn", "kinstream.local", "kinstream.cli.demo.journey"}.isdisjoint(loaded)
