"""The command `kinstream`: finds the subcommand, runs it, and turns what went wrong into a line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from kinstream.cli import demo, local
from kinstream.cli.printable import printable
from kinstream.errors import KinesisError
from kinstream.extra import ExtraMissing, needs_local
from kinstream.speed import compiled
from kinstream.version import __version__

FAILED = 1
INTERRUPTED = 130
"""What a shell shows for a program that Ctrl-C ended: 128 + SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: The arguments without the program's name; None: those of the process.

    Returns:
        The exit status: 0 done, 1 failed, 130 interrupted.

    Raises:
        SystemExit: After `--help` and `--version`, and with status 2 where the arguments are wrong.
    """
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:  # the command's usage, which lists its options; `parse_args` would show that of `kinstream`
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return status_of(arguments)


def status_of(arguments: argparse.Namespace) -> int:
    """Run the command that was chosen, and return the exit status whatever became of it."""
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
        # Whoever read our output has gone. Python flushes it once more at its end, so it must lead somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kinstream",
        description="Amazon Kinesis Data Streams for Python.",
        epilog="Options of a command: kinstream COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    demo.add_parser(subparsers)
    local.add_parser(subparsers)
    return parser


def _version() -> str:
    """Return the version, and which hot path runs."""
    return f"kinstream {__version__} ({'pure Python' if compiled is None else 'compiled hot path'})"


def _fail(command: str, problem: str) -> int:
    print(f"kinstream {command}: {printable(problem)}", file=sys.stderr)
    return FAILED
