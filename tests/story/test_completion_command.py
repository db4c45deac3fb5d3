"""The scripts of `kinstream completion`, loaded in the real shells. A test is skipped if its shell is not installed."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.doubles.commands import command

LINES = {
    "kinstream ta": "tail",
    "kinstream tail events --json-": "--json-path",
    "kinstream completion z": "zsh",
    "kinstream iam billing --role op": "operator",
    "kinstream tail --unwrap dyn": "dynamodb",
    "kinstream leases rel": "release",
    "kinstream tail put --fan": "--fan-out",  # a stream with the name of a command
    "kinstream replay events --to-file only": "only-file",
}
"""Beginnings of command lines, and the word that completes the last one: commands, options, values and a file."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "only-file").touch()
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    installed = tmp_path / "bin" / "kinstream"  # fish completes only commands that it finds
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    return tmp_path


def need(shell: str) -> str:
    """Return the path of a shell, or skip the test."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


def script(shell: str) -> str:
    ended = subprocess.run(command("completion", shell), capture_output=True, text=True, timeout=50, check=True)
    return ended.stdout


def environment(folder: Path) -> dict[str, str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder / "home"), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def test_bash_completes_commands_options_and_values(folder: Path) -> None:
    (folder / "script").write_text(script("bash"))
    ask = """
source ./script
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kinstream; echo "${COMPREPLY[*]}"; }
"""
    lines = "".join(f"complete_words {line}\n" for line in LINES)
    ended = subprocess.run(
        [need("bash"), "--norc", "-c", ask + lines],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    without_files = [word if word != "only-file" else "" for word in LINES.values()]  # which readline completes
    assert (ended.stdout.splitlines(), ended.stderr) == (without_files, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize(
    "load",
    [
        "autoload -Uz compinit; compinit -u -D; source ./_kinstream",
        "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D",
    ],
    ids=["sourced", "from-fpath"],
)
def test_zsh_completes_commands_options_and_values_at_the_tab_key(folder: Path, load: str) -> None:
    zsh = need("zsh")
    (folder / "_kinstream").write_text(script("zsh"))
    (folder / "home" / ".zshrc").write_text(
        f"PS1=; unsetopt zle_bracketed_paste 2>/dev/null; {load}\n"
        'kinstream() { print -r -- "<${@[-1]}>" >> words }\n'
        "print ready\n"
    )
    ours, its = pty.openpty()
    options = {"stdin": its, "stdout": its, "stderr": its, "cwd": folder, "env": environment(folder)}
    with subprocess.Popen([zsh, "--no-globalrcs", "-i"], start_new_session=True, **options) as process:  # type: ignore[call-overload]
        os.close(its)
        shown = b""
        while b"ready" not in shown:
            shown += os.read(ours, 4096)
        for line in LINES:  # the key Tab completes the word, and the command line is run
            os.write(ours, f"{line}\t\r".encode())
        os.write(ours, b"exit\r")
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # Linux: the shell has ended
            pass
        process.wait(50)
    os.close(ours)
    found = (folder / "words").read_text().splitlines()
    assert found == [f"<{word}>" for word in LINES.values()], shown.decode(errors="replace")


def test_fish_completes_commands_options_and_values(folder: Path) -> None:
    fish = need("fish")
    completions = folder / "home" / ".config" / "fish" / "completions"
    completions.mkdir(parents=True)
    (completions / "kinstream.fish").write_text(script("fish"))
    ask = "".join(f"complete -C '{line}' | string split -f1 \\t | string join ' '\n" for line in LINES)
    ended = subprocess.run(
        [fish, "-c", ask + "true"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert (ended.stdout.splitlines(), ended.stderr) == (list(LINES.values()), "")
