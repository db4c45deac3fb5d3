"""Settings of all tests: unit tests reach no network, and no test reads the AWS configuration of the user."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket

UNIT = Path(__file__).parent / "unit"


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Block sockets in tests/unit, but for tests marked `enable_socket`: those run a server on loopback."""
    blocked = UNIT in request.path.parents and request.node.get_closest_marker("enable_socket") is None
    if blocked:
        pytest_socket.disable_socket(allow_unix_socket=True)  # an event loop wakes itself through a pair of them
    yield
    if blocked:
        pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def no_aws_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test an empty home and no AWS or proxy variables."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Let SIGINT have its default action in this process and its children. A shell ignores it for a job in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how the run's time was shared among the suites."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.split("/")[1]] += report.duration
    if total := sum(seconds.values()):
        longest_first = sorted(seconds.items(), key=lambda suite: -suite[1])
        shares = ", ".join(f"{suite} {part:.0f} s ({part / total:.0%})" for suite, part in longest_first)
        terminalreporter.write_line(f"time of the suites: {shares}")
