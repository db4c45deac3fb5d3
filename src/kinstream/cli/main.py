"""Command line entry point: parses the arguments, runs the subcommand, and reports errors as one line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from kinstream.cli import demo, iam, lag, leases, local
from kinstream.cli.printable import printable
from kinstream.errors import KinesisError
from kinstream.extra import ExtraMissing, needs_local
from kinstream.speed import compiled
from kinstream.version import __version__

FAILED = 1
INTERRUPTED = 130
"""Exit status that shells use for a process ended by Ctrl-C: 128 + SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: Arguments without the program's name. None: those of the process.

    Returns:
        The exit status: 0 succeeded, 1 failed, 130 interrupted.

    Raises:
        SystemExit: After `--help` and `--version`, and with status 2 if the arguments are not valid.
    """
    arguments, unknown = _parser().parse_known_args(leases.with_action(sys.argv[1:] if argv is None else argv))
    if unknown:  # the command's usage, which lists its options; `parse_args` would show that of `kinstream`
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return status_of(arguments)


def status_of(arguments: argparse.Namespace) -> int:
    """Run the selected command and return its exit status. Errors of the library become one line on standard error."""
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        with needs_local("the command"):
            status = run(arguments)
        sys.stdout.flush()
    except KinesisError as error:
        return _fail(arguments.command, error.details)
    except ExtraMissing as error:
        return _fail(arguments.command, str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output is gone. Python flushes it at exit, so it must be a valid descriptor.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kinstream",
        description="Amazon Kinesis Data Streams for Python.",
        epilog="Run 'kinstream COMMAND --help' for the options of a command.",
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    demo.add_parser(subparsers)
    local.add_parser(subparsers)
    leases.add_parser(subparsers)
    lag.add_parser(subparsers)
    iam.add_parser(subparsers)
    return parser


def _version() -> str:
    """Return the version, and whether the compiled hot path is used."""
    return f"kinstream {__version__} ({'pure Python' if compiled is None else 'compiled hot path'})"


def _fail(command: str, problem: str) -> int:
    print(f"kinstream {command}: {printable(problem)}", file=sys.stderr)
    return FAILED
