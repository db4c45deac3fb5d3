"""`kinstream completion`: prints the script that completes commands, options and their values in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import msgspec

from kinstream.cli.command import add_command

SHELLS = ("bash", "zsh", "fish")


class Words(msgspec.Struct, frozen=True):
    """Words that may follow a command.

    Attributes:
        path: Words of the command after `kinstream`, such as ("leases", "show").
        commands: Its subcommands, with a description.
        options: Its options, with a description. A long name, or the short one without it.
        choices: Values of positional arguments, such as the shells.
        values: Values of each option that takes one. Empty if any value may be given.
    """

    path: tuple[str, ...]
    commands: dict[str, str]
    options: dict[str, str]
    choices: tuple[str, ...]
    values: dict[str, tuple[str, ...]]


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "completion",
        summary="print the completion script of a shell",
        description="Print the script that completes commands, options and values of kinstream in a shell.",
        examples=(
            "source <(kinstream completion bash)",
            "kinstream completion zsh > ~/.zfunc/_kinstream",
            "kinstream completion fish > ~/.config/fish/completions/kinstream.fish",
        ),
    )
    parser.add_argument("shell", choices=SHELLS, help="shell: bash, zsh or fish")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script. Returns the exit status."""
    from kinstream.cli.main import parser

    script = {"bash": bash, "zsh": zsh, "fish": fish}[args.shell]
    print(script(list(words(parser()))))
    return 0


def words(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Words]:
    """Yield the words of a command and of all of its subcommands."""
    commands: dict[str, str] = {}
    options: dict[str, str] = {}
    choices: tuple[str, ...] = ()
    values: dict[str, tuple[str, ...]] = {}
    following: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            following = list(action.choices.items())
            commands = {one.dest: one.help or "" for one in action._choices_actions}
        elif action.option_strings:
            name = action.option_strings[-1] if action.dest != "long" else "--long"
            options[name] = _plain(action, parser)
            if action.nargs != 0:
                values[name] = tuple(map(str, action.choices or ()))
        elif action.choices is not None:
            choices = tuple(map(str, action.choices))
    yield Words(path, commands, options, choices, values)
    for name, one in following:
        yield from words(one, (*path, name))


def bash(found: list[Words]) -> str:
    """Return the script for bash. Without a word that fits, files are completed."""
    cases = "\n".join(f'    "{" ".join(one.path)}") words="{" ".join(_all(one))}" ;;' for one in found)
    values = "\n".join(f'    {patterns}) words="{" ".join(chosen)}" ;;' for patterns, chosen in _values(found))
    return f"""# Completion of kinstream in bash: source <(kinstream completion bash)
_kinstream() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" word
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "${{path:+$path }}$word" in
      {_paths(found)}) path="${{path:+$path }}$word" ;;
      *) break ;;
    esac
  done
  case "$path" in
{cases}
  esac
  case "$path ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _kinstream kinstream"""


def zsh(found: list[Words]) -> str:
    """Return the script for zsh. Without a word that fits, files are completed."""
    cases = "\n".join(
        f"    {_quoted(' '.join(one.path))}) list=({' '.join(_quoted(f'{name}:{text}') for name, text in _described(one))}) ;;"
        for one in found
    )
    values = "\n".join(
        f"    {patterns}) list=({' '.join(map(_quoted, chosen))}) ;;" for patterns, chosen in _values(found)
    )
    return f"""#compdef kinstream
# Completion of kinstream in zsh: kinstream completion zsh > ~/.zfunc/_kinstream, with fpath+=~/.zfunc before compinit
_kinstream() {{
  local path_words="" word
  local -a list
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    case "${{path_words:+$path_words }}$word" in
      {_paths(found)}) path_words="${{path_words:+$path_words }}$word" ;;
      *) break ;;
    esac
  done
  case "$path_words" in
{cases}
  esac
  case "$path_words ${{words[CURRENT-1]}}" in
{values}
  esac
  _describe kinstream list || _files
}}
if [[ "${{funcstack[1]}}" == _kinstream ]]; then  # loaded from fpath by the first completion
  _kinstream "$@"
else
  compdef _kinstream kinstream
fi"""


def fish(found: list[Words]) -> str:
    """Return the script for fish."""
    lines = ["# Completion of kinstream in fish: ~/.config/fish/completions/kinstream.fish"]
    for one in found:
        if not one.path:
            condition = "__fish_use_subcommand"
        else:
            seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in one.path)
            nested = f"; and not __fish_seen_subcommand_from {' '.join(one.commands)}" if one.commands else ""
            condition = seen + nested
        start = f"complete -c kinstream -n {_quoted(condition)}"
        lines += [f"{start} -f -a {name} -d {_quoted(text)}" for name, text in one.commands.items()]
        lines += [f"{start} -f -a {name}" for name in one.choices]
        for name, text in one.options.items():
            kind = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            chosen = one.values.get(name)
            value = "" if chosen is None else f" -x -a {_quoted(' '.join(chosen))}" if chosen else " -r"
            lines.append(f"{start} {kind}{value} -d {_quoted(text)}")
    return "\n".join(lines)


def _paths(found: list[Words]) -> str:
    """Return the pattern of all commands, for `case`."""
    return "|".join(_quoted(" ".join(one.path)) for one in found if one.path)


def _values(found: list[Words]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield patterns of a command with an option that takes a value, for `case`, and its values, () for any."""
    for one in found:
        free = [name for name, chosen in one.values.items() if not chosen]
        chosen = {name: values for name, values in one.values.items() if values}
        for names, values in [(free, ()), *(([name], values) for name, values in chosen.items())]:
            if names:
                yield "|".join(_quoted(" ".join([*one.path, name])) for name in names), values


def _all(one: Words) -> list[str]:
    return [*one.commands, *one.choices, *one.options]


def _described(one: Words) -> list[tuple[str, str]]:
    return [*one.commands.items(), *((name, name) for name in one.choices), *one.options.items()]


def _plain(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Return the first sentence of the help of an option."""
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return text.split(". ")[0].split(" (default")[0]


def _quoted(text: str) -> str:
    """Return a text as a word of a shell, in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"
