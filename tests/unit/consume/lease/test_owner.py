"""Names of owners: whether a worker's process still runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from kinstream.consume.lease.owner import owner_name, runs


def test_owner_of_this_process_runs() -> None:
    assert runs(owner_name())
    assert owner_name() != owner_name()


def test_owner_whose_process_ended_does_not_run() -> None:
    program = "from kinstream.consume.lease.owner import owner_name; print(owner_name())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not runs(ended.stdout.strip())


def test_owner_of_another_running_process_runs() -> None:
    assert runs(f"{socket.gethostname()}:{os.getppid()}:0123456789abcdef")


@pytest.mark.parametrize(
    "owner",
    [
        f"another-host:{os.getpid()}:0123456789abcdef",
        f"{socket.gethostname()}:{os.getpid()}:0123456789abcdef",  # an earlier process of this id, as in a container
        f"{socket.gethostname()}:99999999999999999999:0123456789abcdef",
        f"{socket.gethostname()}:x:y",
        "8a4c1f2e-worker",
        "",
    ],
)
def test_unknown_owner_does_not_count_as_running(owner: str) -> None:
    assert not runs(owner)
