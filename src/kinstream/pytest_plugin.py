"""Plugin of pytest: fixtures for a local Kinesis server and for a stream of each test. pytest finds it by its entry point.

The fixtures import the rest of kinstream, so that a suite that uses none of them loads no other module of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from kinstream.local import Server

NAME_CHARACTERS = 100
"""Maximum characters of a test's name in the name of its stream, which may have 128 (API reference, `StreamName`)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--kinesis-url` (hook of pytest)."""
    parser.getgroup("kinstream", "Kinesis").addoption(
        "--kinesis-url",
        metavar="URL",
        help="endpoint for the fixtures kinesis_server, kinesis_stream and kinesis_env (default: a server of their own)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `kinesis_stream`, and check the option (hook of pytest).

    Raises:
        pytest.UsageError: The value of `--kinesis-url` is not a URL.
    """
    config.addinivalue_line(
        "markers", "kinesis_stream(shards=1): number of shards of the stream that the fixture kinesis_stream creates"
    )
    url = config.getoption("kinesis_url")
    if url is not None and not _is_url(url):
        raise pytest.UsageError(f"--kinesis-url={url}: must be a URL such as http://127.0.0.1:4567")


@pytest.fixture(scope="session")
def kinesis_server_options() -> dict[str, Any]:
    """Options of the `Server` of `kinesis_server`. A conftest.py may override this fixture, for example to disable quotas."""
    return {}


@pytest.fixture(scope="session")
def kinesis_server(request: pytest.FixtureRequest, kinesis_server_options: dict[str, Any]) -> Iterator[Server]:
    """A running `kinstream.local.Server`, one for all tests of a process.

    With `--kinesis-url`, it is an object for that endpoint, with `url`, `client_options`, `environment`, `create_stream` and
    `delete_stream`. A test that uses another method is skipped.
    """
    url = request.config.getoption("kinesis_url")
    if url is not None:
        from kinstream.testing.remote_server import RemoteServer

        remote = RemoteServer(url)
        yield remote  # type: ignore[misc]
        remote.close()
        return
    from kinstream.extra import ExtraMissing

    try:
        from kinstream.local import Server
    except ExtraMissing as error:
        raise pytest.fail.Exception(f"kinesis_server: {error}", pytrace=False) from None
    with Server(**kinesis_server_options) as server:
        yield server


@pytest.fixture
def kinesis_stream(request: pytest.FixtureRequest, kinesis_server: Server) -> Iterator[str]:
    """Name of a stream of this test, ACTIVE and empty. It is deleted after the test.

    It has one shard, or the number in the marker `@pytest.mark.kinesis_stream(shards=4)`.
    """
    marker = request.node.get_closest_marker("kinesis_stream")
    test = re.sub(r"[^a-zA-Z0-9_.-]+", "-", request.node.name)[:NAME_CHARACTERS]
    name = kinesis_server.create_stream(f"{test}-{uuid4().hex[:8]}", 1 if marker is None else _shards(marker))
    yield name
    kinesis_server.delete_stream(name)


@pytest.fixture
def kinesis_env(kinesis_server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set environment variables by which kinstream, boto3 and child processes reach the server. Returns those that are set.

    They are restored after the test. Other services than Kinesis keep their endpoints.
    """
    variables = kinesis_server.environment
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", raising=False)
    if "AWS_ACCESS_KEY_ID" in variables:
        for name in ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            monkeypatch.delenv(name, raising=False)
    return variables


def _shards(marker: pytest.Mark) -> int:
    """Return the number of shards in a marker. Fails the test if it has other arguments."""
    shards = marker.kwargs.get("shards")
    if marker.args or set(marker.kwargs) != {"shards"} or type(shards) is not int or shards < 1:
        given = ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])
        pytest.fail(f"kinesis_stream({given}): must be kinesis_stream(shards=N) with a number from 1", pytrace=False)
    return shards


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
