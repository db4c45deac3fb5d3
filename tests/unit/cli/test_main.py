"""The command `kinstream`: statuses, messages, and nothing imported before it is needed."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import kinstream
from kinstream.cli.leases import with_action
from kinstream.cli.main import main, status_of
from kinstream.cli.main import parser as all_commands
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


STREAM = "must be a stream name (1 to 128 of a-z, A-Z, 0-9, '_', '.', '-') or a stream ARN"
TABLE = "must be the name of the lease table (3 to 255 of a-z, A-Z, 0-9, '_', '.', '-')"


@pytest.mark.parametrize(
    "name", ["or ders", "", "s" * 129, "arn:aws:kinesis:us-east-1:1:stream/orders", "\x1b[31m"], ids=repr
)
@pytest.mark.parametrize(
    ("argument", "argv"),
    [
        ("STREAM", ["shards", "{}"]),
        ("STREAM", ["reshard", "{}", "--shards", "2"]),
        ("STREAM", ["delete", "{}", "--yes"]),
        ("STREAM", ["put", "{}"]),
        ("STREAM", ["tail", "{}"]),
        ("STREAM", ["replay", "{}", "--to-file", "-"]),
        ("--to-stream", ["replay", "orders", "--to-stream", "{}"]),
        ("--stream", ["leases", "show", "billing", "--stream", "{}"]),
        ("--stream", ["leases", "release", "billing", "--worker", "w", "--stream", "{}"]),
        ("--stream", ["leases", "reset", "billing", "--to", "LATEST", "--stream", "{}"]),
        ("--stream", ["lag", "billing", "--stream", "{}"]),
        ("STREAM", ["doctor", "{}"]),
        ("--stream", ["iam", "billing", "--stream", "{}"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_invalid_stream_is_a_usage_error_that_names_the_argument_and_the_form(
    argument: str, argv: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name if word == "{}" else word for word in argv])
    assert ended.value.code == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    value = repr(name) if len(name) < 129 else "<text of 129 characters>"
    assert f": error: argument {argument}: {value}: {STREAM}" in shown


@pytest.mark.parametrize(
    ("argument", "argv"),
    [
        ("APPLICATION", ["lag", "{}", "--stream", "orders"]),
        ("APPLICATION", ["leases", "show", "{}"]),
        ("--table", ["leases", "show", "billing", "--table", "{}"]),
        ("--application", ["doctor", "orders", "--application", "{}"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
@pytest.mark.parametrize("name", ["bil/ling", "ab", "t" * 256], ids=repr)
def test_an_application_that_no_lease_table_can_have_is_a_usage_error(
    argument: str, argv: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name if word == "{}" else word for word in argv])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f": error: argument {argument}: {name!r}: {TABLE}")


@pytest.mark.parametrize(
    "name", ["or ders", "", "s" * 129, "arn:aws:kinesis:us-east-1:123456789012:stream/orders"], ids=repr
)
def test_an_invalid_name_of_a_new_stream_is_a_usage_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["create", name])
    assert ended.value.code == 2
    form = "must be the name of a new stream (1 to 128 of a-z, A-Z, 0-9, '_', '.', '-')"
    assert capsys.readouterr().err.endswith(f": error: argument NAME: {name!r}: {form}\n")


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
    assert (ended.returncode, ended.stderr) == (141, "")


def test_the_command_line_loads_neither_rich_nor_hypercorn_before_a_command_runs() -> None:
    code = "import sys, kinstream.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "kinstream.cli.demo" in loaded
    assert {"rich", "hypercorn", "kinstream.local", "kinstream.cli.demo.journey"}.isdisjoint(loaded)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("tail", "s", "--from", "yesterday"), "argument --from: must be oldest, latest, 'at NUMBER'"),
        (("tail", "s", "--from", "2026-01-31T12:00:00"), "argument --from: must be oldest, latest, 'at NUMBER'"),
        (("tail", "s", "--from", "oldest", "--from", "latest"), "argument --from: must be given once"),
        (("tail", "s", "--from", "1000", "--until", "999"), "argument --until: must not be before --from"),
        (("tail", "s", "--until", "soon"), "argument --until: must be now, a time with its zone"),
        (("tail", "s", "--count", "-1"), "argument --count: must be a whole number from 0, not '-1'"),
        (("tail", "s", "--regex", "("), "argument --regex: must be a regular expression, not '('"),
        (("tail", "s", "--json-path", "a b"), "argument --json-path: must be a path such as $.user.id"),
        (("tail", "s", "--rate", "0"), "argument --rate: must be a number from 0.01 to 1000, not '0'"),
        (("tail", "s", "--consumer-name", "c"), "argument --consumer-name: needs --fan-out"),
        (("put", "s", "--key", "k", "--key-field", "f"), "argument --key-field: not allowed with argument --key"),
        (("put", "s", "--json", "--key-field", "f"), "argument --key-field: not allowed with argument --json"),
        (("create", "s", "--shards", "0"), "argument --shards: must be a whole number from 1, not '0'"),
        (("shards", "s", "--load", "x"), "argument --load: must be a number of seconds from 0, not 'x'"),
        (("doctor", "s", "--sample", "0"), "argument --sample: must be a number of records from 1 to 10000"),
        (("doctor", "s", "--sample", "8d"), "argument --sample: must be a number of records from 1 to 10000"),
        (("doctor", "--application", "a"), "argument --application: needs STREAM"),
        (("doctor", "s", "--table", "t"), "argument --table: needs --application"),
    ],
    ids=str,
)
def test_wrong_arguments_of_a_command_are_named_with_their_range(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert f"kinstream {arguments[0]}: error: {problem}" in output.err


def parsers(parser: argparse.ArgumentParser, path: str = "kinstream") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield all commands with their parsers."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                yield from parsers(one, f"{path} {name}")


@pytest.mark.parametrize("path", [path for path, _ in parsers(all_commands())])
def test_help_of_a_command_has_examples_that_the_command_accepts(path: str) -> None:
    shown = dict(parsers(all_commands()))[path].format_help()
    examples = shown.split("\nExamples:\n")[1].splitlines()
    commands = [words for line in examples for words in split_pipeline(line) if words[0] == "kinstream"]
    assert commands
    for words in commands:
        if "--help" not in words:
            arguments, unknown = all_commands().parse_known_args(with_action(words[1:]))
            assert (unknown, callable(arguments.run)) == ([], True)


def split_pipeline(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a pipeline, without redirections."""
    words = shlex.split(re.sub(r"<\((.*)\)", r"| \1", line))
    while words:
        end = words.index("|") if "|" in words else len(words)
        part, words = words[:end], words[end + 1 :]
        redirected = {i + n for i, word in enumerate(part) if word in ("<", ">") for n in (0, 1)}
        yield [word for i, word in enumerate(part) if i not in redirected]


@pytest.mark.parametrize("path", [path for path, _ in parsers(all_commands())])
def test_every_command_that_calls_aws_has_the_options_of_the_aws_cli(path: str) -> None:
    options = set(dict(parsers(all_commands()))[path]._option_string_actions)
    without = {"", "demo", "local", "leases", "iam", "decode", "completion"}
    expected = (
        set() if path.removeprefix("kinstream").strip() in without else {"--region", "--profile", "--endpoint-url"}
    )
    assert options & {"--profile", "--endpoint-url"} == expected - {"--region"}
    assert expected <= options
