"""Fixtures of the interop tests: applications whose workers are real KCLs, kcl-rs and kinstream, in the same lease tables.

An ordinary run has test_kcl_rs, which needs no Java. `make interop` sets KINSTREAM_INTEROP and runs the others too: "quick"
has the versions of `worker_process.QUICK`, and "all" has all of them. A test is skipped, with the reason, if one of its workers
cannot run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
from bench.ground import NotPossible
from tests.interop.application import Application
from tests.interop.services import Services, running_services
from tests.interop.worker_process import JAVA, java_classpath, unavailable

HERE = Path(__file__).parent

LIMIT = 600
"""Maximum seconds of a test, a guard against hanging."""

UNBUILT: dict[str, str] = {}
"""Java workers that could not be built, with the reason."""


def _kinds(item: pytest.Item) -> tuple[str, ...]:
    """Return the kinds of workers that a test uses: its parameter `kinds`."""
    callspec = getattr(item, "callspec", None)
    return tuple(callspec.params.get("kinds", ())) if callspec else ()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests with workers that cannot run here."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.timeout(LIMIT))
        if item.path.stem == "test_mixed_applications" and not os.environ.get("KINSTREAM_INTEROP"):
            item.add_marker(pytest.mark.skip(reason="runs with `make interop`"))
            continue
        reasons = [reason for kind in dict.fromkeys(_kinds(item)) if (reason := unavailable(kind))]
        if reasons:
            item.add_marker(pytest.mark.skip(reason="; ".join(dict.fromkeys(reasons))))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the Java workers that are needed before the first test's clock runs."""
    if session.config.option.collectonly:
        return
    wanted = {
        kind
        for item in session.items
        if HERE in item.path.parents and item.get_closest_marker("skip") is None
        for kind in _kinds(item)
        if kind in JAVA
    }
    for kind in sorted(wanted):
        try:
            java_classpath(kind)
        except NotPossible as reason:
            UNBUILT[kind] = str(reason)


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """The servers, shared by all tests: each has its own stream and table."""
    try:
        with running_services() as servers:
            yield servers
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Unique names of applications."""
    return (f"application-{number:03}" for number in count(1))


@pytest.fixture
async def application(
    request: pytest.FixtureRequest, services: Services, names: Iterator[str], tmp_path: Path
) -> AsyncIterator[Application]:
    """An application without a stream yet. Its workers end with the test."""
    for kind in _kinds(request.node):
        if kind in UNBUILT:
            pytest.skip(UNBUILT[kind])
    made = Application(services, next(names), tmp_path)
    yield made
    await asyncio.to_thread(made.close)
