"""Parser of one command: its description, and its examples, which `--help` shows line by line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

_TITLE = "Examples:"


class _Help(argparse.HelpFormatter):
    """Formatter that wraps texts, but keeps the lines of the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_TITLE):
            return text
        return super()._fill_text(text, width, indent)


def add_command(
    subparsers: Any, name: str, *, summary: str, description: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Add a command to the command line, and return its parser.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
        name: Name of the command.
        summary: Its line in the list of commands.
        description: Its description, without line breaks.
        examples: Command lines, and comments that begin with "#".
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=summary, description=description, epilog=examples_text(examples), formatter_class=_Help
    )
    parser.set_defaults(parser=parser)
    return parser


def examples_text(examples: Sequence[str]) -> str:
    """Return the part of a help text with the examples."""
    return "\n".join([_TITLE, *(f"  {line}" for line in examples)])


def root_parser(examples: Sequence[str], **options: Any) -> argparse.ArgumentParser:
    """Return the parser of the whole command line.

    Args:
        examples: As for `add_command`.
        options: Arguments of `argparse.ArgumentParser`.
    """
    return argparse.ArgumentParser(epilog=examples_text(examples), formatter_class=_Help, **options)
