"""`kinstream local` with TLS: the printed settings can be copied and work."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

COMMAND = [sys.executable, "-m", "kinstream", "local", "--port", "0"]


@contextmanager
def running(*options: str) -> Iterator[list[str]]:
    """Run the command, and return the lines that it prints."""
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [line.rstrip("\n") for line in itertools.takewhile(lambda line: "Ctrl+C" not in line, child.stdout)]
        try:
            yield lines
        finally:
            child.terminate()


@pytest.mark.parametrize("keys", [("local", "local"), ("it's", 'a "secret" \\ $HOME')])
def test_printed_settings_work(tmp_path: Path, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(tmp_path / "da ta")
    options = ["--tls-port", "0", "--data-dir", data, "--access-key-id", keys[0], "--secret-access-key", keys[1]]
    with running(*options, "--region", "eu-west-3", "--no-quotas", "--durability", "process") as lines:
        made = [line.partition("boto3.client")[2] for line in lines if "boto3.client" in line]
        for arguments in made:
            client = eval(f"boto3.client{arguments}", {"boto3": boto3})
            assert client.list_streams()["StreamNames"] == []
            assert client.meta.region_name == "eu-west-3"
        assert [arguments.count("https://") for arguments in made] == [0, 1]
        commands = [shlex.split(line.removeprefix("AWS CLI:")) for line in lines if "aws kinesis list-streams" in line]
        for words in commands:
            settings = dict(word.split("=", 1) for word in itertools.takewhile(lambda word: word != "aws", words))
            assert (settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]) == keys
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
            session = boto3.session.Session(region_name=words[words.index("--region") + 1])
            client = session.client("kinesis", endpoint_url=words[words.index("--endpoint-url") + 1])
            assert client.list_streams()["StreamNames"] == []
        assert ["AWS_CA_BUNDLE" in " ".join(words) for words in commands] == [False, True]


def test_command_warns_if_other_machines_can_reach_it() -> None:
    with running("--host", "0.0.0.0", "--allow-remote", "--host-name", "kinesis") as lines:
        assert lines[1] == "It listens on 0.0.0.0. Any client that can reach it and has the keys has full access."
    with running() as lines:
        assert "full access" not in "".join(lines)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--host", "0.0.0.0"], "--allow-remote"),
        (["--tls-port", "99999"], "--tls-port=99999"),
        (["--host-name", "a b"], "--host-name"),
        (["--durability", "none"], "durability"),
        (["--transition", "-1"], "transition"),
    ],
)
def test_wrong_option_is_reported_in_one_line(options: list[str], text: str) -> None:
    child = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=50)
    assert (child.returncode, child.stdout, child.stderr.count("\n")) == (1, "", 1)
    assert text in child.stderr
