"""Command line entry point: parses the arguments, runs the subcommand, and reports errors as one line and an exit status."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from kinstream.cli import (
    completion,
    create,
    decode,
    delete,
    demo,
    doctor,
    iam,
    lag,
    leases,
    local,
    put,
    replay,
    reshard,
    shards,
    streams,
    tail,
)
from kinstream.cli.command import root_parser
from kinstream.cli.ending import BROKEN_PIPE, FAILED, discard_output, flush, interrupted_by_sigterm
from kinstream.cli.printable import printable
from kinstream.errors import KinesisError
from kinstream.extra import ExtraMissing, needs_local
from kinstream.speed import compiled
from kinstream.version import __version__

EXAMPLES = (
    "kinstream demo",
    "kinstream local --port 4567",
    "kinstream create events --shards 2 --wait",
    "kinstream put events --key-field user < clicks.ndjson",
    "kinstream tail events --from oldest --until now --json",
)
COMMANDS = (
    streams, shards, create, reshard, delete, put, tail, replay, decode, leases, lag, doctor, iam, local, demo,
    completion,
)  # fmt: skip
"""Modules of the commands, in the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: Arguments without the program's name. None: those of the process.

    Returns:
        The exit status: 0 succeeded, 1 failed, 2 the arguments are not valid, 130 interrupted by Ctrl-C, 141 the reader of the
        output is gone, 143 terminated by SIGTERM.

    Raises:
        SystemExit: After `--help` and `--version`, and with status 2 if the arguments are not valid.
    """
    _prepare_files()
    try:
        try:
            arguments = _parsed(sys.argv[1:] if argv is None else argv)
        except SystemExit:
            flush()  # the text of --help
            raise
    except BrokenPipeError:
        discard_output()
        return BROKEN_PIPE
    return status_of(arguments)


def status_of(arguments: argparse.Namespace) -> int:
    """Run the selected command and return its exit status. Errors of the library become one line on standard error."""
    try:
        status = _run(arguments)
        flush()
    except BrokenPipeError:
        discard_output()
        return BROKEN_PIPE
    return status


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    root = root_parser(
        EXAMPLES,
        prog="kinstream",
        description="Amazon Kinesis Data Streams for Python. Run 'kinstream COMMAND --help' for the options of a command.",
    )
    root.add_argument("--version", action="version", version=_version())
    subparsers = root.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return root


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    arguments, unknown = parser().parse_known_args(leases.with_action(argv))
    if unknown:  # the command's usage, which lists its options; `parse_args` would show that of `kinstream`
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    run: Callable[[argparse.Namespace], int] = arguments.run
    command = arguments.command
    with interrupted_by_sigterm() as termination:
        try:
            with needs_local("the command"):
                return run(arguments)
        except KinesisError as error:
            return _fail(command, error.details)
        except ExtraMissing as error:
            return _fail(command, str(error))
        except KeyboardInterrupt:
            return termination.status
        except BrokenPipeError:
            raise
        except OSError as error:  # of a file, such as standard output on a full disk
            place = "" if error.filename is None else f"{error.filename}: "
            return _fail(command, f"{place}{error.strerror or error}")


def _prepare_files() -> None:
    """Make input and output possible in any environment: closed files, or an encoding that lacks characters."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - open until the process ends
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _version() -> str:
    """Return the version, and whether the compiled hot path is used."""
    return f"kinstream {__version__} ({'pure Python' if compiled is None else 'compiled hot path'})"


def _fail(command: str, problem: str) -> int:
    print(f"kinstream {command}: {printable(problem)}", file=sys.stderr)
    return FAILED
